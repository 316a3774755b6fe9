"""Frames with PyAV: any codec of FFmpeg, by the time stamps of the packets; the only back end that notices damage."""

from collections.abc import Sequence
from itertools import count

import numpy as np

from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.packets import decode
from data.files.pictures import picture_names, read_pictures
from data.files.pixels import Painter, covering
from data.files.probe import Probe
from data.files.source import byte_range, opened


class PyAVReader:
    """Decodes from the last key frame before the first wanted frame to the last wanted one, and refuses all of them if any packet or
    frame on that way raises or is flagged: what FFmpeg makes up for a hole, the following frames are built on.

    Damage that decodes without a complaint is seen by nobody. Of a clip of 256x256 with 1 wrong byte in 800, none of 200 windows of 33
    frames came through; in smaller pictures with fewer wrong bytes some do. A deep check finds such files by their other frames.
    """

    pixels = "PyAV"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def read(self, media: Media, probe: Probe, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None = None) -> np.ndarray:
        """See VideoReader."""
        if probe.kind != "video":
            return read_stills(media, probe, frames, cover, self.limits)
        unique, order = probe.choose(str(media), frames, cover, self.limits)
        check_unchanged(media, probe)
        start, first = probe.key_before(int(unique[0])), probe.key_before(0)
        clip = None
        if start != first:
            try:
                clip = self._decode(media, probe, unique, cover, start, True)
            except VideoError as error:
                if error.kind != "timeline":  # seeking does not get there
                    raise
        if clip is None:  # from the first one: some key frames (intra refresh) show nothing whole before a while
            clip = self._decode(media, probe, unique, cover, first, False)
        if clip is None:
            raise VideoError(str(media), "damaged", f"of frames {unique[0]} to {unique[-1]} not all come out of the decoder")
        return clip if order is None else clip[order]

    def _decode(
        self, media: Media, probe: Probe, numbers: np.ndarray, cover: tuple[int, int] | None, start: tuple[int, int] | None, seek: bool
    ) -> np.ndarray | None:
        """The frames of the given rising numbers, all or none."""
        path, coded = str(media), (probe.width, probe.height) if probe.rotation % 2 else (probe.height, probe.width)
        painter = Painter(len(numbers), *covering(probe.height, probe.width, cover), probe.rotation, probe.mirrored)
        names = numbers.tolist() if start is None else probe.timeline.numbers[numbers].tolist()
        done = 0
        with opened(media, self.limits) as (container, stream):
            for counted, frame in zip(count(), decode(path, container, stream, start, seek), strict=False):
                name = counted if start is None else frame.pts
                if name < names[done]:
                    continue
                if name > names[done]:
                    return None
                if (frame.height, frame.width) != coded:
                    detail = f"the size of its frames changes from {coded[1]}x{coded[0]} to {frame.width}x{frame.height}"
                    raise VideoError(path, "damaged", detail)
                painter.paint(done, frame)
                done += 1
                if done == len(names):
                    return painter.clip
        return None


def check_unchanged(media: Media, probe: Probe) -> None:
    """A probe tells about one state of a file; frames of another would be other frames.

    Raises: VideoError.
    """
    _, size, changed = byte_range(media)
    if (size, changed) != (probe.bytes, probe.mtime_ns):
        raise VideoError(str(media), "timeline", f"has changed since it was looked at ({probe.bytes} bytes then, {size} now). Start again")


def read_stills(media: Media, probe: Probe, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None, limits: Limits) -> np.ndarray:
    """Pictures, which no back end for videos has a part in. See VideoReader."""
    unique, order = probe.choose(str(media), frames, cover, limits)
    names: list[str] = []
    if probe.kind == "pictures":
        found = picture_names(media)
        if len(found) != probe.frames:
            raise VideoError(str(media), "timeline", f"has changed since it was looked at ({probe.frames} pictures then, {len(found)} now)")
        names = [found[number] for number in unique]
    clip = read_pictures(media, names, (probe.height, probe.width), cover, limits)
    return clip if order is None else clip[order]
