"""The VAE's objective: sums that add up, noise by sample number, whitening from fixed clips, and it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from data.batch import Batch
from data.world.render import render
from data.world.scene import Background, Body, Scene, Straight
from evaluation.reconstruction import psnr_db
from models.vae import VideoVAE
from runtime.seeding import Rng
from training.vae_objective import VAEObjective

RNG = Rng(3)


def objective(l1: float = 0.2, edge: float = 0.0, kl: float = 1e-4, widths: tuple[int, ...] = (16, 24)) -> VAEObjective:
    torch.manual_seed(0)
    return VAEObjective(VideoVAE(widths=widths, latent_channels=8), l1, edge, kl, preview_clips=2)


def batch(video: Tensor, first: int = 0) -> Batch:
    b = len(video)
    return Batch(tuple(range(first, first + b)), tuple(range(b)), ({},) * b, torch.full((b,), 8.0), video=video)


def clips(count: int, frames: int = 5, size: int = 16) -> Tensor:
    return torch.randn(count, 3, frames, size, size, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def moving(size: int = 32, frames: int = 17) -> Tensor:
    body = Body("circle", "red", "right", None, Straight((-0.2, 0.0), (0.4, 0.0)), (0.2, 0.2))
    pixels = render(Scene((body,), Background("plain", "grey")), frames, size, size)
    return torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def test_parts_of_a_batch_add_up():
    task, video = objective(edge=0.5), clips(3)
    whole = task.loss(batch(video), RNG)
    parts = [task.loss(batch(video[:1]), RNG), task.loss(batch(video[1:], first=1), RNG)]
    assert whole.count == video.numel() == sum(part.count for part in parts)
    assert torch.allclose(sum(part.total for part in parts), whole.total, rtol=1e-5)
    for name, (total, count) in whole.logs.items():
        assert float(total) == pytest.approx(sum(float(part.logs[name][0]) for part in parts), rel=1e-5)
        assert count == sum(part.logs[name][1] for part in parts)


@pytest.mark.parametrize("frames", [1, 5])
def test_weights_are_between_means(frames: int):
    task = objective(l1=0.3, edge=0.7, kl=0.01)
    loss = task.loss(batch(clips(2, frames)), RNG)
    mean = {name: float(total) / count for name, (total, count) in loss.logs.items()}
    want = mean["mse"] + 0.3 * mean["l1"] + 0.7 * mean["edge"] + 0.01 * mean["kl"]
    assert float(loss.total.detach()) / loss.count == pytest.approx(want, rel=1e-5)


def test_noise_belongs_to_the_sample():
    task, video = objective(), clips(2)
    again = task.loss(batch(video), RNG).total
    assert torch.equal(task.loss(batch(video), RNG).total, again)
    assert not torch.equal(task.loss(batch(video, first=7), RNG).total, again)
    assert not torch.equal(task.loss(batch(video), Rng(4)).total, again)


def test_latents_are_white_after_a_refresh_and_the_loss_does_not_notice():
    task, video = objective(), clips(6, frames=9)
    before = task.loss(batch(video), RNG).total
    task.refresh([batch(video[:4]), batch(video[4:])])
    latents = task.vae.encode(video).transpose(0, 1).flatten(1)  # c values
    assert torch.allclose(latents.mean(dim=1), torch.zeros(8), atol=1e-5)
    assert torch.allclose(latents.std(dim=1), torch.ones(8), atol=1e-5)
    assert torch.equal(task.loss(batch(video), RNG).total, before)


def test_a_dead_channel_does_not_stop_a_refresh():
    task = objective()
    with torch.no_grad():
        task.vae.to_posterior.weight[0] = 0
    task.refresh([batch(clips(2))])
    assert float(task.vae.latent_std[0]) == pytest.approx(0.01)
    assert torch.isfinite(task.vae.encode(clips(2))).all()


def test_without_clips_there_is_no_whitening():
    with pytest.raises(ValueError, match=r"Set data\.val"):
        objective().refresh([])


@torch.no_grad()
def test_psnr_is_the_mean_over_clips_of_what_a_user_gets():
    task, video = objective(), clips(3, size=16)
    figures = task.validate(batch(video), RNG)
    result = task.vae.decode(task.vae.encode(video))
    want = [10 * np.log10(4 / (a - b).square().mean().item()) for a, b in zip(video, result, strict=True)]
    assert float(figures["psnr_db"][0]) / figures["psnr_db"][1] == pytest.approx(np.mean(want), abs=1e-3)
    assert figures["loss"][1] == video.numel()
    assert figures == task.validate(batch(video), Rng(99))  # no noise in it


@torch.no_grad()
def test_preview_shows_source_beside_reconstruction():
    task, video = objective(), clips(3)
    preview = task.preview(batch(video), RNG)
    assert [shown.shape for shown in preview.videos] == [(5, 16, 32, 3)] * 2
    source = ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
    assert np.array_equal(preview.videos[0][:, :, :16], source)
    assert preview.captions[0] == f"source | {psnr_db(source, preview.videos[0][:, :, 16:]):.1f} dB"


def test_flops_are_three_forwards():
    task = objective()
    assert task.flops(batch(clips(2, 5))) == 2 * 3 * sum(task.vae.flops(5, 16, 16).values())


def test_every_weight_learns_and_matrices_are_two_dimensional():
    task = objective()
    task.loss(batch(clips(1)), RNG).total.backward()
    for name, p in task.vae.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name
        assert p.ndim <= 2, f"{name}: Muon takes matrices"


def test_overfits_one_clip():
    task = objective(widths=(32, 48))
    sample = batch(moving())
    optimizer = torch.optim.AdamW(task.vae.parameters(), lr=4e-3, weight_decay=0)
    first = None
    for step in range(200):
        loss = task.loss(replace(sample, samples=(step,)), RNG)
        first = loss.total.item() if first is None else first
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    assert task.loss(sample, RNG).total.item() <= 0.1 * first
    with torch.no_grad():
        assert float(task.validate(sample, RNG)["psnr_db"][0]) >= 25


@pytest.mark.parametrize("weights", [(-1.0, 0, 0), (0, -1.0, 0), (0, 0, float("nan"))])
def test_negative_weights_are_refused(weights: tuple[float, float, float]):
    with pytest.raises(ValueError, match=r"a weight must be >= 0\. Set objective\."):
        objective(*weights)
