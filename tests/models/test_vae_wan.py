"""The yardstick is the published network, trains as ours does, and is billed by what it computes. Needs the extra [bench]."""

import pytest
import torch

from models.vae_wan import WanVAE

pytest.importorskip("diffusers", reason="the extra [bench] is not installed")
pytestmark = pytest.mark.slow  # importing diffusers takes longer than the tests


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(base_dim=4, latent_channels=4)


def test_it_is_the_published_network_at_the_published_width() -> None:
    with torch.device("meta"):
        vae = WanVAE(96, 16)
    assert sum(p.numel() for p in vae.parameters()) == pytest.approx(126.9e6, rel=1e-3)
    flop, pixels = vae.flops(17, 96, 96), 17 * 96 * 96
    assert flop["encode"] / pixels / 1e6 == pytest.approx(5.10, rel=5e-3)  # TFLOP per frame-megapixel
    assert flop["decode"] / pixels / 1e6 == pytest.approx(8.58, rel=5e-3)


def test_gradients_reach_every_weight_and_cross_its_caches(vae: WanVAE) -> None:
    video = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    first = video[:, :, :1].clone().requires_grad_()
    posterior = vae.posterior(torch.cat([first, video[:, :, 1:]], dim=2))
    assert posterior.mean.shape == (1, 4, 3, 2, 2)
    result = vae.decode_posterior(posterior.mean)
    assert result.shape == video.shape
    (last,) = torch.autograd.grad(result[:, :, -1].square().sum(), first, retain_graph=True)
    assert last.abs().sum() > 0
    (result - video).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in vae.named_parameters() if "quant_conv" not in name or "post" in name)


def test_it_is_not_clamped_in_training_and_whitened_outside(vae: WanVAE) -> None:
    with torch.no_grad():
        video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
        raw = vae.posterior(video).mean
        vae.set_statistics(torch.full((4,), 0.5), torch.full((4,), 2.0))
        assert torch.equal(vae.encode(video), (raw - 0.5) / 2)
        assert torch.allclose(vae.decode(vae.encode(video)), vae.decode_posterior(raw).clamp(-1, 1), atol=1e-5)
        assert vae.decode_posterior(100 * raw).abs().max() > 1
        (streamed,) = vae.decode_stream(vae.encode_stream([video[:, :, :1], video[:, :, 1:]]))
        assert torch.equal(streamed, vae.decode(vae.encode(video)))


def test_a_discriminator_and_a_decoder_run_find_what_they_need(vae: WanVAE) -> None:
    raw = torch.zeros(1, 4, 2, 2, 2)
    last = torch.autograd.grad(vae.decode_posterior(raw).square().sum(), vae.last_layer)[0]
    assert last.shape[0] == 3
    assert last.abs().sum() > 0
    decoding = {p for module in vae.decoding() for p in module.parameters()}
    used = torch.autograd.grad(vae.decode_posterior(raw + 1).square().sum(), list(vae.parameters()), allow_unused=True)
    assert decoding == {p for p, gradient in zip(vae.parameters(), used, strict=True) if gradient is not None}


def test_a_size_off_its_grid_is_refused(vae: WanVAE) -> None:
    with pytest.raises(ValueError, match="frames=16"):
        vae.posterior(torch.zeros(1, 3, 16, 16, 16))
