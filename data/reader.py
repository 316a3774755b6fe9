"""Frames out of video files: wanted frames by number, exactly those, or a typed reason why not; never a made-up frame."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

T = TypeVar("T")
Kind = Literal[
    "missing",  # no such file, or no permission to look
    "not_a_file",  # a folder, pipe or device
    "empty",  # no bytes
    "unreadable",  # no demuxer or decoder makes sense of it
    "no_video",  # sound or data only
    "too_large",  # the header is beyond the limits
    "too_short",  # fewer frames than the clip needs
    "damaged",  # some wanted frames cannot be decoded, or only with made-up parts
    "timeline",  # time stamps do not say which frame is which
]


class VideoError(ValueError):
    """Why a file gives no clip. Carries plain texts only, so it passes between processes."""

    def __init__(self, path: str, kind: Kind, detail: str) -> None:
        super().__init__(path, kind, detail)
        self.path, self.kind, self.detail = path, kind, detail

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file holds.

    Args:
        times: s, when each frame comes on screen, in display order.
        width, height: as coded, before a rotation is applied.
    """

    times: np.ndarray
    width: int
    height: int

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def fps(self) -> float:
        """Mean rate; nan for a single frame."""
        return (self.frames - 1) / float(self.times[-1] - self.times[0]) if self.frames > 1 else float("nan")


# Frame numbers in display order; or a function that chooses them once the header is known (one opening instead of two); None is all.
Wanted = Sequence[int] | np.ndarray | Callable[[VideoInfo], np.ndarray] | None


@runtime_checkable
class VideoReader(Protocol):
    """Reads video files. Implementations hold no open file between calls, so they pass to worker processes."""

    def probe(self, path: str) -> VideoInfo:
        """Raises: VideoError."""
        ...

    def read(self, path: str, wanted: Wanted = None) -> np.ndarray:
        """The wanted frames, uint8 t h w 3 (RGB), in the order asked for; a frame may be asked for twice.

        Raises: VideoError. IndexError if a frame number is outside the file, which is the caller's mistake and not the file's.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a header may claim before anything is decoded: a few bytes can promise more than any memory holds.

    Args:
        frame_px: pixels of one frame, 2**26 is 8192 x 8192.
        frames: of a file; a day at 30 fps is 2.6 million.
        clip_px: frames x height x width of one read, 2**30 is 3 GiB of RGB.
    """

    frame_px: int = 2**26
    frames: int = 3_000_000
    clip_px: int = 2**30

    def check_header(self, path: str, width: int, height: int, frames: int) -> None:
        if width < 1 or height < 1:
            raise VideoError(path, "unreadable", f"the header gives no size ({width}x{height})")
        if width * height > self.frame_px:
            raise VideoError(path, "too_large", f"{width}x{height} pixels, the limit is {self.frame_px} a frame")
        if frames > self.frames:
            raise VideoError(path, "too_large", f"the header claims {frames} frames, the limit is {self.frames}")

    def check_clip(self, path: str, width: int, height: int, frames: int) -> None:
        if frames * width * height > self.clip_px:
            raise VideoError(path, "too_large", f"{frames} frames of {width}x{height} in one read, the limit is {self.clip_px} pixels")


class PyAVReader:
    """Reads with PyAV: any codec of FFmpeg, by the time stamps of the packets; applies rotation; notices damage that FFmpeg flags."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def probe(self, path: str) -> VideoInfo:
        with _opened(path, self.limits) as (container, stream):
            return _Timeline.of(path, container, stream, self.limits).info(stream)

    def read(self, path: str, wanted: Wanted = None) -> np.ndarray:
        with _opened(path, self.limits) as (container, stream):
            timeline = _Timeline.of(path, container, stream, self.limits)
            unique, order = _choose(path, wanted, timeline.info(stream), self.limits)
            timeline.seek(container, stream, unique[0])
            frames = _decode(path, container, stream, timeline.pts[unique])
        return frames if order is None else frames[order]


class DecordReader:
    """Reads with decord, one decoding thread; refuses files whose time line it is known to misread (edit lists)."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def probe(self, path: str) -> VideoInfo:
        info, _ = self._open(path)
        return info

    def read(self, path: str, wanted: Wanted = None) -> np.ndarray:
        info, video = self._open(path)
        unique, order = _choose(path, wanted, info, self.limits)
        try:
            frames = video.get_batch(unique).asnumpy()
        except (RuntimeError, _decord().DECORDError) as error:
            raise VideoError(path, "damaged", _first_line(error)) from error
        finally:
            del video  # frees the decoder now, not at some collection
        return frames if order is None else frames[order]

    def _open(self, path: str) -> tuple[VideoInfo, Any]:
        decord = _decord()
        with _opened(path, self.limits) as (_, stream):  # decord decodes before it tells a size
            width, height = stream.width, stream.height
        try:
            video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
            count = len(video)
            if count < 1:
                raise VideoError(path, "damaged", "decord finds no frame")
            self.limits.check_header(path, width, height, count)
            times = video.get_frame_timestamp(np.arange(count))[:, 0].astype(np.float64)
        except (RuntimeError, decord.DECORDError) as error:
            raise VideoError(path, "unreadable", _first_line(error)) from error
        # A first frame before 0 is cut off by an edit list; decord 0.6 then hands out other frames than asked for.
        if times[0] < 0 or np.any(np.diff(times) <= 0):
            raise VideoError(path, "timeline", "an edit list or unordered time stamps, which decord misreads")
        return VideoInfo(times, width, height), video


class AutoReader:
    """Reads with decord, and with PyAV where decord is not installed or does not manage the file."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.readers: list[VideoReader] = [PyAVReader(limits)]
        if _decord_installed():
            self.readers.insert(0, DecordReader(limits))

    def probe(self, path: str) -> VideoInfo:
        return self._first(lambda reader: reader.probe(path))

    def read(self, path: str, wanted: Wanted = None) -> np.ndarray:
        return self._first(lambda reader: reader.read(path, wanted))

    def _first(self, job: Callable[[VideoReader], T]) -> T:
        for reader in self.readers[:-1]:
            try:
                return job(reader)
            except VideoError as error:
                if error.kind not in ("unreadable", "damaged", "timeline"):
                    raise
        return job(self.readers[-1])


@dataclass(frozen=True, slots=True)
class _Timeline:
    """A file's frames in display order, from its packets: nothing is decoded for it.

    Args:
        pts: presentation times in units of the stream, rising.
        keys: (pts, dts) of the packets that decoding can start at.
    """

    pts: np.ndarray
    keys: list[tuple[int, int]]

    @classmethod
    def of(cls, path: str, container: Any, stream: Any, limits: Limits) -> "_Timeline":
        pts: list[int] = []
        keys: list[tuple[int, int]] = []
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.pts is None:
                raise VideoError(path, "timeline", "packets without time stamps")
            if packet.is_keyframe:
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            if not packet.is_discard:  # cut off by an edit list
                pts.append(packet.pts)
            limits.check_header(path, stream.width, stream.height, len(pts))
        if not pts:
            raise VideoError(path, "damaged", "no packet of video in the file")
        return cls(np.unique(np.array(pts)), sorted(keys))

    def info(self, stream: Any) -> VideoInfo:
        return VideoInfo(self.pts * float(stream.time_base), stream.width, stream.height)

    def seek(self, container: Any, stream: Any, first: int) -> None:
        """Go to the last key packet that is shown at or before the frame `first`."""
        before = [dts for pts, dts in self.keys if pts <= self.pts[first]]
        start = before[-1] if before else int(self.pts[0])
        container.seek(start, stream=stream, backward=True, any_frame=False)


def _decode(path: str, container: Any, stream: Any, pts: np.ndarray) -> np.ndarray:
    """The frames at the given rising times, all or none."""
    place = {int(time): number for number, time in enumerate(pts)}
    frames: list[np.ndarray] = []
    convert = VideoReformatter()
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise VideoError(path, "damaged", f"the frame at {frame.time} s, or one it is built on, is corrupt")
        if place.get(frame.pts) != len(frames):
            continue
        # One thread: starting swscale's pool costs more than a small frame; workers are the parallelism.
        pixels = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
        pixels = np.rot90(pixels, round(frame.rotation / 90) % 4)
        if frames and pixels.shape != frames[0].shape:
            raise VideoError(path, "damaged", f"the size of its frames changes from {frames[0].shape[1::-1]} to {pixels.shape[1::-1]}")
        frames.append(pixels)
        if len(frames) == len(pts):
            return np.stack(frames)  # t h w 3
    raise VideoError(path, "damaged", f"{len(frames)} of {len(pts)} wanted frames can be decoded")


@contextmanager
def _opened(path: str, limits: Limits) -> Iterator[tuple[Any, Any]]:
    """(container, first video stream) of a file whose header is within the limits."""
    _check_file(path)
    kind: Kind = "unreadable"
    try:
        with av.open(path, metadata_errors="replace") as container:
            stream = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
            if stream is None:
                kinds = sorted({stream.type for stream in container.streams})
                raise VideoError(path, "no_video", f"holds {', '.join(kinds) or 'no stream at all'}")
            if stream.codec_context is None:
                raise VideoError(path, "unreadable", "a codec that FFmpeg does not know")
            limits.check_header(path, stream.width, stream.height, stream.frames)
            stream.codec_context.thread_count = 1
            kind = "damaged"  # the header was sound
            yield container, stream
    except FFmpegError as error:
        raise VideoError(path, kind, _first_line(error)) from error


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture attached to a sound file."""
    return bool(stream.disposition & Disposition.attached_pic)


def _check_file(path: str) -> None:
    """Answers what needs no demuxer; a pipe would block for ever, and every demuxer has its own words for an empty file."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise VideoError(path, "missing", "no such file") from error
    except (OSError, ValueError) as error:
        raise VideoError(path, "missing", _first_line(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, "not_a_file", "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device")
    if status.st_size == 0:
        raise VideoError(path, "empty", "0 bytes")


def _choose(path: str, wanted: Wanted, info: VideoInfo, limits: Limits) -> tuple[np.ndarray, np.ndarray | None]:
    """The wanted frame numbers rising and without repetition, and how to bring them into the order asked for (None: as they are)."""
    chosen = np.arange(info.frames) if wanted is None else np.asarray(wanted(info) if callable(wanted) else wanted, dtype=np.int64)
    if chosen.ndim != 1 or len(chosen) == 0:
        raise IndexError(f"wanted frames must be a non-empty list of numbers, got shape {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= info.frames:
        raise IndexError(f"{path}: frames {chosen.min()} to {chosen.max()} are wanted, the file has 0 to {info.frames - 1}")
    limits.check_clip(path, info.width, info.height, len(chosen))
    unique, order = np.unique(chosen, return_inverse=True)
    return unique, None if len(unique) == len(chosen) and np.array_equal(unique, chosen) else order


def _decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise RuntimeError("decord is not installed (it has no wheel for this platform). Set data/reader=auto or data/reader=pyav.") from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_installed() -> bool:
    try:
        _decord()
    except RuntimeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
