"""What an MP4 header promises, counted before FFmpeg believes it: it makes room for as many samples as are claimed, not as are there."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from data.files.faults import Limits, VideoError

FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx"}
NESTED = {b"trak", b"mdia", b"minf", b"stbl", b"edts", b"traf", b"mvex", b"udta", b"dinf"}
MOST_BOXES = 100_000  # in one box or at the top; an hour in fragments of one second has 7200
DEEPEST = 10  # FFmpeg stops here too
MOST_BYTES = 2**28  # of a header; three million frames take 2**26
TIMES = 8  # entries in FFmpeg's table per frame: edit lists repeat parts, and sound has its own


def check_boxes(path: str, file: BinaryIO, limits: Limits) -> None:
    """Other files than MP4 and QuickTime pass.

    Raises: VideoError.
    """
    head = file.read(8)
    if head[4:8] not in FIRST:
        return
    total = file.seek(0, os.SEEK_END)
    fragments, found = 0, False
    for kind, start, size in _top(path, file, total):
        if kind in (b"mdat", b"moov", b"moof") and start + size > total:
            raise VideoError(path, "damaged", f"the file is cut: it ends at {total} bytes, its {kind.decode()} box at {start + size}")
        if kind not in (b"moov", b"moof"):
            continue
        found = True
        if size > MOST_BYTES:
            raise VideoError(path, "too_large", f"a header of {size} bytes, the limit is {MOST_BYTES}")
        file.seek(start)
        content = memoryview(file.read(size))
        if kind == b"moov":
            for inner, part in _boxes(path, content):
                if inner == b"trak":
                    _check_track(path, part, total, limits)
                elif inner == b"cmov":
                    raise VideoError(path, "unreadable", "a compressed QuickTime header. Copy it into a new file with ffmpeg -c copy")
        else:
            fragments += sum(_number(part, 4) for inner, part in _deep(path, content) if inner == b"trun")
            if fragments > TIMES * limits.frames:
                raise VideoError(path, "too_large", f"its fragments claim {fragments} frames, the limit is {limits.frames}")
    if not found and head[4:8] == b"ftyp":
        raise VideoError(path, "damaged", "an MP4 without a header: its end is missing, or it was never closed")


def _check_track(path: str, track: memoryview, total: int, limits: Limits) -> None:
    parts = dict(_deep(path, track))
    count = edits = 0
    if b"stsz" in parts:
        each, count = _number(parts[b"stsz"], 4), _number(parts[b"stsz"], 8)
        there = total // each if each else (len(parts[b"stsz"]) - 12) // 4
        if count > there:
            raise VideoError(path, "damaged", f"its header claims {count} frames and has room for {there}")
    if b"stz2" in parts:
        bits, count = parts[b"stz2"][7] if len(parts[b"stz2"]) > 7 else 0, _number(parts[b"stz2"], 8)
        if count * bits > 8 * len(parts[b"stz2"]):
            raise VideoError(path, "damaged", f"its header claims {count} frames and has no room for them")
    if b"elst" in parts:
        edits = _number(parts[b"elst"], 4)
    sound = bytes(parts.get(b"hdlr", b"")[8:12]) == b"soun"
    if count > limits.frames and not sound:
        raise VideoError(path, "too_large", f"the header claims {count} frames, the limit is {limits.frames}")
    if edits > 1 and edits * count > TIMES * limits.frames:
        raise VideoError(path, "too_large", f"an edit list of {edits} parts over {count} frames, the limit of a file is {limits.frames}")


def _top(path: str, file: BinaryIO, total: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, place of the content, its size) of the outermost boxes."""
    at = boxes = 0
    while at + 8 <= total:
        file.seek(at)
        head = file.read(16)
        size, start = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:
            size = total - at
        if size < start:
            return
        yield head[4:8], at + start, size - start
        at += size
        boxes = _one_more(path, boxes)


def _boxes(path: str, content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = boxes = 0
    while at + 8 <= len(content):
        size, start = _number(content, at), 8
        if size == 1:
            size, start = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(content) - at
        if size < start:
            return
        yield bytes(content[at + 4 : at + 8]), content[at + start : at + size]
        at += size
        boxes = _one_more(path, boxes)


def _deep(path: str, content: memoryview, depth: int = 0) -> Iterator[tuple[bytes, memoryview]]:
    for kind, part in _boxes(path, content):
        yield kind, part
        if kind in NESTED and depth < DEEPEST:
            yield from _deep(path, part, depth + 1)


def _one_more(path: str, boxes: int) -> int:
    if boxes >= MOST_BOXES:
        raise VideoError(path, "too_large", f"a header of more than {MOST_BOXES} boxes")
    return boxes + 1


def _number(content: memoryview, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "big")
