"""From plans to latents: at once, in windows and in two stages."""

import pytest
import torch

from flow.noise import Coarse, Own
from flow.rollout import Rollout
from runtime.build import ConfigError
from tasks.given import Extend, FirstAndLast, ImageToVideo
from tasks.make import AsTrained, Job, Refine, in_windows, latents, refined
from tasks.task import Files
from tasks.text import Loop, TextToVideo
from training.inference import make_generator

SAMPLING = {"solver": {"_target_": "flow.solvers.Euler"}, "guidance": {"_target_": "flow.guidance.NoGuidance"}, "steps": 3, "batch_size": 4}


def whole(parts):
    return torch.cat(list(parts), dim=2)


def test_clips_of_unlike_plans_come_out_as_each_alone(desk, generator, media):
    plans = [ImageToVideo().begin(Files(images=(f"{media}/{name}.png",)), desk()) for name in "ab"] + [TextToVideo().begin(Files(), desk())]
    together = whole(latents(generator, plans, Job(["x", "y", "z"], [0, 1, 2], 0, ["n", "n", "n"])))
    for place, (plan, prompt) in enumerate(zip(plans, "xyz", strict=True)):
        alone = whole(latents(generator, [plan], Job([prompt], [place], 0, ["n"])))
        assert torch.allclose(together[place], alone[0], atol=1e-4)  # guidance adds up roundings


def test_windows_are_made_in_order_as_they_are_asked_for(desk, generator):
    plan, rollout = TextToVideo().begin(Files(), desk(33)), Rollout(2, 1)
    steps = []
    parts = latents(generator, [plan], Job(["x"], [0], 0), rollout, lambda done, total: steps.append((done, total)))
    first = next(parts)
    assert first.shape[2] == 3
    assert steps == [(n, 21) for n in (1, 2, 3)]  # 7 windows of 3 steps, of which one is made
    rest = list(parts)
    assert first.shape[2] + sum(part.shape[2] for part in rest) == 9
    assert steps[-1] == (21, 21)


@pytest.mark.parametrize("side", ["after", "before", "both"])
def test_what_is_given_comes_back_through_windows_too(desk, generator, media, side):
    plan = Extend(side).begin(Files(videos=(f"{media}/clip.mp4",)), desk(41))
    made = whole(latents(generator, [plan], Job(["x"], [0], 0), Rollout(2, 1)))
    known = plan.canvas.given[0, : plan.canvas.shown]
    assert made.shape[2] == 11
    assert torch.equal(made[:, :, known], plan.canvas.latents[:, :, : plan.canvas.shown][:, :, known])


def test_short_plans_loops_and_plans_with_pictures_are_made_at_once(desk, media):
    assert not in_windows(TextToVideo().begin(Files(), desk(9)), Rollout(2, 1))
    assert not in_windows(Loop().begin(Files(), desk(32)), Rollout(2, 1))
    assert not in_windows(FirstAndLast().begin(Files(images=(f"{media}/a.png",), last=f"{media}/b.png"), desk(33)), Rollout(2, 1))
    assert in_windows(TextToVideo().begin(Files(), desk(13)), Rollout(2, 1))


def test_windows_as_trained_are_one_less_than_the_clips():
    assert AsTrained().rollout(5, 10) == Rollout(4, 2, 0.0)
    assert AsTrained(1, 0.1).rollout(3, 9) == Rollout(2, 1, 0.1)
    assert AsTrained().rollout(2, 99) is None


def test_clips_up_to_twice_the_trained_length_are_made_at_once():
    # 5 latent frames are 17 pixel frames, 9 are 33: twice as long from the first moment to the last.
    assert [AsTrained().rollout(5, frames) is None for frames in (5, 9, 10)] == [True, True, False]
    assert [AsTrained(at_once=1.0).rollout(5, frames) is None for frames in (5, 6)] == [True, False]
    with pytest.raises(ConfigError, match=r"rollout\.at_once=0\.5"):
        AsTrained(at_once=0.5)


def test_a_draft_and_its_full_size_share_noise_and_layout(networks, desk):
    refine = Refine(2, 0.5)
    large = make_generator(networks, SAMPLING)
    small = make_generator(networks, SAMPLING, noise=Coarse(2, Own()))
    plans = [TextToVideo().begin(Files(), desk(9, height, width)) for height, width in ((16, 32), (32, 64))]
    job = Job(["x", "y"], [0, 1], 0)
    draft = whole(latents(small, [plans[0]] * 2, job))
    made = whole(refined((small, [plans[0]] * 2), (large, [plans[1]] * 2), refine, job))
    assert made.shape[3:] == (4, 8)
    barely = whole(refined((small, [plans[0]] * 2), (large, [plans[1]] * 2), Refine(2, 1e-6), job))
    assert torch.allclose(barely, refine.enlarged(draft), atol=1e-3)
    # The more of the draft's noise is put on it, the farther the clip goes from it.
    assert (made - refine.enlarged(draft)).norm() > 1e-3
    coarse = Coarse(2, Own()).draw(0, [0], 4, (3, 2, 4), 0)
    fine = Own().draw(0, [0], 4, (3, 4, 8), 0)
    assert torch.allclose(coarse, torch.nn.functional.avg_pool3d(fine, (1, 2, 2)) * 2, atol=1e-6)


def test_sizes_without_a_draft_are_refused_with_the_nearest():
    assert Refine(2, 0.5).draft_size(32, 64, 8) == (16, 32)
    with pytest.raises(ConfigError, match=r"height=24 has no draft of 1/2 of it: it must be a multiple of 16\. Set height=32"):
        Refine(2, 0.5).draft_size(24, 64, 8)
    for factor, strength, key in ((1, 0.5, "factor"), (2, 0.0, "strength"), (2, 1.5, "strength")):
        with pytest.raises(ConfigError, match=f"refine.{key}"):
            Refine(factor, strength)
