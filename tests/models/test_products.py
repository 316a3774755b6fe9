"""Products through oneDNN are the same float32 products; where it does not apply, torch's own are used bit for bit."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.products import LARGE, Linear, product, takes

ROWS, IN, OUT = 160, 96, 96  # just above LARGE


def layer(bias: bool = True) -> Linear:
    torch.manual_seed(0)
    made = Linear(IN, OUT, bias=bias)
    if bias:
        nn.init.normal_(made.bias)
    return made


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach()).norm() / b.detach().norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(ROWS,), (4, ROWS // 4)])
def test_large_products_and_their_gradients_agree_with_float64(shape, bias):
    made = layer(bias)
    x = torch.randn(*shape, IN, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert takes(x, made.weight)
    out = made(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    twin, ours = x.detach().double().requires_grad_(), [part.detach().double().requires_grad_() for part in made.parameters()]
    truth = F.linear(twin, *ours)
    (truth * weights).sum().backward()
    assert relative(out, truth) <= 1e-6
    for part, other in ((x, twin), *zip(made.parameters(), ours, strict=True)):
        assert part.grad is not None
        assert other.grad is not None
        assert relative(part.grad, other.grad) <= 1e-6


def test_gradients_of_any_strides_are_taken():
    made, x = layer(), torch.randn(ROWS, IN)
    made(x).sum().backward()  # the gradient of a sum is one number with strides of 0
    assert made.weight.grad is not None
    assert torch.allclose(made.weight.grad, x.sum(dim=0).expand(OUT, -1), rtol=1e-4, atol=1e-4)
    assert torch.allclose(product(x.t().contiguous().t(), made.weight), x @ made.weight.t(), atol=1e-5)


def test_what_needs_no_gradient_gets_none():
    made, x = layer(), torch.randn(ROWS, IN)
    made.requires_grad_(False)
    x.requires_grad_()
    made(x).square().sum().backward()
    assert x.grad is not None
    assert made.weight.grad is None


def test_only_large_float32_products_on_a_cpu_are_taken():
    weight = torch.randn(OUT, IN)
    assert takes(torch.randn(ROWS, IN), weight)
    assert not takes(torch.randn(LARGE // IN // OUT - 1, IN), weight)
    assert not takes(torch.randn(ROWS, IN, dtype=torch.float64), weight.double())
    assert not takes(torch.randn(ROWS, IN, dtype=torch.bfloat16), weight.bfloat16())
    assert not takes(torch.randn(ROWS, IN, device="meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes(torch.randn(ROWS, IN), weight)
        x = torch.randn(ROWS, IN)
        assert torch.equal(layer()(x), F.linear(x, layer().weight, layer().bias))
        assert layer()(x.bfloat16()).dtype == torch.bfloat16


def test_one_thread_equals_two_and_a_second_time():
    made, threads = layer(), torch.get_num_threads()
    x, results = torch.randn(700, IN), []
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            out = made(x)
            results.append((out, *torch.autograd.grad(out.square().sum(), list(made.parameters()))))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_torchs_counter_sees_them():
    made, x = layer(), torch.randn(ROWS, IN, requires_grad=True)
    counter = FlopCounterMode(display=False)
    with counter:
        made(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * ROWS * IN * OUT


def test_layers_of_another_precision_take_the_float32_stream():
    made = layer().to(torch.bfloat16)
    x = torch.randn(ROWS, IN)
    assert torch.equal(made(x), made(x.bfloat16())), "a network in bf16 keeps its residual stream in float32"


def test_a_single_row_without_a_batch_is_taken():
    torch.manual_seed(0)
    made = Linear(1024, 1024)
    x = torch.randn(1024)
    assert takes(x, made.weight)
    out = made(x)
    assert out.shape == (1024,)
    assert relative(out, F.linear(x.double(), *(part.detach().double() for part in made.parameters()))) <= 1e-6
