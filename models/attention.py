"""The one attention: tokens attend within their own segment, by a back end that is chosen and never falls back in silence."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.geometry import Layout
from models.heads import Heads, PerHead, QkNorm
from models.kernels import Batched, Kernel
from models.layers import linear
from models.packing import interleave
from models.segments import Segments
from models.strips import Strips

__all__ = [
    "Context",
    "CrossAttention",
    "Fastest",
    "Fused",
    "Kernel",
    "Products",
    "Segments",
    "SelfAttention",
    "attend",
    "check_heads",
    "check_kernel",
]


class Fused(Batched):
    """torch's scaled_dot_product_attention; in float32 on a CPU, where its bf16 backward takes up to four times as long for short sequences."""

    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in `Batched`."""
        with torch.autocast(q.device.type, enabled=q.is_cuda and torch.is_autocast_enabled("cuda")):
            return F.scaled_dot_product_attention(q, k, v.to(q.dtype), scale=1.0)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """Raises: ValueError if a CUDA device would take the unfused form."""
        _need_fused("fused", device, head_width, dtype)


def _need_fused(name: str, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
    if device.type == "cuda" and not _fuses(device, head_width, dtype):
        raise ValueError(
            f"kernel={name} has no fused attention on {device} for heads of {head_width} in {dtype}, wanted a multiple of 8 of at most 256. "
            "Set heads; a network that is trained already runs, slower, with kernel=padded."
        )


def _fuses(device: torch.device, head_width: int, dtype: torch.dtype) -> bool:
    part, cuda = torch.empty(1, 1, 128, head_width, device=device, dtype=dtype), torch.backends.cuda
    parameters = cuda.SDPAParams(part, part, part, None, 0.0, False, False)
    return cuda.can_use_flash_attention(parameters) or cuda.can_use_efficient_attention(parameters)


class Products(Batched):
    """Two matrix products around a softmax; under autocast the products run in bf16, the softmax's sums in float32.

    For sequences so short that the scores stay in cache: at 104 tokens, 4 heads of 32, forward and backward take 0.7 of `Fused` on a CPU
    with bf16 products (10.4 against 14.8 ms for 32 samples). In float32 they take 1.2 of it.
    """

    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in `Batched`."""
        return (q @ k.mT).softmax(dim=-1) @ v.to(q.dtype)


class Fastest(Batched):
    """A function of device, precision and shape: `Fused`, but on a CPU `Products` or `Strips` where they win.

    Args:
        short: keys up to which two bf16 products win under autocast on a CPU; strips take over above.
        long: keys from which float32 strips win on a CPU.
    """

    def __init__(self, short: int = 256, long: int = 512) -> None:
        self.short, self.long = short, long
        self.fused, self.products, self.strips = Fused(), Products(), Strips()

    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in `Batched`."""
        return self.choice(q, k).batch(q, k, v)

    def choice(self, q: Tensor, k: Tensor) -> Batched:
        """The back end for q (b h l d) and k (b h m d)."""
        if q.device.type != "cpu" or torch.compiler.is_compiling():
            return self.fused
        if torch.is_autocast_enabled("cpu"):
            return self.products if k.shape[2] <= self.short else self.strips
        return self.fused if k.shape[2] < self.long or q.dtype != torch.float32 else self.strips

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """As in `Fused`, which is all that it takes on a CUDA device."""
        _need_fused("fastest", device, head_width, dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments, kernel: Kernel) -> Tensor:
    """Attention within each segment: q (n h d), k and v (m h d) -> n h d, all in the order of the sequence."""
    if segments.order is None and segments.gather is None:
        return kernel(q, k, v, segments)
    segments = segments.to(q.device)
    if segments.gather is not None:
        k, v = segments.gather.take(k), segments.gather.take(v)
    if segments.order is None:
        return kernel(q, k, v, segments)
    return segments.order.put(kernel(segments.order.take(q), k, v, segments))


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens (m d) that are looked at but not changed, samples one after another as `layout.text` counts them.

    Args:
        segments: who looks at them; None where they are further keys of an attention that has its own.
    """

    tokens: Tensor
    layout: Layout
    segments: Segments | None = None


def check_heads(width: int, heads: int) -> int:
    """The width of a head. Raises: ValueError if heads do not divide width."""
    if heads < 1 or width % heads:
        raise ValueError(f"width={width} cannot be split into heads={heads}: {width} / {heads} must be a whole number. Set width or heads.")
    return width // heads


def check_kernel(network: nn.Module, device: torch.device | str, precision: str = "float32", key: str = "objective/dit/kernel") -> None:
    """Assert that the back end of every attention in `network` runs on `device`; for entry points, once, before the first step.

    Args:
        precision: of the products, float32 or bfloat16.
        key: of the config that chose the back end.
    Raises: RuntimeError that names the back end, what it lacks and the key; ValueError if `Fastest` could not run there either.
    """
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    attentions = [part for part in network.modules() if isinstance(part, SelfAttention | CrossAttention)]
    for kernel, head_width in {(part.kernel, part.head_width) for part in attentions}:
        try:
            kernel.check(torch.device(device), head_width, dtype)
        except RuntimeError as error:
            raise RuntimeError(f"{error} Set {key}=fastest.") from error


def project(x: Tensor, layer: nn.Module, heads: Heads, roles: int, table: Tensor | None) -> tuple[Tensor, ...]:
    """Tokens x (n d) through a layer that packs `roles` roles (queries, keys, values), each n h d and ready for attention."""
    return heads(layer(x).unflatten(1, (roles, -1, heads.head_width)), table)


class SelfAttention(nn.Module):
    """Tokens attend to the tokens of their segment and, if a context is given at construction, to that context too, in one softmax.

    Args:
        context: width of the context tokens that are keys and values only; 0 for none.
        kernel: the back end.
        gain: of the output layer's initial weights.
        qk_norm: of queries and keys; None for a gain per head.
    """

    def __init__(self, width: int, heads: int, kernel: Kernel, context: int = 0, gain: float = 1.0, qk_norm: QkNorm | None = None) -> None:
        super().__init__()
        self.width, self.head_width, self.kernel = width, check_heads(width, heads), kernel
        norm = qk_norm or PerHead()
        # no biases: the norm would undo most of them, and summing their bf16 gradients takes a tenth of the layer's time on a CPU
        self.qkv = linear(width, 3 * width, bias=False)
        self.heads = norm.heads(heads, self.head_width, (self.head_width**-0.5, 1.0))
        self.context = linear(context, 2 * width, bias=False) if context else None
        self.context_heads = norm.heads(heads, self.head_width, (1.0,)) if context else None
        self.out = linear(width, width, gain=gain)

    def forward(self, x: Tensor, segments: Segments, table: Tensor | None, context: Context | None = None) -> Tensor:
        """Tokens x (n d) -> n d.

        Args:
            segments: who looks at whom; with a context, over keys that are interleaved as `context.layout.joint` counts them.
            table: rope angles, n d/2.
        """
        q, k, v = project(x, self.qkv, self.heads, 3, table)
        if self.context is not None and self.context_heads is not None:
            assert context is not None, "this attention was built for a context"
            keys, values = project(context.tokens, self.context, self.context_heads, 2, None)  # m h d
            k, v = interleave(k, keys, context.layout), interleave(v, values, context.layout)
        return self.out(attend(q, k, v, segments, self.kernel).flatten(1))

    def flops(self, segments: Segments, context_tokens: int = 0) -> int:
        """Forward FLOP for queries and (own and context) keys as in `segments`."""
        linears = sum(segments.queries) * (self.qkv.weight.numel() + self.out.weight.numel())
        if self.context is not None:
            linears += context_tokens * self.context.weight.numel()
        return 2 * linears + 4 * segments.pairs * self.width


class CrossAttention(nn.Module):
    """Tokens attend to the context of their sample alone; starts silent, as its output layer is zero."""

    def __init__(self, width: int, heads: int, kernel: Kernel, context: int, qk_norm: QkNorm | None = None) -> None:
        super().__init__()
        self.width, self.head_width, self.kernel = width, check_heads(width, heads), kernel
        norm = qk_norm or PerHead()
        self.queries = linear(width, width, bias=False)
        self.context = linear(context, 2 * width, bias=False)
        self.query_heads = norm.heads(heads, self.head_width, (self.head_width**-0.5,))
        self.key_heads = norm.heads(heads, self.head_width, (1.0,))
        self.out = linear(width, width, gain=0)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Tokens x (n d) -> n d."""
        (q,) = project(x, self.queries, self.query_heads, 1, None)  # n h d
        k, v = project(context.tokens, self.context, self.key_heads, 2, None)  # m h d
        assert context.segments is not None, "cross attention needs a context with segments"
        return self.out(attend(q, k, v, context.segments, self.kernel).flatten(1))

    def flops(self, segments: Segments) -> int:
        """Forward FLOP."""
        linears = sum(segments.queries) * (self.queries.weight.numel() + self.out.weight.numel())
        return 2 * (linears + sum(segments.keys) * self.context.weight.numel()) + 4 * segments.pairs * self.width
