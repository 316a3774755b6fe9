"""How far two sets of videos lie apart by a cubic kernel over named features: unbiased however few the samples, which a Frechet distance is not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import CONFIDENCE
from runtime.seeding import Stream, generator

Values = NDArray[np.float64]
# Samples of a set that are compared at most: pairs grow with its square. Of more, every clip gives as many, drawn from its own by fixed numbers.
SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """A kernel distance between two sets.

    Args:
        value: zero on average for sets of one law, so below zero about as often as above; it needs no correction for the number of samples.
        low, high: 95 % interval by the bootstrap over clips. Of sets of one law it is wider than it need be (it held zero 150 times of 150);
            far from zero and of 80 clips with heavy tails it covers about 90 %.
        halves: distance between the even and the odd source clips: what chance alone makes of two sets of half the size.
        samples: per set, several of each clip.
        dimensions: of the features.
    """

    value: float
    low: float
    high: float
    halves: float | None
    samples: int
    clips: int
    dimensions: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def kernel_distance(sources: Sequence[Values], results: Sequence[Values], unit: float, seed: int, resamples: int = 200) -> KernelDistance:
    """The squared maximum mean discrepancy under k(x, y) = (x . y / (d unit^2) + 1)^3, as a U-statistic over clips.

    No pair of samples of one clip enters, in any of the three terms: they resemble each other, and a clip's counterpart resembles the clip. What
    is left is unbiased both for counterparts and for sets that have nothing to do with each other.

    Args:
        sources, results: for every clip its samples, (k, d) each. Clip i of both may belong together: the bootstrap draws pairs of clips, whole.
        unit: what features are divided by; as published, 1.
    Raises: ValueError if there are fewer than two clips, or as many on both sides.
    Source: Binkowski et al. 2018, "Demystifying MMD GANs" (the kernel, KID); Gretton et al. 2012, "A kernel two-sample test", eq. 6.
    """
    clips = len(sources)
    if not len(results) == clips >= 2:
        raise ValueError(f"a kernel distance needs as many results as sources, at least two, got {clips} sources and {len(results)} results")
    shapes = {np.shape(part)[1:] for side in (sources, results) for part in side}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"wanted samples of shape (n, d) of one d for every clip, got {sorted(shapes)}")
    first, second = (_thinned(side) for side in (sources, results))
    own, made, cross = (_Pairs.of(a, b, unit) for a, b in ((first, first), (second, second), (first, second)))

    def distance(weights: Values) -> float:
        both = np.outer(weights, weights)
        np.fill_diagonal(both, 0)
        return own.mean(both) + made.mean(both) - 2 * cross.mean(both)

    rng, drawn = generator(seed, Stream.BOOTSTRAP, 2), []
    while len(drawn) < resamples:
        weights = np.bincount(rng.integers(0, clips, clips), minlength=clips).astype(float)
        if np.count_nonzero(weights) > 1:  # one clip alone has no pair
            drawn.append(distance(weights))
    low, high = np.quantile(drawn, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return KernelDistance(
        value=distance(np.ones(clips)),
        low=float(low),
        high=float(high),
        halves=_halves(own, clips),
        samples=sum(map(len, first)),
        clips=clips,
        dimensions=first[0].shape[1],
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Of every clip of one side with every clip of the other: the kernel summed over their pairs of samples, and how many pairs these are."""

    sums: Values
    counts: Values

    @classmethod
    def of(cls, first: Sequence[Values], second: Sequence[Values], unit: float) -> "_Pairs":
        sizes = [[len(part) for part in side] for side in (first, second)]
        data, starts = np.concatenate(second), np.cumsum([0, *sizes[1][:-1]])
        scale = data.shape[1] * unit**2
        rows = [np.add.reduceat(((part @ data.T / scale + 1) ** 3).sum(axis=0), starts) for part in first]
        return cls(np.stack(rows), np.multiply.outer(*map(np.asarray, sizes)).astype(np.float64))

    def mean(self, weights: Values) -> float:
        """Over pairs of clips that come weights[i, j] times each."""
        return float((weights * self.sums).sum() / (weights * self.counts).sum())


def _halves(own: _Pairs, clips: int) -> float | None:
    """Even against odd clips; None if a half has no pair of clips."""
    if clips < 4:
        return None
    even = (np.arange(clips) % 2 == 0).astype(float)
    within = []
    for half in (even, 1 - even):
        both = np.outer(half, half)
        np.fill_diagonal(both, 0)
        within.append(own.mean(both))
    return sum(within) - 2 * own.mean(np.outer(even, 1 - even))


def _thinned(side: Sequence[Values]) -> list[Values]:
    """At most SAMPLES in all, one of each clip at least; the same places of clip i on either side.

    They are drawn: every n-th window of a clip would come from one column of its windows, wherever n is a multiple of the columns.
    """
    data = [np.asarray(part, dtype=np.float64) for part in side]
    most = max(1, SAMPLES // len(data))
    if sum(map(len, data)) <= SAMPLES:
        return data
    return [part[np.sort(generator(0, Stream.FEATURES, 3, clip).permutation(len(part))[:most])] for clip, part in enumerate(data)]
