"""Frames with decord, of files that the probe found plain: it is given nothing that it is known, or not known not, to misread."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.files.faults import Limits, VideoError, first_line
from data.files.media import Media
from data.files.pixels import covering
from data.files.probe import Probe
from data.files.pyav_reader import check_unchanged, read_stills


class DecordReader:
    """One decoding thread, opened for each read. It does not notice damage; AutoReader gives it sound files alone. decord 0.6 gives no
    frames of 8, 12, 16, 24, 48 and 72 pixels' width."""

    pixels = "decord"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def read(self, media: Media, probe: Probe, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None = None) -> np.ndarray:
        """See VideoReader. Frames that are scaled differ from PyAV's by rounding and by where the colour samples are taken to lie."""
        if probe.kind != "video":
            return read_stills(media, probe, frames, cover, self.limits)
        path = str(media)
        decord = _decord()
        unique, order = probe.choose(path, frames, cover, self.limits)
        if probe.odd:
            raise VideoError(path, "timeline", f"not a file for decord: {probe.odd}. Set data/reader=auto or data/reader=pyav")
        check_unchanged(media, probe)
        height, width = covering(probe.height, probe.width, cover)
        try:
            asked = (width, height) if (height, width) != (probe.height, probe.width) else (-1, -1)  # -1: as it is, without a filter
            video = decord.VideoReader(media.path, ctx=decord.cpu(0), width=asked[0], height=asked[1], num_threads=1)
            try:
                if len(video) != probe.frames:
                    raise VideoError(path, "timeline", f"decord counts {len(video)} frames, its packets are {probe.frames}")
                clip = video.get_batch(unique).asnumpy()
            finally:
                del video  # frees the decoder now, not at some collection
        except (RuntimeError, UnicodeError, decord.DECORDError) as error:
            said = first_line(error).split("Check failed: ")[-1]  # behind its time and place in decord's source
            raise VideoError(path, "unreadable", f"decord fails: {said}") from error
        if clip.shape != (len(unique), height, width, 3):
            raise VideoError(path, "timeline", f"decord gives {clip.shape}, wanted {(len(unique), height, width, 3)}")
        return clip if order is None else clip[order]


def decord_installed() -> bool:
    """Whether it can be imported here."""
    try:
        _decord()
    except RuntimeError:
        return False
    return True


def _decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise RuntimeError("decord is not installed (it has no wheel for this platform). Set data/reader=auto or data/reader=pyav.") from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord
