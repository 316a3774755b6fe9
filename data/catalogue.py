"""What the files of an index hold: each is looked at once, by workers that may be killed, and what was found is kept on disk."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.clips import Found
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.probe import Probe, deep_check, probe
from data.index import Index, Row
from data.workers import Pool, Watch

FORMAT = 2  # raised whenever probing the same file would find something else
FILES_AN_ITEM = 8  # a header takes milliseconds: one message for several
# Not remembered: there is no file to tie it to, or a busy disk, a small budget or too little memory may have been to blame.
TRANSIENT = frozenset({"missing", "hung", "crashed"})

# Path; member of a tar file, its first byte and size; bytes and time of change in ns of the file; fps of a folder of pictures.
Key = tuple[str, str, int, int | None, int, int, float | None]


def look(index: Index, folder: str | Path | None, workers: int, budget_s: float, limits: Limits | None = None, deep: bool = False) -> list[Found]:
    """What each row's file holds, in the order of the rows; a file that several rows name is looked at once.

    Args:
        folder: where findings are kept from one call to the next, tied to each file's size and time of change; None keeps none.
        workers: processes that look; with 0 nothing guards this process against a file that hangs or kills its decoder.
        budget_s: for one file; after it, the file is given up as hung.
        deep: decode every frame of every video, once in the life of a file, to find damage that no header tells of.
    """
    keys = [_identity(row) for row in index.rows]  # once: a file may change while we look
    media = {key: row.media for key, row in zip(keys, index.rows, strict=True)}
    roots = {key: index.root_of(number) for number, key in enumerate(keys)}
    tables = {root: _Table(folder, root) for root in dict.fromkeys(roots.values())}
    found = {key: what for table in tables.values() for key, what in table.read(media)}
    wanted = [key for key in media if not _settled(found.get(key), deep)]
    pool = Pool(_Look([(key, media[key], found.get(key)) for key in wanted], limits or Limits(), deep), workers, budget_s)
    try:
        items = (range(start, min(start + FILES_AN_ITEM, len(wanted))) for start in range(0, len(wanted), FILES_AN_ITEM))
        with tqdm(total=len(wanted), desc="decoding files" if deep else "looking at files", unit="file", disable=None if wanted else True) as bar:
            for numbers, looked in pool.map(items):
                new = {wanted[number]: what for number, what in zip(numbers, looked, strict=True)}
                found.update(new)
                for root, table in tables.items():
                    table.add({key: what for key, what in new.items() if roots[key] == root})
                bar.update(len(new))
    finally:
        pool.close()
    return [found[key] for key in keys]


def _settled(found: Found | None, deep: bool) -> bool:
    if isinstance(found, Probe):
        return not deep or found.sound is not None
    return found is not None


def _identity(row: Row) -> Key:
    media = row.media
    try:
        status = os.stat(media.path)
        size, changed = status.st_size, status.st_mtime_ns
        if stat.S_ISDIR(status.st_mode):
            size, changed = _folder_state(media.path)
    except (OSError, ValueError):
        size, changed = -1, -1
    return media.path, media.member, media.start, media.size, size, changed, row.fps


def _folder_state(path: str) -> tuple[int, int]:
    """Bytes of the files in a folder, and a number that changes with the name, size or time of change of any."""
    with os.scandir(path) as entries:
        states = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries if entry.is_file())
    digest = hashlib.sha256(repr(states).encode("utf-8", "surrogateescape")).digest()
    return sum(size for _, size, _ in states), int.from_bytes(digest[:7], "big")


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
        (*_, size, changed, fps), media, known = self.files[number]
        try:
            with watch(number):
                found = known if isinstance(known, Probe) else probe(media, self.limits, fps)
                if self.deep:
                    deep_check(media, found, self.limits)
                if found.kind == "pictures":  # its own state is not that of its pictures
                    found = replace(found, bytes=size, mtime_ns=changed)
                return replace(found, sound=True) if self.deep else found
        except VideoError as error:
            return error.kind, error.detail


class _Table:
    """Findings on disk: one JSON object a line, only ever added to; the last line about a file counts, half a line is passed over."""

    def __init__(self, folder: str | Path | None, root: str) -> None:
        name = hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.path = None if folder is None else Path(folder) / f"{name}.jsonl"

    def read(self, wanted: Mapping[Key, Any]) -> Iterator[tuple[Key, Found]]:
        """What is known of the wanted files. Raises: RuntimeError if it cannot be read."""
        if self.path is None:
            return
        try:
            with self.path.open("rb") as file:
                for line in file:
                    try:
                        row = json.loads(line)
                        key: Key = tuple(row["key"])  # pyright: ignore[reportAssignmentType]  # a key of another form is not wanted
                        if row["format"] == FORMAT and key in wanted:
                            yield key, Probe.from_json(row["probe"]) if "probe" in row else (str(row["kind"]), str(row["detail"]))
                    except (ValueError, KeyError, TypeError):
                        continue  # the file is looked at again
        except FileNotFoundError:
            return
        except OSError as error:
            raise RuntimeError(f"{self.path} cannot be read ({error}). Set data.probes to a folder of its own, or to null.") from error

    def add(self, found: Mapping[Key, Found]) -> None:
        """Raises: RuntimeError if it cannot be written."""
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


def _row(key: Key, what: Found) -> dict[str, Any]:
    return {"format": FORMAT, "key": key} | ({"probe": what.to_json()} if isinstance(what, Probe) else {"kind": what[0], "detail": what[1]})
