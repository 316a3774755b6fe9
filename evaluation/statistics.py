"""How sure a figure is: intervals for proportions and means; the same values and seed give the same interval."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import hypot, prod, sqrt
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


def apart(first: Mean, second: Mean) -> Mean:
    """first - second with its interval, where the two were not measured on the same items, or nobody knows on which.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10; Zou and Donner 2008 for others.
    """
    low = hypot(first.value - first.low, second.high - second.value)
    high = hypot(first.high - first.value, second.value - second.low)
    value = first.value - second.value
    return Mean(value, value - low, value + high, min(first.n, second.n))


def paired_shares(first: Sequence[bool], second: Sequence[bool]) -> Mean:
    """The share of `first` - that of `second` with its interval, where outcome i of both is of the same prompt.

    Where the two never differ the interval is still not empty: a bootstrap would claim certainty there.

    Raises: ValueError if the lengths differ.
    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data", method 10.
    """
    a, b = wilson(first), wilson(second)
    n, both = len(first), sum(x and y for x, y in zip(first, second, strict=True))
    only, other = sum(first) - both, sum(second) - both
    neither = n - both - only - other
    agree = both * neither - only * other
    agree = max(agree - n / 2, 0) if agree > 0 else agree
    margins = prod((both + only, other + neither, both + other, only + neither))
    phi = agree / sqrt(margins) if margins else 0.0

    def reach(x: float, y: float) -> float:
        return sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    value = (only - other) / n
    return Mean(value, value - reach(a.value - a.low, b.high - b.value), value + reach(a.high - a.value, b.value - b.low), n)
