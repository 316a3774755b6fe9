"""What a change did, from runs paired by seed: an interval, a p value that pays for every comparison, and one of four words."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, sqrt
from typing import Literal

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from evaluation.statistics import CONFIDENCE
from runtime.seeding import Stream, generator

LEVEL = 0.05  # how often an ablation in which nothing does anything may call any of its arms better or worse
PATTERNS = 2**16  # sign patterns that are counted one by one, or drawn where there are more
ROUNDING = 1e-12  # of the largest value: shares such as 0.3 - 0.2 and 0.4 - 0.3 differ by less, and mean the same
_SHARED = "Keep the seeds that both have, in one order, and leave out failed runs."


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Effect:
    """The mean of `n` differences, arm - baseline of one seed each, in the unit of what was measured.

    Args:
        low, high: the 95 % interval by Student's t.
        deviation: standard deviation of the differences (n - 1).
        p: two-sided, of the paired t test.
        p_exchange: two-sided, of all exchanges of arm and baseline within seeds. It assumes nothing about the noise's shape, and
            cannot fall below 2 / 2**n: five seeds never bring it under 0.05. Above 16 seeds exchanges are drawn, 2**16 of them.
    """

    value: float
    low: float
    high: float
    n: int
    deviation: float
    p: float
    p_exchange: float


def paired_effect(arm: Sequence[float], baseline: Sequence[float]) -> Effect:
    """How much higher `arm` is, where value i of both was measured under the same seed.

    What a seed does to both (order, noise, initial weights) cancels. Differences that are all equal tell nothing of the noise, as
    happens to shares of a few prompts: their interval is the point, and p is that of the exchanges.

    Args:
        arm, baseline: one value per seed, in one unit and in one order of the seeds.
    Raises: ValueError if there are fewer than two seeds, the lengths differ, or a value is not finite.
    Source: Student 1908, "The probable error of a mean"; Fisher 1935, "The Design of Experiments", section 21, for the exchanges.
    """
    first, second = _values(arm, "arm"), _values(baseline, "baseline")
    if first.size != second.size:
        raise ValueError(f"pairs need one value per seed in both, got {first.size} of the arm and {second.size} of the baseline. {_SHARED}")
    n = first.size
    if n < 2:
        raise ValueError(f"an effect needs at least two seeds that arm and baseline share, got {n}. Raise seeds.")
    differences = first - second
    rounding = ROUNDING * max(np.abs(first).max(), np.abs(second).max())
    value, p_exchange = float(differences.mean()), _exchanges(differences, rounding)
    if np.ptp(differences) <= rounding:
        value = 0.0 if abs(value) <= rounding else value
        return Effect(value, value, value, n, 0.0, p_exchange, p_exchange)
    deviation = float(differences.std(ddof=1))
    error = deviation / sqrt(n)
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
    return Effect(value, value - half, value + half, n, deviation, 2 * float(stdtr(n - 1, -abs(value) / error)), p_exchange)


def holm(ps: Sequence[float]) -> list[float]:
    """p values that pay for their number: calling those below 0.05 errs in at most 5 % of whole families, however they depend.

    Returns: adjusted values in the order given, none below its own p or above 1.
    Raises: ValueError if a value lies outside [0, 1].
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    for p in ps:
        _probability(p)
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = least
    return adjusted


def verdict(effect: Effect | None, p_adjusted: float, better: Literal["lower", "higher"], smallest: float | None) -> Verdict:
    """One word for an effect.

    Equivalent comes first: a difference that is certainly there and certainly too small to matter is equivalent. It is said wrongly
    in at most 2.5 % of comparisons, each for itself (TOST at that level); better and worse in 5 % of whole families.

    Differences that are all equal have an interval without width, which promises nothing: the exchanges decide, so it takes six seeds. Where
    all are 0 nothing was changed, or nothing that this measure sees: that is never called equivalent.

    Args:
        effect: None where arm and baseline share fewer than two seeds: inconclusive.
        p_adjusted: by holm() over all comparisons of the ablation.
        better: which way the measure is good.
        smallest: the smallest difference that matters, in the measure's unit; None where nobody can say, and nothing is equivalent.
    Raises: ValueError if an argument is out of range.
    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach".
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better={better!r} must be lower or higher. Set the measure's better.")
    if smallest is not None and not (isfinite(smallest) and smallest > 0):
        raise ValueError(f"smallest={smallest} must be a number above 0, or None. Set the measure's smallest.")
    if effect is None:
        return Verdict.INCONCLUSIVE
    _probability(p_adjusted)
    promised = effect.deviation > 0 or effect.p_exchange < LEVEL
    if smallest is not None and promised and -smallest <= effect.low and effect.high <= smallest:
        return Verdict.EQUIVALENT
    if p_adjusted < LEVEL:
        return Verdict.BETTER if (effect.value > 0) == (better == "higher") else Verdict.WORSE
    return Verdict.INCONCLUSIVE


def detectable(deviation: float, n: int, comparisons: int, power: float = 0.8) -> float:
    """The smallest true effect that `n` seeds call by its right sign with probability `power`, two-sided at 0.05 / `comparisons`.

    That is Holm's hardest step, so what is promised here holds whatever the other comparisons do. `deviation` is usually an estimate:
    taken from three seeds, it is off by half as a rule.

    Args:
        deviation: of the differences between arm and baseline, in the measure's unit; 0: an effect that every seed repeats exactly.
        n: seeds.
    Returns: in the unit of `deviation`; inf where no effect is found, however large (differences without noise under few seeds).
    Raises: ValueError if an argument is out of range.
    Source: the noncentral t distribution; Owen 1965, "The power of Student's t-test".
    """
    for name, number, least in (("n", n, 2), ("comparisons", comparisons, 1)):
        if number < least:
            raise ValueError(f"{name}={number} must be at least {least}. Raise {name}.")
    if not (isfinite(deviation) and deviation >= 0):
        raise ValueError(f"deviation={deviation} must be a number of at least 0. Set the measure's deviation.")
    if not LEVEL < power < 1:
        raise ValueError(f"power={power} must lie above {LEVEL}, which chance alone reaches, and below 1. Set power.")
    level = LEVEL / comparisons
    if deviation == 0:
        return 0.0 if 2.0 ** (1 - n) < level else inf
    threshold = stdtrit(n - 1, 1 - level / 2)
    return float(nctdtrinc(n - 1, 1 - power, threshold)) * deviation / sqrt(n)


def seeds_needed(effect: float, deviation: float, comparisons: int, power: float = 0.8, most: int = 1000) -> int | None:
    """The fewest seeds under which a true effect of this size is detectable(); None if `most` are too few.

    Raises: ValueError if an argument is out of range.
    """
    if not isfinite(effect):
        raise ValueError(f"effect={effect} must be finite. Set the measure's smallest.")
    n = 2 + bisect_left(range(2, most + 1), True, key=lambda n: detectable(deviation, n, comparisons, power) <= abs(effect) and effect != 0)
    return n if n <= most else None


def _values(values: Sequence[float], name: str) -> np.ndarray:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise ValueError(f"an effect needs a list of one value per seed, got shape {data.shape} of the {name}. {_SHARED}")
    if not np.isfinite(data).all():
        place = int(np.flatnonzero(~np.isfinite(data))[0])
        raise ValueError(f"an effect needs finite values, got {data[place]} at place {place} of the {name}. {_SHARED}")
    return data


def _probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"a p value must lie in [0, 1], got {p}. Pass the p of paired_effect, or its holm().")


def _exchanges(differences: np.ndarray, rounding: float) -> float:
    """The share of sign patterns whose sum is as far from 0 as the one observed, which is among them: never 0."""
    far = abs(differences.sum()) - differences.size * rounding
    if 2**differences.size <= PATTERNS:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate((sums + difference, sums - difference))
        return float((np.abs(sums) >= far).mean())
    # Drawn patterns and the observed one: Phipson and Smyth 2010, "Permutation p-values should never be zero".
    rng, sums = generator(0, Stream.BOOTSTRAP, differences.size), np.zeros(PATTERNS)
    for difference in differences:
        sums += np.where(rng.random(PATTERNS) < 0.5, difference, -difference)
    return float((1 + (np.abs(sums) >= far).sum()) / (1 + PATTERNS))
