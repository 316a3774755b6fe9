"""A frame whose flow time stands still keeps its bits, in every solver, whatever the field says there."""

import math
from itertools import pairwise

import pytest
import torch

from flow import solvers
from flow.solver_noise import solver_noise
from flow.solvers import RK4, SDE, Euler, Heun, Midpoint, Multistep
from flow.timesteps import grid
from runtime.seeding import Rng, Stream

FORGETFUL = [Euler(), Heun(), Midpoint(), RK4()]
SOLVERS = [*FORGETFUL, Multistep(), SDE(1.0)]
NOISE = solver_noise(Rng(0), [0, 1], 3, (4, 2, 2))


def integrate(field, noisy, times, solver, after_step=None):
    return solvers.integrate(field, noisy, times, solver, after_step, NOISE)


def field(noisy, t):
    """Not linear, and every frame feels every other."""
    return torch.tanh(noisy) + noisy.mean(dim=2, keepdim=True) + t[:, None, :, None, None]


def start(dtype=torch.float32):
    return torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).to(dtype)


def times(known):
    return torch.where(known[None], 0.0, grid(6, 2.0)[:, None, None])


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("poison", [0.0, float("nan"), float("inf")])
def test_known_frames_are_untouched_bit_for_bit(solver, poison):
    known = torch.tensor([[True, False, False, True], [False, True, False, False]])
    given = start()
    given[0, 0, 0, 0, 0] = -0.0  # adding a zero would change this one's sign bit

    def poisoned(noisy, t):
        return torch.where(known[:, None, :, None, None], poison, field(noisy, t))

    end = integrate(poisoned, given, times(known), solver)
    frames, kept = end.permute(0, 2, 1, 3, 4), given.permute(0, 2, 1, 3, 4)
    assert torch.equal(frames[known].view(torch.int32), kept[known].view(torch.int32))
    assert torch.isfinite(frames[~known]).all()
    assert (frames[~known] != kept[~known]).any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_frame_that_rests_for_a_while_is_untouched_for_that_while(solver):
    path = grid(6, 1.0)[:, None, None].expand(-1, 2, 4).clone()
    path[:4, 0, 2] = 0.6  # waits at 0.6 until the others have caught up
    path[4:, 0, 2] = torch.tensor([0.3, 0.1, 0.0], dtype=torch.float64)
    middle = integrate(field, start(), path[:4], solver)
    assert torch.equal(middle[0, :, 2], start()[0, :, 2])
    assert not torch.equal(middle[0, :, 1], start()[0, :, 1])


@pytest.mark.parametrize("solver", FORGETFUL, ids=repr)
def test_a_walk_in_two_parts_is_the_whole_walk(solver):
    path = grid(6, 1.0)[:, None, None].expand(-1, 2, 4)
    halves = integrate(field, integrate(field, start(), path[:4], solver), path[3:], solver)
    assert torch.equal(halves, integrate(field, start(), path, solver))


@pytest.mark.parametrize(("solver", "evaluations"), list(zip(SOLVERS, [6, 11, 12, 24, 6, 6], strict=True)), ids=repr)
def test_evaluations_are_counted_and_no_more(solver, evaluations):
    seen = []
    integrate(lambda noisy, t: seen.append(t) or field(noisy, t), start(), times(torch.zeros(2, 4, dtype=torch.bool)), solver)
    assert len(seen) == evaluations


@pytest.mark.parametrize("solver", [Heun(), Midpoint(), Multistep(), SDE(1.0)], ids=repr)
def test_no_velocity_at_time_zero_of_a_frame_to_be_made_is_asked_for(solver):
    path = grid(4, 1.0)[:, None, None].expand(-1, 2, 4).clone()
    path[:, 0, 0] = torch.tensor([1.0, 0.4, 0.0, 0.0, 0.0], dtype=torch.float64)  # done before the others

    def bounded(noisy, t):
        v = field(noisy, t)
        return torch.where((t == 0)[:, None, :, None, None], torch.nan, v)

    assert torch.isfinite(integrate(bounded, start(), path, solver)).all()
    assert torch.isfinite(integrate(bounded, start(), grid(4, 1.0)[:, None, None].expand(-1, 2, 4), solver)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arithmetic_keeps_the_dtype_of_the_latents(dtype):
    seen = []
    end = integrate(lambda noisy, t: seen.append(t.dtype) or field(noisy, t), start(dtype), times(torch.zeros(2, 4, dtype=torch.bool)), Heun())
    assert end.dtype == dtype
    assert set(seen) == {dtype}


def test_after_step_is_called_after_every_step():
    calls = []
    integrate(field, start(), times(torch.zeros(2, 4, dtype=torch.bool)), Euler(), lambda: calls.append(1))
    assert len(calls) == 6


def test_times_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="steps"):
        integrate(field, start(), grid(4, 1.0), Euler())


def test_a_walk_leaves_nothing_behind_in_its_solver():
    """The same bits before, after and in the middle of another walk."""
    solver, path = Multistep(), grid(6, 2.0)[:, None, None].expand(-1, 2, 4)
    alone = integrate(field, start(), path, solver)

    def interrupted(noisy, t):
        integrate(field, 5 * start(), path, solver)
        return field(noisy, t)

    assert torch.equal(integrate(interrupted, start(), path, solver), alone)
    assert torch.equal(integrate(field, start(), path, solver), alone)
    assert not torch.allclose(alone, integrate(field, start(), path, Euler()), atol=1e-3)


def test_multistep_begins_anew_frame_by_frame():
    """By hand, on a field that each frame feels alone: frame 1 starts two steps late, frame 2 rests in the middle, lengths differ."""
    path = torch.tensor([[1.0, 1.0, 0.9], [0.8, 1.0, 0.6], [0.5, 1.0, 0.6], [0.3, 0.4, 0.3], [0.0, 0.1, 0.2]], dtype=torch.float64)[:, None]

    def lonely(noisy, t):
        return torch.sin(2 * noisy) + t[:, None, :, None, None]

    given = start(torch.float64)[:1, :, :3]
    expected, before, last = given.clone(), torch.zeros_like(given), torch.zeros(3)
    for now, then in zip(path[:-1, 0], path[1:, 0], strict=True):
        slope = lonely(expected, now[None])
        for frame in range(3):
            length = (then - now)[frame]
            ahead = slope[:, :, frame]
            if last[frame] != 0:
                ahead = ahead + length / last[frame] / 2 * (ahead - before[:, :, frame])
            expected[:, :, frame] += length * ahead
        before, last = slope, then - now
    assert torch.allclose(integrate(lonely, given, path, Multistep()), expected, rtol=0, atol=1e-14)


def staggered(steps):
    """Frame 0 walks all the time, frame 1 in the second half, frame 2 in the first quarter and the last, frame 3 is given."""
    s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return torch.stack([1 - s, (2 - 2 * s).clamp(max=1), torch.maximum(1 - 2 * s, torch.minimum(2 - 2 * s, torch.full_like(s, 0.5))), 0 * s], dim=1)


def test_multistep_stays_of_second_order_where_frames_wait_for_each_other():
    given = start(torch.float64)[:1]
    path = staggered(1024)[:, None]
    exact = integrate(field, given, path, RK4())
    errors = [(integrate(field, given, staggered(steps)[:, None], Multistep()) - exact).square().mean().sqrt().item() for steps in (16, 32, 64, 128)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(slope >= 1.85 for slope in slopes), slopes


def end(solver, noise, samples=(0, 1)):
    path = grid(6, 2.0)[:, None, None].expand(-1, len(samples), 4)
    given = torch.stack([start()[sample % 2] for sample in samples])
    return solvers.integrate(lambda noisy, t: torch.tanh(noisy) + t[:, None, :, None, None], given, path, solver, noise=noise)


def test_an_sde_without_churn_is_euler_bit_for_bit_and_asks_for_no_noise():
    assert torch.equal(end(SDE(0.0), None), end(Euler(), None))
    with pytest.raises(ValueError, match="solver=euler"):
        end(SDE(0.5), None)


def test_solver_noise_is_of_seed_sample_frame_and_step_alone():
    def of(seed, samples, step, grid=(4, 2, 2), first=0):
        return solver_noise(Rng(seed), samples, 3, grid, first)(step)

    whole = of(7, [3, 5], 2)
    assert torch.equal(whole[1:], of(7, [5], 2))
    assert torch.equal(whole[:, :, 1:3], of(7, [3, 5], 2, (2, 2, 2), 1))
    assert torch.equal(of(7, [3], 2, (1, 2, 2), -1), of(7, [3], 2, (4, 2, 2), -1)[:, :, :1])
    others = [of(8, [3, 5], 2), of(7, [4, 6], 2), of(7, [3, 5], 3), of(7, [3, 5], 2, first=1)]
    others.append(torch.from_numpy(Rng(7).normal(Stream.SAMPLING, [3, 5], 4, (3, 2, 2))).transpose(1, 2))
    assert not any(torch.equal(whole[:, :, :1], other[:, :, :1]) for other in others)


def test_a_walk_with_noise_does_not_depend_on_the_batch():
    together = end(SDE(1.0), solver_noise(Rng(0), [0, 1], 3, (4, 2, 2)))
    assert torch.equal(together, end(SDE(1.0), solver_noise(Rng(0), [0, 1], 3, (4, 2, 2))))
    assert torch.equal(together[1:], end(SDE(1.0), solver_noise(Rng(0), [1], 3, (4, 2, 2)), [1]))
    assert not torch.allclose(together, end(SDE(1.0), solver_noise(Rng(1), [0, 1], 3, (4, 2, 2))), atol=0.1)


def test_the_last_step_of_an_sde_adds_no_noise_frame_by_frame():
    asked, path = [], grid(3, 1.0)[:, None, None].expand(-1, 2, 4).clone()
    path[2:, 0, 0] = 0  # done before the others

    def noise(step):
        asked.append(step)
        return torch.full((2, 3, 4, 2, 2), 100.0 if step == 1 else 0.0)

    moved = solvers.integrate(field, start(), path, SDE(1.0), noise=noise)
    assert asked == [0, 1]
    assert moved[0, :, 0].abs().max() < 10  # its last step is number 1
    assert moved[0, :, 1].abs().min() > 10


def test_towards_noise_an_sde_renews_nothing():
    path = grid(6, 2.0)[:, None, None].expand(-1, 2, 4).flip(0)
    assert torch.equal(integrate(field, start(), path, SDE(1.0)), integrate(field, start(), path, Euler()))


@pytest.mark.parametrize("churn", [-0.1, float("nan"), float("inf")])
def test_a_churn_that_is_no_strength_is_refused(churn):
    with pytest.raises(ValueError, match=r"Set solver\.churn"):
        SDE(churn)
