"""The small parts that every network here is made of; each keeps its input's token order and mixes no tokens."""

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.packing import Groups
from models.products import Linear

EPSILON = 1e-6  # of every layer norm


def linear(width_in: int, width_out: int, *, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    """A linear layer with Xavier-uniform weights times `gain` and zero biases; gain 0 makes a layer that starts silent."""
    layer = Linear(width_in, width_out, bias=bias)
    if gain == 0:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight, gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def linear_flops(part: nn.Module, rows: int) -> int:
    """Forward FLOP of the linear layers inside `part` for `rows` rows."""
    return 2 * rows * sum(layer.weight.numel() for layer in part.modules() if isinstance(layer, nn.Linear))


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, groups: Groups) -> Tensor:
    """Layer norm of tokens x (n d), then scale and shift by the row (g 1 d) of the group each token stands in."""
    if torch.compiler.is_compiling():
        normed = F.layer_norm(x, x.shape[-1:], eps=EPSILON).unflatten(0, (-1, groups.size))  # g s d
        return torch.addcmul(shift, normed, 1 + scale).flatten(0, 1)  # n d
    return _ModulatedNorm.apply(x, shift, 1 + scale, groups.size)


class _ModulatedNorm(torch.autograd.Function):
    """The norm's result is made again in the backward pass: that takes 3 % of a layer's time and spares as much memory as the stream holds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, factor: Tensor, size: int) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
        ctx.save_for_backward(x, mean, rstd, factor)
        normed = normed.unflatten(0, (-1, size))  # g s d
        return torch.addcmul(shift, normed, factor, out=normed).flatten(0, 1)  # n d

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, mean, rstd, factor = ctx.saved_tensors
        along = grad.unflatten(0, (len(factor), -1))  # g s d
        normed = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)[0].view_as(along)
        through = (along * factor).flatten(0, 1)
        back, _, _ = torch.ops.aten.native_layer_norm_backward(through, x, x.shape[-1:], mean, rstd, None, None, [True, False, False])
        return back, along.sum(dim=1, keepdim=True), normed.mul_(along).sum(dim=1, keepdim=True), None


def gated_sum(x: Tensor, gate: Tensor, update: Tensor, groups: Groups) -> Tensor:
    """x + gate * update for tokens (n d) and a gate per group (g 1 d), in the precision of `x`."""
    x, update = (part.unflatten(0, (-1, groups.size)) for part in (x, update.to(x.dtype)))  # g s d
    return torch.addcmul(x, gate, update).flatten(0, 1)  # n d


class Norm(nn.LayerNorm):
    """Layer norm with a learnt scale and shift, in the precision of its input."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPSILON)

    def forward(self, input: Tensor) -> Tensor:
        """n d -> n d."""
        return F.layer_norm(input, self.normalized_shape, self.weight.to(input.dtype), self.bias.to(input.dtype), self.eps)


class MLP(nn.Module):
    """Two linear layers with a GELU between them.

    The erf form: on a CPU in bf16 the tanh form takes 3.3 times as long forward and backward (5.6 against 1.7 ms for 3,328 x 512).

    Args:
        hidden: width between the layers.
        gain: of the second layer's initial weights; 0 makes a block that starts as the identity.
    """

    def __init__(self, width: int, hidden: int, gain: float = 1.0) -> None:
        super().__init__()
        self.up = linear(width, hidden)
        self.down = linear(hidden, width, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """... d -> ... d."""
        return self.down(F.gelu(self.up(x)))

    def flops(self, tokens: int) -> int:
        """Forward FLOP."""
        return 2 * tokens * (self.up.weight.numel() + self.down.weight.numel())


class GatedMLP(nn.Module):
    """A linear layer, half of which gates the other half through a SiLU, and a second one (Shazeer 2020, SwiGLU).

    Args:
        hidden: width between the layers, after gating.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = linear(width, 2 * hidden)
        self.down = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """... d -> ... d."""
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)

    def flops(self, tokens: int) -> int:
        """Forward FLOP."""
        return 2 * tokens * (self.up.weight.numel() + self.down.weight.numel())


class FeedForward(Protocol):
    """Which MLP the blocks have."""

    def build(self, width: int, hidden: int) -> MLP | GatedMLP:
        """The MLP that costs as much as one with `hidden` channels between two linear layers."""
        ...


class Gelu:
    """Two linear layers with a GELU between them."""

    def build(self, width: int, hidden: int) -> MLP:
        """The MLP."""
        return MLP(width, hidden)


class SwiGLU:
    """Three matrices instead of two, so two thirds of the hidden width at the same parameters and FLOP.

    Args:
        multiple: the hidden width is rounded to the nearest multiple of this, for kernels that like even sizes.
    """

    def __init__(self, multiple: int = 32) -> None:
        if multiple < 1:
            raise ValueError(f"multiple={multiple} is no size to round to: at least 1 is needed. Set mlp.multiple.")
        self.multiple = multiple

    def build(self, width: int, hidden: int) -> GatedMLP:
        """The MLP."""
        return GatedMLP(width, max(1, round(2 * hidden / 3 / self.multiple)) * self.multiple)


class TimeEmbedding(nn.Module):
    """Flow time as a vector: sines and cosines of 1000 t, then two linear layers.

    Args:
        width: of the result.
        waves: number of frequencies, spaced geometrically from 1 down to 1e-4 radians per unit of 1000 t.
    """

    def __init__(self, width: int, waves: int = 64) -> None:
        super().__init__()
        self.waves = waves
        self.layers = nn.Sequential(linear(2 * waves, width), nn.SiLU(), linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """(F,) in [0, 1] -> F d."""
        # float32: in bf16 neighbouring times of 1000 t collide
        frequencies = torch.exp(-math.log(1e4) * torch.arange(self.waves, device=t.device) / self.waves)
        angles = 1000 * t.float()[:, None] * frequencies  # F waves
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))

    def flops(self, rows: int) -> int:
        """Forward FLOP."""
        return linear_flops(self.layers, rows)
