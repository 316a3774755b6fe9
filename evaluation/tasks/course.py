"""The course of a clip's one object: its place and size in every frame, how fast they change, and how well they go on over a joint."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from data.world.truth import FrameState
from evaluation.oracle import State, Track

# What log radius counts in shorter sides of the frame: an object that doubles in a clip is as fast as one that travels 0.49 of them, as
# the world's do (0.38 to 0.62).
GROWTH = 0.7
# Frames to either side of a joint from which place and velocity are read: one latent frame of stride 4.
WIDTH = 4
LEAST_SEEN = 3  # of them
LEAST_PACE = 0.5  # what moves more slowly than this share of the caption's speed does not do what it says
# Deviation of each coordinate as read, in shorter sides: 0.11 px in place and 0.0075 in log radius, of 96 clips of 64 x 64 through an 8 x 8
# autoencoder of 4 channels; from the files themselves a fifth of it.
READ_NOISE = np.array([0.0018, 0.0018, GROWTH * 0.0075])


@dataclass(frozen=True, slots=True)
class Joint:
    """How badly two sides of a joint agree: what the frames before and those after say of the moment between them.

    Args:
        place: distance of the two places, in shorter sides. A loss of the object on either side is infinitely far.
        velocity: size of the difference of the two velocities, in shorter sides per frame.
    """

    place: float
    velocity: float


LOST = Joint(inf, inf)


@dataclass(frozen=True, slots=True)
class Course:
    """One object, frame by frame.

    Args:
        at: (t, 3): x, y in shorter sides of the frame and GROWTH x log radius, so that one length speaks of travel and growth.
        seen: (t,) bool: where `at` can be trusted; elsewhere it means nothing.
    """

    at: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.seen)

    def cut(self, start: int, stop: int) -> "Course":
        return Course(self.at[start:stop], self.seen[start:stop])

    def among(self, frames: np.ndarray, length: int) -> "Course":
        """Of a clip of `length` frames, of which these were read by themselves; the others are not seen."""
        at, seen = np.zeros((length, 3)), np.zeros(length, bool)
        at[frames], seen[frames] = self.at, self.seen
        return Course(at, seen)

    def rolled(self, frames: int) -> "Course":
        """The same loop, `frames` later."""
        return Course(np.roll(self.at, -frames, 0), np.roll(self.seen, -frames))

    def velocity(self) -> np.ndarray | None:
        """(3,) per frame, by least squares; None where fewer than LEAST_SEEN frames are seen."""
        line = self._line()
        return None if line is None else line[1]

    def velocity_in(self, spans: Sequence[range]) -> np.ndarray | None:
        """(3,) per frame, the mean over spans by their frames: what stands still in each of them stands still, wherever it is put in the next.

        Spans of fewer than LEAST_SEEN frames do not count; None where one of the others has no velocity, or there is none.
        """
        long = [span for span in spans if len(span) >= LEAST_SEEN]
        found = [velocity for span in long if (velocity := self.cut(span.start, span.stop).velocity()) is not None]
        return np.average(found, axis=0, weights=[len(span) for span in long]) if long and len(found) == len(long) else None

    def joint(self, k: int, width: int = WIDTH) -> Joint:
        """How the course goes on from frame k - 1 to frame k.

        Least squares, not medians: what one frame beside the joint does wrong shall count.

        Raises: ValueError if there are not `width` frames on each side.
        """
        if not width <= k <= len(self) - width:
            raise ValueError(f"joint={k} of a clip of {len(self)} frames has fewer than {width} frames on one side. Give more frames, or make more.")
        before, after = self.cut(k - width, k)._line(), self.cut(k, k + width)._line()
        if before is None or after is None:
            return LOST
        half = width / 2  # from the middle of either side to the joint
        apart = (after[0] - half * after[1]) - (before[0] + half * before[1])
        return Joint(float(np.linalg.norm(apart)), float(np.linalg.norm(after[1] - before[1])))

    def _line(self) -> tuple[np.ndarray, np.ndarray] | None:
        # Place in the middle of the frames, and velocity.
        if self.seen.sum() < LEAST_SEEN:
            return None
        times = np.flatnonzero(self.seen) - (len(self) - 1) / 2
        place, rate = np.linalg.lstsq(np.stack([np.ones_like(times), times], 1), self.at[self.seen], rcond=None)[0]
        return place, rate


def followed(state: State) -> Track | None:
    """The one object; of several, the one that is seen longest, and of those the largest."""
    return max(state.tracks, key=lambda track: (track.found.sum(), track.fit.area.sum()), default=None)


def course(state: State) -> Course:
    """What the oracle saw of the one object.

    Frames in which a post hides so much that its place would be a guess do not count.
    """
    track = followed(state)
    if track is None:
        return Course(np.zeros((state.frames, 3)), np.zeros(state.frames, bool))
    return _course(track.fit.centroid, np.sqrt(track.fit.area / np.pi), track.placed, min(state.height, state.width))


def true_course(states: Sequence[FrameState], side_px: int) -> Course:
    """The same of a scene's truth, all frames seen.

    Args:
        side_px: the shorter side of the frame, in the pixels of `states`.
    """
    only = [state.objects[0] for state in states]
    centre, radius = np.array([one.centre for one in only]), np.array([one.radius for one in only])
    return _course(centre, radius, np.ones(len(only), bool), side_px)


def mean_speed(track: Course, cyclic: bool = False) -> float:
    """In shorter sides per frame, whatever the direction; from windows of WIDTH frames, so that read noise adds little.

    Windows without enough of the object count as standing still.

    Args:
        cyclic: whether the first frame follows the last.
    """
    starts = range(len(track) if cyclic else max(1, len(track) - WIDTH + 1))
    velocities = [track.rolled(start).cut(0, WIDTH).velocity() for start in starts]
    return float(np.mean([0.0 if velocity is None else float(np.linalg.norm(velocity)) for velocity in velocities]))


def _course(centre: np.ndarray, radius: np.ndarray, seen: np.ndarray, side_px: int) -> Course:
    growth = GROWTH * np.log(np.maximum(radius, 0.5) / side_px)  # half a pixel is no object
    return Course(np.concatenate([centre / side_px, growth[:, None]], 1), seen)
