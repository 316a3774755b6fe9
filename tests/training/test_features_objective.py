"""Learning features: ways of playing that are what they are called, sums that add up, draws by sample number, and it learns."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data.batch import Batch
from models.attention import Products
from models.video_encoder import VideoEncoder
from runtime.config import ConfigError
from runtime.seeding import Rng
from training.features_objective import FeaturesObjective
from training.playback import LEAST_FRAMES, PLAYBACKS

RNG = Rng(3)


def objective(playbacks: tuple[str, ...] = tuple(PLAYBACKS), visible: float = 0.5, frames: int = 8) -> FeaturesObjective:
    torch.manual_seed(0)
    patch = (min(4, frames), 4, 4)
    encoder = VideoEncoder(frames=frames, patch=patch, width=24, depth=1, heads=2, dimensions=4, kernel=Products())  # which are counted
    return FeaturesObjective(encoder, playbacks, visible, preview_clips=2)


def batch(video: Tensor, first: int = 0) -> Batch:
    b = len(video)
    return Batch(tuple(range(first, first + b)), tuple(range(b)), ({},) * b, torch.full((b,), 8.0), video=video)


def clips(count: int, frames: int = 9, size: int = 8) -> Tensor:
    return torch.randn(count, 3, frames, size, size, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def numbered(count: int, frames: int) -> Tensor:
    """Clips of which every frame says its number."""
    return (torch.arange(frames).float() / 16)[None, None, :, None, None].expand(count, 3, frames, 8, 8).contiguous()


def test_a_way_of_playing_is_what_it_is_called() -> None:
    rng, there = np.random.default_rng(0), np.arange(16)
    for _ in range(50):
        made = {name: play(16, rng) for name, play in PLAYBACKS.items()}
        assert all(len(order) == 16 and set(order) <= set(there) for order in made.values())
        assert not any(np.array_equal(order, there) for order in made.values())  # none is the right way
        assert np.array_equal(made["backwards"], there[::-1])
        assert sorted(made["shuffled"]) == sorted(made["cut"]) == list(there)
        assert (np.diff(made["cut"]) == 1).sum() == 14
        stands = int(made["halting"][-1])
        assert stands < 8
        assert np.array_equal(made["halting"][: stands + 1], there[: stands + 1])
        assert (made["halting"][stands:] == stands).all()
        assert made["slow"][-1] - made["slow"][0] == 7
        assert set(np.diff(made["slow"])) == set(np.diff(made["stuttering"])) - {2} | {1} == {0, 1}
        assert list(made["stuttering"][:5]) == [0, 0, 2, 2, 4]


def test_every_way_is_as_common_and_a_stretch_shows_what_it_is_said_to_be() -> None:
    task = objective()
    shown, played = task._played(batch(numbered(700, 9)), RNG)
    assert shown.shape == (700, 3, 8, 8, 8)
    counts = played.bincount(minlength=7)
    assert (counts - 100).abs().max() < 40  # 4 deviations
    frames = (shown[:, 0, :, 0, 0] * 16).round().long()
    right = frames[played == 0]
    assert torch.equal(right - right[:, :1], torch.arange(8).expand(len(right), -1))
    assert set(right[:, 0].tolist()) == {0, 1}  # a stretch begins anywhere
    backwards = frames[played == 1 + list(PLAYBACKS).index("backwards")]
    assert (backwards.diff(dim=1) == -1).all()


def test_parts_of_a_batch_add_up() -> None:
    task, video = objective(), clips(5)
    whole = task.loss(batch(video), RNG)
    parts = [task.loss(batch(video[:2]), RNG), task.loss(batch(video[2:], first=2), RNG)]
    assert whole.count == 5 == sum(part.count for part in parts)
    assert torch.allclose(parts[0].total + parts[1].total, whole.total, rtol=1e-5)
    assert int(whole.logs["accuracy"][0]) == sum(int(part.logs["accuracy"][0]) for part in parts)


def test_draws_belong_to_the_sample() -> None:
    task, video = objective(visible=0.25), clips(4)
    assert torch.equal(task._seen(batch(video), RNG)[2:], task._seen(batch(video[2:], first=2), RNG))
    assert not torch.equal(task._seen(batch(video), RNG), task._seen(batch(video, first=9), RNG))
    assert task._seen(batch(video), RNG).shape == (4, 2)  # of 2 x 2 x 2 patches
    whole, part = task._played(batch(video), RNG), task._played(batch(video[2:], first=2), RNG)
    assert all(torch.equal(one[2:], other) for one, other in zip(whole, part, strict=True))
    total = task.loss(batch(video), RNG).total
    assert torch.equal(task.loss(batch(video), RNG).total, total)
    assert not torch.equal(task.loss(batch(video, first=7), RNG).total, total)
    assert not torch.equal(task.loss(batch(video), Rng(4)).total, total)


@torch.no_grad()
def test_features_are_measured_on_clips_as_they_are() -> None:
    task, video = objective(), clips(12)
    before = task.loss(batch(video), RNG).total
    task.refresh([batch(video[:5]), batch(video[5:])])
    found = task.encoder.features(video[:, :, :8])
    assert torch.allclose(torch.cov(found.T), torch.eye(4), atol=2e-3)
    assert torch.equal(task.loss(batch(video), RNG).total, before)  # which reads none of it
    with pytest.raises(ValueError, match=r"0 validation clips .* Set data\.val_samples"):
        task.refresh([])


def test_training_sees_a_part_of_the_patches_and_pays_for_that() -> None:
    whole, half = objective(visible=1.0), objective(visible=0.5)
    for task in (whole, half):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            task.loss(batch(clips(2)), RNG)
        assert 3 * counter.get_total_flops() == task.flops(batch(clips(2)))
    assert whole.flops(batch(clips(2))) > 1.9 * half.flops(batch(clips(2)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"playbacks": ("upside_down",)}, r"some of backwards, cut, .* Set objective\.playbacks"),
        ({"playbacks": ("cut", "cut")}, "each once"),
        ({"playbacks": ()}, "some of"),
        ({"visible": 0.0}, r"Set objective\.visible"),
        ({"frames": 3}, r"fewer than 4 frames a wrong way .* the right one\. Set objective\.encoder\.frames"),
    ],
)
def test_what_cannot_be_learnt_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        objective(**wrong)
    with pytest.raises(ValueError, match=r"clips of 5 frames hold no stretch of 8\. Set data\.shape\.min_frames=8"):
        objective().loss(batch(clips(2, frames=5)), RNG)


def test_clips_that_would_end_the_run_later_are_refused_before_it_begins() -> None:
    task = objective()
    task.check_clips(8, [batch(clips(3)), batch(clips(2))])
    for frames, validation, said in (
        (
            9,
            [batch(clips(3)), batch(clips(1))],
            r"4 validation clips give no 4 dir.* Set data\.val_samples and data\.hold_out to more than 4",
        ),
        (5, [batch(clips(5))], r"clips of 5 frames hold no stretch of 8\. Set data\.shape\.min_frames=8"),
        (9, [batch(clips(5, frames=5))], "clips of 5 frames hold no stretch of 8"),
        (9, [], "0 validation clips"),
    ):
        with pytest.raises(ConfigError, match=said):
            task.check_clips(frames, validation)


def test_a_wrong_way_is_wrong_in_the_shortest_stretch_too() -> None:
    rng = np.random.default_rng(0)
    for name in set(PLAYBACKS) - {"shuffled"}:  # which is right once in 24 times
        assert not any(np.array_equal(PLAYBACKS[name](LEAST_FRAMES, rng), np.arange(LEAST_FRAMES)) for _ in range(50)), name


def moving(count: int) -> Tensor:
    """A bright bar that goes one pixel a frame."""
    rng = np.random.default_rng(0)
    video = np.full((count, 3, 9, 8, 16), -0.5, np.float32)
    for clip, place in enumerate(rng.integers(0, 5, count)):
        for frame in range(9):
            video[clip, :, frame, :, place + frame : place + frame + 2] = 0.8
    return torch.from_numpy(video)


def test_it_learns_and_what_it_learns_tells_motion() -> None:
    task, video = objective(("halting", "shuffled"), visible=1.0), moving(64)
    optimiser = torch.optim.AdamW([p for network in task.networks.values() for p in network.parameters()], lr=5e-3)
    for step in range(60):
        loss = task.loss(batch(video[:32], first=32 * step), RNG)
        optimiser.zero_grad()
        (loss.total / loss.count).backward()
        optimiser.step()
    with torch.no_grad():
        figures = task.validate(batch(video[32:], first=10**6), RNG)
        assert float(figures["accuracy"][0]) / 32 > 0.8  # chance is a third
        task.refresh([batch(video)])
        still = video[32:, :, :1].expand(-1, -1, 8, -1, -1)
        apart = task.encoder.features(still).mean(dim=0) - task.encoder.features(video[32:, :, :8]).mean(dim=0)
        assert apart.norm() > 2  # deviations
        assert len(task.preview(batch(video), RNG).captions) == 2
