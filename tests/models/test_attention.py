"""One attention over any segments, and what queries and keys go through before it."""

import pytest
import torch
from torch import Tensor

from models.attention import Context, CrossAttention, Fastest, Fused, Products, SelfAttention, attend, check_heads, check_kernel
from models.geometry import Layout
from models.heads import Heads, NoNorm, PerChannel, PerHead, QkNorm
from models.kernels import Cudnn, Flex, Kernel, Naive, Padded, Varlen
from models.patterns import Causal, Factorised, Full, Tiled
from models.segments import Segments
from models.strips import Strips

UNLIKE = Segments((5, 9, 1), (7, 9, 4))
ALIKE = Segments((6, 6, 6), (8, 8, 8))
BACK_ENDS = [Fused(), Products(), Fastest(), Strips(strip_bytes=64), Padded(), Naive()]
NORMS = [PerHead(), PerChannel(), NoNorm()]


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


def table(tokens: int, width: int) -> Tensor:
    angles = torch.rand(tokens, width // 2, generator=torch.Generator().manual_seed(2)) * 7
    return torch.polar(torch.ones_like(angles), angles)


def gradients(network: torch.nn.Module, loss: Tensor, *more: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*network.parameters(), *more]))


@pytest.mark.parametrize("segments", [UNLIKE, ALIKE], ids=["unlike", "alike"])
@pytest.mark.parametrize("kernel", BACK_ENDS, ids=lambda kernel: type(kernel).__name__)
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


@pytest.mark.parametrize("kernel", [Products(), Strips(), Fastest(short=4)], ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize("segments", [UNLIKE, ALIKE], ids=["unlike", "alike"])
def test_bf16_stays_near_float64(segments, kernel):
    parts = inputs(segments)
    parts = ((parts[0] / 4).detach().requires_grad_(), *parts[1:])  # scores as sharp as the norm of queries and keys allows
    twins = tuple(part.detach().double().requires_grad_() for part in parts)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*parts, segments, kernel)
    truth = naive(*twins, segments)
    assert (out - truth).norm() / truth.norm() <= 2e-2
    ours, theirs = torch.autograd.grad(out.float().square().sum(), parts), torch.autograd.grad(truth.square().sum(), twins)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() / b.norm() <= 2e-2


def test_fused_leaves_bf16_autocast_on_a_cpu():
    parts = inputs(ALIKE)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*parts, ALIKE, Fused())
    assert torch.equal(out, attend(*parts, ALIKE, Fused()))


def test_fastest_takes_products_and_strips_only_where_they_win():
    fastest = Fastest(short=8, long=16)
    keys = {size: torch.zeros(1, 1, size, 4) for size in (8, 9, 15, 16)}
    chosen = [type(fastest.choice(part, part)) for part in keys.values()]
    with torch.autocast("cpu", torch.bfloat16):
        chosen += [type(fastest.choice(part, part)) for part in keys.values()]
    assert chosen == [Fused, Fused, Fused, Strips, Products, Strips, Strips, Strips]


def test_strips_through_onednn_equal_one_product_over_all_rows():
    """Large enough for the products of models/products.py, with strips that do not divide the queries."""
    random = torch.Generator().manual_seed(0)
    parts = tuple(torch.randn(700, 1, 64, generator=random).requires_grad_() for _ in range(3))
    segments, weights = Segments((700,), (700,)), torch.randn(700, 1, 64, generator=random)
    results = []
    for kernel in (Strips(strip_bytes=300 * 700 * 4), Naive()):
        out = attend(parts[0] / 8, *parts[1:], segments, kernel)
        results.append([out, *torch.autograd.grad((out * weights).sum(), parts)])
    for ours, truth in zip(*results, strict=True):
        assert (ours - truth).norm() <= 1e-5 * truth.norm()


def test_no_attention_across_samples():
    parts = inputs(UNLIKE)
    out = attend(*parts, UNLIKE, Fused())
    found = torch.autograd.grad(out[: UNLIKE.queries[0]].sum(), parts)
    assert found[0][UNLIKE.queries[0] :].abs().max() == 0
    for gradient in found[1:]:
        assert gradient[UNLIKE.keys[0] :].abs().max() == 0


@pytest.mark.parametrize("kernel", [Padded(), Fastest(), Strips(64)], ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize("pattern", [Full(), Causal(), Tiled((2, 2, 3)).at(1), Factorised().at(1)], ids=str)
def test_packed_equals_padded_equals_alone_in_outputs_and_gradients(pattern, kernel):
    torch.manual_seed(0)
    attention, twin = (SelfAttention(64, 2, part, context=32) for part in (kernel, Fused()))
    twin.load_state_dict(attention.state_dict())
    layout = Layout(((3, 4, 5), (1, 2, 3), (2, 4, 5)), (3, 2, 3))
    x, text, weights = torch.randn(sum(layout.tokens), 64), torch.randn(sum(layout.text), 32), torch.randn(sum(layout.tokens), 64)
    turns = table(len(x), 32)
    packed = attention(x, pattern.segments(layout, "keys"), turns, Context(text, layout))
    alone = []
    for i, (tokens, words, angles) in enumerate(zip(x.split(layout.tokens), text.split(layout.text), turns.split(layout.tokens), strict=True)):
        own = Layout(layout.grids[i : i + 1], layout.text[i : i + 1])
        alone.append(twin(tokens, pattern.segments(own, "keys"), angles, Context(words, own)))
    apart = torch.cat(alone)
    assert (packed - apart).norm() <= 5e-6 * apart.norm()
    for a, b in zip(gradients(attention, (packed * weights).sum()), gradients(twin, (apart * weights).sum()), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


class Noisy(Padded):
    """Fills up with whatever `filling` says."""

    filling = 0.0

    def pad(self, parts: list[Tensor]) -> Tensor:
        most = max(len(part) for part in parts)
        return torch.stack([torch.cat([part, torch.full((most - len(part), *part.shape[1:]), self.filling)]) for part in parts])


def test_what_padding_holds_changes_no_bit():
    parts, kernel, results = inputs(UNLIKE), Noisy(), []
    for kernel.filling in (0.0, 1e3, -7.0):
        out = attend(*parts, UNLIKE, kernel)
        results.append([out, *torch.autograd.grad(out.square().sum(), parts)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert torch.equal(results[0][0], attend(*parts, UNLIKE, Padded()))


def test_heads_normalise_scale_and_turn_and_let_values_pass():
    heads = PerHead().heads(2, 8, (0.25, 1.0))
    x = torch.randn(5, 3, 2, 8, generator=torch.Generator().manual_seed(0)) * 30
    q, k, v = heads(x, None)
    assert torch.allclose(q.square().mean(-1).sqrt(), torch.full((5, 2), 0.25), rtol=1e-5)
    assert torch.allclose(k.square().mean(-1).sqrt(), torch.ones(5, 2), rtol=1e-5)
    assert torch.equal(v, x[:, 2])
    quarter = torch.full((5, 4), 1j, dtype=torch.complex64)
    for still, turned in zip((q, k), heads(x, quarter)[:2], strict=True):
        assert torch.equal(turned[..., 0::2], -still[..., 1::2])
        assert torch.equal(turned[..., 1::2], still[..., 0::2])


def definition(norm: QkNorm, heads: Heads, x: Tensor, turns: Tensor | None) -> list[Tensor]:
    """What `norm` says, in float64; differentiable in the parameters of `heads`."""
    y = x[:, :2]
    unit = y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    sizes = torch.tensor([0.25, 1.0], dtype=torch.float64)[:, None, None]
    if isinstance(norm, PerHead):
        y = unit * heads.get_parameter("log_gain").exp()[:, :, None]
    elif isinstance(norm, PerChannel):
        y = unit * sizes * heads.get_parameter("gain")[:, None]
    else:
        y = y * sizes
    if turns is not None:
        y = torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (-1, 2))) * turns[:, None, None]).flatten(-2)
    return [*y.unbind(1), x[:, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_heads_have_the_gradients_of_their_definition(norm, dtype, turned):
    random = torch.Generator().manual_seed(0)
    heads, twin = (norm.heads(2, 8, (0.25, 1.0)) for _ in range(2))
    for part in heads.parameters():
        torch.nn.init.normal_(part, generator=random)
    twin.load_state_dict(heads.state_dict())
    x = torch.randn(5, 3, 2, 8, generator=random).to(dtype).requires_grad_()
    exact, turns, weights = x.detach().double().requires_grad_(), table(5, 8).to(torch.complex128), torch.randn(3, 5, 2, 8, generator=random)
    out = heads(x, turns.to(torch.complex64) if turned else None)
    truth = definition(norm, twin.double(), exact, turns if turned else None)
    for ours, theirs in zip(out, truth, strict=True):
        assert torch.allclose(ours.double(), theirs, atol=1e-6)
    ours = gradients(heads, sum((part * weight).sum() for part, weight in zip(out, weights, strict=True)), x)
    theirs = gradients(twin, sum((part * weight).sum() for part, weight in zip(truth, weights, strict=True)), exact)
    limit = 1e-6 if dtype == torch.float32 else 4e-3  # a bf16 input gets a bf16 gradient
    assert (ours[-1] - theirs[-1]).norm() <= limit * theirs[-1].norm()
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_the_form_for_compilers_agrees_with_the_eager_one(norm, monkeypatch):
    heads = norm.heads(2, 8, (0.25, 1.0))
    x, turns, weights = torch.randn(5, 3, 2, 8).requires_grad_(), table(5, 8), torch.randn(3, 5, 2, 8)
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda answer=compiling: answer)
        out = torch.stack(heads(x, turns))
        results.append([out, *gradients(heads, (out * weights).sum(), x)])
    for eager, compiled in zip(*results, strict=True):
        assert (eager - compiled).norm() <= 1e-6 * eager.norm()


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [Causal(), Tiled((2, 2, 3)).at(1)], ids=str)
def test_compiled_attention_agrees_with_eager(pattern):
    torch.manual_seed(0)
    attention = SelfAttention(64, 2, Fastest(long=8))
    compiled = torch.compile(attention, fullgraph=True)
    for grid in ((3, 4, 5), (2, 3, 4)):
        layout = Layout.batch(2, grid, 0)
        x, segments = torch.randn(sum(layout.tokens), 64), pattern.segments(layout, "none")
        results = []
        for form in (attention, compiled):
            out = form(x, segments, table(len(x), 32))
            results.append([out, *gradients(attention, out.square().sum())])
        for eager, other in zip(*results, strict=True):
            assert (eager - other).norm() <= 1e-5 * eager.norm()


def test_a_context_joins_the_softmax_of_its_own_sample():
    torch.manual_seed(0)
    attention = SelfAttention(32, 2, Fused(), context=32)
    layout = Layout(((1, 2, 2), (1, 1, 3)), (2, 2))
    x, text = torch.randn(7, 32), torch.randn(4, 32)
    segments = Full().segments(layout, "keys")
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
    across = Segments(layout.tokens, layout.text)
    assert attention(x, Context(text, layout, across)).abs().max() == 0
    torch.nn.init.normal_(attention.out.weight)
    changed = torch.cat([text[:3], text[3:] + 1])
    out, other = (attention(x, Context(words, layout, across)) for words in (text, changed))
    assert torch.equal(out[:4], other[:4])
    assert (out[4:] - other[4:]).abs().max() > 1e-3
    with pytest.raises(AssertionError, match="a context with segments"):  # made here they would be another object each time, and have no plan
        attention(x, Context(text, layout))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"width=128 .*heads=3.*Set width or heads"):
        check_heads(128, 3)


@pytest.mark.parametrize(("kernel", "name"), [(Cudnn(), "cudnn"), (Varlen(), "varlen"), (Flex(), "flex")])
def test_a_back_end_that_cannot_run_is_refused_at_start_by_name(kernel, name):
    network = torch.nn.ModuleList([SelfAttention(32, 2, Fastest()), CrossAttention(32, 2, kernel, 16)])
    with pytest.raises(RuntimeError, match=rf"kernel={name} .*got cpu.*Set objective/dit/kernel=fastest\.$"):
        check_kernel(network, "cpu")
    with pytest.raises(RuntimeError, match=r"Set kernel=fastest\.$"):
        check_kernel(network, "cpu", key="kernel")


def test_back_ends_for_any_device_pass_the_check():
    for kernel in BACK_ENDS:
        check_kernel(SelfAttention(32, 2, kernel), "cpu")


@pytest.mark.parametrize("kernel", [Cudnn(), Varlen()], ids=lambda kernel: type(kernel).__name__)
def test_a_back_end_in_16_bits_refuses_float32_at_start_already(kernel, monkeypatch):
    precision = r"bfloat16 or float16, got torch.float32\. Set trainer\.precision=bfloat16 in training; .* needs another kernel\."
    with pytest.raises(RuntimeError, match=precision + "$"):
        attend(*inputs(ALIKE), ALIKE, kernel)
    monkeypatch.setattr("models.kernels._need_cuda", lambda *_: None)  # as on a GPU
    monkeypatch.setattr("models.kernels._try", lambda *_: None)
    check_kernel(SelfAttention(32, 2, kernel), "cuda", "bfloat16")
    with pytest.raises(RuntimeError, match=precision + r" Set objective/dit/kernel=fastest\.$"):
        check_kernel(SelfAttention(32, 2, kernel), "cuda", "float32")


@pytest.mark.parametrize(("kernel", "name"), [(Fused(), "fused"), (Fastest(), "fastest")])
def test_where_no_kernel_is_fused_the_one_that_was_chosen_says_so_and_nobody_is_sent_to_fastest(kernel, name, monkeypatch):
    monkeypatch.setattr("models.attention._fuses", lambda *_: False)  # as on a GPU
    with pytest.raises(ValueError, match=rf"^kernel={name} has no fused attention on cuda for heads of 18 .*Set heads") as refused:
        check_kernel(SelfAttention(36, 2, kernel), "cuda", "bfloat16")
    assert "=fastest" not in str(refused.value).removeprefix(f"kernel={name}")


def test_cudnn_raises_where_torch_would_take_another_kernel():
    parts = (part.detach().bfloat16() for part in inputs(ALIKE))
    with pytest.raises(RuntimeError, match=r"[Nn]o .*(backend|kernel)"):
        attend(*parts, ALIKE, Cudnn())


def on_gpu(kernel: Kernel) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients under bf16 autocast on a GPU, and their float64 truth, for a tiled pattern over unlike videos."""
    check_kernel(SelfAttention(128, 2, kernel), "cuda", "bfloat16")
    layout = Layout(((3, 8, 10), (1, 4, 6)), (9, 9))
    results = []
    for pattern in (Full(), Causal(), Tiled((2, 4, 4)).at(1)):
        segments, random = pattern.segments(layout, "keys"), torch.Generator().manual_seed(0)
        parts = [torch.randn(count, 2, 64, generator=random) for count in (sum(layout.tokens), sum(layout.joint), sum(layout.joint))]
        parts[0] = parts[0] / 8
        weights = torch.randn(parts[0].shape, generator=random)
        for device, back_end in (("cuda", kernel), ("cpu", Naive())):
            own = [part.to(device).requires_grad_() for part in parts]
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                out = attend(*own, segments, back_end)
            found = torch.autograd.grad((out.float() * weights.to(device)).sum(), own)
            results.append([part.detach().float().cpu() for part in (out, *found)])
    return [part for result in results[0::2] for part in result], [part for result in results[1::2] for part in result]


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", [Fused(), Cudnn(), Varlen(), Flex(), Padded()], ids=lambda kernel: type(kernel).__name__)
def test_back_ends_on_a_gpu_agree_with_naive_float64_in_bf16(kernel):
    for ours, truth in zip(*on_gpu(kernel), strict=True):
        assert (ours - truth).norm() <= 2e-2 * truth.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", [Fused(), Cudnn(), Varlen()], ids=lambda kernel: type(kernel).__name__)
def test_gradients_on_a_gpu_are_the_same_bits_again(kernel):
    """Keys that many tiles see get their gradients in one order."""
    layout = Layout.batch(2, (3, 8, 10), 9)
    segments, random = Tiled((2, 4, 4)).at(1).segments(layout, "keys"), torch.Generator().manual_seed(0)
    counts = (sum(layout.tokens), sum(layout.joint), sum(layout.joint))
    parts = [(torch.randn(count, 2, 64, generator=random) / 3).to("cuda", torch.bfloat16).requires_grad_() for count in counts]
    found = [torch.autograd.grad(attend(*parts, segments, kernel).float().square().sum(), parts) for _ in range(3)]
    for first, *others in zip(*found, strict=True):
        assert torch.isfinite(first).all()
        assert first.any()
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_float64_stays_float64_through_norm_rotation_and_strips(norm):
    random = torch.Generator().manual_seed(0)
    heads = norm.heads(2, 8, (0.25, 1.0)).double()
    x = torch.randn(9, 3, 2, 8, generator=random, dtype=torch.float64).requires_grad_()
    turns = table(9, 8).to(torch.complex128)
    turns = turns / turns.abs()
    ours, theirs = heads(x, turns), definition(norm, heads, x, turns)
    for part, truth in zip(ours, theirs, strict=True):
        assert part.dtype == torch.float64
        assert (part - truth).abs().max() <= 1e-12
    for part, truth in zip(*(gradients(heads, torch.stack(list(out)).sin().sum(), x) for out in (ours, theirs)), strict=True):
        assert (part - truth).norm() <= 1e-12 * truth.norm()
    segments = Segments((9,), (9,))
    parts = [part.detach().requires_grad_() for part in ours]
    results = [torch.autograd.grad(attend(*parts, segments, kernel).square().sum(), parts) for kernel in (Strips(64), Naive())]
    for part, truth in zip(*results, strict=True):
        assert (part - truth).norm() <= 1e-12 * truth.norm()
