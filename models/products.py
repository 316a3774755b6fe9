"""Matrix products in float32 on a CPU, by the faster of the two libraries that torch carries; elsewhere torch's own, bit for bit."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import flop_registry, register_flop_formula

# multiply-adds from which a product is worth the detour; below it the call itself costs more than is won
LARGE = 2**20

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
if _ONEDNN and torch.ops.mkldnn._linear_pointwise not in flop_registry:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flop(x: Any, weight: Any, *_: Any, **__: Any) -> int:
        """Of shapes (..., i) and (o, i), so that torch's counter sees these products too."""
        return 2 * int(torch.Size(x).numel()) * weight[0]


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` goes to oneDNN: float32 on a CPU, neither autocast nor compiled, and large.

    torch sends float32 products to MKL, which keeps to 256-bit vectors on processors that are not Intel's; oneDNN does not. On a core with
    512-bit units (Zen 5) that is 104 against 220 GFLOP/s for 1,280 x 384 by 384 x 1,536, at the same float32 accuracy.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    return _ONEDNN and x.numel() * weight.shape[0] >= LARGE and not torch.is_autocast_enabled("cpu")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (n i) by weight (o i): x @ weight.T + bias, n o, through oneDNN; strides as they come, no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Affine(torch.autograd.Function):
    """`product` with its gradients, which are products too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()  # the gradient of a sum comes with strides of 0
        wanted = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if wanted[0] else None,
            product(grad.t(), x.t()) if wanted[1] else None,
            grad.sum(dim=0) if ctx.biased and wanted[2] else None,
        )


class Linear(nn.Linear):
    """torch's linear layer, in the precision of its weights; large float32 products on a CPU go through oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        """... i -> ... o."""
        if not takes(input, self.weight):
            if input.dtype != self.weight.dtype and not torch.is_autocast_enabled(input.device.type):
                input = input.to(self.weight.dtype)  # the stream of a network in bf16 is float32
            return F.linear(input, self.weight, self.bias)
        return _Affine.apply(input.reshape(-1, self.in_features), self.weight, self.bias).reshape(*input.shape[:-1], -1)
