"""The one attention: tokens attend within their own segment, by a backend that is chosen and never falls back in silence."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.geometry import Layout
from models.layers import linear
from models.packing import interleave
from models.rope import rotate_

# softmax(q k^T) v for (b h l d), (b h m d), (b h m d) -> (b h l d): no mask, and q comes scaled
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Segments:
    """Consecutive queries and the consecutive keys that they may look at, one pair of lengths per sample."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.queries) == len(self.keys) > 0, "segments need as many query lengths as key lengths"

    @property
    def uniform(self) -> bool:
        """Whether the segments form a batch."""
        return len(set(self.queries)) == 1 and len(set(self.keys)) == 1

    @property
    def pairs(self) -> int:
        """Query-key pairs in all."""
        return sum(q * k for q, k in zip(self.queries, self.keys, strict=True))


class Fused:
    """torch's scaled_dot_product_attention; in float32 on a CPU, where its bf16 backward is six times slower."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(q.device.type, enabled=q.is_cuda and torch.is_autocast_enabled("cuda")):
            return F.scaled_dot_product_attention(q, k, v.to(q.dtype), scale=1.0)


class Products:
    """Two matrix products around a softmax; under autocast the products run in bf16, the softmax's sums in float32.

    For sequences so short that the scores stay in cache: at 104 tokens, 4 heads of 32, forward and backward take 0.7 of `Fused` on a CPU
    with bf16 products (10.4 against 14.8 ms for 32 samples). In float32 they take 1.2 of it.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT).softmax(dim=-1) @ v.to(q.dtype)


class Fastest:
    """`Products` under bf16 autocast on a CPU with at most `short` keys, else `Fused`: a function of device, precision and shape."""

    def __init__(self, short: int = 256) -> None:
        self.short = short
        self.fused, self.products = Fused(), Products()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        small = q.device.type == "cpu" and torch.is_autocast_enabled("cpu") and k.shape[2] <= self.short
        return (self.products if small else self.fused)(q, k, v)


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments, kernel: Kernel) -> Tensor:
    """Attention within each segment: q (n h d), k and v (m h d) -> n h d. No mask: a batch where lengths agree, else a loop."""
    if segments.uniform:
        samples = len(segments.queries)
        q, k, v = (part.unflatten(0, (samples, -1)).transpose(1, 2) for part in (q, k, v))  # b h l d
        return kernel(q, k, v).transpose(1, 2).flatten(0, 1)
    parts = zip(q.split(segments.queries), k.split(segments.keys), v.split(segments.keys), strict=True)
    return torch.cat([kernel(*(part.transpose(0, 1)[None] for part in segment))[0].transpose(0, 1) for segment in parts])


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens (m d) that are looked at but not changed, samples one after another as `layout.text` counts them."""

    tokens: Tensor
    layout: Layout


class _NormTurn(torch.autograd.Function):
    """gain * x / rms(x), channel pairs turned by a table: in place and with its own backward.

    As separate operations under autograd the same takes 1.6 times as long on a CPU (3.7 against 2.35 ms for 3,328 x 2 x 4 x 32).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, table: Tensor | None) -> Tensor:
        y = torch.empty_like(x, dtype=torch.float32).copy_(x)  # float32: bf16 angles would smear positions
        factor = torch.linalg.vector_norm(y, dim=-1, keepdim=True).square_().div_(y.shape[-1]).add_(1e-6).rsqrt_()  # n r h 1
        y.mul_(factor * gain[:, :, None])
        ctx.save_for_backward(y if table is None else rotate_(y, table), factor, gain, table)
        ctx.dtype = x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        y, factor, gain, table = ctx.saved_tensors
        along = (grad * y).sum(dim=-1)  # n r h; turning both changes no product, so y serves as it is
        out = torch.addcmul(grad, y, (along / (y.shape[-1] * gain.square()))[..., None], value=-1)
        if table is not None:
            rotate_(out, table.conj())
        return out.mul_(factor * gain[:, :, None]).to(ctx.dtype), along.sum(dim=0) / gain, None


class Heads(nn.Module):
    """RMS norm of queries and keys per head, with a learnt gain per head, then the rotation.

    A gain per head, not per channel: it rides on the norm's own factor, so it costs nothing per token, and the sharpness of the scores is
    what it must be able to change. Its logarithm is learnt, so that it stays positive.

    Args:
        sizes: initial gain per role: head width ** -0.5 for queries, which the kernels expect scaled, and 1 for keys.
    """

    def __init__(self, heads: int, *sizes: float) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.tensor(sizes).log()[:, None].repeat(1, heads))  # roles h

    def forward(self, x: Tensor, table: Tensor | None) -> Tensor:
        """Normalise and turn x (n roles h d); float32 out."""
        return _NormTurn.apply(x, self.log_gain.float().exp(), table)


def check_heads(width: int, heads: int) -> int:
    """The width of a head. Raises: ValueError if heads do not divide width."""
    if heads < 1 or width % heads:
        raise ValueError(f"width={width} cannot be split into heads={heads}: {width} / {heads} must be a whole number. Set width or heads.")
    return width // heads


class SelfAttention(nn.Module):
    """Tokens attend to the tokens of their segment and, if a context is given at construction, to that context too, in one softmax.

    Args:
        context: width of the context tokens that are keys and values only; 0 for none.
        kernel: the backend.
        gain: of the output layer's initial weights.
    """

    def __init__(self, width: int, heads: int, kernel: Kernel, context: int = 0, gain: float = 1.0) -> None:
        super().__init__()
        self.width, self.head_width, self.kernel = width, check_heads(width, heads), kernel
        # no biases: the norm would undo most of them, and summing their bf16 gradients takes a tenth of the layer's time on a CPU
        self.qkv = linear(width, 3 * width, bias=False)
        self.heads = Heads(heads, self.head_width**-0.5, 1.0)
        self.context = linear(context, 2 * width, bias=False) if context else None
        self.context_heads = Heads(heads, 1.0) if context else None
        self.out = linear(width, width, gain=gain)

    def forward(self, x: Tensor, segments: Segments, table: Tensor | None, context: Context | None = None) -> Tensor:
        """Tokens x (n d) -> n d; `segments` counts the tokens of each sample in x alone."""
        qk, v = self.qkv(x).unflatten(1, (3, -1, self.head_width)).split((2, 1), dim=1)  # n 2 h d, n 1 h d
        q, k = self.heads(qk, table).unbind(1)
        v = v[:, 0]
        if self.context is not None and self.context_heads is not None:
            assert context is not None, "this attention was built for a context"
            keys, values = self.context(context.tokens).unflatten(1, (2, -1, self.head_width)).split((1, 1), dim=1)  # m 1 h d
            k = interleave(k, self.context_heads(keys, None)[:, 0], context.layout)
            v = interleave(v, values[:, 0], context.layout)
            segments = Segments(segments.queries, context.layout.joint)
        return self.out(attend(q, k, v, segments, self.kernel).flatten(1))

    def flops(self, segments: Segments, context_tokens: int = 0) -> int:
        """Forward FLOP for queries and (own and context) keys as in `segments`."""
        linears = sum(segments.queries) * (self.qkv.weight.numel() + self.out.weight.numel())
        if self.context is not None:
            linears += context_tokens * self.context.weight.numel()
        return 2 * linears + 4 * segments.pairs * self.width


class CrossAttention(nn.Module):
    """Tokens attend to the context of their sample alone; starts silent, as its output layer is zero."""

    def __init__(self, width: int, heads: int, kernel: Kernel, context: int) -> None:
        super().__init__()
        self.width, self.head_width, self.kernel = width, check_heads(width, heads), kernel
        self.queries = linear(width, width, bias=False)
        self.context = linear(context, 2 * width, bias=False)
        self.query_heads, self.key_heads = Heads(heads, self.head_width**-0.5), Heads(heads, 1.0)
        self.out = linear(width, width, gain=0)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Tokens x (n d) -> n d."""
        q = self.query_heads(self.queries(x).unflatten(1, (1, -1, self.head_width)), None)[:, 0]  # n h d
        keys, values = self.context(context.tokens).unflatten(1, (2, -1, self.head_width)).split((1, 1), dim=1)  # m 1 h d
        k = self.key_heads(keys, None)[:, 0]
        segments = Segments(context.layout.tokens, context.layout.text)
        return self.out(attend(q, k, values[:, 0], segments, self.kernel).flatten(1))

    def flops(self, segments: Segments) -> int:
        """Forward FLOP."""
        linears = sum(segments.queries) * (self.queries.weight.numel() + self.out.weight.numel())
        return 2 * (linears + sum(segments.keys) * self.context.weight.numel()) + 4 * segments.pairs * self.width
