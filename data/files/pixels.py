"""Decoded frames to RGB, scaled in the same pass: colour as the file tags it, upright, whole pixels only."""

from typing import Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter


def covering(height: int, width: int, cover: tuple[int, int] | None) -> tuple[int, int]:
    """The smallest (height, width) of the same shape that covers `cover`; as it is for None."""
    if cover is None:
        return height, width
    scale = max(cover[0] / height, cover[1] / width)
    return max(cover[0], round(height * scale)), max(cover[1], round(width * scale))


class Painter:
    """Writes frames into a clip, uint8 t h w 3.

    Bilinear, which swscale widens when it scales down, so thin edges do not flicker. One thread: starting swscale's pool costs more
    than a small frame, and workers are the parallelism. Transparency is left out, and HDR is not mapped to less light: it looks pale.

    Args:
        height, width: of the clip, as shown.
        rotation, mirrored: as Probe has them.
    """

    def __init__(self, frames: int, height: int, width: int, rotation: int = 0, mirrored: bool = False) -> None:
        self.clip = np.empty((frames, height, width, 3), np.uint8)
        self._coded = (width, height) if rotation % 2 else (height, width)
        self._rotation, self._mirrored = rotation, mirrored
        self._convert = VideoReformatter()

    def paint(self, number: int, frame: Any, how: int = Interpolation.BILINEAR) -> None:
        height, width = self._coded
        plane: Any = self._convert.reformat(frame, width, height, "rgb24", interpolation=how, threads=1).planes[0]
        pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : width * 3].reshape(height, width, 3)
        if self._mirrored:
            pixels = pixels[:, ::-1]
        self.clip[number] = np.rot90(pixels, self._rotation)

    def paint_rgb(self, number: int, pixels: np.ndarray) -> None:
        """uint8 h w 3, upright."""
        if pixels.shape == self.clip.shape[1:]:
            self.clip[number] = pixels
        else:
            # A picture's colour is as fine as its brightness; without the flags swscale halves it, as a video's is.
            how = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
            self.paint(number, VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"), how)
