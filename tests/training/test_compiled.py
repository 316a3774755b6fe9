"""Compiled blocks compute what they compute uncompiled, one graph for each shape of batch, under the same names."""

import pytest
import torch

from models.attention import Products
from models.dit import DiT
from models.kernels import Flex, Padded, Varlen, compiled
from models.mixing import Cross
from models.patterns import Causal, Tiled
from models.recompute import Everything, Selective
from models.text import Text
from training.compiled import compile_blocks, uncompiled
from training.ema import network_state

SHAPES = [(2, 4, 2, 4, 4), (1, 4, 3, 8, 4), (2, 4, 1, 6, 6)]


def built(**parts):
    torch.manual_seed(0)
    dit = DiT(4, 32, 2, 2, 8, **parts)
    with torch.no_grad():
        for p in dit.parameters():  # gates are zero at the start
            p.add_(0.05 * torch.randn_like(p))
    return dit


def learnt(dit, shape, bfloat16=False):
    """The velocity, then all gradients."""
    generator = torch.Generator().manual_seed(1)
    noisy, words, pooled, t = (torch.randn(size, generator=generator) for size in (shape, (shape[0], 3, 8), (shape[0], 8), shape[:3:2]))
    dit.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        out = dit(noisy, t.sigmoid(), Text(words, pooled), torch.arange(shape[2]).expand(shape[0], -1) / 2)
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in dit.parameters())]


def furthest(ours, theirs):
    """The largest difference of a tensor's gradient or of the velocity, relative to its norm; sizes next to 0 count against the largest."""
    largest = max(float(b.norm()) for b in theirs)
    return max(float((a - b).norm()) / max(float(b.norm()), 1e-4 * largest) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
def graphs():
    """Counts the graphs made since the test began."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def test_each_shape_has_one_graph_for_all_blocks_and_weights_keep_their_names(graphs):
    dit, eager = built(), built()
    wanted = [learnt(eager, shape) for shape in SHAPES]
    names = list(network_state({"dit": dit}))
    compile_blocks({"dit": dit}, backend="aot_eager")
    assert list(network_state({"dit": dit})) == names
    for number, shape in enumerate(SHAPES, start=1):
        assert furthest(learnt(dit, shape), wanted[number - 1]) < 1e-5
        assert graphs() == number
    for shape in SHAPES:
        learnt(dit, shape)
    assert graphs() == len(SHAPES)
    with uncompiled(), torch.no_grad():
        dit(torch.zeros(1, 4, 1, 2, 2), torch.zeros(1, 1), Text(torch.zeros(1, 3, 8), torch.zeros(1, 8)), torch.ones(1, 1))
    assert graphs() == len(SHAPES)
    dit.load_state_dict(eager.state_dict())


def test_a_network_without_blocks_and_a_block_that_cannot_be_seen_into_are_refused():
    with pytest.raises(ValueError, match=r"the Linear 'vae' lists no blocks\. Set trainer\.compile=none"):
        compile_blocks({"vae": torch.nn.Linear(1, 1)})
    dit = built(recompute=Selective())
    compile_blocks({"dit": dit}, backend="aot_eager")
    with pytest.raises(ValueError, match=r"Set objective/dit/recompute=keep or everything, or trainer\.compile=none"):
        learnt(dit, SHAPES[0])


@pytest.mark.slow
@pytest.mark.parametrize(("bfloat16", "most"), [(False, 1e-5), (True, 2e-2)])
def test_compiled_is_eager(graphs, bfloat16, most):
    """A few minutes: python -m pytest -m slow tests/training/test_compiled.py"""
    dit, eager = built(), built()
    compile_blocks({"dit": dit})
    for number, shape in enumerate(SHAPES, start=1):
        assert furthest(learnt(dit, shape, bfloat16), learnt(eager, shape, bfloat16)) < most
        assert graphs() == number


@pytest.mark.slow
def test_compiled_blocks_run_again_with_the_same_bits(graphs):
    kept, again = built(), built(recompute=Everything())
    compile_blocks({"dit": kept})
    compile_blocks({"dit": again})
    ours, theirs = learnt(again, SHAPES[0]), learnt(kept, SHAPES[0])
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _stand_in(q, k, v, queries, keys, *most, scale):
    """Of the shape of varlen_attn, for a CPU."""
    return q * scale + v[: len(q)].mean() + queries.sum() + keys.sum()


TILED, CROSS = {"pattern": Tiled((2, 2, 1))}, {"mixing": Cross(), "pattern": Causal(), "registers": 1}


@pytest.mark.parametrize(("kernel", "truth", "parts"), [(Varlen(), Varlen(), CROSS), (Flex(), Padded(), TILED)], ids=["varlen", "flex"])
def test_back_ends_that_read_tables_of_segments_run_in_compiled_blocks(graphs, kernel, truth, parts, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", _stand_in)
    dit, shape = built(kernel=kernel, **parts), SHAPES[1]
    theirs = velocity(built(kernel=truth, **parts), shape)
    compile_blocks({"dit": dit}, backend="eager")
    for _ in range(2):
        assert (velocity(dit, shape) - theirs).norm() <= 1e-2 * theirs.norm()
    assert graphs() <= 2, "more than one for blocks whose segments differ"


def velocity(dit, shape):
    random = torch.Generator().manual_seed(1)
    text = Text(torch.randn(shape[0], 3, 8, generator=random), torch.randn(shape[0], 8, generator=random))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return dit(
            torch.randn(shape, generator=random), torch.rand(shape[:3:2], generator=random), text, torch.arange(shape[2]).expand(shape[0], -1) / 2
        )


def test_what_must_be_compiled_is_after_any_number_of_shapes_and_where_blocks_are_not(graphs):
    runs = []

    def count(graph, inputs):
        def run(*args):
            runs.append(len(args[0]))
            return graph(*args)

        return run

    def twice(x):
        return x * 2

    fast = compiled(twice, count)
    for size in range(1, 13):  # torch gives up after 8
        assert torch.equal(fast(torch.ones(size)), torch.full((size,), 2.0))
    with uncompiled():
        fast(torch.ones(3))
        fast(torch.ones(13))
    assert runs == [*range(1, 13), 3, 13]


def test_blocks_get_indices_that_lie_where_their_tokens_do():
    """Else a compiled block moves them, and is compiled once more when it finds them moved."""
    dit, seen = built(pattern=Tiled((2, 2, 1)), mixing=Cross(), kernel=Products()).to("meta"), []
    for block in dit.trunk.blocks:
        block.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[1].segments))
    shape = SHAPES[1]
    text = Text(torch.zeros(shape[0], 3, 8, device="meta"), torch.zeros(shape[0], 8, device="meta"))
    dit(torch.zeros(shape, device="meta"), torch.zeros(shape[:3:2], device="meta"), text, torch.ones(shape[:3:2], device="meta"))
    assert len(seen) == 2
    assert all(segments.order.index.is_meta for segments in seen)
