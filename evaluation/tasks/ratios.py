"""How much larger errors of made clips are than those of real ones: a ratio of medians, with its interval over clips."""

from collections.abc import Sequence

import numpy as np

from evaluation.reconstruction import HIGHEST_RATIO
from evaluation.statistics import CONFIDENCE, Mean
from runtime.seeding import Stream, generator


def median_ratio(errors: Sequence[Sequence[float]], real: Sequence[Sequence[float]], seed: int, resamples: int = 2000) -> Mean:
    """The median of all `errors` over the median of all `real` ones; clips are drawn with replacement, both errors of a clip together.

    Medians, as a clip whose object is lost has an infinite error, which no mean survives and which leaving it out would hide. What
    happens in fewer than half of the clips a median does not see: say with it in how many clips the error is small.

    Args:
        errors, real: for each clip one or more errors >= 0, as many for every clip; value i of both belongs to the same clip.
    Returns: 1 where both medians are 0.
    Raises: ValueError if there is no clip, or the lengths differ.
    """
    first, second = np.asarray(errors, np.float64), np.asarray(real, np.float64)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second) or not first.size or not second.size:
        raise ValueError(f"a ratio needs one or more errors of each clip and of its real one, got shapes {first.shape} and {second.shape}")
    picks = generator(seed, Stream.BOOTSTRAP).integers(0, len(first), (resamples, len(first)))
    drawn = np.concatenate([_ratios(first[part], second[part]) for part in np.array_split(picks, 20)])  # 20: a suite's joints fit into 10 MB
    low, high = np.quantile(drawn, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Mean(float(_ratios(first[None], second[None])[0]), float(low), float(high), len(first))


def _ratios(errors: np.ndarray, real: np.ndarray) -> np.ndarray:
    # (r, n, k) and (r, n, m) -> (r,)
    above, below = (np.median(values.reshape(len(values), -1), axis=1) for values in (errors, real))
    finite = np.isfinite(above) & (below > 0)
    ratio = np.where(finite, np.divide(above, below, where=finite, out=np.zeros_like(above)), HIGHEST_RATIO)
    return np.where((above == 0) & (below == 0), 1.0, np.minimum(ratio, HIGHEST_RATIO))
