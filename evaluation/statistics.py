"""How sure a figure is: intervals for proportions and means; the same values and seed give the same interval."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from runtime.seeding import Stream, generator

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of `n` yes-or-no outcomes with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of `n` values with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def wilson(outcomes: Sequence[bool]) -> Proportion:
    """The share of true outcomes with Wilson's score interval.

    It stays inside [0, 1] and is not empty at 0 % or 100 %, where the textbook interval claims certainty.

    Raises: ValueError if there is no outcome.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    n = len(outcomes)
    if n == 0:
        raise ValueError("a proportion needs at least one outcome, got none. Raise prompts, seen or clips.")
    value = sum(map(bool, outcomes)) / n
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    # At 0 and n the closed form touches the ends up to rounding; the clip keeps low <= value <= high there.
    return Proportion(value, min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half)), n)


def bootstrap(values: Sequence[float], seed: int, resamples: int = 2000) -> Mean:
    """The mean with its percentile-bootstrap interval; `values` are drawn with replacement `resamples` times.

    Raises: ValueError if there is no value, or one is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"a mean needs a list of at least one value, got shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"a mean needs finite values, got {data[~np.isfinite(data)][0]}")
    picks = generator(seed, Stream.BOOTSTRAP).integers(0, data.size, (resamples, data.size))
    means = data[picks].mean(axis=1)
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Mean(float(data.mean()), float(low), float(high), data.size)


def paired_bootstrap(first: Sequence[float], second: Sequence[float], seed: int, resamples: int = 2000) -> Mean:
    """The mean of `first - second` with its interval, where value i of both belongs to the same clip or prompt.

    Pairs are resampled whole, so what is hard for both does not widen the interval.

    Raises: ValueError if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need two lists of one length, got {len(first)} and {len(second)}")
    return bootstrap(np.subtract(first, second, dtype=np.float64).tolist(), seed, resamples)
