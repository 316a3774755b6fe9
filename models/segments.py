"""Who attends to whom, as segments of queries and keys; whatever order they take, tokens outside attention keep theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from itertools import accumulate
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHAPES = 16  # of batches whose indices and plans are kept, here and on the device that runs them: with data/shape=native there are several
P = ParamSpec("P")
R = TypeVar("R")


def plain(make: Callable[P, R]) -> Callable[P, R]:
    """Makes tensors that are kept: whatever mode or default device the first caller is under, the next one may need gradients on a CPU."""

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.device("cpu"):
            return make(*args, **kwargs)

    return made


class Part(NamedTuple):
    """Queries by number and what they look at: `length` keys, from `start` on or as listed."""

    queries: Tensor
    length: int
    start: int
    keys: Tensor | None = None


class Run(NamedTuple):
    """`count` segments of equal lengths: queries one after another, keys at `start`, `start + step`..."""

    count: int
    queries: int
    keys: int
    start: int
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Picks rows of a sequence (n ...); every row at least once, so that a gradient is a pick as well, the same on every device and run.

    Args:
        index: the row at each place.
        back: the first place of each row.
        repeated: rows that are picked more than once (r,); all their places (r most), and 1 or 0 for those that hold (r most 1 1). None for none.
    """

    index: Tensor
    back: Tensor
    repeated: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, index: Tensor, total: int) -> "Rows | None":
        """Rows by index (k,), each of range(total) at least once; None if that is every row in its place."""
        if torch.equal(index, torch.arange(total)):
            return None
        order = index.argsort(stable=True)  # places, those of row 0 first
        counts = index.bincount(minlength=total)
        assert int(counts.min()) > 0, "every row must be picked"
        first = counts.cumsum(0) - counts
        back = order[first]
        rows = (counts > 1).nonzero()[:, 0]
        if not len(rows):
            return cls(index, back)
        step = torch.arange(int(counts.max()))
        holds = step < counts[rows, None]  # r most
        places = order[torch.where(holds, first[rows, None] + step, first[rows, None])]
        return cls(index, back, (rows, places, holds.float()[..., None, None]))

    def to(self, device: torch.device) -> "Rows":
        """The same on `device`."""
        repeated = self.repeated and tuple(part.to(device, non_blocking=True) for part in self.repeated)
        return Rows(self.index.to(device, non_blocking=True), self.back.to(device, non_blocking=True), repeated)  # pyright: ignore[reportArgumentType]

    def take(self, x: Tensor) -> Tensor:
        """x (n h d) -> k h d."""
        return _Take.apply(x, self.index, self.back, *(self.repeated or (None, None, None)))

    def put(self, x: Tensor) -> Tensor:
        """The inverse of `take`, where no row is picked twice."""
        assert self.repeated is None, "repeated rows cannot be put back"
        return _Take.apply(x, self.back, self.index, None, None, None)


class _Take(torch.autograd.Function):
    """x[index] whose gradient is a pick and a sum in a fixed order; that of index_select adds row by row, on a GPU in any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, rows: Tensor | None, places: Tensor | None, holds: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, rows, places, holds)
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        back, rows, places, holds = ctx.saved_tensors
        out = grad.index_select(0, back)
        if rows is not None:
            parts = grad.index_select(0, places.flatten()).unflatten(0, places.shape)  # r most h d
            out.index_copy_(0, rows, (parts.float() * holds).sum(dim=1).to(grad.dtype))
        return out, None, None, None, None, None


@lru_cache(maxsize=64)
def _runs(queries: tuple[int, ...], keys: tuple[int, ...], starts: tuple[int, ...] | None) -> tuple[Run, ...]:
    if len(set(queries)) == 1 and len(set(keys)) == 1 and starts is None:
        return (Run(len(queries), queries[0], keys[0], 0, keys[0]),)
    runs: list[Run] = []
    for n, m, start in zip(queries, keys, starts or accumulate(keys, initial=0), strict=False):
        last = runs[-1] if runs else None
        if last is not None and (last.queries, last.keys) == (n, m):
            step = start - last.start if last.count == 1 else last.step
            if step >= m and start == last.start + last.count * step:
                runs[-1] = last._replace(count=last.count + 1, step=step)
                continue
        runs.append(Run(1, n, m, start, m))
    return tuple(runs)


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Consecutive queries and the keys that they may look at, one pair of lengths per segment; equal to itself alone.

    Args:
        queries: lengths, in the order of `order`.
        keys: lengths.
        starts: where each segment's keys begin, in the order of `gather`; they may overlap. None: one segment's after another's.
        order: the order of queries in which segments are consecutive; None if they are.
        gather: the same for keys; a key may come more than once.
        plan: what a back end made of the lengths, on one device; see `Kernel.ready`.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    starts: tuple[int, ...] | None = None
    order: Rows | None = field(default=None, repr=False)
    gather: Rows | None = field(default=None, repr=False)
    plan: Any = field(default=None, repr=False)
    runs: tuple[Run, ...] = field(init=False, repr=False)  # all that the hot path reads
    _elsewhere: dict[torch.device, "Segments"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        assert len(self.queries) == len(self.keys) > 0, "segments need as many query lengths as key lengths"
        object.__setattr__(self, "runs", _runs(self.queries, self.keys, self.starts))

    @classmethod
    def of(cls, parts: Sequence[Part], keys: int, order: Tensor | None = None) -> "Segments":
        """Segments from parts in any order, sorted so that equal lengths stand together and make a batch.

        Args:
            keys: how many there are.
            order: of the keys, in which each part looks at a span; None: each part looks at its own list of keys.
        """
        parts = sorted(parts, key=lambda part: (len(part.queries), part.length))
        queries = Rows.of(torch.cat([part.queries for part in parts]), sum(len(part.queries) for part in parts))
        lengths = tuple(len(part.queries) for part in parts), tuple(part.length for part in parts)
        if order is not None:
            return cls(*lengths, tuple(part.start for part in parts), queries, Rows.of(order, keys))
        return cls(*lengths, None, queries, Rows.of(torch.cat([part.keys for part in parts if part.keys is not None]), keys))

    @property
    def pairs(self) -> int:
        """Query-key pairs that are computed."""
        return sum(run.count * run.queries * run.keys for run in self.runs)

    @property
    def total(self) -> tuple[int, int]:
        """Queries, and keys as the runs count them (after `gather`)."""
        return sum(self.queries), max(run.start + (run.count - 1) * run.step + run.keys for run in self.runs)

    def to(self, device: torch.device) -> "Segments":
        """The same with its indices on `device`, moved there once."""
        rows = self.order or self.gather
        if rows is None or rows.index.device == device:
            return self
        if device not in self._elsewhere:
            order, gather = (part and plain(part.to)(device) for part in (self.order, self.gather))
            self._elsewhere[device] = Segments(self.queries, self.keys, self.starts, order, gather)
        return self._elsewhere[device]

    def planned(self, plan: Any) -> "Segments":
        """The same with what a back end made of it."""
        return Segments(self.queries, self.keys, self.starts, self.order, self.gather, plan)
