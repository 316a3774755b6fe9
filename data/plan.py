"""Which samples a step sees, as a function of (seed, step) alone: neither workers nor ranks have a say in it."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.buckets import Bucket
from models.geometry import Grid
from runtime.seeding import Stream, generator

MOST = 10_000  # times that a clip may come in an epoch: more is a mistake, and would fill the memory
FINE = 2**20  # a weight's start is a multiple of 1/FINE, so that adding it to a sum of weights does not round


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a step: its number in the run, which all its random draws hang on, and the index row it shows."""

    sample: int
    row: int


class Plan(Protocol):
    """The samples of every step: stateless, so a resumed run goes on exactly where it stopped."""

    def draws(self, step: int) -> list[Draw]:
        """The global batch of a step."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Of the first epoch; others may differ a little where clips differ in size or weight."""
        ...


class EpochPlan:
    """Every row as often as its weight says in every epoch, in an order of the epoch's own, cut into steps; the last one may be short.

    A row of weight w comes floor(w) or ceil(w) times an epoch, and within one of e * w times in e epochs. A step takes rows in order for
    as long as neither limit is passed, and one in any case. The sample number counts on from epoch to epoch.

    Args:
        weights: by row, >= 0; 0 is never shown.
        tokens: by row, what it costs.
        batch_size: samples of a step at most; None for no limit.
        batch_tokens: tokens of a step at most; None for no limit.
    """

    def __init__(self, weights: Sequence[float], tokens: Sequence[int], batch_size: int | None, batch_tokens: int | None, seed: int) -> None:
        _check_limits("batch_size", batch_size, "batch_tokens", batch_tokens)
        self.weights, self.tokens = np.asarray(weights, dtype=np.float64), np.asarray(tokens, dtype=np.int64)
        if not len(self.weights) or not self.weights.any():
            raise ValueError(f"none of the {len(self.weights)} clips is ever shown: all weights are 0. Set one above 0 in the index or data.train.")
        if not 0 <= self.weights.min() <= self.weights.max() <= MOST:
            wrong = self.weights[~((self.weights >= 0) & (self.weights <= MOST))][0]
            raise ValueError(f"a clip has the weight {wrong:g}, it must lie between 0 and {MOST}. Set it in the index or data.train.")
        self.batch_size, self.batch_tokens, self.seed = batch_size, batch_tokens, seed
        self._most = int(np.ceil(self.weights).sum())  # samples of an epoch at most
        self._starts = generator(seed, Stream.WEIGHT).integers(FINE, size=len(self.weights)) / FINE
        shown = self.weights > 0
        # Equal costs and whole weights: all epochs are of one length, and none has to be laid out to find the next.
        self._alike = bool((self.weights % 1 == 0).all()) and (batch_tokens is None or len(np.unique(self.tokens[shown])) == 1)
        self._first_steps = [0]  # of each epoch, as far as they have been asked for
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None  # the last one that was laid out, kept to save time
        rows, starts = self.epoch(0)
        self.samples_per_epoch, self.steps_per_epoch = len(rows), len(starts) - 1  # of the first epoch

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an epoch in order, and where each step begins, with the end as the last."""
        if self._epoch is None or self._epoch[0] != number:
            times = np.floor(self._starts + (number + 1) * self.weights) - np.floor(self._starts + number * self.weights)
            rows = np.repeat(np.arange(len(self.weights)), times.astype(np.int64))
            rows = rows[generator(self.seed, Stream.ORDER, number).permutation(len(rows))]
            self._epoch = number, rows, _cut(self.tokens[rows], self.batch_size, self.batch_tokens)
        return self._epoch[1:]

    def draws(self, step: int) -> list[Draw]:
        epoch, place = self._find(step)
        rows, starts = self.epoch(epoch)
        first, stop = int(starts[place]), int(starts[place + 1])
        return [Draw(epoch * self._most + first + number, row) for number, row in enumerate(rows[first:stop].tolist())]

    def _find(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its place there."""
        if self._alike:
            return divmod(step, self.steps_per_epoch)
        while self._first_steps[-1] <= step:
            self._first_steps.append(self._first_steps[-1] + len(self.epoch(len(self._first_steps) - 1)[1]) - 1)
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return epoch, step - self._first_steps[epoch]


@dataclass(frozen=True, slots=True)
class OnePass:
    """The given rows in their order in a single step: for sets that are looked at as a whole."""

    rows: Sequence[int]

    @property
    def steps_per_epoch(self) -> int:
        return 1

    def draws(self, step: int) -> list[Draw]:
        return [Draw(step * len(self.rows) + number, row) for number, row in enumerate(self.rows)]


def share(draws: Sequence[Draw], tokens: Sequence[int], ranks: int) -> list[list[Draw]]:
    """A step's draws, by rank, so that every rank has about as many tokens: the largest first, each to the rank that has least.

    Args:
        tokens: of each draw.
    """
    parts: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for place in sorted(range(len(draws)), key=lambda place: (-tokens[place], place)):
        rank = loads.index(min(loads))
        parts[rank].append(place)
        loads[rank] += tokens[place]
    return [[draws[place] for place in sorted(part)] for part in parts]


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Cuts draws into parts of one shape that pass through a network at once.

    Args:
        size: samples at most; None for no limit.
        tokens: at most, but one sample in any case; None for no limit.
        grid: pixels (frames, height, width) of one token.
    """

    size: int | None
    tokens: int | None
    grid: Grid

    def __post_init__(self) -> None:
        _check_limits("micro_batch", self.size, "micro_tokens", self.tokens)

    def cut(self, draws: Sequence[Draw], buckets: Sequence[Bucket | None]) -> list[list[Draw]]:
        """Parts in the order in which their shapes first appear."""
        return [part for bucket, group in _by_shape(draws, buckets).items() for part in self._parts(group, bucket)]

    def passes(self, draws: Sequence[Draw], buckets: Sequence[Bucket | None]) -> list[list[list[Draw]]]:
        """What passes through the network at once, each pass as its parts of one shape: here one part a pass."""
        return [[part] for part in self.cut(draws, buckets)]

    def _parts(self, group: list[Draw], bucket: Bucket) -> list[list[Draw]]:
        size = len(group) if self.size is None else self.size
        if self.tokens is not None:
            size = min(size, max(1, self.tokens // bucket.tokens(self.grid)))
        return [group[start : start + size] for start in range(0, len(group), size)]


class Sequences(MicroBatches):
    """Parts of unlike shape pass at once, within the same limits together, so that many shapes need few passes."""

    def passes(self, draws: Sequence[Draw], buckets: Sequence[Bucket | None]) -> list[list[list[Draw]]]:
        """Shapes in the order in which they first appear; a shape's draws are divided where a pass is full."""
        passes: list[list[list[Draw]]] = []
        clips_left = tokens_left = 0  # in the last pass
        for bucket, group in _by_shape(draws, buckets).items():
            cost = bucket.tokens(self.grid)
            while group:
                count = min(len(group), clips_left, tokens_left // cost)
                if count == 0:
                    passes.append([])
                    clips_left, tokens_left = self.size or sys.maxsize, max(cost, self.tokens or sys.maxsize)
                    continue
                passes[-1].append(group[:count])
                group, clips_left, tokens_left = group[count:], clips_left - count, tokens_left - count * cost
        return passes


def _by_shape(draws: Sequence[Draw], buckets: Sequence[Bucket | None]) -> dict[Bucket, list[Draw]]:
    """Draws by shape, in the order in which their shapes first appear."""
    groups: dict[Bucket, list[Draw]] = defaultdict(list)
    for draw in draws:
        bucket = buckets[draw.row]
        assert bucket is not None, "a row without a shape is never drawn"
        groups[bucket].append(draw)
    return groups


def _cut(tokens: np.ndarray, most: int | None, most_tokens: int | None) -> np.ndarray:
    """Where the steps of an epoch begin, with its end as the last."""
    total = len(tokens)
    if most_tokens is None:
        assert most is not None
        return np.append(np.arange(0, total, most), total)
    sums = np.concatenate([[0], np.cumsum(tokens)])
    starts = [0]
    while starts[-1] < total:
        first = starts[-1]
        stop = int(np.searchsorted(sums, sums[first] + most_tokens, side="right")) - 1
        starts.append(min(total, max(first + 1, stop if most is None else min(stop, first + most))))
    return np.array(starts)


def _check_limits(size_key: str, size: int | None, tokens_key: str, tokens: int | None) -> None:
    if size is None and tokens is None:
        raise ValueError(f"{size_key} and {tokens_key} are both null, which leaves no limit. Set data.{size_key} or data.{tokens_key}.")
    for key, value in ((size_key, size), (tokens_key, tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{key}={value} must be at least 1, or null for no limit. Set data.{key}.")
