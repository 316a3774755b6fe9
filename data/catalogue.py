"""What the files of an index hold: each is looked at once, by workers that may be killed, and what was found is kept on disk."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.buckets import Bucket, TooShort, Windows, longest
from data.files.faults import Fault, Limits, VideoError
from data.files.media import Media
from data.files.probe import Probe, deep_check, probe
from data.index import Index, Row
from data.shapes import Shapes
from data.workers import Pool, Watch

FORMAT = 1  # raised whenever probing the same file would find something else
FILES_AN_ITEM = 8  # a header takes milliseconds: one message for several
TRANSIENT = frozenset({"missing"})  # faults that are not remembered: there is no file that they could be tied to

Found = Probe | tuple[str, str]  # what a file holds, or the kind and detail of its fault
Key = tuple[str, str, int, int, float | None]  # path, member, bytes, time of change in ns, fps of a folder of pictures


@dataclass(frozen=True, slots=True)
class Clips:
    """The rows of an index and the shape in which each is delivered.

    Args:
        probes, buckets: by row; None where the row gives no clip.
        faults: the rows that give none, and why.
        fps: that clips are delivered at.
    """

    index: Index
    probes: tuple[Probe | None, ...]
    buckets: tuple[Bucket | None, ...]
    faults: tuple[Fault, ...]
    fps: float

    @classmethod
    def of(cls, index: Index, found: Sequence[Found], shapes: Shapes, fps: float) -> "Clips":
        """Give every row its shape."""
        probes: list[Probe | None] = []
        buckets: list[Bucket | None] = []
        faults: list[Fault] = []
        for number, (row, what) in enumerate(zip(index.rows, found, strict=True)):
            try:
                bucket = _bucket(what, row, shapes, fps) if isinstance(what, Probe) else None
                reason = what if not isinstance(what, Probe) else ("", "")
            except TooShort as error:
                bucket, reason = None, ("too_short", str(error))
            probes.append(what if bucket is not None and isinstance(what, Probe) else None)
            buckets.append(bucket)
            if bucket is None:
                faults.append(Fault(number, index.name(number), *reason))
        return cls(index, tuple(probes), tuple(buckets), tuple(faults), fps)

    def __len__(self) -> int:
        return len(self.index)

    def probe(self, row: int) -> Probe:
        found = self.probes[row]
        assert found is not None, f"row {row} gives no clip"
        return found

    def pick(self, row: int, frames: int, place: float) -> tuple[np.ndarray, int]:
        """Frame numbers in the row's file of a clip of so many frames, and how many starts there were to choose from.

        Raises: TooShort.
        """
        first, times = segment(self.probe(row).times, self.index.rows[row])
        windows = Windows(times, frames, self.fps)
        return first + windows.pick(place), windows.count


def _bucket(found: Probe, row: Row, shapes: Shapes, fps: float) -> Bucket:
    _, times = segment(found.times, row)
    if not len(times):
        raise TooShort(f"no frame comes on screen between start_s={row.start_s:g} and {f'end_s={row.end_s:g}' if row.end_s else 'the end'}")
    return shapes.bucket(longest(times, fps), found.height, found.width)


def segment(times: np.ndarray, row: Row) -> tuple[int, np.ndarray]:
    """The part of a file's frames that a row names: the number of its first frame, and the times of all.

    start_s and end_s count from the file's first frame; a frame belongs to the segment if it comes on screen in it.
    """
    if row.start_s == 0 and row.end_s is None:
        return 0, times
    offsets = times - times[0] + 1e-6  # a frame at 1.0 s may be kept as 0.99999999
    start = int(np.searchsorted(offsets, row.start_s))
    stop = len(times) if row.end_s is None else int(np.searchsorted(offsets, row.end_s))
    return start, times[start:stop]


def look(index: Index, folder: str | Path | None, workers: int, budget_s: float, limits: Limits | None = None, deep: bool = False) -> list[Found]:
    """What each row's file holds, in the order of the rows; a file that several rows name is looked at once.

    Args:
        folder: where findings are kept from one call to the next, tied to each file's size and time of change; None keeps none.
        workers: processes that look; with 0 nothing guards this process against a file that hangs or kills its decoder.
        budget_s: for one file; after it, the file is given up as hung.
        deep: decode every frame of every video, once in the life of a file, to find damage that no header tells of.
    """
    media = {_identity(row): row.media for row in index.rows}
    table = _Table(folder, index.root)
    wanted = [key for key in media if not _settled(table.found.get(key), deep)]
    job = _Look([(key, media[key], table.found.get(key)) for key in wanted], limits or Limits(), deep)
    pool = Pool(job, workers, budget_s)
    try:
        items = (range(start, min(start + FILES_AN_ITEM, len(wanted))) for start in range(0, len(wanted), FILES_AN_ITEM))
        with tqdm(total=len(wanted), desc="decoding files" if deep else "looking at files", unit="file", disable=None if wanted else True) as bar:
            for numbers, found in pool.map(items):
                table.add({wanted[number]: what for number, what in zip(numbers, found, strict=True)})
                bar.update(len(found))
    finally:
        pool.close()
    return [table.found[_identity(row)] for row in index.rows]


def _settled(found: Found | None, deep: bool) -> bool:
    if isinstance(found, Probe):
        return not deep or found.sound is not None
    return found is not None


def _identity(row: Row) -> Key:
    try:
        status = os.stat(row.media.path)
        size, changed = status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        size, changed = -1, -1
    return row.media.path, row.media.member, size, changed, row.fps


class _Look:
    """The job of a worker: files by number."""

    def __init__(self, files: Sequence[tuple[Key, Media, Found | None]], limits: Limits, deep: bool) -> None:
        self.files, self.limits, self.deep = files, limits, deep
        self.given_up: dict[int, tuple[str, str]] = {}

    def run(self, item: range, watch: Watch) -> tuple[range, list[Found]]:
        return item, [self._one(number, watch) for number in item]

    def give_up(self, token: int, kind: str, detail: str) -> None:
        self.given_up[token] = kind, detail

    def _one(self, number: int, watch: Watch) -> Found:
        if number in self.given_up:
            return self.given_up[number]
        (*_, fps), media, known = self.files[number]
        try:
            with watch(number):
                found = known if isinstance(known, Probe) else probe(media, self.limits, fps)
                if self.deep:
                    deep_check(media, found, self.limits)
                return replace(found, sound=True) if self.deep else found
        except VideoError as error:
            return error.kind, error.detail


class _Table:
    """Findings on disk: one JSON object a line, only ever added to; the last line about a file counts, half a line is passed over."""

    def __init__(self, folder: str | Path | None, root: str) -> None:
        self.found: dict[Key, Found] = {}
        self.path: Path | None = None
        if folder is not None:
            self.path = Path(folder) / f"{hashlib.sha256(root.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.jsonl"
            self.found.update(self._read())

    def add(self, found: Mapping[Key, Found]) -> None:
        self.found.update(found)
        lasting = {key: what for key, what in found.items() if isinstance(what, Probe) or what[0] not in TRANSIENT}
        if self.path is None or not lasting:
            return
        lines = "".join(json.dumps(_row(key, what), separators=(",", ":")) + "\n" for key, what in lasting.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:  # one write: two processes that look at the same set do not cut into each other's lines
                file.write(("\n" + lines if self._torn(file) else lines).encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise RuntimeError(f"{self.path} cannot be written ({error}). Set data.probes to a folder that can be, or to null.") from error

    @staticmethod
    def _torn(file: Any) -> bool:
        """Whether the last line has no end, because its writer was killed."""
        if file.tell() == 0:
            return False
        with open(file.name, "rb") as whole:
            whole.seek(-1, os.SEEK_END)
            return whole.read(1) != b"\n"

    def _read(self) -> Iterator[tuple[Key, Found]]:
        assert self.path is not None
        try:
            lines: Iterable[bytes] = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                row = json.loads(line)
                if row["format"] != FORMAT:
                    continue
                key: Key = (row["path"], row["member"], row["bytes"], row["mtime_ns"], row["fps"])
                what = Probe.from_json(row["probe"]) if "probe" in row else (str(row["kind"]), str(row["detail"]))
            except (ValueError, KeyError, TypeError):
                continue  # the file is looked at again
            yield key, what


def _row(key: Key, what: Found) -> dict[str, Any]:
    path, member, size, changed, fps = key
    row = {"format": FORMAT, "path": path, "member": member, "bytes": size, "mtime_ns": changed, "fps": fps}
    return row | ({"probe": what.to_json()} if isinstance(what, Probe) else {"kind": what[0], "detail": what[1]})
