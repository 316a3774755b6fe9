"""Connections: does the object go all the way from where the first clip leaves it to where the second begins, and never back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.oracle import State, read
from evaluation.oracle.verdict import LEAST_IOU
from evaluation.statistics import wilson
from evaluation.tasks.course import READ_NOISE, Course, course, followed

Video = NDArray[np.uint8]  # t h w c
# Ends nearer than this, in shorter sides, leave no way to go: a third of the least that a clip of the world moves.
LEAST_WAY = 0.12
# Five deviations of read noise: of the differences between any two of 17 places, one clip in a thousand has one that is larger.
ROOM = 5 * READ_NOISE
LEAST_SEEN = 2 / 3  # of the made frames
# The largest step in even steps: three, as the oracle's own rule for motions; an ease-in and ease-out needs 1.5, a cut all of them.
MOST_STEP = 3.0


@dataclass(frozen=True, slots=True)
class Way:
    """The object's way through one connection, along the line between its two ends.

    Args:
        asked: whether the ends are seen, and apart; all else means nothing otherwise.
        back: the farthest it goes back, in read noise's five deviations: above 1 it went back.
        step: the largest step between frames, in shares of an even one.
        seen: the share of the made frames that show it, with an outline.
    """

    asked: bool
    back: float
    step: float
    seen: float

    @property
    def monotone(self) -> bool:
        return self.asked and self.back <= 1 and self.step <= MOST_STEP and self.seen >= LEAST_SEEN


def connection(video: Video, made: range, ends: Course) -> Way:
    """Read one clip whose middle was made.

    The line is one of places, or, where the ends hardly differ in place, of log radius.

    Args:
        made: of the clip's frames; given ones on both sides.
        ends: the course of what was given, in its place, as the sources show it: a made clip that has lost its ends is no excuse.
    Raises: ValueError if the made span does not lie between given frames.
    """
    if made.step != 1 or not 0 < made.start < made.stop < len(video):
        raise ValueError(f"made={made} must be frames in a row with given ones before and after, of the {len(video)} of the clip")
    if len(ends) != len(video):
        raise ValueError(f"the course of what was given has {len(ends)} frames, the clip {len(video)}")
    state = read(video)
    track = course(state)
    first, last = made.start - 1, made.stop
    way = ends.at[last] - ends.at[first]
    travel, growth = float(np.linalg.norm(way[:2])), abs(float(way[2]))
    if not (ends.seen[first] and ends.seen[last]) or max(travel, growth) < LEAST_WAY:
        return Way(False, 0.0, 0.0, 0.0)
    part = np.array([1, 1, 0]) if travel >= LEAST_WAY else np.array([0, 0, 1])
    line = way * part
    length = float(np.linalg.norm(line))
    inside = (track.seen & outlined(state))[made.start : made.stop]
    times = np.concatenate([[0], 1 + np.flatnonzero(inside), [len(made) + 1]])
    places = np.concatenate([ends.at[[first]], track.at[made.start : made.stop][inside], ends.at[[last]]])
    along = (places - places[0]) @ line / length
    room = float(ROOM @ part / part.sum())
    back = float((np.maximum.accumulate(along) - along).max()) / room
    even = length / (len(made) + 1)
    step = float((np.maximum(np.abs(np.diff(along)) - room, 0) / np.diff(times)).max()) / even
    return Way(True, back, step, float(inside.mean()))


def outlined(state: State) -> NDArray[np.bool_]:
    """(t,): in which frames the object, whatever its shape, has an outline: two pictures laid over each other have none."""
    track = followed(state)
    return np.zeros(state.frames, bool) if track is None else track.fit.turned.max(1) >= LEAST_IOU


def summary(results: Sequence[Way]) -> dict[str, Any]:
    """`monotone`: the share of clips, out of those whose ends are apart, in which the object goes steadily from one to the other.

    Raises: ValueError if in no clip the ends are apart.
    """
    asked = [result for result in results if result.asked]
    return {
        "monotone": wilson([result.monotone for result in asked]).as_dict(),
        "goes_back": wilson([result.back > 1 for result in asked]).as_dict(),
        "jumps": wilson([result.step > MOST_STEP for result in asked]).as_dict(),
        "lost": wilson([result.seen < LEAST_SEEN for result in asked]).as_dict(),
        "monotone_of": [result.monotone if result.asked else None for result in results],
        "n": len(asked),
        "not_asked": len(results) - len(asked),
    }
