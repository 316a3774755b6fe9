"""Patterns: what runs is what the definition allows, at any size and wherever the text stands."""

from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.attention import Fused, SelfAttention, attend
from models.geometry import Layout
from models.kernels import Flex, Kernel, Padded, Varlen
from models.mixing import _across
from models.patterns import Causal, Factorised, Full, Pattern, Tiled, Where
from models.segments import SHAPES, Rows, Segments

LAYOUTS = {
    "uniform": Layout.batch(2, (3, 4, 5), 3),
    "ragged": Layout(((3, 4, 5), (1, 2, 3), (5, 3, 2)), (3, 2, 4)),
    "wordless": Layout(((2, 3, 3), (4, 2, 2)), (0, 0)),
}
PATTERNS = [Full(), Causal(), Tiled((2, 2, 3)), Tiled((2, 2, 3)).at(1), Factorised(), Factorised().at(1)]
WHERE = get_args(Where)


def qkv(pattern: Pattern, layout: Layout, text: Where) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    queries, keys = pattern.allowed(layout, text).shape
    return [torch.randn(count, 2, 8, generator=random) for count in (queries, keys, keys)]


def dense(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Attention by its definition, with a mask."""
    scores = torch.einsum("n h d, m h d -> h n m", q, k).masked_fill(~allowed, -torch.inf)
    return torch.einsum("h n m, m h d -> n h d", scores.softmax(dim=-1), v)


@pytest.mark.parametrize("kernel", [Fused(), Padded()], ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize("text", WHERE)
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_segments_run_what_the_definition_allows_in_outputs_and_gradients(pattern: Pattern, name: str, text: Where, kernel: Kernel):
    layout = LAYOUTS[name]
    allowed, segments, parts = pattern.allowed(layout, text), pattern.segments(layout, text), qkv(pattern, layout, text)
    assert segments.pairs == allowed.sum()
    ours = [part.requires_grad_() for part in parts]
    theirs = [part.detach().double().requires_grad_() for part in parts]
    out, truth = attend(*ours, segments, kernel), dense(*theirs, allowed)
    assert (out - truth).abs().max() <= 1e-5
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(torch.autograd.grad((out * weights).sum(), ours), torch.autograd.grad((truth * weights).sum(), theirs), strict=True):
        assert (a - b).abs().max() <= 1e-5


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_masks_what_segments_leave_out():
    layout, pattern = LAYOUTS["ragged"], Causal()
    parts = qkv(pattern, layout, "tokens")
    out = attend(*parts, pattern.segments(layout, "tokens"), Flex())
    assert (out - dense(*(part.double() for part in parts), pattern.allowed(layout, "tokens"))).abs().max() <= 1e-5


def grids() -> some.SearchStrategy[tuple[int, int, int]]:
    return some.tuples(some.integers(1, 4), some.integers(1, 5), some.integers(1, 5))


@settings(max_examples=40)
@given(some.lists(some.tuples(grids(), some.integers(0, 3)), min_size=1, max_size=3), grids(), some.integers(0, 1))
def test_any_window_over_any_sizes_covers_each_pair_of_its_definition_once(samples, window, block):
    layout = Layout(tuple(grid for grid, _ in samples), tuple(words for _, words in samples))
    for pattern, text in product((Causal(), Tiled(window).at(block), Factorised().at(block)), WHERE):
        allowed, segments = pattern.allowed(layout, text), pattern.segments(layout, text)
        seen = torch.zeros(allowed.shape, dtype=torch.long)
        order = torch.arange(len(allowed)) if segments.order is None else segments.order.index
        gather = torch.arange(allowed.shape[1]) if segments.gather is None else segments.gather.index
        first = 0
        starts = [run.start + i * run.step for run in segments.runs for i in range(run.count)]
        for queries, keys, start in zip(segments.queries, segments.keys, starts, strict=True):
            seen[order[first : first + queries, None], gather[None, start : start + keys]] += 1
            first += queries
        assert torch.equal(seen, allowed.long())


@pytest.mark.parametrize("text", WHERE)
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_no_pattern_lets_one_sample_see_another(pattern: Pattern, name: str, text: Where):
    layout = LAYOUTS[name]
    q, k, v = (part.requires_grad_() for part in qkv(pattern, layout, text))
    out = attend(q, k, v, pattern.segments(layout, text), Fused())
    queries = layout.joint[0] if text == "tokens" else layout.tokens[0]
    keys = layout.tokens[0] if text == "none" else layout.joint[0]
    for part, own in zip(torch.autograd.grad(out[:queries].square().sum(), (q, k, v)), (queries, keys, keys), strict=True):
        assert part[own:].abs().max() == 0
        assert part[:own].abs().max() > 0
    assert part[:own].abs().sum(dim=(1, 2)).min() > 0, "every value of the sample is read"


@pytest.mark.parametrize("text", WHERE)
def test_causal_frames_have_no_gradient_from_later_ones(text: Where):
    layout = Layout.batch(2, (4, 2, 3), 2)
    q, k, v = (part.requires_grad_() for part in qkv(Causal(), layout, text))
    out = attend(q, k, v, Causal().segments(layout, text), Fused())
    sample = len(k) // 2
    for frame in range(4):
        for part in torch.autograd.grad(out[frame * 6 : (frame + 1) * 6].square().sum(), (k, v), retain_graph=True):
            assert part[(frame + 1) * 6 : 24].abs().sum() == 0
            assert part[: (frame + 1) * 6].abs().sum(dim=(1, 2)).min() > 0
            assert part[sample:].abs().sum() == 0
            assert text == "none" or part[24:sample].abs().sum(dim=(1, 2)).min() > 0
    if text == "tokens":  # else a later frame would reach an earlier one in the next block
        for part in torch.autograd.grad(out[24:26].square().sum(), (k, v)):
            assert part[:24].abs().sum() == 0


def test_tiles_shift_by_half_a_window_in_odd_blocks():
    layout, tiled = Layout.batch(1, (1, 1, 8), 0), Tiled((1, 1, 4))
    even, odd = tiled.at(2), tiled.at(3)
    assert even.segments(layout, "none").queries == (4, 4)
    assert sorted(odd.segments(layout, "none").queries) == [2, 2, 4]
    both = even.allowed(layout, "none") | odd.allowed(layout, "none")
    assert both[3, 4], "neighbours across the border of a tile meet in the next block"
    assert Tiled((1, 1, 8)).at(1).segments(layout, "none").queries == (8,), "a window that covers all has no border to shift"


def test_factorised_blocks_look_through_space_then_time():
    layout = Layout.batch(2, (3, 2, 2), 0)
    space, time = (Factorised().at(block).segments(layout, "none") for block in (0, 1))
    assert (space.queries, space.keys, space.starts) == ((4,) * 6, (4,) * 6, None)
    assert (time.queries, time.keys, time.starts) == ((3,) * 8, (3,) * 8, None)
    assert time.order is not None
    assert time.order.index[:6].tolist() == [0, 4, 8, 1, 5, 9], "a place through time, then the next place"
    assert Factorised().at(0).segments(layout, "none").order is None, "frames are consecutive: nothing to sort"


def test_full_segments_are_plain_and_equal_lengths_are_batches():
    layout = LAYOUTS["uniform"]
    for text in WHERE:
        segments = Full().segments(layout, text)
        assert segments.order is segments.gather is None
        assert len(segments.runs) == 1
    assert len(Causal().segments(layout, "keys").runs) == 3, "a frame of all samples is one batch"
    assert len(Tiled((2, 2, 2)).segments(layout, "keys").runs) == 3, "tiles of one size are one batch"


def test_segments_are_made_once_for_a_layout_and_moved_once_to_a_device():
    layout = LAYOUTS["ragged"]
    tiled = Tiled((2, 2, 3)).at(1)
    segments = tiled.segments(layout, "keys")
    assert Tiled((2, 2, 3)).at(3).segments(Layout(layout.grids, layout.text), "keys") is segments
    meta = segments.to(torch.device("meta"))
    assert meta is segments.to(torch.device("meta"))
    assert meta.order is not None
    assert meta.order.index.is_meta


def test_rows_that_are_picked_again_and_again_sum_their_gradients():
    index = torch.tensor([2, 0, 1, 2, 3, 2, 0])
    rows = Rows.of(index, 4)
    assert rows is not None
    x, weights = torch.randn(4, 2, 3, requires_grad=True), torch.randn(7, 2, 3)
    assert torch.equal(rows.take(x), x[index])
    ours, theirs = (torch.autograd.grad((part * weights).sum(), x)[0] for part in (rows.take(x), x[index]))
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("text", ["none", "tokens"])
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_flops_of_patterns_agree_with_the_counter(pattern: Pattern, name: str, text: Where):
    layout = LAYOUTS[name]
    attention, segments = SelfAttention(32, 2, Fused()), pattern.segments(layout, text)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        attention(torch.randn(sum(segments.queries), 32), segments, None)
    assert attention.flops(segments) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("window", [(0, 2, 2), (2, 2)])
def test_a_window_that_is_no_tile_is_refused(window):
    with pytest.raises(ValueError, match=r"window=.*of at least 1.*Set pattern.window"):
        Tiled(window)


@pytest.mark.parametrize("pattern", PATTERNS[1:], ids=str)
def test_indices_first_made_for_a_picture_or_under_another_default_device_serve_training(pattern: Pattern):
    grids = ((3, 4, 7), (2, 5, 3))  # of no other test: what is kept is made here
    for words, mode in enumerate((torch.inference_mode(), torch.device("meta")), start=11):
        layout = Layout(grids, (words, words))
        with mode:
            segments = Varlen().ready(pattern.segments(layout, "keys"), torch.device("cpu"))
            flex = Flex().ready(pattern.segments(layout, "keys"), torch.device("cpu"))
        kept = [part for rows in (segments.order, segments.gather) if rows is not None for part in (rows.index, rows.back)]
        for part in (*kept, *segments.plan, flex.plan.kv_num_blocks):
            assert not part.is_inference()
            assert part.device.type == "cpu"
        ours = [part.requires_grad_() for part in qkv(pattern, layout, "keys")]
        torch.autograd.grad(attend(*ours, segments, Fused()).sum(), ours)


def test_text_keys_of_more_places_than_memory_holds_are_refused_and_the_key_is_named():
    layout = Layout.batch(1, (2, 64, 64), 512)
    with pytest.raises(ValueError, match=r"2x64x64 tokens into 4096 tiles.*2097152 text keys, at most 524288.*height and width.*mixing=cross"):
        Factorised().at(1).segments(layout, "tokens")
    with pytest.raises(ValueError, match="2097152 text keys"):
        Tiled((2, 1, 1)).segments(layout, "keys")
    assert Factorised().at(0).segments(layout, "keys").pairs == 2 * 4096 * (4096 + 512)
    assert len(Factorised().at(1).segments(layout, "none").queries) == 4096
    many = Layout.batch(9, (1, 8, 8), 1000)  # 576,000 of all videos together: how many there are is up to the batch
    assert len(Factorised().at(1).segments(many, "keys").queries) == 9 * 64


def test_whatever_sixteen_shapes_need_is_kept():
    device, pattern = torch.device("cpu"), Tiled((2, 2, 2))

    def plans(words: int) -> list[Segments]:
        layout = Layout.batch(2, (3, 4, 5), words)
        own = [pattern.at(block).segments(layout, "none") for block in (0, 1)]
        return [Varlen().ready(segments, device) for segments in (*own, _across(layout))]

    shapes = range(20, 20 + SHAPES)  # words of no other test
    first = [part for words in shapes for part in plans(words)]
    again = [part for words in shapes for part in plans(words)]
    assert len(first) == 3 * 16
    assert all(one is other for one, other in zip(first, again, strict=True))
