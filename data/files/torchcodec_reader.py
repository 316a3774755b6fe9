"""Frames with torchcodec, each checked by the time stamp that comes with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.files.faults import Limits, VideoError, first_line
from data.files.media import Media
from data.files.pixels import Painter, covering
from data.files.probe import Probe
from data.files.pyav_reader import check_unchanged, read_stills


class TorchcodecReader:
    """Exact seeking, one decoding thread, opened for each read. It does not notice damage, so it is for files that a deep check found sound.

    Args:
        limits: of what a header may claim.
    """

    pixels = "torchcodec"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        _decoder()

    def read(self, media: Media, probe: Probe, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None = None) -> np.ndarray:
        """See VideoReader."""
        if probe.kind != "video":
            return read_stills(media, probe, frames, cover, self.limits)
        path = str(media)
        unique, order = probe.choose(path, frames, cover, self.limits)
        if probe.odd:
            raise VideoError(path, "timeline", f"not a file for torchcodec: {probe.odd}. Set data/reader=auto or data/reader=pyav")
        check_unchanged(media, probe)
        try:
            video = _decoder()(media.path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
            batch = video.get_frames_at(unique.tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoError(path, "damaged", first_line(error)) from error
        wanted = probe.timeline.numbers[unique] * float(probe.time_base)
        if len(video) != probe.frames or np.abs(batch.pts_seconds.numpy() - wanted).max() > float(probe.time_base) / 2:
            raise VideoError(path, "timeline", f"torchcodec counts {len(video)} frames, its packets are {probe.frames}, or gives them other times")
        painter = Painter(len(unique), *covering(probe.height, probe.width, cover))
        for number, pixels in enumerate(batch.data.numpy()):
            painter.paint_rgb(number, pixels)
        return painter.clip if order is None else painter.clip[order]


def _decoder() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError, OSError) as error:  # without FFmpeg's libraries it raises RuntimeError
        raise RuntimeError(
            f"torchcodec cannot be used: {first_line(error)}. pip install -e '.[torchcodec]' and install FFmpeg's libraries, or set data/reader=auto."
        ) from error
    return VideoDecoder
