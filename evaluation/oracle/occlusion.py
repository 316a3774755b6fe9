"""Completes what something in front hides: where an object of a known area must be, judged by its visible pixels alone."""

from dataclasses import dataclass

import numpy as np

from data.world.vocabulary import SHAPES
from evaluation.oracle.shapes import ideal

ROUNDS = 10
# Areas that are tried, in logs above the most that is seen in one frame: a post hides up to half of what it stands before.
AREAS = np.linspace(0.0, 0.7, 8)
LEAST_FIT = 0.75  # mean overlap at the best of them; files keep 0.80, files through a simulated autoencoder 0.79
# Its height, which an upright post hides little of, changes by less than this in logs over the clip; what grows in the world changes by 0.64.
LASTING_HEIGHT = 0.35
# With less of it in sight neither place nor shape can be told.
LEAST_SEEN = 0.35


@dataclass(frozen=True, slots=True)
class Completion:
    """For each frame n and each of `vocabulary.SHAPES` s: the best place, and how well the visible pixels agree with it."""

    centroid: np.ndarray  # n s 2
    overlap: np.ndarray  # n s
    seen: np.ndarray  # n s, the share of the shape that is in sight


def lasting_area(alpha: np.ndarray, hidden: np.ndarray, centroid: np.ndarray) -> float | None:
    """The area of an object that keeps its size and is seldom seen whole: the one at which an ideal shape agrees best with all its frames.

    What is seen of it grows as it comes out, so its visible area says nothing of its size.

    Args:
        alpha, hidden, centroid: as of `complete`.
    Returns: None if it grows or shrinks, or no shape agrees at any size.
    """
    visible = np.where(hidden, 0, alpha)
    heights = (visible > 0.5).any(2).sum(1)
    if len(heights) < 2 or abs(np.polyfit(np.linspace(0, 1, len(heights)), np.log(np.maximum(heights, 1)), 1)[0]) > LASTING_HEIGHT:
        return None
    most = float(visible.sum((1, 2)).max())
    alpha, hidden, centroid = alpha[::2], hidden[::2], centroid[::2]  # half of the frames tell the size as well
    logs, best, score = AREAS, 0.0, 0.0
    for _ in range(2):  # a coarse look, then a fine one around the best
        scores = [complete(alpha, hidden, np.full(len(alpha), most * np.exp(log)), centroid).overlap.mean(0).max() for log in logs]
        best, score = float(logs[int(np.argmax(scores))]), float(max(scores))
        logs = best + np.asarray([-0.05, 0.0, 0.05])
    return most * float(np.exp(best)) if score >= LEAST_FIT else None


def complete(alpha: np.ndarray, hidden: np.ndarray, area: np.ndarray, centroid: np.ndarray) -> Completion:
    """Fit each ideal shape, upright, to the visible part.

    The hidden pixels are filled in from the shape where it lies now, which moves its centroid, and so on: the fixed point is the place
    at which the visible pixels balance. Each step is divided by the visible share, as hidden pixels follow the guess.

    Args:
        alpha: (n, h, w) coverage, meaningless where `hidden`.
        hidden: bool (n, h, w).
        area: (n,) pixels of the whole object.
        centroid: (n, 2) of the visible part, the first guess.
    """
    count, height, width = alpha.shape
    x, y = (np.arange(width) + 0.5)[None, None].astype(np.float32), (np.arange(height) + 0.5)[None, :, None].astype(np.float32)
    shown = ~hidden
    visible = np.where(shown, alpha, 0)
    size = np.maximum(area, 1)[:, None, None].astype(np.float32)
    places, overlaps, seen = (np.zeros((count, len(SHAPES), *tail)) for tail in ((2,), (), ()))
    for column, name in enumerate(SHAPES):
        place = centroid.astype(np.float32).copy()
        for _ in range(ROUNDS):
            drawn = ideal(name, x - place[:, :1, None], y - place[:, 1:, None], size)
            share = np.clip((drawn * shown).sum((1, 2)) / size[:, 0, 0], LEAST_SEEN, 1)
            filled = np.where(hidden, drawn, visible)
            total = np.maximum(filled.sum((1, 2)), 1)
            balance = np.stack([(filled * x).sum((1, 2)), (filled * y).sum((1, 2))], 1) / total[:, None]
            place += np.clip((balance - place) / share[:, None], -4, 4)
        drawn = ideal(name, x - place[:, :1, None], y - place[:, 1:, None], size) * shown
        both = np.minimum(drawn, visible).sum((1, 2))
        overlaps[:, column] = both / np.maximum(drawn.sum((1, 2)) + visible.sum((1, 2)) - both, 1e-6)
        seen[:, column] = drawn.sum((1, 2)) / size[:, 0, 0]
        places[:, column] = place
    return Completion(places, overlaps, seen)
