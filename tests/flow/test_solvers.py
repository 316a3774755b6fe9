"""A frame whose flow time stands still keeps its bits, in every solver, whatever the field says there."""

import pytest
import torch

from flow.solvers import RK4, Euler, Heun, Midpoint, integrate
from flow.timesteps import grid

SOLVERS = [Euler(), Heun(), Midpoint(), RK4()]


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


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_walk_in_two_parts_is_the_whole_walk(solver):
    path = grid(6, 1.0)[:, None, None].expand(-1, 2, 4)
    halves = integrate(field, integrate(field, start(), path[:4], solver), path[3:], solver)
    assert torch.equal(halves, integrate(field, start(), path, solver))


@pytest.mark.parametrize(("solver", "evaluations"), list(zip(SOLVERS, [6, 11, 12, 24], strict=True)), ids=repr)
def test_evaluations_are_counted_and_no_more(solver, evaluations):
    seen = []
    integrate(lambda noisy, t: seen.append(t) or field(noisy, t), start(), times(torch.zeros(2, 4, dtype=torch.bool)), solver)
    assert len(seen) == evaluations


def test_heun_and_midpoint_never_ask_for_a_velocity_at_time_zero_of_a_frame_to_be_made():
    path = grid(4, 1.0)[:, None, None].expand(-1, 2, 4).clone()
    path[:, 0, 0] = torch.tensor([1.0, 0.4, 0.0, 0.0, 0.0], dtype=torch.float64)  # done before the others
    for solver in (Heun(), Midpoint()):

        def bounded(noisy, t):
            v = field(noisy, t)
            return torch.where((t == 0)[:, None, :, None, None], torch.nan, v)

        ends = integrate(bounded, start(), path, solver)
        assert torch.isfinite(ends[:, :, 0]).all()
    only_whole = integrate(bounded, start(), grid(4, 1.0)[:, None, None].expand(-1, 2, 4), Heun())
    assert torch.isfinite(only_whole).all()


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
