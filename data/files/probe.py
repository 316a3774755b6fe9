"""What a media file holds, found once: which frame is shown when, where decoding can start, and what makes it no plain file."""

import gc
import math
import stat
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np

from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.packets import Scan, decode, scan
from data.files.pictures import Picture, look_at_picture, picture_names, read_pictures
from data.files.pixels import covering
from data.files.series import Series, is_whole
from data.files.source import byte_range, opened, stat_of

MediaKind = Literal["video", "picture", "pictures"]
MOST_FRAMES = 2**24  # that a probe read from a file may claim
# What decord 0.6 reads right. Its FFmpeg of 2018 knows no AV1, and MPEG-2 and MPEG-4 with B-frames came out wrong.
PLAIN_CODECS = frozenset({"h264", "hevc", "vp8", "vp9"})
PLAIN_CONTAINERS = ("mov", "matroska")
PLAIN_PIXELS = frozenset({"yuv420p", "yuvj420p"})


@dataclass(frozen=True, slots=True)
class Probe:
    """What a media file holds.

    Args:
        width, height: px, as shown, after rotation.
        timeline: when each frame is shown, rising, in units of `time_base` seconds.
        key_pts, key_dts: of the packets that decoding can start at; none: frames are counted from the beginning of the file.
        bytes, mtime_ns: of the file when it was looked at.
        odd: why only PyAV is trusted with this file; empty if it is plain.
        rotation: quarter turns, counter-clockwise, that show the coded frame upright.
        mirrored: left and right of the coded frame are swapped before it is turned.
        sound: whether a deep check found every frame whole; None where nobody looked.
    """

    kind: MediaKind
    width: int
    height: int
    timeline: Series
    time_base: Fraction
    key_pts: Series
    key_dts: Series
    container: str
    codec: str
    pixel_format: str
    audio: bool
    bytes: int
    mtime_ns: int
    odd: str
    rotation: int = 0
    mirrored: bool = False
    sound: bool | None = None

    @property
    def frames(self) -> int:
        return len(self.timeline)

    @property
    def times(self) -> np.ndarray:
        """s, float64, counted from the first frame's own time stamp."""
        pts = self.timeline.numbers
        return (pts - pts[0]) * self.time_base.numerator / self.time_base.denominator

    @property
    def fps(self) -> float:
        """Mean rate; nan for one frame."""
        return (self.frames - 1) / float(self.times[-1]) if self.frames > 1 else math.nan

    @property
    def duration_s(self) -> float:
        """The last frame is shown as long as the others on average; 0 for one frame."""
        return self.frames / self.fps if self.frames > 1 else 0.0

    @property
    def variable(self) -> bool:
        """Whether frames follow each other unevenly: by more than a tenth of the usual distance, and more than rounding to the time base."""
        return bool(self.timeline.listed) and _uneven(self.timeline.numbers)

    def choose(
        self, path: str, frames: Sequence[int] | np.ndarray, cover: tuple[int, int] | None, limits: Limits
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The wanted frame numbers rising and without repetition, and how to bring those into the order asked for (None: as they are).

        Raises: IndexError for numbers outside, which is the caller's mistake and not the file's. VideoError("too_large").
        """
        wanted = np.asarray(frames, dtype=np.int64)
        if wanted.ndim != 1 or len(wanted) == 0:
            raise IndexError(f"wanted frames must be a non-empty list of numbers, got shape {wanted.shape}")
        if wanted.min() < 0 or wanted.max() >= self.frames:
            raise IndexError(f"{path}: frames {wanted.min()} to {wanted.max()} are wanted, the file has 0 to {self.frames - 1}")
        height, width = covering(self.height, self.width, cover)
        limits.check_clip(path, width, height, len(wanted))
        unique, order = np.unique(wanted, return_inverse=True)
        return unique, None if np.array_equal(unique, wanted) else order

    def key_before(self, frame: int) -> tuple[int, int] | None:
        """(pts, dts) of the last packet shown at or before a frame at which decoding can start; None: count from the beginning."""
        if not len(self.key_pts):
            return None
        place = int(np.searchsorted(self.key_pts.numbers, self.timeline.numbers[frame], side="right")) - 1
        return int(self.key_pts.numbers[max(place, 0)]), int(self.key_dts.numbers[max(place, 0)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for a line of a file."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        series = {name: given[name].to_json() for name in ("timeline", "key_pts", "key_dts")}
        return given | series | {"time_base": [self.time_base.numerator, self.time_base.denominator]}

    @classmethod
    def from_json(cls, given: Any) -> "Probe":
        """Raises: ValueError for what `to_json` cannot have written."""
        if not isinstance(given, dict) or set(given) != set(cls.__slots__):
            raise ValueError(f"a probe must be an object with the keys {', '.join(sorted(cls.__slots__))}, got {given!r:.80}")
        _check_plain(given)
        base = given["time_base"]
        if not (isinstance(base, list) and len(base) == 2 and all(is_whole(part) and part > 0 for part in base)):
            raise ValueError(f"time_base must be [numerator, denominator], above 0, got {base!r:.80}")
        series = {name: Series.from_json(given[name], name, MOST_FRAMES) for name in ("timeline", "key_pts", "key_dts")}
        values: dict[str, Any] = given | series | {"time_base": Fraction(*base)}
        found = cls(**values)
        if not found.frames or not found.timeline.rising or len(found.key_pts) != len(found.key_dts):
            raise ValueError(f"a probe needs frames at rising times, and two times for each key frame, got {given!r:.200}")
        return found


def probe(media: Media, limits: Limits, fps: float | None = None) -> Probe:
    """Look at a video, a picture or a folder of pictures. Of a video one frame is decoded (its turn stands nowhere else), and all of them
    where packets do not tell when they are shown.

    Args:
        fps: of a folder of pictures, which have no time stamps.
    Raises: VideoError.
    """
    if stat.S_ISDIR(stat_of(media).st_mode):
        return _probe_pictures(media, limits, fps)
    _, size, changed = byte_range(media)
    picture = look_at_picture(media, limits)
    if picture is not None and not (picture.animated and picture.format in ("GIF", "PNG")):  # FFmpeg 8.1 reads no animated WebP
        return _of_pictures("picture", picture, picture.format.lower(), 1, Fraction(1), size, changed)
    with opened(media, limits) as (container, stream):
        found = scan(media, container, stream, limits)
        name, codec = container.format.name, stream.codec_context.codec.canonical_name
        odd = _odd(media, found, name, codec, stream.frames)
        audio = bool(container.streams.audio)
    gc.collect(0)  # PyAV's frame and its side data hold each other: whole pictures would pile up until Python looks by itself
    look = found.look
    height, width = look.shown
    return Probe(
        kind="video",
        width=width,
        height=height,
        timeline=Series.of(found.pts),
        time_base=found.time_base,
        key_pts=Series.of(found.keys[:, 0]),
        key_dts=Series.of(found.keys[:, 1]),
        container=name,
        codec=codec,
        pixel_format=look.pixel_format,
        audio=audio,
        bytes=size,
        mtime_ns=changed,
        odd=odd,
        rotation=look.rotation,
        mirrored=look.mirrored,
    )


def deep_check(media: Media, probe: Probe, limits: Limits) -> None:
    """Decode everything with PyAV, which alone notices damage.

    Raises: VideoError("damaged") that names the first damaged time.
    """
    path = str(media)
    if probe.kind != "video":
        names = picture_names(media) if probe.kind == "pictures" else [""]
        for name in names:  # one by one: a long folder does not fit into memory
            read_pictures(media, [name] if name else [], (probe.height, probe.width), None, limits)
        return
    start = probe.key_before(0)
    times = probe.timeline.numbers
    place = 0
    with opened(media, limits) as (container, stream):
        for frame in decode(path, container, stream, start, seek=False):
            if start is not None and place < len(times) and frame.pts > times[place]:
                break
            place += start is None or (place < len(times) and frame.pts == times[place])
    if place < len(times):
        at_s = float((times[place] - times[0]) * probe.time_base)
        raise VideoError(path, "damaged", f"the frame at {at_s:.3f} s does not come out of the decoder ({place} of {len(times)} did)")


def _probe_pictures(media: Media, limits: Limits, fps: float | None) -> Probe:
    names = picture_names(media)
    if fps is None or not (math.isfinite(fps) and fps > 0):
        raise VideoError(str(media), "timeline", f"a folder of pictures has no time stamps, so its row must give their rate, got fps={fps}")
    one = Media.of(f"{media.path}/{names[0]}")
    picture = look_at_picture(one, limits)
    if picture is None:
        raise VideoError(str(media), "unreadable", f"{names[0]} is no picture")
    limits.check_header(str(media), picture.width, picture.height, len(names))
    status = stat_of(media)
    rate = Fraction(fps).limit_denominator(100_000)
    return _of_pictures("pictures", picture, "folder", len(names), 1 / rate, status.st_size, status.st_mtime_ns)


def _of_pictures(kind: MediaKind, picture: Picture, container: str, count: int, time_base: Fraction, size: int, changed: int) -> Probe:
    return Probe(
        kind=kind,
        width=picture.width,
        height=picture.height,
        timeline=Series.of(range(count)),
        time_base=time_base,
        key_pts=Series.of([]),
        key_dts=Series.of([]),
        container=container,
        codec=picture.format.lower(),
        pixel_format=picture.mode,
        audio=False,
        bytes=size,
        mtime_ns=changed,
        odd=kind,
    )


def _odd(media: Media, found: Scan, container: str, codec: str, claimed: int) -> str:
    """The first reason why decord is not trusted with a file. It gave wrong frames for edit lists and nothing says when it does so
    again: what was not tried with it is odd."""
    look = found.look
    reasons = {
        "a part of a tar file": bool(media.member or media.start or media.size is not None),
        "packets that are not shown (an edit list?)": found.hidden > 0,
        "packets do not say when they are shown": not len(found.keys),
        "counts differ": claimed not in (0, found.packets),
        "key frames that are looked back across (open groups of pictures)": not found.afresh,
        "does not begin at 0": float(found.pts[0] * found.time_base) < 0,
        "variable frame rate": _uneven(found.pts),
        f"codec {codec}": codec not in PLAIN_CODECS,
        f"container {container}": not container.startswith(PLAIN_CONTAINERS),
        f"pixels {look.pixel_format}": look.pixel_format not in PLAIN_PIXELS,
        "interlaced": look.interlaced,
        "rotated": look.rotation != 0 or look.mirrored,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _uneven(pts: np.ndarray) -> bool:
    steps = np.diff(pts)
    if not len(steps):
        return False
    usual = np.median(steps)
    return bool(np.abs(steps - usual).max() > max(1.0, usual / 10))


def _check_plain(given: dict[str, Any]) -> None:
    wholes = {"width": 1, "height": 1, "bytes": 0, "mtime_ns": 0, "rotation": 0}
    for name, least in wholes.items():
        if not is_whole(given[name]) or given[name] < least:
            raise ValueError(f"{name} must be a whole number from {least}, got {given[name]!r:.80}")
    for name in ("container", "codec", "pixel_format", "odd"):
        if not isinstance(given[name], str):
            raise ValueError(f"{name} must be a text, got {given[name]!r:.80}")
    for name, allowed in {"audio": (False, True), "mirrored": (False, True), "sound": (None, False, True), "kind": get_args(MediaKind)}.items():
        if not any(given[name] is value or (isinstance(value, str) and given[name] == value) for value in allowed):
            raise ValueError(f"{name} must be one of {allowed}, got {given[name]!r:.80}")
    if given["rotation"] > 3:
        raise ValueError(f"rotation must be a number of quarter turns from 0 to 3, got {given['rotation']}")
