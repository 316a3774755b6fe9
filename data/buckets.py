"""The shape that clips are delivered in, and which frames of a file fill it: integers and time stamps, no pixels."""

from dataclasses import dataclass

import numpy as np

from models.geometry import Grid

TOLERANCE_S = 0.002  # Matroska rounds time stamps to 1 ms, decord keeps them in float32; no frame is shorter than 4 ms


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """A shape of clips: frames x height x width pixels."""

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is no size of a clip, it must be at least 1. Set data.shape.{name}.")

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"

    def tokens(self, grid: Grid) -> int:
        """How many cells of `grid` (frames, height, width) cover it; the first frame has a layer of cells of its own."""
        t, h, w = grid
        return (1 + -(-(self.frames - 1) // t)) * -(-self.height // h) * -(-self.width // w)


class TooShort(ValueError):
    """A file that does not last as long as the clip that is wanted of it."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Where in a file a clip of `frames` frames at `fps` can start.

    A clip's k-th frame is the one on screen k / fps seconds after its first: the nearest at or before that time. A file slower than `fps`
    therefore repeats frames, a faster one is thinned, and one of equal rate gives consecutive frames.

    Args:
        times: s, when each frame of the file comes on screen, rising.
    """

    times: np.ndarray
    frames: int
    fps: float

    @property
    def count(self) -> int:
        """How many frames of the file can be a clip's first one; 0 if the file is too short."""
        return int(np.searchsorted(self.times, _end(self.times, self.fps) - (self.frames - 1) / self.fps, side="left"))

    def pick(self, place: float) -> np.ndarray:
        """Frame numbers of the clip that starts at the share `place` in [0, 1) of all possible starts.

        Raises: TooShort naming both counts.
        """
        count = self.count
        if count == 0:
            have = longest(self.times, self.fps)
            raise TooShort(f"has {have} frames at {self.fps:g} fps ({len(self.times)} in the file), {self.frames} are wanted")
        start = self.times[min(int(place * count), count - 1)]
        wanted = start + np.arange(self.frames) / self.fps
        return np.searchsorted(self.times, wanted + TOLERANCE_S, side="right") - 1


def longest(times: np.ndarray, fps: float) -> int:
    """Frames of the longest clip at `fps` that frames with these times fill: the largest for which Windows has a start."""
    if len(times) == 0:
        return 0
    return max(1, int(np.ceil((_end(times, fps) - float(times[0])) * fps)))


def _end(times: np.ndarray, fps: float) -> float:
    """s, when the last frame leaves the screen; it is taken to stay as long as the one before it."""
    if len(times) == 0:
        return 0.0
    last = times[-1] - times[-2] if len(times) > 1 else 1 / fps
    return float(times[-1] + last - TOLERANCE_S)
