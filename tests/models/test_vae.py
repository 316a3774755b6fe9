"""The VAE's promises: causal, streamed as whole, an image is one frame, a bounded field of view, sizes checked at the door."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.vae import Posterior, VideoVAE
from models.vae_blocks import Convolution, Shift
from models.vae_stems import Haar, Patches
from runtime.config import build, compose

SMALL = {"widths": (16, 24), "latent_channels": 4}
MIXINGS = pytest.mark.parametrize("mixing", [Shift(), Convolution()], ids=["shift", "conv"])
PRESETS = pytest.mark.parametrize("preset", ["world", "toy", "8x8x8", "4x16x16", "8x32x32", "large"])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip(frames: int, size: int = 16, batch: int = 1) -> Tensor:
    return random(batch, 3, frames, size, size).clamp(-1, 1)


def make(seed: int = 0, **sizes) -> VideoVAE:
    torch.manual_seed(seed)
    vae = VideoVAE(**{**SMALL, **sizes}).eval()
    vae.set_statistics(random(vae.latent_channels, seed=1), random(vae.latent_channels, seed=2).abs() + 0.5)
    return vae


def shipped(preset: str, narrow: bool = False, **swapped) -> VideoVAE:
    """A preset as it is shipped, or with its depths and strides alone."""
    config = compose("train", ["run=x", "data=world", "objective=vae", f"objective/vae={preset}"])["objective"]["vae"]
    if narrow:
        config = {**config, "widths": [8] * len(config["widths"]), "latent_channels": 4, "expand": 1}
        swapped = {"mixing": build(config["mixing"]), "stem": build(config["stem"]), **swapped}
        torch.manual_seed(0)
        return VideoVAE(**{key: value for key, value in config.items() if key != "_target_"} | swapped).eval()
    return build(config)


def span(gradient: Tensor, axis: int) -> list[int]:
    """First and last place along an axis where it is not exactly zero."""
    seen = gradient.abs().amax(dim=[other for other in range(gradient.ndim) if other != axis]).nonzero().flatten()
    return [int(seen.min()), int(seen.max())]


def cut(x: Tensor, sizes: int | list[int]) -> Iterator[Tensor]:
    yield from x.split(sizes, dim=2)


@torch.no_grad()
@MIXINGS
def test_later_frames_change_no_earlier_latent(mixing):
    vae, video = make(look_back=2, mixing=mixing, stem=Haar()), clip(17)
    latents = vae.encode(video)
    for first_changed in range(1, 17):
        changed = video.clone()
        changed[:, :, first_changed:] = -changed[:, :, first_changed:]
        untouched = (first_changed + 3) // 4  # latent frames that end before the change
        assert torch.equal(vae.encode(changed)[:, :, :untouched], latents[:, :, :untouched])
        assert not torch.equal(vae.encode(changed)[:, :, untouched], latents[:, :, untouched])


@torch.no_grad()
@MIXINGS
def test_later_latents_change_no_earlier_frame(mixing):
    vae, latents = make(decoder_look_back=4, mixing=mixing), random(1, 4, 5, 2, 2)
    video = vae.decode_posterior(latents)
    for first_changed in range(1, 5):
        changed = latents.clone()
        changed[:, :, first_changed:] += 1.0
        untouched = 1 + 4 * (first_changed - 1)
        assert torch.equal(vae.decode_posterior(changed)[:, :, :untouched], video[:, :, :untouched])


@MIXINGS
@pytest.mark.parametrize("look_back", [0, 1, 2])
def test_latent_frame_sees_exactly_its_look_back(look_back: int, mixing):
    vae = make(look_back=look_back, mixing=mixing)
    assert vae.look_back == look_back
    video = clip(17).requires_grad_()
    latents = vae.encode(video)
    for f in range(5):
        (gradient,) = torch.autograd.grad(latents[:, :, f].sum(), video, retain_graph=True)
        seen = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
        first = 0 if f - look_back <= 0 else 1 + 4 * (f - look_back - 1)
        last = 4 * f
        assert seen.nonzero().flatten().tolist() == list(range(first, last + 1))


@MIXINGS
@pytest.mark.parametrize("look_back", [0, 1, 3])
def test_decoded_frame_sees_exactly_its_look_back(look_back: int, mixing):
    vae = make(decoder_look_back=look_back, mixing=mixing)
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
    assert vae.halo == (2, 3)
    video = clip(1, size=72).requires_grad_()
    (gradient,) = torch.autograd.grad(vae.posterior(video).mean[:, :, :, 4, 4].sum(), video)
    seen = gradient.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten()
    assert (seen.min().item(), seen.max().item()) == (32 - 12, 39 + 12)  # one block at 4 px, one at 8 px
    latents = random(1, 4, 1, 9, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(vae.decode_posterior(latents)[..., 32:40, 32:40].sum(), latents)
    # At 4 px blended means, a block and a window: two positions of 8 px, rounded up; then a block at 8 px.
    assert gradient.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]


@PRESETS
@MIXINGS
def test_every_preset_sees_exactly_its_look_back_and_halo(preset: str, mixing):
    vae = shipped(preset, narrow=True, mixing=mixing)
    stride_t, stride_s, _ = vae.stride
    (around, around_decoded), back, back_decoded = vae.halo, vae.look_back, vae.decoder_look_back

    image = clip(1, size=stride_s * (2 * around + 3)).requires_grad_()
    middle = around + 1
    (gradient,) = torch.autograd.grad(vae.posterior(image).mean[..., middle, middle].sum(), image)
    for axis in (3, 4):
        assert [place // stride_s for place in span(gradient, axis)] == [middle - around, middle + around]
    video = clip(1 + stride_t * (back + 2), size=stride_s).requires_grad_()
    (gradient,) = torch.autograd.grad(vae.posterior(video).mean[:, :, back + 1].sum(), video)  # one before the last
    assert span(gradient, 2) == [1, stride_t * (back + 1)]

    middle = around_decoded + 1
    latents = random(1, 4, 1, 2 * middle + 1, 2 * middle + 1).requires_grad_()
    pixels = slice(stride_s * middle, stride_s * (middle + 1))
    (gradient,) = torch.autograd.grad(vae.decode_posterior(latents)[..., pixels, pixels].sum(), latents)
    assert span(gradient, 3) == span(gradient, 4) == [middle - around_decoded, middle + around_decoded]
    latents = random(1, 4, back_decoded + 3, 1, 1).requires_grad_()
    frames = vae.decode_posterior(latents)[:, :, 1 + stride_t * back_decoded : 1 + stride_t * (back_decoded + 1)]
    (gradient,) = torch.autograd.grad(frames.sum(), latents)
    assert span(gradient, 2) == [1, back_decoded + 1]


@PRESETS
def test_every_preset_makes_patches_of_two_pixels(preset: str):
    """Splits overlap, the patches of the last layer do not: larger ones would show."""
    with torch.device("meta"):
        assert shipped(preset).patch[1:] == (2, 2)


@torch.no_grad()
@MIXINGS
def test_any_chunking_of_a_stream_is_bitwise_any_other(mixing):
    vae = make(widths=(96, 128), latent_channels=16, look_back=2, decoder_look_back=4, mixing=mixing, stem=Haar())
    video = clip(17, size=24, batch=2)
    latents = torch.cat(list(vae.encode_stream(cut(video, 1))), dim=2)
    pixels = torch.cat(list(vae.decode_stream(cut(latents, 1))), dim=2)
    assert pixels.shape == video.shape
    for pieces in ([17], [2] * 8 + [1], [3, 1, 1, 2, 7, 3], [5, 12]):
        assert torch.equal(torch.cat(list(vae.encode_stream(cut(video, pieces))), dim=2), latents)
    for pieces in ([5], [2, 3], [4, 1]):
        streamed = list(vae.decode_stream(cut(latents, pieces)))
        assert [part.shape[2] for part in streamed] == [1, 4, 4, 4, 4]
        assert torch.equal(torch.cat(streamed, dim=2), pixels)
    assert torch.equal(vae.encode(video[:, :, :1]), latents[:, :, :1])
    assert torch.equal(vae.decode(latents[:, :, :1]), pixels[:, :, :1])


@torch.no_grad()
@MIXINGS
@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
def test_streaming_is_the_whole(chunk: int, mixing):
    vae = make(widths=(96, 128), latent_channels=16, look_back=2, decoder_look_back=4, mixing=mixing)
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


@pytest.mark.gpu
@torch.no_grad()
@MIXINGS
def test_streaming_on_a_gpu_is_bitwise_for_any_chunking_and_near_the_whole(mixing):
    vae, video = make(widths=(96, 128), latent_channels=16, look_back=2, decoder_look_back=4, mixing=mixing).cuda(), clip(17, size=64).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        latents = torch.cat(list(vae.encode_stream(cut(video, 1))), dim=2)
        pixels = torch.cat(list(vae.decode_stream(cut(latents, 1))), dim=2)
        assert torch.equal(torch.cat(list(vae.encode_stream(cut(video, [5, 12]))), dim=2), latents)
        assert torch.equal(torch.cat(list(vae.decode_stream(cut(latents, [2, 3]))), dim=2), pixels)
        whole, decoded = vae.encode(video), vae.decode(latents)
    assert (latents - whole).square().mean().sqrt() <= 1e-3 * whole.std()
    assert (pixels - decoded).square().mean().sqrt() <= 1e-3 * decoded.std()


@torch.no_grad()
def test_frames_may_arrive_in_any_pieces():
    vae, video = make(), clip(17)
    latents = vae.encode(video)
    streamed = list(vae.encode_stream(cut(video, [3, 1, 1, 2, 7, 3])))
    assert [part.shape[2] for part in streamed] == [1, 1, 1, 1, 1]
    assert torch.allclose(torch.cat(streamed, dim=2), latents, atol=1e-5)
    with pytest.raises(ValueError, match=r"frames=16 .* 1 \+ 4k \(13 or 17\)"):
        list(vae.encode_stream(cut(video[:, :, :16], 4)))


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 32, 16), "got b 1, 3 channels, 32 x 16 after b 1, 3 channels, 16 x 16"),
        ((1, 1, 4, 16, 16), "got b 1, 1 channels, 16 x 16 after"),
        ((2, 3, 4, 16, 16), "got b 2, 3 channels"),
        ((3, 4, 16, 16), r"takes pieces b c t h w, got shape \(3, 4, 16, 16\)"),
    ],
)
def test_pieces_of_unlike_sizes_are_refused_by_both_streams_in_one_line(shape: tuple[int, ...], message: str):
    vae = make(latent_channels=3)  # so that latents pass for frames
    for stream in (vae.encode_stream, vae.decode_stream):
        for begun in (2, 5):  # in the midst of a latent frame, and where one begins
            with pytest.raises(ValueError, match=message) as error:
                list(stream([clip(begun), torch.zeros(shape)]))
            assert "\n" not in str(error.value)


@torch.no_grad()
def test_a_streams_posteriors_are_the_whole_clips():
    vae, video = make(), clip(13)
    whole, parts = vae.posterior(video), list(vae.posterior_stream(cut(video, 5)))
    assert [part.mean.shape[2] for part in parts] == [1, 1, 1, 1]
    assert torch.allclose(torch.cat([part.mean for part in parts], dim=2), whole.mean, atol=1e-5)
    assert torch.allclose(torch.cat([part.logvar for part in parts], dim=2), whole.logvar, atol=1e-5)


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
@MIXINGS
def test_samples_do_not_see_each_other(mixing):
    vae, video = make(widths=(96, 128), mixing=mixing), clip(9, batch=3)
    latents = vae.encode(video)
    assert (latents - torch.cat([vae.encode(part) for part in video.split(1)])).abs().max() <= 1e-6
    together = vae.decode(latents)
    assert (together - torch.cat([vae.decode(part) for part in latents.split(1)])).abs().max() <= 1e-6


@torch.no_grad()
def test_whitening_is_undone_by_decoding():
    vae, video = make(), clip(9)
    raw = vae.posterior(video).mean
    latents = vae.encode(video)
    assert torch.allclose(latents[0, 1], (raw[0, 1] - vae.latent_mean[1]) / vae.latent_std[1], atol=1e-6)
    assert torch.allclose(vae.decode(latents), vae.decode_posterior(raw).clamp(-1, 1), atol=1e-5)
    assert {"latent_mean", "latent_std"} <= set(vae.state_dict())


@pytest.mark.parametrize("stem", [Patches(), Haar()], ids=["patches", "haar"])
@pytest.mark.parametrize(("stride", "channels"), [((1, 4), 4), ((4, 8), 16), ((8, 8), 32), ((4, 16), 64), ((8, 32), 128)])
@torch.no_grad()
def test_strides_by_config(stride: tuple[int, int], channels: int, stem):
    stride_t, stride_s = stride
    vae = make(stride_t=stride_t, stride_s=stride_s, latent_channels=channels, stem=stem)
    assert vae.stride == (stride_t, stride_s, stride_s)
    video = random(1, 3, 1 + 2 * stride_t, stride_s, 2 * stride_s)
    latents = vae.encode(video)
    assert latents.shape == (1, channels, 3, 1, 2)
    assert vae.decode(latents).shape == video.shape


def test_decoding_is_what_a_latent_does_not_depend_on():
    vae, video = make(), clip(5)
    decoding = {id(p) for module in vae.decoding() for p in module.parameters()}
    names = {name: id(p) in decoding for name, p in vae.named_parameters()}
    for loss, of_decoder in ((vae.posterior(video), False), (vae.decode_posterior(random(1, 4, 2, 2, 2)), True)):
        total = loss.square().mean() if isinstance(loss, Tensor) else loss.mean.sum() + loss.logvar.sum()
        moved = torch.autograd.grad(total, list(vae.parameters()), allow_unused=True)
        assert {name for name, gradient in zip(names, moved, strict=True) if gradient is not None} == {n for n in names if names[n] == of_decoder}
    assert vae.last_layer is vae.head.weight
    assert isinstance(vae.last_layer, torch.nn.Parameter)


def counted(vae: VideoVAE, frames: int, height: int, width: int) -> tuple[int, int]:
    """FLOP of encoding and decoding as torch's counter sees them."""
    device = vae.latent_mean.device
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoding:
            latents = vae.encode(torch.zeros(1, 3, frames, height, width, device=device))
        with FlopCounterMode(display=False) as decoding:
            vae.decode(latents)
    return encoding.get_total_flops(), decoding.get_total_flops()


@MIXINGS
@pytest.mark.parametrize(("levels", "sizes"), [(1, {"widths": (16,)}), (2, {}), (3, {"widths": (16, 24, 32)})])
def test_flops_agree_with_the_counter(levels: int, sizes: dict, mixing):
    depths = {"encoder_depths": (1, 2, 1)[:levels], "decoder_depths": (2, 1, 1)[:levels]}
    vae = make(0, **{**sizes, **depths}, mixing=mixing)
    assert vae.flops(9, 32, 16) == dict(zip(("encode", "decode"), counted(vae, 9, 32, 16), strict=True))


@PRESETS
def test_flops_of_every_preset_agree_with_the_counter(preset: str):
    with torch.device("meta"):
        vae = shipped(preset)
    size = 2 * vae.stride[1]
    encoding, decoding = counted(vae, 17, size, 2 * size)
    want = vae.flops(17, size, 2 * size)
    assert abs(encoding / want["encode"] - 1) <= 0.01
    assert abs(decoding / want["decode"] - 1) <= 0.01


@pytest.mark.parametrize("preset", ["world", "large"])
def test_a_frame_megapixel_at_4x8x8_costs_less_than_half_of_wan(preset: str):
    with torch.device("meta"):
        vae = shipped(preset)
    cost = vae.flops(17, 96, 96)
    assert vae.stride == (4, 8, 8)
    assert cost["encode"] <= 2.5e6 * 17 * 96 * 96
    assert cost["decode"] <= 4.5e6 * 17 * 96 * 96


@MIXINGS
def test_bfloat16_is_near_float32(mixing):
    video = clip(9, size=32)

    def run(vae: VideoVAE, enabled: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = vae.decode_posterior(vae.posterior(video).mean)
        gradients = torch.autograd.grad((out - video).square().mean(), list(vae.parameters()), allow_unused=True)
        return out.detach(), torch.cat([g.flatten() for g in gradients if g is not None])

    errors = []
    for seed in range(3):  # random weights differ by a fifth
        vae = make(seed, widths=(64, 96), latent_channels=16, mixing=mixing)
        (out, gradient), (out16, gradient16) = run(vae, False), run(vae, True)
        assert out16.dtype == torch.float32
        assert torch.cosine_similarity(gradient, gradient16, dim=0) >= 0.999
        errors.append((out16 - out).norm() / out.norm())
    assert torch.stack(errors).mean() <= 1e-2


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
        ({"latent_channels": 0}, r"latent_channels=0 .* at least 1"),
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
