"""A set's clips on their way to the trainer: draws of a step, its micro-batches through worker processes, batches."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from data.batch import Batch, Packed
from data.dataset import ClipSource, Fault, Fetched, check_faults
from data.plan import Draw, MicroBatches, Plan, share
from data.workers import Pool


class Loader:
    """Batches of a set, step by step.

    Args:
        source: where clips come from.
        plan: which samples a step has.
        micro: how they are cut into passes, which are what is handed over at once; a step is a list of these.
        workers: processes that read ahead; 0 reads when asked, in this process. The batches are the same bit for bit.
        file_budget_s: a worker that is at one file for longer is ended, and the file not opened again.
        rank, ranks: which part of each step this process is given; the parts are balanced by tokens.

    Attributes:
        wait_s: time that `steps` has kept its caller waiting, in all.
        faults: rows found unusable so far, each once.
        shown: how often each row was handed over, whatever row it was drawn for.
    """

    def __init__(
        self,
        source: ClipSource,
        plan: Plan,
        micro: MicroBatches,
        workers: int = 0,
        file_budget_s: float = 60.0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers={workers} must be at least 0. Set data.workers.")
        self.source, self.plan, self.micro = source, plan, micro
        self.rank, self.ranks = rank, ranks
        self.wait_s = 0.0
        self.shown = np.zeros(len(source.index), dtype=np.int64)
        self._faults = {fault.row: fault for fault in source.known_faults}
        self._pool = Pool(source, workers, file_budget_s)

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def faults(self) -> list[Fault]:
        return list(self._faults.values())

    def steps(self, start: int, stop: int) -> Iterator[list[Batch | Packed]]:
        """The passes of each step in [start, stop).

        Ask for all steps of a run at once: workers read ahead within one call.
        Raises: RuntimeError when more rows are bad than the source's limit allows.
        """
        waiting = time.monotonic()
        passes: deque[list[list[list[Draw]]]] = deque()  # of the steps that are on their way; a rank may have none in a small step
        ahead: deque[Fetched] = deque()
        try:
            fetched = self._pool.map(self._micros(range(start, stop), passes))
            for _ in range(start, stop):
                while not passes or len(ahead) < sum(map(len, passes[0])):  # a step is counted when one of its parts, or of a later one, is asked for
                    ahead.extend(islice(fetched, 1))
                batches = [batch for parts in passes.popleft() for batch in self._pass(parts, [ahead.popleft() for _ in parts])]
                self.wait_s += time.monotonic() - waiting
                yield batches
                waiting = time.monotonic()
        except Exception:
            self.close()  # now, not when the traceback is let go of
            raise

    def close(self) -> None:
        """End the workers; `steps` would start others."""
        self._pool.close()

    def _micros(self, steps: range, passes: deque[list[list[list[Draw]]]]) -> Iterator[Sequence[Draw]]:
        """The parts of one shape of all passes of all steps in one stream."""
        buckets, grid = self.source.buckets, self.micro.grid
        for step in steps:
            draws = self.plan.draws(step)
            if self.ranks > 1:
                costs = [0 if (bucket := buckets[draw.row]) is None else bucket.tokens(grid) for draw in draws]
                draws = share(draws, costs, self.ranks)[self.rank]
            step_passes = self.micro.passes(draws, buckets)
            passes.append(step_passes)
            for parts in step_passes:
                yield from parts

    def _pass(self, parts: Sequence[Sequence[Draw]], fetched: Sequence[Fetched]) -> list[Batch | Packed]:
        """Parts that were read, as one pass; what stands in for a clip in another shape passes by itself, so that the pass keeps to its limits."""
        read = [self._batches(each) for each in fetched]
        if len(parts) == 1:
            return [*read[0]]
        shapes, own, others = self.source.buckets, list[Batch](), list[Batch]()
        for part, batches in zip(parts, read, strict=True):
            for batch in batches:
                (own if shapes[batch.rows[0]] == shapes[part[0].row] else others).append(batch)
        return [*([Packed(tuple(own))] if len(own) > 1 else own), *others]

    def _batches(self, fetched: Fetched) -> list[Batch]:
        if fetched.faults or not fetched.groups:
            self._faults.update((fault.row, fault) for fault in fetched.faults)
            check_faults(self.faults, len(self.source.index), self.source.bad_limit, certain=not fetched.groups)
        for group in fetched.groups:
            np.add.at(self.shown, list(group.rows), 1)
        return [self.source.batch(group) for group in fetched.groups]
