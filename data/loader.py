"""Which samples a step sees, as a function of (seed, step) alone, and their way through worker processes into batches."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.batch import Batch
from data.dataset import ClipSource, Draw, Fault, Fetched, check_faults
from runtime.seeding import Stream, generator


class Plan(Protocol):
    """The samples of every step: stateless, so a resumed run goes on exactly where it stopped."""

    @property
    def steps_per_epoch(self) -> int: ...

    def draws(self, step: int) -> list[Draw]: ...


@dataclass(slots=True)
class EpochPlan:
    """Every row once an epoch, each epoch in an order of its own, `batch_size` samples a step; the last step of an epoch may be short.

    The sample number is epoch * rows + position: it counts the samples of the run.
    """

    rows: int
    batch_size: int
    seed: int
    _order: tuple[int, np.ndarray] | None = field(default=None, repr=False)  # (epoch, permutation), only kept to save time

    def __post_init__(self) -> None:
        if self.rows < 1 or self.batch_size < 1:
            raise ValueError(f"got {self.rows} rows and batch_size={self.batch_size}, both must be at least 1. Set data.batch_size.")

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    def draws(self, step: int) -> list[Draw]:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, generator(self.seed, Stream.ORDER, epoch).permutation(self.rows)
        first = place * self.batch_size
        rows = self._order[1][first : first + self.batch_size].tolist()
        return [Draw(epoch * self.rows + first + number, row) for number, row in enumerate(rows)]


@dataclass(frozen=True, slots=True)
class OnePass:
    """All rows in their order in a single step: for sets that are looked at as a whole."""

    rows: int

    @property
    def steps_per_epoch(self) -> int:
        return 1

    def draws(self, step: int) -> list[Draw]:
        return [Draw(step * self.rows + row, row) for row in range(self.rows)]


def split(draws: Sequence[Draw], size: int) -> list[Sequence[Draw]]:
    """Micro-batches of at most `size` samples."""
    return [draws[start : start + size] for start in range(0, len(draws), size)]


class Loader:
    """Batches of a set, step by step.

    Args:
        source: where clips come from.
        plan: which samples a step has.
        micro_batch: samples that are handed over at once; a step is a list of these.
        workers: processes that read ahead; 0 reads when asked. The batches are the same bit for bit.

    Attributes:
        wait_s: time that `steps` has kept its caller waiting, in all.
        faults: rows found unusable so far, each once.
    """

    def __init__(self, source: ClipSource, plan: Plan, micro_batch: int, workers: int = 0) -> None:
        if micro_batch < 1 or workers < 0:
            raise ValueError(f"got micro_batch={micro_batch}, workers={workers}; wanted at least 1 and 0. Set data.micro_batch, data.workers.")
        self.source, self.plan, self.micro_batch = source, plan, micro_batch
        self.wait_s = 0.0
        self._faults = {fault.row: fault for fault in source.known_faults}
        self._pool = OrderedPool(source.fetch, workers)

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def faults(self) -> list[Fault]:
        return list(self._faults.values())

    def steps(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step in [start, stop).

        Ask for all steps of a run at once: workers read ahead within one call.
        Raises: RuntimeError when more rows are bad than the source's limit allows.
        """
        waiting = time.monotonic()
        counts: deque[int] = deque()  # micro-batches of the steps that are on their way
        fetched = self._pool.map(_micros(self.plan, self.micro_batch, range(start, stop), counts))
        try:
            for _ in range(start, stop):
                batches = [self._batch(next(fetched))]
                batches += [self._batch(next(fetched)) for _ in range(counts.popleft() - 1)]
                self.wait_s += time.monotonic() - waiting
                yield batches
                waiting = time.monotonic()
        except Exception:
            del fetched
            self._pool.close()  # now, not when the traceback is let go of
            raise

    def _batch(self, fetched: Fetched) -> Batch:
        if fetched.faults or fetched.content is None:
            self._faults.update((fault.row, fault) for fault in fetched.faults)
            check_faults(self.faults, len(self.source), self.source.bad_limit, certain=fetched.content is None)
        return self.source.batch(fetched)


def _micros(plan: Plan, size: int, steps: range, counts: deque[int]) -> Iterator[Sequence[Draw]]:
    """The micro-batches of all steps in one stream. Knows no Loader: the worker pool holds on to it, and a circle of references would let
    the garbage collector end the pool's queues before its workers, which then are waited for in vain for 5 s."""
    for step in steps:
        micros = split(plan.draws(step), size)
        counts.append(len(micros))
        yield from micros


class OrderedPool:
    """Maps a function over items in worker processes, results in the order of the items; with 0 workers in this process."""

    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        self.function, self.workers = function, workers
        self._items = _Items()
        self._loader: DataLoader[Any] | None = None

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """Results one by one; calling again drops what the last call had not delivered."""
        if self.workers == 0:
            return map(self.function, items)
        if self._loader is None:
            self._loader = DataLoader(
                _Function(self.function),
                batch_size=None,
                sampler=self._items,
                num_workers=self.workers,
                collate_fn=_same,
                worker_init_fn=_own_session,
                persistent_workers=True,
                # its own: by default DataLoader draws from torch's global generator, and would change what others draw from it
                generator=torch.Generator(),
            )
        self._items.items = items
        return iter(self._loader)

    def close(self) -> None:
        """End the workers. The next `map` starts others."""
        self._loader = None


class _Items(torch.utils.data.Sampler):
    """Hands whatever was last put in to the DataLoader."""

    def __init__(self) -> None:
        self.items: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Function(Dataset):
    """A function as a DataLoader wants it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, item: Any) -> Any:
        return self.function(item)


def _same(item: Any) -> Any:
    return item


def _own_session(_worker: int) -> None:
    """Ctrl-C and signals to the process group are for the trainer, which ends its step with batches that workers still have to bring."""
    if hasattr(os, "setsid"):
        os.setsid()
