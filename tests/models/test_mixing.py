"""Ways of mixing, modulation and MLPs against each other: where two of them must agree, they do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.attention import CrossAttention, SelfAttention
from models.blocks import Block, DoubleBlock, Setting, Stack, apart
from models.dit import DiT
from models.geometry import Layout, moments
from models.heads import PerHead
from models.kernels import Naive
from models.layers import GatedMLP, Gelu, SwiGLU
from models.mixing import Cross, Double, Hybrid, Joint, Pooled, Prefix, Sharper, groups_of, turned
from models.modulation import LowRank, PerBlock, Shared
from models.packing import interleave
from models.patterns import Causal, Full, Tiled
from models.recompute import Keep
from models.rope_scaling import NTK, YaRN
from models.segments import Segments
from models.text import Text

LAYOUT = Layout(((2, 2, 3), (1, 2, 2)), (4, 4))


TEXT = 4
STACK = Stack(32, 1, 2, 64, PerBlock(), Gelu(), Full(), Naive(), PerHead(), Keep(), 0)


def half() -> Hybrid:
    return Hybrid(0.5)


MIXINGS = (Joint, Prefix, Cross, Double, half, Pooled)


def network(depth: int = 2, mixing: Any = Joint, modulation: Any = PerBlock, width: int = 32, **parts: Any) -> DiT:
    """A tiny DiT with random numbers where training starts from zeros, so that everything matters."""
    torch.manual_seed(0)
    dit = DiT(4, width, depth, 2, 16, mixing=mixing(), modulation=modulation(), **parts)
    for weights in dit.parameters():
        if weights.ndim == 1 or weights.abs().max() == 0:
            nn.init.normal_(weights, std=0.2)
    return dit


def batch(samples: int = 2, size: tuple[int, int, int] = (3, 4, 6)) -> tuple[Tensor, Tensor, Text, Tensor]:
    random = torch.Generator().manual_seed(0)
    text = Text(torch.randn(samples, TEXT, 16, generator=random), torch.randn(samples, 16, generator=random))
    noisy, t = torch.randn(samples, 4, *size, generator=random), torch.rand(samples, size[0], generator=random)
    return noisy, t, text, moments(size[0], torch.linspace(8, 24, samples), 4)


def near(a: Tensor, b: Tensor, limit: float) -> bool:
    return bool((a - b).norm() <= limit * b.norm())


def wake(part: nn.Module) -> nn.Module:
    for weights in part.parameters():
        nn.init.normal_(weights, std=0.3)
    return part


def test_two_streams_with_the_same_weights_are_one_stream():
    """MM-DiT's definition: the streams share nothing but the softmax, so with equal weights it is a single stream."""
    torch.manual_seed(0)
    one, two = wake(Block(STACK)), DoubleBlock(STACK, last=False)
    for side in (two.video, two.text):
        side.load_state_dict(one.state_dict())
    video, text = torch.randn(sum(LAYOUT.tokens), 32), torch.randn(sum(LAYOUT.text), 32)
    conditions, angles = torch.randn(sum(LAYOUT.frames) + 2, 32), torch.rand(len(video), 8) * 6
    table = torch.polar(torch.ones_like(angles), angles)
    cpu, segments = torch.device("cpu"), Full().segments(LAYOUT, "tokens")
    joint = Setting(conditions, groups_of(LAYOUT, "joint", cpu), turned(table, LAYOUT), LAYOUT, segments)
    double = Setting(conditions, groups_of(LAYOUT, "video", cpu), table, LAYOUT, segments, still=groups_of(LAYOUT, "text", cpu))
    single = torch.cat(apart(one(interleave(video, text, LAYOUT), joint), LAYOUT))
    assert near(two(torch.cat([video, text]), double), single, 5e-6)
    last = DoubleBlock(STACK, last=True)
    last.video.load_state_dict(one.state_dict())
    # shift and scale before attention: all that is left of six parts
    last.text.modulation.load_state_dict({name: part[: 2 * 32] for name, part in one.modulation.state_dict().items()})
    last.text.qkv.load_state_dict(one.attention.qkv.state_dict())
    last.text.heads.load_state_dict(one.attention.heads.state_dict())
    assert near(last(torch.cat([video, text]), double)[: len(video)], single[: len(video)], 5e-6)


def test_no_double_blocks_are_joint_blocks():
    inputs = batch()
    ours, joint = network(mixing=lambda: Double(0)), network(mixing=Joint)
    assert ours.state_dict().keys() == joint.state_dict().keys()
    assert torch.equal(ours(*inputs), joint(*inputs))
    sizes = [sum(part.numel() for part in network(depth=4, mixing=lambda count=count: Double(count)).parameters()) for count in range(4)]
    assert sizes == sorted(set(sizes)), "a double block has more weights than a single one"


@pytest.mark.parametrize("mixing", MIXINGS)
def test_registers_are_looked_at_and_learn_and_none_are_no_weights(mixing):
    inputs = batch()
    assert not [name for name in network(mixing=mixing, registers=0).state_dict() if "registers" in name]
    dit = network(mixing=mixing, registers=3)
    assert dit.trunk.registers is not None
    assert dit.trunk.registers.shape == (3, 32)
    out = dit(*inputs)
    for sample in range(2):
        (gradient,) = torch.autograd.grad(out[sample].square().sum(), dit.trunk.registers, retain_graph=True)
        assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_causal_pattern_lets_no_later_frame_reach_an_earlier_one(mixing):
    dit, (noisy, t, text, seconds) = network(mixing=mixing, pattern=Causal(), registers=2), batch()
    noisy, t = noisy.requires_grad_(), t.requires_grad_()
    of_noisy, of_t = torch.autograd.grad(dit(noisy, t, text, seconds)[:, :, 1].square().sum(), (noisy, t))
    assert of_noisy[:, :, 2].abs().max() == 0
    assert of_t[:, 2].abs().max() == 0
    assert (of_noisy[:, :, :2].abs().amax(dim=(0, 1, 3, 4)) > 0).all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_blocks_take_turns_where_a_pattern_alternates(mixing):
    noisy, *others = batch(1, (3, 4, 4))
    noisy.requires_grad_()
    reach = []
    for depth in (1, 2):
        dit = network(depth=depth, mixing=mixing, pattern=Tiled((2, 1, 1)))
        (gradient,) = torch.autograd.grad(dit(noisy, *others)[0, :, 1, :2, :2].square().sum(), noisy)
        reach.append((gradient[0].abs().amax(dim=(0, 2, 3)) > 0).tolist())
    assert reach == [[True, True, False], [True, True, True]], "tiles of two frames, in the second block one frame later"


class Planning(Naive):
    """Takes no segments but those that it planned itself."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        assert segments.plan is self
        return super().__call__(q, k, v, segments)

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        return segments.planned(self)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_every_attention_gets_segments_that_its_own_back_end_planned(mixing):
    dit, across = network(mixing=mixing, pattern=Tiled((2, 2, 2))), Planning()
    for part in dit.trunk.modules():
        if isinstance(part, SelfAttention | CrossAttention):
            part.kernel = across if isinstance(part, CrossAttention) else Planning()  # one context serves the cross attentions of all blocks
    dit(*batch())


def test_low_rank_without_its_update_is_shared_modulation():
    inputs = batch()
    low, shared = network(modulation=lambda: LowRank(4)), network(modulation=Shared)
    weights = {name: part for name, part in low.state_dict().items() if "modulation.up" not in name and "modulation.down" not in name}
    weights = {name.replace("shared.layer", "shared"): part for name, part in weights.items()}
    for number, block in enumerate(low.trunk.blocks):
        nn.init.zeros_(block.modulation.up.weight)
        weights[f"trunk.blocks.{number}.modulation.row"] = block.modulation.up.bias
    shared.load_state_dict(weights)
    assert near(low(*inputs), shared(*inputs), 1e-6)


def test_swiglu_has_the_weights_and_flop_of_gelu_and_is_its_definition():
    for width in (384, 1152, 3072):
        with torch.device("meta"):
            gelu, swiglu = Gelu().build(width, 4 * width), SwiGLU().build(width, 4 * width)
        assert abs(sum(p.numel() for p in swiglu.parameters()) / sum(p.numel() for p in gelu.parameters()) - 1) < 0.01
        assert swiglu.flops(10) == pytest.approx(gelu.flops(10), rel=0.01)
    torch.manual_seed(0)
    mlp, x = GatedMLP(8, 12), torch.randn(5, 8)
    gate, value = (x @ mlp.up.weight.T).split(12, dim=1)
    assert torch.allclose(mlp(x), (gate * gate.sigmoid() * value) @ mlp.down.weight.T, atol=1e-6)


def test_rescaling_a_trained_network_is_building_it_that_way_and_can_be_undone():
    inputs, factors = batch(), (2.0, 1.5, 1.5)
    plain = network()
    before, weights = plain(*inputs), plain.state_dict()
    for rope in (NTK(factors), YaRN(factors, (8, 4, 4), fast=4)):
        built = network(rope=rope)
        plain.rescale(rope)
        assert plain.state_dict().keys() == weights.keys(), "scaling has no weights"
        assert torch.equal(plain(*inputs), built(*inputs))
        assert not near(before, plain(*inputs), 1e-3)
    plain.rescale(NTK((1, 1, 1)))
    assert torch.equal(plain(*inputs), before)
    assert not [part for part in plain.trunk.modules() if isinstance(getattr(part, "kernel", None), Sharper)]


def test_yarns_temperature_is_a_larger_gain_of_the_queries():
    inputs, factors, trained = batch(), (2.0, 1.5, 1.5), (8, 4, 4)
    warm, by_hand = network(rope=YaRN(factors, trained)), network(rope=YaRN(factors, trained, temperature=0))
    for block in by_hand.trunk.blocks:
        block.attention.heads.log_gain.data[0] += torch.tensor(YaRN(factors, trained).sharpness).log()
    assert near(warm(*inputs), by_hand(*inputs), 5e-6)


def test_modulation_has_a_row_per_frame_and_spreads_as_a_view():
    dit, (noisy, t, text, seconds) = network(mixing=Cross, registers=0), batch(2, (3, 8, 12))  # registers would have a row too
    rows = []
    for block in dit.trunk.blocks:
        block.modulation.register_forward_hook(lambda _, __, out: rows.append(out))
    dit(noisy, t, text, seconds)
    assert [tuple(part.shape) for part in rows] == [(2 * 3, 6 * 32)] * 2, "not a row per token"
    layout = Layout.batch(2, (3, 4, 6), TEXT)
    groups = groups_of(layout, "video", noisy.device)
    assert groups.index is None
    assert groups.spread(rows[0]) is rows[0]
    assert groups_of(layout, "video", noisy.device) is groups, "made once per layout"
    assert dit.trunk.pattern.segments(layout, "none") is dit.trunk.pattern.segments(layout, "none")


def test_a_network_in_bf16_keeps_its_stream_in_float32():
    dit, (noisy, t, text, seconds) = network(width=64, mixing=Cross), batch()
    truth = dit(noisy, t, text, seconds)
    seen = []
    for block in dit.trunk.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    out = dit.bfloat16()(noisy, t, Text(text.tokens, text.pooled), seconds)
    assert seen == [torch.float32] * 2
    assert out.dtype == torch.float32
    assert near(out, truth, 2e-2)


def test_words_are_left_out_of_a_pooled_network():
    assert DiT(4, 32, 1, 2, 16, mixing=Pooled()).text_in is None
    assert "text_in.weight" in network(mixing=Joint).state_dict()


@pytest.mark.parametrize("modulation", [PerBlock, Shared, lambda: LowRank(4)])
def test_every_row_of_a_double_blocks_modulation_is_used(modulation):
    dit = network(mixing=Double, modulation=modulation)
    noisy, t, text, seconds = batch()
    dit(noisy, t, text, seconds).square().sum().backward()
    for block in dit.trunk.blocks:
        assert isinstance(block, DoubleBlock)
        for name, part in [*block.video.modulation.named_parameters(), *block.text.modulation.named_parameters()]:
            assert part.grad is not None
            assert part.grad.flatten(1).abs().sum(1).min() > 0 if part.ndim > 1 else part.grad.abs().min() > 0, name
