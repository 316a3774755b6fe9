"""From what a file holds to the shape that its clip is delivered in: one rule per class, and a clip that is short is shortened, not lost."""

from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data.buckets import Bucket, TooShort
from models.geometry import Grid


@runtime_checkable
class Shapes(Protocol):
    """Chooses a shape for each clip."""

    @property
    def largest(self) -> Bucket:
        """The shape of a clip that is long and large enough; what samples are made in unless another shape is asked for."""
        ...

    def bucket(self, frames: int, height: int, width: int) -> Bucket:
        """The shape for a clip of so many frames at the delivered rate, and of a size in pixels.

        Raises: TooShort.
        """
        ...


class Fixed:
    """One size for all, the middle of each frame; clips shorter than `frames` keep as many as they fill.

    Args:
        frames, height, width: of a clip that is long enough.
        grid: pixels (frames, height, width) of one token; a shortened clip has 1 + k * grid[0] frames.
        min_frames: a clip that fills fewer is a fault.
    """

    def __init__(self, frames: int, height: int, width: int, grid: Grid, min_frames: int = 1) -> None:
        self.largest = Bucket(frames, height, width)
        self.grid, self.min_frames = _checked(grid), min_frames
        _check_least(min_frames, frames)

    def bucket(self, frames: int, height: int, width: int) -> Bucket:
        kept = _frames(frames, self.largest.frames, self.grid[0], self.min_frames)
        return Bucket(kept, self.largest.height, self.largest.width)


class Native:
    """Each clip in about its own aspect ratio: the size on the grid that keeps most of the picture within a number of pixels.

    Nothing is enlarged, unless a file is smaller than one cell of the grid. Of the sizes that fit, the one with the largest
    (share of the picture that is kept) x sqrt(pixels) wins: a narrow rim may go for a finer picture.

    Args:
        frames: of the longest clip.
        pixels: height x width of a frame at most.
        grid: pixels (frames, height, width) of one token: frames are 1 + k * grid[0], height and width multiples of the others.
        min_frames: a clip that fills fewer is a fault.
    """

    def __init__(self, frames: int, pixels: int, grid: Grid, min_frames: int = 1) -> None:
        self.frames, self.pixels, self.grid, self.min_frames = frames, pixels, _checked(grid), min_frames
        _, h, w = self.grid
        if pixels < h * w:
            raise ValueError(f"pixels={pixels} is less than one token of {h}x{w}. Set data.shape.pixels to {h * w} or more.")
        _check_least(min_frames, frames)
        self.sizes = np.array([(y, x) for y in range(h, pixels // w + 1, h) for x in range(w, pixels // y + 1, w)])
        self._size = lru_cache(maxsize=None)(self._choose)

    def __reduce__(self) -> tuple:
        return Native, (self.frames, self.pixels, self.grid, self.min_frames)

    @property
    def largest(self) -> Bucket:
        return self.bucket(self.frames, self.pixels, self.pixels)  # a square that is larger than any

    def bucket(self, frames: int, height: int, width: int) -> Bucket:
        return Bucket(_frames(frames, self.frames, self.grid[0], self.min_frames), *self._size(height, width))

    def _choose(self, height: int, width: int) -> tuple[int, int]:
        _, h, w = self.grid
        y, x = self.sizes.T
        fitting = self.sizes[(y <= max(height, h)) & (x <= max(width, w))]
        y, x = fitting.T
        best = np.argmax(kept_share(height, width, y, x) * np.sqrt(y * x))
        return int(y[best]), int(x[best])


def kept_share(height: Any, width: Any, to_height: Any, to_width: Any) -> Any:
    """The share of a picture that is left when it is scaled to cover another size and the middle is cut out; numbers or arrays."""
    ratio = (height * to_width) / (width * to_height)
    return np.minimum(ratio, 1 / ratio)


def _frames(have: int, most: int, stride: int, least: int) -> int:
    """The longest 1 + k * stride that `have` fills, at most `most`, which is taken as it is."""
    kept = most if have >= most else 1 + (have - 1) // stride * stride
    if have < 1 or kept < least:
        raise TooShort(f"fills a clip of {max(kept, 0)} frames, at least {least} are wanted (data.shape.min_frames)")
    return kept


def _checked(grid: Grid) -> Grid:
    if len(grid) != 3 or not all(isinstance(step, int) and step >= 1 for step in grid):
        raise ValueError(f"grid={grid} must be three whole numbers from 1: frames, height and width of a token. Set data.grid.")
    t, h, w = grid
    return t, h, w


def _check_least(min_frames: int, frames: int) -> None:
    if not 1 <= min_frames <= frames:
        raise ValueError(f"min_frames={min_frames} must lie between 1 and frames={frames}. Set data.shape.min_frames.")
