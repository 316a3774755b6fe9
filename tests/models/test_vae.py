"""The VAE's promises: causal, streamed as whole, an image is one frame, a bounded field of view, sizes checked at the door."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.vae import Posterior, VideoVAE

SMALL = {"widths": (16, 24), "latent_channels": 4}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip(frames: int, size: int = 16, batch: int = 1) -> Tensor:
    return random(batch, 3, frames, size, size).clamp(-1, 1)


def make(seed: int = 0, **sizes) -> VideoVAE:
    torch.manual_seed(seed)
    vae = VideoVAE(**{**SMALL, **sizes}).eval()
    vae.set_statistics(random(vae.latent_channels, seed=1), random(vae.latent_channels, seed=2).abs() + 0.5)
    return vae


def cut(x: Tensor, sizes: int | list[int]) -> Iterator[Tensor]:
    yield from x.split(sizes, dim=2)


@torch.no_grad()
def test_later_frames_change_no_earlier_latent():
    vae, video = make(look_back=2), clip(17)
    latents = vae.encode(video)
    for first_changed in range(1, 17):
        changed = video.clone()
        changed[:, :, first_changed:] = -changed[:, :, first_changed:]
        untouched = (first_changed + 3) // 4  # latent frames that end before the change
        assert torch.equal(vae.encode(changed)[:, :, :untouched], latents[:, :, :untouched])
        assert not torch.equal(vae.encode(changed)[:, :, untouched], latents[:, :, untouched])


@torch.no_grad()
def test_later_latents_change_no_earlier_frame():
    vae, latents = make(decoder_look_back=4), random(1, 4, 5, 2, 2)
    video = vae.decode_posterior(latents)
    for first_changed in range(1, 5):
        changed = latents.clone()
        changed[:, :, first_changed:] += 1.0
        untouched = 1 + 4 * (first_changed - 1)
        assert torch.equal(vae.decode_posterior(changed)[:, :, :untouched], video[:, :, :untouched])


@pytest.mark.parametrize("look_back", [0, 1, 2])
def test_latent_frame_sees_exactly_its_look_back(look_back: int):
    vae = make(look_back=look_back)
    assert vae.look_back == look_back
    video = clip(17).requires_grad_()
    latents = vae.encode(video)
    for f in range(5):
        (gradient,) = torch.autograd.grad(latents[:, :, f].sum(), video, retain_graph=True)
        seen = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
        first = 0 if f - look_back <= 0 else 1 + 4 * (f - look_back - 1)
        last = 4 * f
        assert seen.nonzero().flatten().tolist() == list(range(first, last + 1))


@pytest.mark.parametrize("look_back", [0, 1, 3])
def test_decoded_frame_sees_exactly_its_look_back(look_back: int):
    vae = make(decoder_look_back=look_back)
    assert vae.decoder_look_back == look_back
    latents = random(1, 4, 5, 2, 2).requires_grad_()
    video = vae.decode_posterior(latents)
    for frame in range(17):
        (gradient,) = torch.autograd.grad(video[:, :, frame].sum(), latents, retain_graph=True)
        seen = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
        f = (frame + 3) // 4
        assert seen.nonzero().flatten().tolist() == list(range(max(0, f - look_back), f + 1))


def test_space_is_seen_no_farther_than_the_halo():
    vae = make(encoder_depths=(1, 1), decoder_depths=(1, 1))
    assert vae.halo == (2, 2)
    video = clip(1, size=72).requires_grad_()
    (gradient,) = torch.autograd.grad(vae.posterior(video).mean[:, :, :, 4, 4].sum(), video)
    seen = gradient.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten()
    assert (seen.min().item(), seen.max().item()) == (32 - 12, 39 + 12)  # one block at 4 px, one at 8 px
    latents = random(1, 4, 1, 9, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(vae.decode_posterior(latents)[..., 32:40, 32:40].sum(), latents)
    assert gradient.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
def test_streaming_is_the_whole(chunk: int):
    vae = make(widths=(96, 128), latent_channels=16, look_back=2, decoder_look_back=4)
    video = clip(17, batch=2)
    latents = vae.encode(video)
    decoded = vae.decode(latents)
    pixels = [1 + 4 * (chunk - 1), *[4 * chunk] * 4]
    pixels = [n for k, n in enumerate(pixels) if sum(pixels[:k]) < 17]
    pixels[-1] -= sum(pixels) - 17
    streamed = torch.cat(list(vae.encode_stream(cut(video, pixels))), dim=2)
    assert (streamed - latents).abs().max() <= 1e-5 * latents.std()  # kernels differ by shape
    streamed = torch.cat(list(vae.decode_stream(cut(latents, chunk))), dim=2)
    assert streamed.shape == video.shape
    assert (streamed - decoded).abs().max() <= 1e-5 * decoded.std()


@torch.no_grad()
def test_frames_may_arrive_in_any_pieces():
    vae, video = make(), clip(17)
    latents = vae.encode(video)
    streamed = list(vae.encode_stream(cut(video, [3, 1, 1, 2, 7, 3])))
    assert [part.shape[2] for part in streamed] == [1, 1, 2, 1]
    assert torch.allclose(torch.cat(streamed, dim=2), latents, atol=1e-5)
    with pytest.raises(ValueError, match=r"frames=16 .* 1 \+ 4k \(13 or 17\)"):
        list(vae.encode_stream(cut(video[:, :, :16], 4)))


@torch.no_grad()
def test_stream_remembers_one_frame_for_each_frame_of_look_back():
    vae = make(look_back=2, decoder_look_back=3)
    _, state = vae._posterior(vae._lead(clip(17)), None)
    assert [past.shape[1] for past in state if past is not None] == [1, 1]
    _, state = vae._pixels(random(1, 4, 5, 2, 2), None)
    assert [past.shape[1] for past in state if past is not None] == [1, 1, 1]
    assert all(past.untyped_storage().nbytes() == past.numel() * past.element_size() for past in state if past is not None)


@torch.no_grad()
def test_an_image_is_the_first_frame_of_a_video():
    vae, video = make().double(), clip(9).double()
    latents = vae.encode(video)
    image = vae.encode(video[:, :, :1])
    assert image.shape == (1, 4, 1, 2, 2)
    assert torch.allclose(image, latents[:, :, :1], rtol=0, atol=1e-13)
    assert torch.allclose(vae.decode(image), vae.decode(latents)[:, :, :1], rtol=0, atol=1e-6)  # pixels leave in float32
    # A still clip repeats the frame as the image does, so nothing but the frame itself stands in its first latent.
    assert torch.allclose(vae.encode(video[:, :, :1].expand(-1, -1, 9, -1, -1))[:, :, :1], image, rtol=0, atol=1e-13)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_frames_are_one_plus_four_k(frames: int):
    vae = make()
    latents = vae.encode(clip(frames))
    assert latents.shape[2] == 1 + (frames - 1) // 4
    assert vae.decode(latents).shape[2] == frames


@torch.no_grad()
def test_samples_do_not_see_each_other():
    vae, video = make(), clip(9, batch=3)
    together = vae.decode(vae.encode(video))
    alone = torch.cat([vae.decode(vae.encode(part)) for part in video.split(1)])
    assert (together - alone).abs().max() <= 1e-5


@torch.no_grad()
def test_whitening_is_undone_by_decoding():
    vae, video = make(), clip(9)
    raw = vae.posterior(video).mean
    latents = vae.encode(video)
    assert torch.allclose(latents[0, 1], (raw[0, 1] - vae.latent_mean[1]) / vae.latent_std[1], atol=1e-6)
    assert torch.allclose(vae.decode(latents), vae.decode_posterior(raw).clamp(-1, 1), atol=1e-5)
    assert {"latent_mean", "latent_std"} <= set(vae.state_dict())


@pytest.mark.parametrize("stride", [(1, 4), (4, 8), (8, 8), (4, 16), (8, 32)])
@torch.no_grad()
def test_strides_by_config(stride: tuple[int, int]):
    stride_t, stride_s = stride
    vae = make(stride_t=stride_t, stride_s=stride_s)
    assert vae.stride == (stride_t, stride_s, stride_s)
    video = random(1, 3, 1 + 2 * stride_t, stride_s, 2 * stride_s)
    latents = vae.encode(video)
    assert latents.shape == (1, 4, 3, 1, 2)
    assert vae.decode(latents).shape == video.shape


@pytest.mark.parametrize(("levels", "sizes"), [(1, {"widths": (16,)}), (2, {}), (3, {"widths": (16, 24, 32)})])
def test_flops_agree_with_the_counter(levels: int, sizes: dict):
    depths = {"encoder_depths": (1, 2, 1)[:levels], "decoder_depths": (2, 1, 1)[:levels]}
    vae = make(**sizes, **depths)
    want = vae.flops(9, 32, 16)
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoding:
            latents = vae.encode(random(1, 3, 9, 32, 16))
        with FlopCounterMode(display=False) as decoding:
            vae.decode(latents)
    assert abs(encoding.get_total_flops() / want["encode"] - 1) <= 0.01
    assert abs(decoding.get_total_flops() / want["decode"] - 1) <= 0.01


def test_bfloat16_is_near_float32():
    vae, video = make(widths=(64, 96), latent_channels=16), clip(9, size=32)

    def run(enabled: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = vae.decode_posterior(vae.posterior(video).mean)
        gradients = torch.autograd.grad((out - video).square().mean(), list(vae.parameters()), allow_unused=True)
        return out, torch.cat([g.flatten() for g in gradients if g is not None])

    (out, gradient), (out16, gradient16) = run(False), run(True)
    assert out16.dtype == torch.float32
    assert (out16 - out).norm() / out.norm() <= 1e-2
    assert torch.cosine_similarity(gradient, gradient16, dim=0) >= 0.999


def test_divergence_is_that_of_two_gaussians():
    posterior = Posterior(random(2, 4, 1, 2, 2), random(2, 4, 1, 2, 2, seed=1))
    normal = torch.distributions.Normal(posterior.mean, torch.exp(0.5 * posterior.logvar))
    want = torch.distributions.kl_divergence(normal, torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0)))
    assert torch.allclose(posterior.kl(), want, atol=1e-6)
    noise = random(2, 4, 1, 2, 2, seed=2)
    assert torch.allclose(posterior.sample(noise), normal.loc + normal.scale * noise, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"stride_t": 3}, r"stride_t=3 is not supported: it must be 1, 2, 4 or 8"),
        ({"stride_s": 12}, r"stride_s=12 with 2 levels is not supported: it must be 4, 8, 16 or 32"),
        ({"stride_s": 4, "widths": (8,) * 4}, r"stride_s=4 with 4 levels .* divisible by 8"),
        ({"widths": (16, 20)}, r"widths=\[16, 20\] must be positive multiples of 8"),
        ({"widths": ()}, r"widths=\[\]"),
        ({"encoder_depths": (1,)}, r"encoder_depths=\[1\] must give .* each of 2 widths"),
        ({"look_back": 9}, r"look_back=9 needs as many encoder blocks, but there are 3"),
        ({"decoder_look_back": -1}, r"decoder_look_back=-1"),
    ],
)
def test_sizes_are_checked_at_the_door(sizes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        VideoVAE(**{**SMALL, **sizes})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 16, 16), r"frames=16 .* \(13 or 17\)"),
        ((1, 3, 5, 16, 20), r"width=20 .* \(16 or 24\)"),
        ((1, 4, 5, 16, 16), r"encodes b 3 t h w"),
        ((3, 5, 16, 16), r"encodes b 3 t h w"),
    ],
)
def test_clips_off_the_grid_are_refused(shape: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        make().encode(torch.zeros(shape))


def test_latents_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"decodes b 4 f h w, got shape \(1, 16, 1, 2, 2\)"):
        make().decode(torch.zeros(1, 16, 1, 2, 2))


@pytest.mark.parametrize("values", [torch.full((4,), float("nan")), torch.zeros(4), torch.ones(3)])
def test_impossible_statistics_are_refused(values: Tensor):
    vae = make()
    with pytest.raises(ValueError, match="latent std must be"):
        vae.set_statistics(torch.zeros(4), values)
