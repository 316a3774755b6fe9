"""Opening the bytes of a clip: a file or a stretch of a tar file, never a pipe, a playlist, or a name that its content gives."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.error import ArgumentError, FFmpegError
from av.stream import Discard, Disposition

from data.files.boxes import check_boxes
from data.files.faults import Kind, Limits, VideoError, first_line
from data.files.media import Media

# Containers that hold their own data. Playlists and their kin (hls, dash, concat, image2, sdp) name other files and addresses: a
# ".mp4" could make this machine read its own secrets or call a server.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,m4v,mjpeg,ivf,obu,mxf,nut,dv,"
    "yuv4mpegpipe,mp3,wav,flac,aac"
)
PROTOCOLS = "file,subfile"


def byte_range(media: Media) -> tuple[int, int, int]:
    """(start, size, time of change in ns) of a clip's bytes, after what needs no demuxer: a pipe would block for ever.

    Raises: VideoError.
    """
    status = stat_of(media)
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(str(media), "not_a_file", "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device")
    size = status.st_size - media.start if media.size is None else media.size
    if media.start < 0 or size < 0 or media.start + size > status.st_size:
        raise VideoError(str(media), "damaged", f"its bytes end at {media.start + size}, the file around it at {status.st_size}")
    if size == 0:
        raise VideoError(str(media), "empty", "0 bytes")
    return media.start, size, status.st_mtime_ns


def stat_of(media: Media) -> os.stat_result:
    """Raises: VideoError."""
    try:
        return os.stat(media.path)
    except FileNotFoundError as error:
        raise VideoError(str(media), "missing", "no such file") from error
    except (OSError, ValueError) as error:
        raise VideoError(str(media), "missing", reason(error)) from error


def address(media: Media) -> str:
    """What FFmpeg opens. The protocol is spelt out, so that no file name is taken for one ("concat:a|b")."""
    if not media.start and media.size is None:
        return f"file:{media.path}"
    start, size, _ = byte_range(media)
    return f"subfile,,start,{start},end,{start + size},,:file:{media.path}"


def open_bytes(media: Media) -> io.BufferedReader:
    """The bytes as a file object, of which nothing outside the clip can be read.

    Raises: VideoError.
    """
    start, size, _ = byte_range(media)
    try:
        return io.BufferedReader(_Window(media.path, start, size))
    except OSError as error:
        raise VideoError(str(media), "missing", reason(error)) from error


class _Window(io.RawIOBase):
    """A stretch of a file as a file."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  closed in close()
        self._start, self._size, self._place = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a place before the beginning: {base + offset}")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._place))
        self._file.seek(self._start + self._place)
        count = self._file.readinto(view[:wanted])
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def opened(media: Media, limits: Limits) -> Iterator[tuple[Any, Any]]:
    """(container, first video stream) of a file whose header is within the limits; one thread, any doubt of the decoder is an error."""
    path = str(media)
    byte_range(media)
    kind: Kind = "unreadable"
    largest = {"max_pixels": str(limits.frame_px)}  # what the stream itself says may differ from the header
    try:
        with open_bytes(media) as file:
            check_boxes(path, file, limits)
        allowed = {"format_whitelist": CONTAINERS, "protocol_whitelist": PROTOCOLS}
        with av.open(address(media), metadata_errors="replace", options=allowed | largest) as container:
            stream = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
            if stream is None:
                kinds = sorted({stream.type for stream in container.streams})
                raise VideoError(path, "no_video", f"holds {', '.join(kinds) or 'no stream at all'}")
            if stream.codec_context is None:
                raise VideoError(path, "unreadable", "a codec that FFmpeg does not know")
            limits.check_header(path, stream.width, stream.height, stream.frames)
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = Discard.all
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode"} | largest
            kind = "damaged"  # the header was sound
            yield container, stream
    except ArgumentError as error:  # what FFmpeg says of containers that are not on the list
        detail = reason(error) if kind == "damaged" else "no video file, or one that names other files (a playlist)"
        raise VideoError(path, kind, detail) from error
    except (FFmpegError, MemoryError) as error:
        raise VideoError(path, kind, reason(error)) from error


def reason(error: BaseException) -> str:
    """The words of FFmpeg or of the system without the number and the address."""
    return error.strerror if isinstance(error, FFmpegError | OSError) and error.strerror else first_line(error)


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture attached to a sound file."""
    return bool(stream.disposition & Disposition.attached_pic)
