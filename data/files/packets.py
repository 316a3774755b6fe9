"""A video's packets read as a time line, and decoded from a key frame on: a frame comes out whole and at its own time, or not at all."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.format import Flags

from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.source import opened, reason

TINY_BYTES = 16  # an MPEG-4 packet this short may say "nothing new": it is stored and never shown
ORDER_FRAMES = 48  # decoded to see whether time stamps that never step back are true ones
KEYS_TRIED, LOOK_PACKETS = 3, 300  # for the first frame


@dataclass(frozen=True, slots=True)
class Look:
    """A decoded frame's size and turn, which no header that can be asked holds.

    Args:
        width, height: as coded.
        rotation: quarter turns, counter-clockwise, that show it upright.
        mirrored: left and right are swapped before it is turned.
    """

    width: int
    height: int
    rotation: int
    mirrored: bool
    pixel_format: str
    interlaced: bool

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) once it is upright."""
        return (self.width, self.height) if self.rotation % 2 else (self.height, self.width)

    @classmethod
    def of(cls, frame: Any) -> "Look":
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV 18 does not know all kinds of side data that FFmpeg 8 attaches, and then gives none
            rotation, mirrored = round(frame.rotation / 90) % 4, False
        else:
            rotation, mirrored = (0, False) if matrix is None else _turn(np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].astype(np.int64))
        return cls(frame.width, frame.height, rotation, mirrored, frame.format.name, frame.interlaced_frame)


@dataclass(frozen=True, slots=True)
class Scan:
    """What the packets of a stream say.

    Args:
        pts: of the frames that are shown, rising, in units of `time_base`.
        keys: (n, 2), (pts, dts) of the packets that decoding can start at, rising; none: frames are counted from the file's beginning.
        packets: all of the stream, shown or not.
        hidden: packets that are not shown: cut off by an edit list, built on what was cut off, or only there to build on.
        afresh: nothing that follows a key packet looks back across it, so that whoever starts there sees what he would have seen.
    """

    pts: np.ndarray
    keys: np.ndarray
    time_base: Fraction
    look: Look
    packets: int
    hidden: int
    afresh: bool


def scan(media: Media, container: Any, stream: Any, limits: Limits) -> Scan:
    """The time line, by the packets alone where their time stamps can be believed, else by decoding everything once.

    Raises: VideoError.
    """
    path = str(media)
    read = _Packets.read(path, container, stream, limits)
    times, keys, packets = read.times, read.keys, len(read.times)
    mpeg4 = stream.codec_context.name == "mpeg4"
    untimed = bool(container.format.flags & Flags.no_timestamps.value)  # a bare stream: what its parser makes up is lost by seeking
    seen = [time for time, hidden in zip(times, read.hidden, strict=True) if not hidden]
    if untimed or None in times or not keys or len(set(seen)) < len(seen) or (mpeg4 and read.tiny):
        return _counted(media, limits, packets, None not in times)
    pts = np.array(times, np.int64)
    if stream.codec_context.has_b_frames and np.all(np.diff(pts) > 0) and not _comes_in_order(media, limits, keys[0], pts):
        return _counted(media, limits, packets, True)
    # The frames in front of the first key frame are built on ones that were cut off; no decoder shows them.
    shown = np.sort(pts[~np.array(read.hidden) & (pts >= keys[0][0])])
    if not len(shown):
        raise VideoError(path, "damaged", "no frame is shown: an edit list cuts off all of them")
    look = _first_look(media, container, stream, keys, limits)
    if look.interlaced and not _comes_in_order(media, limits, keys[0], shown):  # a packet may be half a frame
        return _counted(media, limits, packets, True)
    return Scan(shown, np.array(sorted(keys), np.int64), stream.time_base, look, packets, packets - len(shown), read.afresh)


def decode(path: str, container: Any, stream: Any, key: tuple[int, int] | None, seek: bool = True) -> Iterator[Any]:
    """Frames in display order from the key packet (pts, dts) on; None: all that come.

    Args:
        seek: False if the file was just opened and the key packet is near its beginning.
    Raises: VideoError at the first packet or frame that the decoder doubts: what follows is built on it.
    """
    first = None if key is None else key[0]
    last = None
    for packet in container.demux(stream) if key is None else _from_key(path, container, stream, key, seek):
        leads = first is not None and packet.pts is not None and packet.pts < first  # shown before the key frame: cannot be whole
        if packet.is_corrupt and not leads:
            raise VideoError(path, "damaged", f"the packet at {_seconds(packet.pts, stream)} s is cut or corrupt")
        try:
            frames = packet.decode()
        except FFmpegError as error:
            if leads:
                continue
            raise VideoError(path, "damaged", f"the packet at {_seconds(packet.pts, stream)} s: {reason(error)}") from error
        for frame in frames:
            if first is not None and (frame.pts is None or frame.pts < first):
                continue
            if frame.is_corrupt:
                raise VideoError(path, "damaged", f"the frame at {_seconds(frame.pts, stream)} s, or one it is built on, is corrupt")
            if first is not None and last is not None and frame.pts <= last:
                raise VideoError(path, "timeline", f"the frame of {_seconds(frame.pts, stream)} s comes behind that of {_seconds(last, stream)} s")
            last = frame.pts
            yield frame


@dataclass(slots=True)
class _Packets:
    """What is kept of each packet of a stream.

    Args:
        hidden: whether it is never shown: cut off by an edit list, or only there for others to be built on.
        tiny: one is so short that it may show nothing.
        afresh: see Scan.
    """

    times: list[int | None]
    keys: list[tuple[int, int]]
    hidden: list[bool]
    tiny: bool = False
    afresh: bool = True

    @classmethod
    def read(cls, path: str, container: Any, stream: Any, limits: Limits) -> "_Packets":
        found = cls([], [], [])
        codec, head = stream.codec_context.name, stream.codec_context.extradata or b""
        for packet in container.demux(stream):
            size = packet.size
            if size == 0:  # the end, or a frame that is left out
                continue
            pts = packet.pts
            found.times.append(pts)
            found.hidden.append(packet.is_discard or (codec == "vp8" and not memoryview(packet)[0] & 0x10))
            found.tiny |= size <= TINY_BYTES
            if packet.is_keyframe and pts is not None:
                found.keys.append((pts, pts if packet.dts is None else packet.dts))
                found.afresh &= _is_idr(codec, head, packet)
            elif found.keys and pts is not None and pts < found.keys[-1][0]:
                found.afresh = False
            if len(found.times) > limits.frames:
                raise VideoError(path, "too_large", f"more than {limits.frames} frames, the limit of a file")
        if not found.times:
            raise VideoError(path, "damaged", "no packet of video in the file")
        return found


def _is_idr(codec: str, head: bytes, packet: Any) -> bool:
    """Whether a key packet of H.264 or HEVC, as MP4 and Matroska store them, is one that nothing behind it looks back across."""
    if codec not in ("h264", "hevc"):
        return True
    place, idr = (4, (5,)) if codec == "h264" else (21, (19, 20))
    if len(head) <= place or head[0] != 1:
        return False
    prefix, units, at = (head[place] & 3) + 1, memoryview(packet), 0
    while at + prefix < len(units):
        kind = units[at + prefix] & 31 if codec == "h264" else units[at + prefix] >> 1 & 63
        if kind in idr:
            return True
        at += prefix + int.from_bytes(units[at : at + prefix], "big")
    return False


def _comes_in_order(media: Media, limits: Limits, key: tuple[int, int], pts: np.ndarray) -> bool:
    """Whether the first frames come out at these times. AVI stores none, and what FFmpeg guesses is wrong with B-frames: it numbers
    the packets as they are stored."""
    with opened(media, limits) as (container, stream):
        frames = islice(decode(str(media), container, stream, key, seek=False), ORDER_FRAMES)
        return all(frame.pts == time for frame, time in zip(frames, pts.tolist(), strict=False))


def _counted(media: Media, limits: Limits, packets: int, timed: bool) -> Scan:
    """The frames of a file whose packets do not say when they are shown, by decoding them."""
    path = str(media)
    with opened(media, limits) as (container, stream):
        looks: list[Look] = []
        times: list[int | None] = []
        for frame in decode(path, container, stream, None):
            looks = looks or [Look.of(frame)]
            times.append(frame.pts)
        if not times:
            raise VideoError(path, "damaged", "no frame can be decoded")
        if timed and None not in times and np.all(np.diff(np.array(times, np.int64)) > 0):
            pts, time_base = np.array(times, np.int64), stream.time_base
        else:
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise VideoError(path, "timeline", "neither time stamps nor a frame rate")
            pts, time_base = np.arange(len(times)), 1 / rate
        return Scan(pts, np.empty((0, 2), np.int64), time_base, looks[0], packets, max(0, packets - len(times)), False)


def _first_look(media: Media, container: Any, stream: Any, keys: list[tuple[int, int]], limits: Limits) -> Look:
    """One frame is decoded, damaged or not."""
    path = str(media)
    with suppress(VideoError):  # there is no seeking in this file: then from its beginning
        for key in keys[:KEYS_TRIED]:
            look = _look(_from_key(path, container, stream, key, True))
            if look is not None:
                return look
    with opened(media, limits) as (again, beginning):
        look = _look(again.demux(beginning))
    if look is None:
        raise VideoError(path, "damaged", "no frame can be decoded")
    return look


def _look(packets: Iterator[Any]) -> Look | None:
    for packet in islice(packets, LOOK_PACKETS):
        with suppress(FFmpegError):
            for frame in packet.decode():
                return Look.of(frame)
    return None


def _from_key(path: str, container: Any, stream: Any, key: tuple[int, int], seek: bool) -> Iterator[Any]:
    """The packets from a key packet on. Demuxers seek as they see fit, too late as well, so the place is looked at."""
    pts, dts = key
    for target in dict.fromkeys((pts, dts, stream.start_time or 0)) if seek else (None,):
        if target is not None:
            try:
                container.seek(target, stream=stream, backward=True, any_frame=False)
            except FFmpegError:
                continue
        packets = container.demux(stream)
        for packet in packets:
            if packet.pts == pts and packet.is_keyframe:
                yield packet
                yield from packets
                return
            if packet.dts is not None and packet.dts > dts:
                break
    raise VideoError(path, "timeline", f"the key frame at {_seconds(pts, stream)} s is not found again")


def _turn(matrix: np.ndarray) -> tuple[int, bool]:
    """(quarter turns counter-clockwise, mirrored before) of a display matrix (a b; c d), which maps (x, y) to (a x + c y, b x + d y)."""
    a, b, c, d = matrix
    mirrored = bool(a * d - b * c < 0)
    if mirrored:
        a, b = -a, -b
    return round(float(np.degrees(np.arctan2(-b, a))) / 90) % 4, mirrored


def _seconds(pts: int | None, stream: Any) -> str:
    return "?" if pts is None else f"{float(pts * stream.time_base):.3f}"
