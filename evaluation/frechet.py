"""How far two sets of videos lie apart as Gaussians over named features: the Frechet distance in float64, with what its sampling error is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import CONFIDENCE
from runtime.seeding import Stream, generator

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean (d,) and covariance (d, d) of `n` samples."""

    mean: Values
    covariance: Values
    n: int


@dataclass(frozen=True, slots=True)
class Distance:
    """A Frechet distance between two sets.

    Args:
        value: from all samples as they are: what others call the distance.
        low, high: 95 % interval by the bootstrap over clips, reflected about the value ("basic"): a distance of finite sets lies too high, and
            that of resampled sets higher still by about as much.
        bias: by how much, as the bootstrap estimates it; already taken out of the interval, not of the value.
        halves: distance between two halves of the source clips: what chance alone makes of two sets of half the size.
        samples: per set, several of each clip.
        dimensions: of the features.
    """

    value: float
    low: float
    high: float
    bias: float
    halves: float | None
    samples: int
    clips: int
    dimensions: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def gaussian(samples: Values) -> Gaussian:
    """Mean and unbiased covariance of samples (n, d).

    Raises: ValueError if there are not more samples than dimensions: the covariance would be singular and the distance mostly chance.
    """
    _check_samples([samples])
    return _Clips.of([samples]).gaussian(np.ones(1))


def frechet(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2): the squared distance, in the square of the features' unit.

    The trace of the last root is the sum of the singular values of C1^1/2 C2^1/2, with symmetric roots. Taken like this no small eigenvalue is
    computed from a product and then put under a root, which would turn an error of 1e-16 into one of 1e-8.

    Source: Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions".
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"the two sets have features of {len(first.mean)} and {len(second.mean)} dimensions; wanted the same of both")
    shift = np.square(first.mean - second.mean).sum()
    cross = np.linalg.svd(_root(first.covariance) @ _root(second.covariance), compute_uv=False).sum()
    return float(max(0.0, shift + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross))


def compare_sets(sources: Sequence[Values], results: Sequence[Values], seed: int, resamples: int = 200) -> Distance:
    """The distance between the features of source clips and of their counterparts.

    Args:
        sources, results: for every clip its samples, (k, d) each. Clip i of both belongs together: the bootstrap draws pairs of clips, whole,
            because samples of one clip resemble each other.
    Raises: ValueError if there are not more samples than dimensions.
    """
    if not len(sources) == len(results) > 0:
        raise ValueError(f"got features of {len(sources)} sources and {len(results)} results, wanted as many of each, at least one")
    for side in (sources, results):
        _check_samples(side)
    first, second, clips = _Clips.of(sources), _Clips.of(results), len(sources)

    def distance(weights: Values) -> float:
        return frechet(first.gaussian(weights), second.gaussian(weights))

    value = distance(np.ones(clips))
    rng = generator(seed, Stream.BOOTSTRAP, 1)
    drawn = [distance(np.bincount(rng.integers(0, clips, clips), minlength=clips).astype(float)) for _ in range(resamples)]
    low, high = 2 * value - np.quantile(drawn, [0.5 + CONFIDENCE / 2, 0.5 - CONFIDENCE / 2])
    return Distance(
        value=value,
        low=max(0.0, float(low)),
        high=max(0.0, float(high)),
        bias=float(np.mean(drawn)) - value,
        halves=_halves(sources),
        samples=sum(map(len, sources)),
        clips=clips,
        dimensions=sources[0].shape[1],
    )


@dataclass(frozen=True, slots=True)
class _Clips:
    """What a covariance of any choice of clips is made from: rows whose outer products add up to those of the samples.

    The rows are the samples about `centre`, as a large mean would cost digits, with a column of ones, or the triangle of their QR decomposition
    where that is smaller. Outer products per clip would take 8 MiB each of features of 1024 dimensions.
    """

    rows: Values  # n d+1
    clip: NDArray[np.int64]  # n
    centre: Values

    @classmethod
    def of(cls, side: Sequence[Values]) -> "_Clips":
        data = [np.asarray(part, dtype=np.float64) for part in side]
        centre = np.concatenate(data).mean(axis=0)
        parts = [np.column_stack([part - centre, np.ones(len(part))]) for part in data]
        rows = [part if len(part) <= part.shape[1] else np.linalg.qr(part, mode="r") for part in parts]
        return cls(np.concatenate(rows), np.repeat(np.arange(len(data)), [len(part) for part in rows]), centre)

    def gaussian(self, weights: Values) -> Gaussian:
        """Of clips that come weights[i] times each."""
        products = (self.rows * weights[self.clip, None]).T @ self.rows
        n = round(products[-1, -1])
        mean = products[-1, :-1] / n
        return Gaussian(mean + self.centre, (products[:-1, :-1] - n * np.outer(mean, mean)) / (n - 1), n)


def _halves(sources: Sequence[Values]) -> float | None:
    """Even against odd clips; None if half the clips hold too few samples."""
    try:
        return frechet(*(gaussian(np.concatenate(sources[start::2])) for start in (0, 1)))
    except ValueError:
        return None


def _check_samples(side: Sequence[Values]) -> None:
    shapes = {np.shape(part)[1:] for part in side}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"wanted samples of shape (n, d) of one d for every clip, got {[np.shape(part) for part in side[:3]]}")
    n, ((d,),) = sum(map(len, side)), shapes
    if n <= d:
        raise ValueError(f"a Frechet distance over {d} features needs more than {d} samples of each set, got {n}. Raise clips, or take longer ones.")


def _root(covariance: Values) -> Values:
    """The symmetric root of a covariance; eigenvalues that rounding made negative are zero."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
