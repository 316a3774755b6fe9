"""Attention on a CPU as plain matrix products over strips of queries, whose scores never leave the cache; the whole score matrix never exists."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from models.kernels import Batched
from models.products import product, takes


class Strips(Batched):
    """Scores of a strip of queries, softmax, sum of values; backward makes the scores again. In autocast's type, else in that of the queries.

    torch's fused kernel for CPUs runs at the speed of MKL's float32, whatever the precision. Forward and backward of 1,280 tokens take
    0.7 of it in float32 and 0.4 in bf16 (heads of 64; 0.67 and 0.35 with heads of 128) on a core with 512-bit units.

    Args:
        strip_bytes: of a strip's scores: about a core's second-level cache.
    """

    def __init__(self, strip_bytes: int = 1 << 20) -> None:
        self.strip_bytes = strip_bytes

    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in `Batched`."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
        # each head in one piece: oneDNN takes a thousand times as long for a weight with gaps
        q, k, v = (part.to(dtype, memory_format=torch.contiguous_format).contiguous() for part in (q, k, v))
        return torch.ops.kinora.strips_attention(q, k, v, self.strip_bytes // dtype.itemsize)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """As in `Kernel`."""
        if device.type != "cpu":
            raise RuntimeError(f"kernel=strips is made for the caches of a CPU, got {device}.")


def _strips(q: Tensor, keys: int, scores: int) -> Iterator[tuple[int, slice, slice]]:
    """(sample, heads, queries) of pieces with about `scores` scores each; float32 takes one head at a time, as `product` does."""
    samples, heads, queries, _ = q.shape
    rows = max(1, min(queries, scores // keys))
    rows = -(-queries // -(-queries // rows))  # strips of one size
    some = max(1, min(heads, scores // (keys * queries))) if q.dtype != torch.float32 else 1
    for sample in range(samples):
        for head in range(0, heads, some):
            for row in range(0, queries, rows):
                yield sample, slice(head, head + some), slice(row, row + rows)


def _by(x: Tensor, weight: Tensor) -> Tensor:
    """x (g r i) by weight (g o i): g r o."""
    if len(x) == 1 and takes(x[0], weight[0]):
        return product(x[0], weight[0])[None]
    return torch.bmm(x, weight.mT)


def _over(x: Tensor, y: Tensor) -> Tensor:
    """x (g r i) and y (g r o), summed over r: g i o."""
    return _by(y.mT, x.mT).mT if x.dtype == torch.float32 else torch.bmm(x.mT, y)  # float32: a small weight makes a slow product


def _alike(x: Tensor) -> Tensor:
    """An empty b h l d whose memory is b l h d, as the layers around attention have it."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


# Operators of their own: a compiler takes them as they are, and what keeps the results of products for a backward pass does not see the scores.
torch.library.define("kinora::strips_attention", "(Tensor q, Tensor k, Tensor v, int scores) -> Tensor")
torch.library.define(
    "kinora::strips_attention_backward", "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, int scores) -> (Tensor, Tensor, Tensor)"
)


@torch.library.impl("kinora::strips_attention", "CPU")
def _forward(q: Tensor, k: Tensor, v: Tensor, scores: int) -> Tensor:
    out = _alike(q)
    with torch.autocast("cpu", enabled=False):
        for i, heads, rows in _strips(q, k.shape[2], scores):
            weights = _by(q[i, heads, rows], k[i, heads]).softmax(dim=-1)
            out[i, heads, rows] = _by(weights, v[i, heads].mT)
    return out


@torch.library.impl("kinora::strips_attention_backward", "CPU")
def _backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, scores: int) -> tuple[Tensor, Tensor, Tensor]:
    grad_q, grad_k, grad_v = _alike(q), _alike(k), _alike(v)
    grad = grad.contiguous()
    with torch.autocast("cpu", enabled=False):
        most = torch.promote_types(q.dtype, torch.float32)
        total_k = total_v = inner = (grad.to(most) * out).sum(dim=-1, keepdim=True).to(q.dtype)  # b h l 1
        for i, heads, rows in _strips(q, k.shape[2], scores):
            queries, grads, keys = q[i, heads, rows], grad[i, heads, rows], k[i, heads]
            weights = _by(queries, keys).softmax(dim=-1)  # g r m
            some_v = _over(weights, grads)
            slopes = _by(grads, v[i, heads]).sub_(inner[i, heads, rows]).mul_(weights)
            grad_q[i, heads, rows] = _by(slopes, keys.mT)
            some_k = _over(slopes, queries)
            # strips of a head follow one another; float32, as a sum of many bf16 ones would lose its last members
            first = rows.start == 0
            total_k, total_v = (some_k.to(most), some_v.to(most)) if first else (total_k.add_(some_k), total_v.add_(some_v))
            if rows.stop >= q.shape[2]:
                grad_k[i, heads], grad_v[i, heads] = total_k, total_v
    return grad_q, grad_k, grad_v


@torch.library.register_fake("kinora::strips_attention")
def _(q: Tensor, k: Tensor, v: Tensor, scores: int) -> Tensor:
    return _alike(q)


@torch.library.register_fake("kinora::strips_attention_backward")
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, scores: int) -> tuple[Tensor, Tensor, Tensor]:
    return _alike(q), _alike(k), _alike(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3], output)
    ctx.scores = inputs[3]


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return *torch.ops.kinora.strips_attention_backward(grad, *ctx.saved_tensors, ctx.scores), None


torch.library.register_autograd("kinora::strips_attention", _gradients, setup_context=_keep)


@register_flop_formula(torch.ops.kinora.strips_attention)
def _flop(q: Any, k: Any, *_: Any, **__: Any) -> int:
    return 4 * math.prod(q) * k[2]


@register_flop_formula(torch.ops.kinora.strips_attention_backward)
def _backward_flop(grad: Any, q: Any, k: Any, *_: Any, **__: Any) -> int:
    return 8 * math.prod(q) * k[2]  # as for two products; making the scores again is work, not use
