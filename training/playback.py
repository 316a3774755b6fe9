"""Wrong ways to play a stretch of video, each an order of its frames: whoever tells them apart has to look at motion."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LEAST_FRAMES = 4  # of a stretch: of fewer, a cut may be none
Order = NDArray[np.int64]  # which frame is shown at each moment


def backwards(frames: int, rng: np.random.Generator) -> Order:
    """The last frame first. In the procedural world each motion is another one backwards, so there nobody can tell."""
    return np.arange(frames)[::-1]


def cut(frames: int, rng: np.random.Generator) -> Order:
    """Begins in the middle, and goes on from the first frame when it is over."""
    return np.roll(np.arange(frames), int(rng.integers(frames // 4, frames - frames // 4 + 1)))


def halting(frames: int, rng: np.random.Generator) -> Order:
    """Stands still from a frame of the first half on."""
    return np.minimum(np.arange(frames), int(rng.integers(frames // 2)))


def shuffled(frames: int, rng: np.random.Generator) -> Order:
    """In no order."""
    return rng.permutation(frames)


def slow(frames: int, rng: np.random.Generator) -> Order:
    """Each frame twice, so that it gets half as far."""
    return np.arange(frames) // 2 + int(rng.integers(frames // 2))


def stuttering(frames: int, rng: np.random.Generator) -> Order:
    """Every second frame is the one before it."""
    return np.arange(frames) // 2 * 2


PLAYBACKS: dict[str, Callable[[int, np.random.Generator], Order]] = {
    "backwards": backwards,
    "cut": cut,
    "halting": halting,
    "shuffled": shuffled,
    "slow": slow,
    "stuttering": stuttering,
}
