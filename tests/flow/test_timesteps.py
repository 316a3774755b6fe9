"""Flow times follow their laws, and training and sampling bend them by one shift with fixed ends."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.timesteps import LogitNormal, Mode, PerFrame, Uniform, grid, shift
from runtime.seeding import Rng

DRAWS = 4000


def kolmogorov_smirnov_p(draws: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """The p value of the largest gap between the empirical and the given distribution function (Kolmogorov's series, Stephens' n)."""
    u, n = cdf(np.sort(draws)), len(draws)
    gap = max((np.arange(1, n + 1) / n - u).max(), (u - np.arange(n) / n).max())
    x = gap * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101)))) if x > 0.2 else 1.0


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])


def logit(t: np.ndarray) -> np.ndarray:
    return np.log(t) - np.log1p(-t)


def mode_cdf(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """From SD3's own formula, t = 1 - u - s (cos^2(pi u / 2) - 1 + u), which falls in u: P(t < x) = P(u > f^-1(x))."""
    u = np.linspace(0, 1, 100_001)
    t = 1 - u - scale * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)
    return lambda x: np.interp(x, t[::-1], 1 - u[::-1])


LAWS = [
    (Uniform(), lambda x: x),
    (LogitNormal(0.0, 1.0), lambda x: normal_cdf(logit(x))),
    (LogitNormal(0.5, 0.6), lambda x: normal_cdf((logit(x) - 0.5) / 0.6)),
    (Mode(1.29), mode_cdf(1.29)),
    (Mode(-0.8), mode_cdf(-0.8)),
]


@pytest.mark.parametrize(("law", "cdf"), LAWS, ids=lambda v: repr(v) if not callable(v) else "")
def test_draws_follow_their_law(law, cdf):
    t = law.draw(Rng(3), range(DRAWS), 2)[:, 0].double().numpy()
    assert kolmogorov_smirnov_p(t, cdf) > 1e-3
    # The test has power: the same draws are refused by a law that is off by a fifth.
    assert kolmogorov_smirnov_p(np.clip(t, 1e-9, 1 - 1e-9) ** 1.2, cdf) < 1e-3


@pytest.mark.parametrize("a", [0.5, 3.0])
def test_shifted_logit_normal_is_logit_normal_moved_by_the_logarithm_of_the_shift(a):
    t = shift(LogitNormal(0.0, 1.0).draw(Rng(4), range(DRAWS), 1), a)[:, 0].double().numpy()
    assert kolmogorov_smirnov_p(t, lambda x: normal_cdf(logit(x) - math.log(a))) > 1e-3


@settings(max_examples=200, deadline=None)
@given(a=st.floats(1e-3, 1e3), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_shift_keeps_both_ends_exactly_and_the_order(a, dtype):
    t = torch.linspace(0, 1, 101, dtype=torch.float64).to(dtype)
    moved = shift(t, a)
    assert moved[0] == 0
    assert moved[-1] == 1
    assert (moved.diff() >= 0).all()
    assert ((moved >= t) if a >= 1 else (moved <= t)).all()
    assert moved.dtype == dtype


def test_shift_is_the_fraction_of_the_conventions():
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    for a in (0.3, 1.0, 3.0, 12.0):
        assert torch.allclose(shift(t, a), a * t / (1 + (a - 1) * t), rtol=1e-14, atol=0)


def test_a_shift_of_one_changes_no_bit():
    for dtype in (torch.float32, torch.float64):
        t = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
        assert torch.equal(shift(t, 1.0), t)


def test_two_shifts_are_one_by_their_product():
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    assert torch.allclose(shift(shift(t, 2.0), 3.0), shift(t, 6.0), rtol=1e-14)


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 200), a=st.floats(0.1, 50))
def test_grid_falls_from_exactly_one_to_exactly_zero(steps, a):
    times = grid(steps, a)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def test_the_grid_is_bent_by_the_training_shift():
    assert torch.equal(grid(10, 3.0), shift(grid(10, 1.0), 3.0))


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(1, 60), a=st.floats(0.1, 50), start=st.floats(1e-3, 1, exclude_max=True))
def test_a_walk_that_begins_later_is_spread_evenly_over_the_rest_of_the_shifted_time(steps, a, start):
    times = grid(steps, a, start)
    assert times[0] == start
    assert times[-1] == 0
    assert (times.diff() < 0).all()
    even = shift(times, 1 / a)  # the shift undone
    assert torch.allclose(even, even[0] * torch.linspace(1, 0, steps + 1, dtype=torch.float64), rtol=1e-9, atol=1e-15)


def test_a_walk_that_begins_at_a_time_of_the_whole_grid_is_the_rest_of_it():
    whole = grid(20, 3.0)
    assert torch.allclose(grid(12, 3.0, whole[8].item()), whole[8:], rtol=1e-12)
    assert torch.equal(grid(20, 3.0, 1.0), whole)
    assert not grid(5, 3.0, 0.0).any()


@pytest.mark.parametrize("law", [law for law, _ in LAWS], ids=repr)
def test_all_frames_of_a_sample_share_one_level(law):
    t = law.draw(Rng(0), range(50), 5)
    assert t.shape == (50, 5)
    assert t.dtype == torch.float32
    assert (t == t[:, :1]).all()
    assert t[:, 0].unique().numel() == 50


def test_per_frame_levels_are_independent_and_each_follows_the_law():
    t = PerFrame(LogitNormal(0.0, 1.0)).draw(Rng(0), range(DRAWS // 2), 2)
    assert kolmogorov_smirnov_p(t.flatten().double().numpy(), lambda x: normal_cdf(logit(x))) > 1e-3
    assert abs(torch.corrcoef(t.T)[0, 1]) < 4 / math.sqrt(DRAWS // 2)


def test_a_draw_depends_on_the_sample_alone():
    for law in (LogitNormal(0.0, 1.0), PerFrame(Uniform())):
        whole = law.draw(Rng(7), [3, 4, 5], 4)
        assert torch.equal(law.draw(Rng(7), [5], 4), whole[2:])
        assert torch.equal(law.draw(Rng(7), [4], 2), whole[1:2, :2])  # a shorter clip draws the beginning
        assert not torch.equal(law.draw(Rng(8), [5], 4), whole[2:])


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: shift(torch.ones(1), 0.0), "shift=0.0.*Set shift"),
        (lambda: shift(torch.ones(1), -2.0), "Set shift"),
        (lambda: shift(torch.ones(1), math.nan), "Set shift"),
        (lambda: grid(0, 1.0), "steps=0.*Set steps"),
        (lambda: grid(5, 1.0, 1.1), "start=1.1 is no flow time"),
        (lambda: grid(5, 1.0, math.nan), "start=nan is no flow time"),
        (lambda: LogitNormal(0.0, 0.0), r"Set timesteps\.mean, timesteps\.std"),
        (lambda: Mode(2.0), "Set timesteps.scale"),
    ],
)
def test_impossible_laws_are_refused_by_name(make, names):
    with pytest.raises(ValueError, match=names):
        make()
