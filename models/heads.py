"""Queries and keys on their way into attention: normalised, scaled and turned in float32, so that positions and scores keep their digits."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.rope import rotate_


def turn(x: Tensor, table: Tensor | None) -> Tensor:
    """Turn the channel pairs of x (n r h d) by a table of unit complex numbers (n d/2), real-valued: compilers generate no complex products."""
    if table is None:
        return x
    cos, sin = torch.view_as_real(table)[:, None, None].unbind(-1)  # n 1 1 d/2
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rms(x: Tensor) -> Tensor:
    """1 / rms over channels (... d) -> ... 1."""
    return (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 where that comes in."""
    return torch.promote_types(dtype, torch.float32)


class Heads(nn.Module):
    """Makes packed roles ready for attention.

    Args:
        sizes: of the first roles, at the start: head width ** -0.5 for queries, which the back ends expect scaled, and 1 for keys. Roles
            beyond, the values, pass as they are.
    """

    def __init__(self, heads: int, head_width: int, sizes: Sequence[float]) -> None:
        super().__init__()
        self.head_width, self.sizes = head_width, tuple(sizes)

    def forward(self, packed: Tensor, table: Tensor | None) -> tuple[Tensor, ...]:
        """Packed (n roles h d), table (n d/2) -> n h d for each role."""
        roles = len(self.sizes)
        ready = turn(self.scaled(packed[:, :roles].to(wide(packed.dtype))), table)
        return *ready.unbind(1), *packed[:, roles:].unbind(1)

    def scaled(self, x: Tensor) -> Tensor:
        """Float32 (or float64) x (n r h d) -> n r h d."""
        # numbers: a tensor of them would be copied to the device in every block, which waits for it
        return torch.stack([role * size for role, size in zip(x.unbind(1), self.sizes, strict=True)], dim=1)


class HeadsPerHead(Heads):
    """RMS norm per head with a learnt gain per head; its logarithm is learnt, so that it stays positive."""

    def __init__(self, heads: int, head_width: int, sizes: Sequence[float]) -> None:
        super().__init__(heads, head_width, sizes)
        self.log_gain = nn.Parameter(torch.tensor(self.sizes).log()[:, None].repeat(1, heads))  # r h

    def forward(self, packed: Tensor, table: Tensor | None) -> tuple[Tensor, ...]:
        """As in `Heads`; outside a compiler in place and with its own backward."""
        if torch.compiler.is_compiling():
            return super().forward(packed, table)
        return _NormTurn.apply(packed, self.log_gain.to(wide(packed.dtype)).exp(), table)

    def scaled(self, x: Tensor) -> Tensor:
        """As in `Heads`."""
        return x * (rms(x) * self.log_gain.to(x.dtype).exp()[:, :, None])


class HeadsPerChannel(Heads):
    """RMS norm per head with a learnt gain per channel, the same for all heads (Qwen, HunyuanVideo)."""

    def __init__(self, heads: int, head_width: int, sizes: Sequence[float]) -> None:
        super().__init__(heads, head_width, sizes)
        self.gain = nn.Parameter(torch.ones(len(self.sizes), head_width))  # r d

    def scaled(self, x: Tensor) -> Tensor:
        """As in `Heads`."""
        return super().scaled(x * rms(x)) * self.gain.to(x.dtype)[:, None]


class QkNorm(Protocol):
    """Which norm queries and keys go through."""

    def heads(self, heads: int, head_width: int, sizes: Sequence[float]) -> Heads:
        """See `Heads`."""
        ...


class PerHead:
    """A gain per head: it rides on the norm's own factor and costs nothing per token, and the sharpness of the scores is what it changes."""

    def heads(self, heads: int, head_width: int, sizes: Sequence[float]) -> Heads:
        """As in `QkNorm`."""
        return HeadsPerHead(heads, head_width, sizes)


class PerChannel:
    """A gain per channel, as most published models have it."""

    def heads(self, heads: int, head_width: int, sizes: Sequence[float]) -> Heads:
        """As in `QkNorm`."""
        return HeadsPerChannel(heads, head_width, sizes)


class NoNorm:
    """Scaled by head width ** -0.5 alone, as in the first transformers; scores can grow without bound."""

    def heads(self, heads: int, head_width: int, sizes: Sequence[float]) -> Heads:
        """As in `QkNorm`."""
        return Heads(heads, head_width, sizes)


class _NormTurn(torch.autograd.Function):
    """gain * x / rms(x), channel pairs turned, for the first roles of a packed tensor; complex and in place, with its own backward.

    As separate operations under autograd the same takes 1.6 times as long on a CPU (3.7 against 2.35 ms for 3,328 x 2 x 4 x 32). The whole
    packed tensor comes in, so that its gradient is written once and not put together from parts.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, gain: Tensor, table: Tensor | None) -> tuple[Tensor, ...]:
        roles = len(gain)
        x = packed[:, :roles]
        y = torch.empty_like(x, dtype=wide(x.dtype), memory_format=torch.contiguous_format)
        if x.dtype != y.dtype:  # float32: bf16 angles would smear positions
            x = y.copy_(x)
        factor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(y.shape[-1]).add_(1e-6).rsqrt_()  # n r h 1
        factor.mul_(gain[:, :, None])
        torch.mul(x, factor, out=y)
        ctx.save_for_backward(y if table is None else rotate_(y, table), factor, gain, table)
        ctx.like = packed.dtype
        return *y.unbind(1), *packed[:, roles:].unbind(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        y, factor, gain, table = ctx.saved_tensors
        n, roles, heads, width = y.shape
        packed = y.new_empty(n, len(grads), heads, width, dtype=ctx.like)
        for role, grad in enumerate(grads[roles:], roles):
            packed[:, role] = grad
        out = packed[:, :roles] if packed.dtype == y.dtype else torch.empty_like(y)
        along = torch.empty_like(factor)  # n r h 1; turning both changes no product, so y serves as it is
        for role, grad in enumerate(grads[:roles]):
            torch.sum(torch.mul(grad, y[:, role], out=out[:, role]), dim=-1, keepdim=True, out=along[:, role])
            torch.addcmul(grad, y[:, role], along[:, role] / (width * gain[role].square()[:, None]), value=-1, out=out[:, role])
        if table is not None:
            rotate_(out, table.conj())
        out.mul_(factor)
        if packed.dtype != y.dtype:
            packed[:, :roles] = out
        return packed, along[..., 0].sum(dim=0) / gain, None
