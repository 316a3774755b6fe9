"""Given pictures, clips and masks as frames in the size and at the rate of the clip to be made, whatever their own are."""

import os

import numpy as np

from data.buckets import Windows, longest
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.pictures import read_picture
from data.files.probe import Probe, probe
from data.files.pyav_reader import PyAVReader
from data.transforms import fit
from runtime.build import ConfigError

Video = np.ndarray  # uint8 t h w 3
CLIPS = "a picture or a video file"


def picture(path: str, height: int, width: int) -> Video:
    """A picture, or the first frame of a video: 1 height width 3, scaled to cover, the middle cut out.

    Raises: ConfigError naming the file and what is wrong with it.
    """
    return fit(still(path), height, width)


def clip(path: str, fps: float, height: int | None = None, width: int | None = None) -> Video:
    """A whole video at `fps`: slower ones repeat frames, faster ones are thinned. In its own size if none is given.

    Raises: ConfigError naming the file and what is wrong with it.
    """
    found, limits = look(path, fps), Limits()
    try:
        media = Media.of(path)
        numbers = Windows(found.times, longest(found.times, fps), fps).pick(0.0)
        frames = PyAVReader(limits).read(media, found, numbers)
    except VideoError as error:
        raise _refused(path, error, CLIPS) from None
    return frames if height is None or width is None else fit(frames, height, width)


def look(path: str, fps: float | None = None) -> Probe:
    """What a video or a picture holds.

    Args:
        fps: of a folder of pictures, which has no time stamps; None: one picture a second.
    Raises: ConfigError naming the file and what is wrong with it.
    """
    try:
        return probe(Media.of(path), Limits(), fps or 1.0 if os.path.isdir(path) else None)
    except VideoError as error:
        raise _refused(path, error, CLIPS) from None


def still(path: str) -> Video:
    """A picture as it is, 1 h w 3.

    Raises: ConfigError naming the file and what is wrong with it.
    """
    try:
        return read_picture(path)
    except VideoError as error:
        raise _refused(path, error, CLIPS) from None


def mask(path: str, height: int, width: int) -> np.ndarray:
    """Where a mask is black, (height, width) bool: there the source is kept. White is made anew.

    Raises: ConfigError if it has another size than the source, which it would have to be guessed onto.
    """
    try:
        found = read_picture(path)[0]
    except VideoError as error:
        raise _refused(path, error, "a black and white picture") from None
    if found.shape[:2] != (height, width):
        raise ConfigError(
            f"--mask {path} is {found.shape[1]}x{found.shape[0]}, the source is {width}x{height}. Give a mask of the source's own size: "
            "black is kept, white is made anew."
        )
    return found.mean(axis=2) < 128


def _refused(path: str, error: VideoError, wanted: str) -> ConfigError:
    return ConfigError(f"{path} cannot be used ({error.kind}: {error.detail}). Give {wanted}.")
