"""Rope for longer and larger than trained: still relative, still axis by axis, and each law at its own frequencies."""

import math

import pytest
import torch
from torch import Tensor

from models.geometry import Layout, moments
from models.rope import Rope, rotate_
from models.rope_scaling import NTK, Interpolation, Plain, RopeScaling, YaRN, frequencies

HEAD, AXES, THETA, PAIRS = 64, (16, 24, 24), 10000.0, 200
FACTORS = (3.0, 2.0, 1.5)
SCALINGS: list[RopeScaling] = [Plain(), Interpolation(FACTORS), NTK(FACTORS), YaRN(FACTORS, (30, 64, 64), fast=8)]
NAMES = [type(scaling).__name__ for scaling in SCALINGS]
every_scaling = pytest.mark.parametrize("scaling", SCALINGS, ids=NAMES)


def turn(scaling: RopeScaling, x: Tensor, positions: Tensor) -> Tensor:
    rope = Rope(HEAD, AXES, THETA, scaling)
    return rotate_(x.clone(), torch.cat([rope.turns(positions[:, axis], axis) for axis in range(3)], dim=1))


def scores(scaling: RopeScaling, q: Tensor, k: Tensor, at_q: Tensor, at_k: Tensor) -> Tensor:
    return (turn(scaling, q, at_q) * turn(scaling, k, at_k)).sum(-1) / (q.norm(dim=-1) * k.norm(dim=-1))


def rates(scaling: RopeScaling, axis: int) -> Tensor:
    """Radians per position of each channel pair."""
    return scaling.angles(torch.ones(1, dtype=torch.float64), AXES[axis] // 2, THETA, axis)[0]


@every_scaling
@pytest.mark.parametrize(("shift", "dtype", "limit"), [(64, torch.float32, 5e-6), (1000, torch.float32, 1e-4), (1000, torch.float64, 1e-12)])
def test_scores_depend_on_differences_of_positions(scaling, shift, dtype, limit):
    random = torch.Generator().manual_seed(0)
    q, k = (torch.randn(PAIRS, HEAD, generator=random, dtype=dtype) for _ in range(2))
    at_q, at_k = (torch.randint(0, 30, (PAIRS, 3), generator=random).to(dtype) for _ in range(2))
    move = (torch.rand(PAIRS, 3, generator=random, dtype=dtype) * 2 - 1) * shift
    before = scores(scaling, q, k, at_q, at_k)
    assert (before - scores(scaling, q, k, at_q + move, at_k + move)).abs().max() <= limit
    assert (before - scores(scaling, q, k, at_q + move, at_k)).abs().max() > 1e-3, "moving the queries alone must change something"


@every_scaling
def test_axes_are_apart_and_norms_kept(scaling):
    random = torch.Generator().manual_seed(0)
    for axis, (start, stop) in enumerate(((0, 16), (16, 40), (40, 64))):
        q, k = (torch.randn(PAIRS, HEAD, generator=random) for _ in range(2))
        q[:, start:stop] = 0  # what is left looks at the other two axes
        at_q, at_k = (torch.rand(PAIRS, 3, generator=random) * 20 for _ in range(2))
        moved = at_q.clone()
        moved[:, axis] += 7.3
        assert (scores(scaling, q, k, at_q, at_k) - scores(scaling, q, k, moved, at_k)).abs().max() <= 5e-6
        assert torch.allclose(turn(scaling, k, at_k * 50).norm(dim=-1), k.norm(dim=-1), rtol=1e-6)


@pytest.mark.parametrize("make", [Interpolation, NTK, lambda factors: YaRN(factors, (30, 64, 64))], ids=NAMES[1:])
def test_an_axis_is_scaled_by_its_own_factor_and_factor_one_changes_nothing(make):
    scaling = make((4.0, 1.0, 2.0))
    changed = [not torch.equal(rates(scaling, axis), rates(Plain(), axis)) for axis in range(3)]
    assert changed == [True, False, True]


def test_interpolation_is_positions_divided_by_the_factor():
    positions = torch.arange(300.0)
    for axis, factor in enumerate(FACTORS):
        assert torch.equal(
            Interpolation(FACTORS).angles(positions, AXES[axis] // 2, THETA, axis), Plain().angles(positions / factor, AXES[axis] // 2, THETA, axis)
        )


def test_ntk_keeps_the_fastest_frequency_and_divides_the_slowest_by_the_factor():
    for axis, factor in enumerate(FACTORS):
        pairs = AXES[axis] // 2
        ours, plain = rates(NTK(FACTORS), axis), rates(Plain(), axis)
        assert ours[0] == plain[0]
        assert ours[-1].item() == pytest.approx(plain[-1].item() / factor, rel=1e-12)
        other_theta = THETA * factor ** (pairs / (pairs - 1))  # d / (d - 2) for d = 2 pairs
        assert torch.allclose(ours, frequencies(pairs, other_theta, ours), rtol=1e-12)


def test_yarn_keeps_fast_frequencies_divides_slow_ones_and_mixes_those_between():
    slow, fast, extent = 1.0, 8.0, 64
    yarn = YaRN(FACTORS, (extent, extent, extent), slow, fast)
    for axis, factor in enumerate(FACTORS):
        ours, plain = rates(yarn, axis), rates(Plain(), axis)
        turns = extent * plain / (2 * math.pi)
        assert torch.equal(ours[turns >= fast], plain[turns >= fast])
        assert torch.allclose(ours[turns <= slow], plain[turns <= slow] / factor, rtol=1e-12)
        between = (turns > slow) & (turns < fast)
        assert between.any()
        ramp = (turns - slow) / (fast - slow)
        assert torch.allclose(ours[between], ((1 - ramp) * plain / factor + ramp * plain)[between], rtol=1e-12)
        assert ((ours <= plain) & (ours >= plain / factor * (1 - 1e-12))).all()


def test_yarn_sharpens_scores_by_its_temperature_and_the_others_do_not():
    tokens = math.prod(FACTORS)
    assert YaRN(FACTORS, (1, 1, 1)).sharpness == pytest.approx((0.1 * math.log(tokens) + 1) ** 2)
    assert YaRN((1, 1, 1), (1, 1, 1)).sharpness == 1
    assert [scaling.sharpness for scaling in SCALINGS[:3]] == [1, 1, 1]


@every_scaling
def test_angles_are_float32_under_autocast(scaling):
    rope, layout = Rope(HEAD, AXES, THETA, scaling), Layout.batch(1, (200, 2, 2), 0)
    with torch.autocast("cpu", torch.bfloat16):
        table = rope.table(layout, moments(200, torch.tensor([24.0]), 4))
    assert table.dtype == torch.complex64
    assert torch.equal(table, Rope(HEAD, AXES, THETA, scaling).table(layout, moments(200, torch.tensor([24.0]), 4)))


def test_a_kept_table_is_made_anew_for_other_moments_and_other_scalings():
    rope, layout, seconds = Rope(HEAD, AXES, THETA), Layout.batch(2, (3, 2, 2), 0), moments(3, torch.tensor([24.0, 12.0]), 4)
    table = rope.table(layout, seconds)
    assert rope.table(layout, seconds) is table
    assert rope.table(layout, seconds.clone()) is table
    assert not torch.equal(rope.table(layout, seconds / 2), table)
    rope.table(layout, seconds)
    seconds *= 3  # in place: the same tensor holds other moments
    fresh = Rope(HEAD, AXES, THETA)
    assert torch.equal(rope.table(layout, seconds), fresh.table(layout, seconds))
    rope.scaling = NTK(FACTORS)
    assert not torch.equal(rope.table(layout, seconds), fresh.table(layout, seconds))
    for frames in range(20):
        rope.table(Layout.batch(2, (1 + frames, 2, 2), 0), torch.zeros(2, 1 + frames))
    assert len(rope._tables) <= 8, "tables of shapes that are over must go"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NTK((1, 2)), r"rope factors=\(1, 2\) are 2 numbers, wanted 3.*rope.factors"),
        (lambda: Interpolation((1, 0.5, 1)), r"factor 0\.5 of height.*between 1 and 1000.*rope.factors"),
        (lambda: NTK((float("nan"), 1, 1)), r"factor nan of time.*rope.factors"),
        (lambda: YaRN((1, 1, 1), (0, 1, 1)), r"rope trained=\(0, 1, 1\).*rope.trained"),
        (lambda: YaRN((1, 1, 1), (1, 1, 1), 4, 2), r"slow=4 and fast=2.*rope.slow and rope.fast"),
        (lambda: YaRN((1, 1, 1), (1, 1, 1), temperature=-1), r"temperature=-1.*rope.temperature"),
    ],
)
def test_scalings_that_cannot_be_meant_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
