"""Attention back ends: softmax(q k^T) v within each segment; each is chosen by name, asserted at start and never replaced in silence."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from models.segments import SHAPES, Segments, plain

PLANS = 3  # kept for each shape: of even blocks, of odd ones, and of what looks at the text alone
GRAPHS = 256  # of one function, one for each shape


class Kernel(Protocol):
    """softmax(q k^T) v within each segment; q comes scaled."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """q (n h d), k and v (m h d), in the order of the segments -> n h d."""
        ...

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """The segments with all that this back end needs of them on `device`, made once and outside of what is compiled."""
        ...

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """Raises: RuntimeError naming what is missing, if this back end cannot run there with products in `dtype`; ValueError if no fast one can."""
        ...


class Anywhere:
    """A back end that runs on any device and needs nothing but the segments."""

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """As in `Kernel`."""
        return segments.to(device)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """Runs anywhere."""


class Batched(Anywhere):
    """A back end that attends in batches of (b h l d): segments of equal lengths are one, unlike ones a loop. No mask."""

    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k^T) v for (b h l d), (b h m d), (b h m d) -> b h l d."""
        raise NotImplementedError

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """As in `Kernel`."""
        runs = segments.runs
        if len(runs) == 1 and segments.starts is None:
            q, k, v = (part.unflatten(0, (runs[0].count, -1)).transpose(1, 2) for part in (q, k, v))  # b h l d
            return self.batch(q, k, v).transpose(1, 2).flatten(0, 1)
        out = []
        queries = q.split([run.count * run.queries for run in runs])
        if segments.starts is None:
            sizes = [run.count * run.keys for run in runs]
            keys, values = (part.split(sizes) for part in (k, v))
        else:
            keys, values = ([part[run.start : run.start + (run.count - 1) * run.step + run.keys] for run in runs] for part in (k, v))
        for run, part, *both in zip(runs, queries, keys, values, strict=True):
            some = part.unflatten(0, (run.count, -1)).transpose(1, 2)
            # b m h d: views, with gaps where segments are further apart than they are long; those that overlap are runs of their own
            parts = (x.unfold(0, run.keys, run.step).movedim(-1, 1) if segments.starts is not None else x.unflatten(0, (run.count, -1)) for x in both)
            out.append(self.batch(some, *(x.transpose(1, 2) for x in parts)).transpose(1, 2).flatten(0, 1))
        return torch.cat(out)


def _spread(x: Tensor, segments: Segments) -> list[Tensor]:
    """Keys or values of each segment."""
    starts = [start + i * run.step for run in segments.runs for i, start in enumerate([run.start] * run.count)]
    return [x[start : start + length] for start, length in zip(starts, segments.keys, strict=True)]


class Padded(Anywhere):
    """Segments filled up to the longest and masked: one call whatever their lengths, at the price of the filling and of a mask."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """As in `Kernel`."""
        queries = self.pad(list(q.split(segments.queries))).transpose(1, 2)  # s h l d
        keys, values = (self.pad(_spread(part, segments)).transpose(1, 2) for part in (k, v))
        lengths = torch.tensor(segments.keys, device=q.device)
        mask = torch.arange(keys.shape[2], device=q.device) < lengths[:, None, None, None]  # s 1 1 m
        with torch.autocast(q.device.type, enabled=q.is_cuda and torch.is_autocast_enabled("cuda")):
            out = F.scaled_dot_product_attention(queries, keys, values.to(queries.dtype), attn_mask=mask, scale=1.0).transpose(1, 2)
        return torch.cat([part[:length] for part, length in zip(out, segments.queries, strict=True)])

    def pad(self, parts: list[Tensor]) -> Tensor:
        """Parts (l h d) as s l h d."""
        return pad_sequence(parts, batch_first=True)


class Naive(Anywhere):
    """The reference: float64 scores of one segment after another, for tests."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """As in `Kernel`."""
        out = []
        with torch.autocast(q.device.type, enabled=False):
            for queries, keys, values in zip(q.split(segments.queries), _spread(k, segments), _spread(v, segments), strict=True):
                weights = torch.einsum("n h d, m h d -> h n m", queries.double(), keys.double()).softmax(dim=-1)
                out.append(torch.einsum("h n m, m h d -> n h d", weights, values.double()))
        return torch.cat(out).to(q.dtype)


def _need_cuda(name: str, device: torch.device, why: str) -> None:
    if device.type != "cuda":
        raise RuntimeError(f"kernel={name} needs a CUDA device ({why}), got {device}.")


def _half(name: str, q: Tensor, v: Tensor) -> torch.dtype:
    """The 16-bit type in which to attend: autocast's, else that of the values."""
    dtype = torch.get_autocast_dtype(q.device.type) if torch.is_autocast_enabled(q.device.type) else v.dtype
    _need_half(name, dtype)
    return dtype


def _need_half(name: str, dtype: torch.dtype) -> None:
    if dtype not in (torch.bfloat16, torch.float16):
        what = f"kernel={name} attends in bfloat16 or float16, got {dtype}"
        raise RuntimeError(f"{what}. Set trainer.precision=bfloat16 in training; sampling is in float32 and needs another kernel.")


def _try(name: str, kernel: Kernel, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
    """One forward and backward pass: whatever the device lacks shows now and not hours later."""
    try:
        q, k, v = (torch.ones(128, 1, head_width, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        kernel(q, k, v, Segments((128,), (128,))).float().sum().backward()
    except (RuntimeError, ImportError, TypeError) as error:
        reason = f"heads of {head_width} in {dtype} under torch {torch.__version__}: " + " ".join(str(error).split())[:200]
        raise RuntimeError(f"kernel={name} cannot run on {device} with {reason}.") from error


class Cudnn(Batched):
    """cuDNN's fused attention and no other: the fastest on Hopper. torch raises where it would take another."""

    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in `Batched`."""
        dtype = _half("cudnn", q, v)
        with torch.autocast(q.device.type, enabled=False), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype), scale=1.0)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """As in `Kernel`."""
        _need_cuda("cudnn", device, "cuDNN has no attention elsewhere")
        _need_half("cudnn", dtype)
        _try("cudnn", self, device, head_width, dtype)


class Varlen:
    """Flash attention over segments of any lengths in one call (torch.nn.attention.varlen)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """As in `Kernel`."""
        dtype = _half("varlen", q, v)
        from torch.nn.attention.varlen import varlen_attn

        if segments.starts is not None:  # it knows no overlaps: keys that several segments see are copied
            k, v = (torch.cat(_spread(part, segments)) for part in (k, v))
        starts, key_starts = self.ready(segments, q.device).plan
        most = max(segments.queries), max(segments.keys)
        with torch.autocast(q.device.type, enabled=False):
            out = varlen_attn(q.to(dtype), k.to(dtype), v.to(dtype), starts, key_starts, *most, scale=1.0)
        assert isinstance(out, Tensor)
        return out

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """With the places where segments begin."""
        return segments if segments.plan is not None else _with_offsets(segments, device)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """As in `Kernel`."""
        _need_cuda("varlen", device, "it has no kernel elsewhere")
        _need_half("varlen", dtype)
        _try("varlen", self, device, head_width, dtype)


@lru_cache(maxsize=PLANS * SHAPES)
@plain
def _with_offsets(segments: Segments, device: torch.device) -> Segments:
    counts = (F.pad(torch.tensor(part, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0)) for part in (segments.queries, segments.keys))
    return segments.to(device).planned(tuple(part.to(device) for part in counts))


class Flex:
    """FlexAttention with a block mask made of the segments: blocks that no segment touches are never computed. Forward alone on a CPU."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """As in `Kernel`."""
        from torch.nn.attention.flex_attention import flex_attention

        mask = self.ready(segments, q.device).plan
        dtype = torch.get_autocast_dtype("cuda") if q.is_cuda and torch.is_autocast_enabled("cuda") else q.dtype
        parts = (part.to(dtype).transpose(0, 1)[None] for part in (q, k, v))  # 1 h l d
        attention: Callable[..., Any] = flex_attention if torch.compiler.is_compiling() or not q.is_cuda else compiled(flex_attention)
        with torch.autocast(q.device.type, enabled=False):
            return attention(*parts, block_mask=mask, scale=1.0)[0].transpose(0, 1)

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """With the block mask."""
        return segments if segments.plan is not None else _with_mask(segments, device)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """As in `Kernel`."""
        _need_cuda("flex", device, "FlexAttention has no backward pass elsewhere")
        _try("flex", self, device, head_width, dtype)


@lru_cache(maxsize=8)
def compiled(function: Callable[..., Any], backend: str | Callable[..., Any] = "inductor") -> Callable[..., Any]:
    """`function` compiled whole for each shape and never run as it is written, neither after many shapes nor where all else is asked to be."""
    import torch._dynamo

    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, GRAPHS)  # beyond it fullgraph raises
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, GRAPHS)
    fast = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.compiler.set_stance("default"):
            return fast(*args, **kwargs)

    return run


@lru_cache(maxsize=PLANS * SHAPES)
@plain
def _with_mask(segments: Segments, device: torch.device) -> Segments:
    from torch.nn.attention.flex_attention import create_block_mask

    starts = torch.tensor([run.start + i * run.step for run in segments.runs for i in range(run.count)])
    counts = torch.tensor(segments.queries)
    first, stop = (part.repeat_interleave(counts).to(device) for part in (starts, starts + torch.tensor(segments.keys)))  # a row per query

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (first[query] <= key) & (key < stop[query])

    return segments.to(device).planned(create_block_mask(seen, None, None, *segments.total, device=str(device)))
