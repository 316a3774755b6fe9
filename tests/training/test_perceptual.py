"""Spectral and learnt distances: blind to brightness, not to blur, missing texture, flicker or lost motion; clips add up."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.vae import VideoVAE
from runtime.checkpoint import Checkpoints
from runtime.config import ConfigError, dump
from runtime.run_folder import RunFolder
from training import perceptual
from training.perceptual import Learnt, Perceptual, Spectral
from training.vae_objective import VAEObjective


def spectral(**changes) -> Spectral:
    return Spectral(**({"weight": 1.0, "window": 8, "scales": 3, "floor": 0.02, "phase": 0.5, "motion": 0.5} | changes))


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texture(seed: int = 0, frames: int = 1, size: int = 32) -> torch.Tensor:
    """Two clips b 3 t h w of fine texture that stands still, around grey."""
    return (0.3 * noise(seed, 2, 3, 1, size, size)).expand(-1, -1, frames, -1, -1)


def blurred(video: torch.Tensor) -> torch.Tensor:
    return F.avg_pool3d(F.pad(video, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)


def apart(one: torch.Tensor, other: torch.Tensor, **changes) -> float:
    return float(spectral(**changes)(one, other).mean())


def squared(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).square().mean())


def test_the_same_clip_is_no_distance_away():
    assert apart(texture(frames=5), texture(frames=5)) < 1e-4


@pytest.mark.parametrize("scales", [1, 3])
def test_blur_costs_far_more_than_a_shift_of_brightness_with_the_same_squared_error(scales: int):
    clip = texture()
    brighter = clip + squared(clip, blurred(clip)) ** 0.5
    assert apart(clip, blurred(clip), scales=scales) > 0.3
    assert apart(clip, brighter, scales=scales) < 1e-2


def test_a_faint_blur_costs_less_than_a_strong_one():
    clip = texture()
    steps = [apart(clip, torch.lerp(clip, blurred(clip), share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert steps == sorted(steps)
    assert steps[1] > 0.05


def test_missing_texture_costs_more_than_another_one_of_the_same_kind_which_a_squared_error_prefers_it_to():
    clip, flat, other = texture(0), torch.zeros(2, 3, 1, 32, 32), texture(1)
    assert squared(clip, other) > 1.5 * squared(clip, flat)
    assert apart(clip, flat) > 1.2 * apart(clip, other)
    assert apart(clip, flat, phase=0.0) > 2 * apart(clip, other, phase=0.0)


def test_half_of_a_faint_texture_costs_as_much_as_half_of_a_strong_one():
    clip = texture()
    strong, faint = (apart(scale * clip, 0.5 * scale * clip, floor=1e-4) for scale in (1.0, 0.1))
    assert faint == pytest.approx(strong, rel=0.02)


def test_waves_that_are_moved_cost_more_than_none_only_if_their_place_is_asked_for():
    clip = texture()
    moved = clip.roll(2, dims=-1)
    assert apart(clip, moved, phase=1.0) > apart(clip, moved, phase=0.0) > 0


def test_colour_counts_at_coarser_scales():
    grey = torch.zeros(2, 3, 1, 32, 32)
    stripes = torch.zeros(32).index_fill(0, torch.arange(32)[torch.arange(32) // 4 % 2 == 0], 0.5)
    coloured = torch.stack([stripes, -stripes, torch.zeros(32)])[None, :, None, None, :].expand(2, 3, 1, 32, 32)  # of one luma
    assert apart(grey, coloured, scales=1) < 1e-3
    assert apart(grey, coloured, scales=2) > 0.1


def test_flicker_and_lost_motion_are_seen_between_frames():
    still = torch.zeros(2, 3, 4, 32, 32)
    flicker = still + 0.2 * torch.tensor([1.0, -1, 1, -1])[:, None, None]
    assert apart(still, flicker, motion=0.0) < 1e-2
    assert apart(still, flicker, motion=1.0) > 0.1
    moving = torch.stack([texture()[:, :, 0].roll(2 * f, dims=-1) for f in range(4)], dim=2)
    frozen = moving[:, :, :1].expand(-1, -1, 4, -1, -1)
    assert apart(moving, frozen, motion=1.0) > 1.5 * apart(moving, frozen, motion=0.0)


def test_white_noise_of_deviation_one_has_waves_of_power_one():
    model = spectral()
    for bank in (model.still, model.moving):
        power = (noise(0, 20_000, 64) @ bank).square().sum() / (20_000 * bank.shape[1] / 2)
        assert float(power) == pytest.approx(1, abs=0.06)  # windows lose their mean in one bank


def test_clips_add_up_and_size_does_not_count():
    model, clip, other = spectral(), texture(frames=3), texture(1, frames=3)
    whole = model(clip, other)
    assert torch.allclose(whole, torch.cat([model(clip[:1], other[:1]), model(clip[1:], other[1:])]), rtol=1e-5)
    large = texture(2, frames=3, size=96), texture(3, frames=3, size=96)
    assert float(model(*large).mean()) == pytest.approx(float(whole.mean()), rel=0.05)


def test_precision_of_the_networks_does_not_reach_it():
    model, clip = spectral(), texture()
    want = model(clip, blurred(clip))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(clip, blurred(clip)), want)


def test_gradients_are_finite_where_nothing_is_to_be_seen():
    flat, made = torch.zeros(1, 3, 3, 16, 16), torch.zeros(1, 3, 3, 16, 16, requires_grad=True)
    spectral()(flat, made).sum().backward()
    assert torch.isfinite(made.grad).all()


def test_a_step_along_the_gradient_brings_texture_back():
    clip = texture()
    made = blurred(clip).clone().requires_grad_()
    before = spectral()(clip, made).sum()
    before.backward()
    assert float(spectral()(clip, made.detach() - 3.0 * made.grad).sum()) < 0.9 * float(before.detach())


def test_where_nobody_asks_for_the_place_of_waves_it_is_not_reckoned_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch):
    powers = []
    monkeypatch.setattr(perceptual, "_power", lambda waves, real=perceptual._power: powers.append(1) or real(waves))
    clip, found = texture(frames=3), []
    for phase in (0.0, 1e-30):  # the latter is computed and vanishes in the sum
        made = blurred(clip).clone().requires_grad_()
        value = spectral(phase=phase)(clip, made)
        found.append((value, *torch.autograd.grad(value.sum(), made), len(powers)))
    (value, gradient, calls), (same, same_gradient, both) = found
    assert torch.equal(value, same)
    assert torch.allclose(gradient, same_gradient, rtol=1e-6, atol=0)
    assert both - calls == 1.5 * calls


@pytest.mark.parametrize("change", [{"window": 7}, {"window": 2}, {"scales": 0}, {"floor": 0.0}, {"phase": -1.0}, {"weight": -1.0}])
def test_settings_out_of_range_are_refused(change: dict):
    with pytest.raises(ValueError, match=r"Set objective\.perceptual"):
        spectral(**change)


def test_a_clip_smaller_than_a_window_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match="4x32 px has no window of 8 px"):
        spectral()(torch.zeros(1, 3, 1, 4, 32), torch.zeros(1, 3, 1, 4, 32))


def test_every_distance_is_one_of_the_parts():
    assert isinstance(spectral(), Perceptual)
    assert list(spectral().state_dict()) == []  # nothing of it stands in a checkpoint


def vae_run(folder: Path) -> VideoVAE:
    torch.manual_seed(0)
    vae = VideoVAE(widths=(8, 16), latent_channels=4)
    vae.set_statistics(torch.full((4,), 0.5), torch.full((4,), 2.0))
    folder.mkdir()
    node = {"_target_": "models.vae.VideoVAE", "widths": [8, 16], "latent_channels": 4}
    (folder / "config.yaml").write_text(dump({"objective": {"vae": node}}))
    averages = {f"vae.{name}": tensor for name, tensor in vae.state_dict().items()} | {"discriminator.x": torch.zeros(1)}
    Checkpoints(folder / "checkpoints").save(1, {"weights": averages, "ema": averages, "optimizer": {}}, {})
    return vae


def test_a_learnt_distance_is_one_of_another_runs_latents_and_moves_the_reconstruction_alone(tmp_path):
    vae = vae_run(tmp_path / "run")
    model = Learnt(1.0, str(tmp_path / "run"), None)
    clip, made = texture(frames=5), texture(1, frames=5).contiguous().requires_grad_()
    found = model(clip, made)
    with torch.no_grad():
        want = (vae.encode(clip) - vae.encode(made)).square().flatten(1).mean(dim=1)
    assert torch.allclose(found, want, rtol=1e-5)
    found.sum().backward()
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert model.flops(5, 32, 32) == 3 * vae.flops(5, 32, 32)["encode"]
    assert Learnt(1.0, str(tmp_path / "run"), model.sha256).sha256 == model.sha256
    with pytest.raises(ValueError, match=r"wanted 00: it has trained on. Set objective\.perceptual\.sha256"):
        Learnt(1.0, str(tmp_path / "run"), "00")


def test_a_run_that_went_on_with_other_weights_than_it_began_with_is_refused(tmp_path):
    vae_run(tmp_path / "run")
    first = Learnt(1.0, str(tmp_path / "run"), None)
    other = Learnt(1.0, str(tmp_path / "run"), None)
    other.sha256 = "00"  # that run has trained on meanwhile

    def begin(distance: Perceptual | None, run: RunFolder, allow_drift: tuple[str, ...] = ()) -> None:
        VAEObjective(VideoVAE(widths=(8, 16), latent_channels=4), 0.2, 0.0, 1e-4, 2, perceptual=distance).begin(run, allow_drift)

    with RunFolder(tmp_path / "here", {"run": "here"}) as run:
        begin(other, run)  # of this start nothing was saved, so the next one is the first
        begin(first, run)
        assert run.fact("perceptual_sha256") == first.sha256
        Checkpoints(run.checkpoints).save(1, {"weights": {}, "ema": {}, "optimizer": {}}, {})
        begin(first, run)
        for drift in ((), ("objective.perceptual.run",), ("objective.perceptual.sha",)):
            with pytest.raises(ConfigError, match=rf"sha256 00, and the run began with {first.sha256}\. Put those back") as refused:
                begin(other, run, drift)
            assert "allow_drift=[objective.perceptual.sha256]" in str(refused.value)
            assert run.fact("perceptual_sha256") == first.sha256
        for drift in ("objective.perceptual.sha256", "objective.perceptual"):
            begin(other, run, (drift,))
            assert run.fact("perceptual_sha256") == "00"
            begin(first, run, (drift,))
        begin(None, run)  # the config let go of it
        assert run.fact("perceptual_sha256") is None
    with RunFolder(tmp_path / "none", {"run": "none"}) as run:
        begin(spectral(), run)
        assert run.fact("perceptual_sha256") is None
