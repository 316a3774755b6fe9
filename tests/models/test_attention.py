"""One attention, several backends, one result."""

import pytest
import torch
from torch import Tensor

from models.attention import Context, CrossAttention, Fastest, Fused, Heads, Products, Segments, SelfAttention, attend, check_heads
from models.geometry import Layout

UNLIKE = Segments((5, 9, 1), (7, 9, 4))
ALIKE = Segments((6, 6, 6), (8, 8, 8))


def naive(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """Token by token in float64."""
    out, first_q, first_k = [], 0, 0
    for queries, keys in zip(segments.queries, segments.keys, strict=True):
        for i in range(first_q, first_q + queries):
            weights = torch.stack([(q[i] * k[j]).sum(-1) for j in range(first_k, first_k + keys)]).softmax(0)  # keys h
            out.append((weights[:, :, None] * v[first_k : first_k + keys]).sum(0))
        first_q, first_k = first_q + queries, first_k + keys
    return torch.stack(out)


def inputs(segments: Segments) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    counts = (sum(segments.queries), sum(segments.keys), sum(segments.keys))
    return tuple(torch.randn(count, 2, 16, generator=random).requires_grad_() for count in counts)


@pytest.mark.parametrize("segments", [UNLIKE, ALIKE])
@pytest.mark.parametrize("kernel", [Fused(), Products()])
def test_backends_agree_with_naive_float64_and_so_do_their_gradients(segments, kernel):
    parts = inputs(segments)
    out = attend(*parts, segments, kernel)
    twins = tuple(part.detach().double().requires_grad_() for part in parts)
    truth = naive(*twins, segments)
    assert (out - truth).abs().max() <= 1e-5
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weights).sum().backward()
    (truth * weights).sum().backward()
    for part, twin in zip(parts, twins, strict=True):
        assert part.grad is not None
        assert twin.grad is not None
        assert (part.grad - twin.grad).abs().max() <= 1e-5


def test_products_in_bf16_stay_near_float64():
    parts = inputs(ALIKE)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*parts, ALIKE, Products())
    truth = naive(*(part.double() for part in parts), ALIKE)
    assert (out - truth).norm() / truth.norm() <= 2e-2


def test_fused_leaves_bf16_autocast_on_a_cpu():
    parts = inputs(ALIKE)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*parts, ALIKE, Fused())
    assert torch.equal(out, attend(*parts, ALIKE, Fused()))


def test_fastest_takes_products_only_where_they_win():
    chosen = []
    fastest = Fastest(short=8)
    fastest.fused, fastest.products = (lambda q, k, v, name=name: (chosen.append(name), v)[1] for name in ("fused", "products"))
    short, long = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 9, 4)
    fastest(short, short, short)
    with torch.autocast("cpu", torch.bfloat16):
        fastest(short, short, short)
        fastest(long, long, long)
    assert chosen == ["fused", "products", "fused"]


def test_no_attention_across_samples():
    parts = inputs(UNLIKE)
    out = attend(*parts, UNLIKE, Fused())
    gradients = torch.autograd.grad(out[: UNLIKE.queries[0]].sum(), parts)
    assert gradients[0][UNLIKE.queries[0] :].abs().max() == 0
    for gradient in gradients[1:]:
        assert gradient[UNLIKE.keys[0] :].abs().max() == 0


def test_heads_normalise_scale_and_turn():
    heads = Heads(2, 0.25, 1.0)
    x = torch.randn(5, 2, 2, 8, generator=torch.Generator().manual_seed(0)) * 30
    sizes = heads(x, None).square().mean(-1).sqrt()
    assert torch.allclose(sizes[:, 0], torch.full((5, 2), 0.25), rtol=1e-5)
    assert torch.allclose(sizes[:, 1], torch.ones(5, 2), rtol=1e-5)
    quarter = torch.full((5, 4), 1j, dtype=torch.complex64)
    still, turned = heads(x, None), heads(x, quarter)
    assert torch.equal(turned[..., 0::2], -still[..., 1::2])
    assert torch.equal(turned[..., 1::2], still[..., 0::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", [False, True])
def test_heads_have_the_gradients_of_their_definition(dtype, turned):
    random = torch.Generator().manual_seed(0)
    heads = Heads(2, 0.25, 1.0)
    torch.nn.init.normal_(heads.log_gain, generator=random)
    x = torch.randn(5, 2, 2, 8, generator=random).to(dtype).requires_grad_()
    weights = torch.randn(5, 2, 2, 8, generator=random)
    angles = torch.rand(5, 4, generator=random, dtype=torch.float64) * 7
    table = torch.polar(torch.ones_like(angles), angles)
    out = heads(x, table.to(torch.complex64) if turned else None)
    (out * weights).sum().backward()
    twin, log_gain = x.detach().double().requires_grad_(), heads.log_gain.detach().double().requires_grad_()
    truth = twin * (twin.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * log_gain.exp()[:, :, None]
    if turned:
        truth = torch.view_as_real(torch.view_as_complex(truth.unflatten(-1, (-1, 2))) * table[:, None, None]).flatten(-2)
    (truth * weights).sum().backward()
    assert x.grad is not None
    assert twin.grad is not None
    assert log_gain.grad is not None
    assert heads.log_gain.grad is not None
    assert torch.allclose(out.double(), truth, atol=1e-6)
    limit = 1e-6 if dtype == torch.float32 else 4e-3  # a bf16 input gets a bf16 gradient
    assert (x.grad - twin.grad).norm() <= limit * twin.grad.norm()
    assert torch.allclose(heads.log_gain.grad.double(), log_gain.grad, rtol=1e-5, atol=1e-5)


def test_a_context_joins_the_softmax_of_its_own_sample():
    torch.manual_seed(0)
    attention = SelfAttention(32, 2, Fused(), context=32)
    layout = Layout(((1, 2, 2), (1, 1, 3)), (2, 2))
    x, text = torch.randn(7, 32), torch.randn(4, 32)
    segments = Segments(layout.tokens, layout.tokens)
    out = attention(x, segments, None, Context(text, layout))
    changed = text.clone()
    changed[2:] += 1
    other = attention(x, segments, None, Context(changed, layout))
    assert torch.equal(out[:4], other[:4])
    assert (out[4:] - other[4:]).abs().max() > 1e-3


def test_cross_attention_starts_silent_and_reads_its_own_text():
    torch.manual_seed(0)
    attention = CrossAttention(32, 2, Fused(), 16)
    layout = Layout.batch(2, (1, 2, 2), 3)
    x, text = torch.randn(8, 32), torch.randn(6, 16)
    assert attention(x, Context(text, layout)).abs().max() == 0
    torch.nn.init.normal_(attention.out.weight)
    changed = torch.cat([text[:3], text[3:] + 1])
    out, other = (attention(x, Context(words, layout)) for words in (text, changed))
    assert torch.equal(out[:4], other[:4])
    assert (out[4:] - other[4:]).abs().max() > 1e-3


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"width=128 .*heads=3.*Set width or heads"):
        check_heads(128, 3)
