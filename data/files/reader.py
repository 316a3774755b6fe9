"""Frames out of videos and pictures: wanted frames by number, exactly those, or a typed reason why not; never a made-up frame."""

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from data.files.decord_reader import DecordReader, decord_installed
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.pixels import covering
from data.files.probe import Probe, probe
from data.files.pyav_reader import PyAVReader


@runtime_checkable
class VideoReader(Protocol):
    """Reads frames. Implementations hold no open file between calls, so they pass to worker processes.

    Attributes:
        pixels: whose decoder and scaler make them; readers that name the same one give the same bits.
    """

    pixels: str

    def read(self, media: Media, probe: Probe, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None = None) -> np.ndarray:
        """The wanted frames, uint8 t h w 3 (RGB), upright, in the order asked for; a frame may be asked for twice.

        Args:
            probe: of this file, which must not have changed since.
            frames: numbers in display order.
            cover: (height, width); the frames are scaled, keeping their shape, to the smallest size that covers it.
        Raises: VideoError. IndexError if a frame number is outside the file, which is the caller's mistake and not the file's.
        """
        ...


class AutoReader:
    """Reads with decord what is plain and known to be whole, and everything else with PyAV.

    decord delivers damaged pictures without a word, and other frames than asked for from files that are not plain. So it is given a
    file only if the probe found nothing odd (`odd == ""`) and a deep check has decoded all of it with PyAV (`sound is True`); a file
    that nobody checked goes to PyAV, whatever the speed. Where decord fails or is not installed, PyAV reads. Frames that are to be
    scaled are PyAV's in any case, since the two round differently: no choice made here changes a bit of what is delivered.
    """

    pixels = PyAVReader.pixels

    def __init__(self, limits: Limits | None = None) -> None:
        self.pyav = PyAVReader(limits)
        self.decord = DecordReader(limits) if decord_installed() else None

    def read(self, media: Media, probe: Probe, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None = None) -> np.ndarray:
        """See VideoReader."""
        scaled = cover is not None and covering(probe.height, probe.width, cover) != (probe.height, probe.width)
        if self.decord is not None and probe.odd == "" and probe.sound is True and not scaled:
            try:
                return self.decord.read(media, probe, frames, cover)
            except VideoError as error:
                if error.kind == "too_large":
                    raise
        return self.pyav.read(media, probe, frames, cover)


def read_video(path: str | os.PathLike[str], fps: float | None = None, limits: Limits | None = None) -> np.ndarray:
    """All frames of a file or folder, uint8 t h w 3.

    Args:
        fps: of a folder of pictures.
    Raises: VideoError.
    """
    media, limits = Media.of(path), limits or Limits()
    found = probe(media, limits, fps)
    return PyAVReader(limits).read(media, found, range(found.frames))
