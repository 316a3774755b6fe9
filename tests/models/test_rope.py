"""Rotary positions: scores know differences of positions, axis by axis, and norms are kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from models.geometry import Layout, moments
from models.rope import Rope, default_axes, rotate_

HEAD = 32
ROPE = Rope(HEAD, (8, 12, 12), 100.0)
PAIRS = 200


def turn(x: Tensor, positions: Tensor) -> Tensor:
    return rotate_(x.clone(), torch.cat([ROPE.turns(positions[:, axis], axis) for axis in range(3)], dim=1))


def scores(q: Tensor, k: Tensor, at_q: Tensor, at_k: Tensor) -> Tensor:
    return (turn(q, at_q) * turn(k, at_k)).sum(-1)


def relative(a: Tensor, b: Tensor, q: Tensor, k: Tensor) -> float:
    return float(((a - b).abs() / (q.norm(dim=-1) * k.norm(dim=-1))).max())


@pytest.mark.parametrize(("shift", "dtype", "limit"), [(64, torch.float32, 5e-6), (1000, torch.float32, 1e-4), (1000, torch.float64, 1e-12)])
def test_scores_depend_on_differences_of_positions(shift, dtype, limit):
    random = torch.Generator().manual_seed(0)
    q, k = (torch.randn(PAIRS, HEAD, generator=random, dtype=dtype) for _ in range(2))
    at_q, at_k = (torch.randint(0, 30, (PAIRS, 3), generator=random).to(dtype) for _ in range(2))
    move = (torch.rand(PAIRS, 3, generator=random, dtype=dtype) * 2 - 1) * shift
    before, after = scores(q, k, at_q, at_k), scores(q, k, at_q + move, at_k + move)
    assert relative(before, after, q, k) <= limit
    assert relative(before, scores(q, k, at_q + move, at_k), q, k) > 1e-3, "moving the queries alone must change something"


def test_moving_along_one_axis_leaves_the_other_axes_scores():
    random = torch.Generator().manual_seed(0)
    for axis, (start, stop) in enumerate(((0, 8), (8, 20), (20, 32))):
        q, k = (torch.randn(PAIRS, HEAD, generator=random) for _ in range(2))
        q[:, start:stop] = 0  # what is left looks at the other two axes
        at_q, at_k = (torch.rand(PAIRS, 3, generator=random) * 20 for _ in range(2))
        moved = at_q.clone()
        moved[:, axis] += 7.3
        assert relative(scores(q, k, at_q, at_k), scores(q, k, moved, at_k), q, k) <= 5e-6


def test_rotation_keeps_norms():
    x = torch.randn(PAIRS, 2, 4, HEAD, generator=torch.Generator().manual_seed(0))
    positions = torch.rand(PAIRS, 3, generator=torch.Generator().manual_seed(1)) * 1000
    assert torch.allclose(turn(x, positions).norm(dim=-1), x.norm(dim=-1), rtol=1e-6)


def test_time_is_real_time_and_space_is_centred():
    layout = Layout.batch(1, (5, 3, 3), 4)
    table = ROPE.table(layout, moments(5, torch.tensor([24.0]), 4)).view(5, 3, 3, -1)
    assert torch.equal(table[:, 0, 0, :4], ROPE.turns(torch.arange(5.0), 0)), "24 fps at stride 4 stand at the integers"
    assert torch.allclose(table[0, 1, 1, 4:], torch.ones_like(table[0, 1, 1, 4:])), "the centre stands at 0"
    slow = ROPE.table(layout, moments(5, torch.tensor([8.0]), 4)).view(5, 3, 3, -1)
    assert torch.allclose(slow[1], table[3], atol=1e-6), "half a second is half a second at any frame rate"


def test_a_token_has_the_same_angles_in_any_company():
    grids = ((5, 4, 4), (3, 2, 6), (2, 4, 4))
    each = [moments(5, torch.tensor([8.0]), 4)[0], torch.tensor([0.5, -1.0, 0.5]), torch.tensor([40.0, 3.0])]
    together = ROPE.table(Layout(grids, (2, 2, 2)), torch.cat(each))
    alone = [ROPE.table(Layout((grid,), (2,)), seconds) for grid, seconds in zip(grids, each, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_a_picture_of_a_later_moment_is_turned_as_that_frame_of_a_longer_clip():
    longer = moments(9, torch.tensor([8.0]), 4)
    table = ROPE.table(Layout.batch(1, (9, 2, 3), 0), longer).unflatten(0, (9, -1))
    for later in (3, 5, 8):
        picked = torch.tensor([0, 1, 2, later])
        assert torch.equal(ROPE.table(Layout.batch(1, (4, 2, 3), 0), longer[:, picked]).unflatten(0, (4, -1)), table[picked])


@pytest.mark.parametrize("fps", [8, 12, 12.5, 16, 23.976, 24, 25, 29.97, 30, 48, 50, 60])
def test_seconds_lose_no_more_than_the_last_bit_of_a_position(fps):
    found, exact = moments(2000, torch.tensor([fps]), 4)[0] * 6, torch.arange(2000) * 24 / torch.tensor(fps)
    bit = torch.nextafter(exact, torch.tensor(torch.inf)) - exact
    assert ((found - exact).abs() <= bit).all()


def test_angles_are_float32_under_autocast():
    layout = Layout.batch(1, (300, 1, 1), 1)
    seconds = moments(300, torch.tensor([24.0]), 4)
    with torch.autocast("cpu", torch.bfloat16):
        table = ROPE.table(layout, seconds)
        x = rotate_(torch.ones(300, HEAD), table)
    assert x.dtype == torch.float32
    ROPE._tables.clear()
    assert torch.equal(table, ROPE.table(layout, seconds))
    assert len(torch.view_as_real(table[:, 0]).unique(dim=0)) == 300, "every moment has an angle of its own"


@pytest.mark.parametrize("axes", [(8, 8, 8), (9, 11, 12), (16, 16)])
def test_axes_that_do_not_fit_the_head_are_refused(axes):
    with pytest.raises(ValueError, match=r"rope_axes=.*head has 32 channels"):
        Rope(32, axes, 100.0)


def test_default_axes_sum_to_the_head():
    for width in (16, 32, 64, 128):
        assert sum(default_axes(width)) == width
        Rope(width, default_axes(width), 100.0)
    with pytest.raises(ValueError, match="24 channels"):
        default_axes(24)


def test_tables_are_shared_by_threads():
    rope, layouts = Rope(HEAD, (8, 12, 12), 100.0), [Layout.batch(1, (1, 1, size), 0) for size in range(1, 25)]
    seconds = torch.tensor([0.5])

    def walk(seed: int) -> None:
        for i in torch.randperm(len(layouts) * 10, generator=torch.Generator().manual_seed(seed)).tolist():
            layout = layouts[i % len(layouts)]
            assert len(rope.table(layout, seconds)) == sum(layout.tokens)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(walk, range(4)))
