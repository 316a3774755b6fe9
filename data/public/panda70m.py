"""Panda-70M and its like: a csv of videos, each with lists of times and captions, or the folders that its downloader fills."""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from data.public.listing import MISSING, VIDEOS, Clip, LeftOut, Listing, files_under, leave_out
from data.public.openvid import by_name
from data.public.tables import list_of, number_of, read_table, seconds_of

MAX_JSON_BYTES = 32 * 2**20  # with a long video's subtitles in it
_CUT = re.compile(r"(.+)[._](\d+)")


class Panda70M:
    """Parts of YouTube videos with one machine caption each, in three layouts.

    Without `csv`, what the official downloader (a video2dataset) writes: <shard>/<key>_<n>.mp4 with a .json beside it. With `csv`, videos
    by their names: <videoID>_<n>.mp4 or <videoID>.<n>.mp4 for part n, already cut, else <videoID>.mp4, whole, of which the index takes
    parts by time.

    Args:
        csv: table with columns videoID, timestamp, caption, matching_score (and desirable_filtering); lists of equal length in the last four.
        val_csv: one more for validation (panda70m_validation.csv); None for no split.
        videos: folder of the videos inside the set's folder; None is all of it.
        first_part: the number of a video's first part in the names of cut files.
        min_matching: parts whose caption matches less are left out (the official 10M subset: 0.43); None for no limit.
        only_desirable: leave out stills, zooms into stills, screens and the like.
    Source: Chen et al. 2024 (Panda-70M); dataset_dataloading in snap-research/Panda-70M.
    """

    def __init__(
        self,
        csv: str | None,
        val_csv: str | None,
        videos: str | None,
        first_part: int,
        min_matching: float | None,
        only_desirable: bool,
    ) -> None:
        if csv is None and val_csv is not None:
            raise ValueError(f"val_csv={val_csv} needs a csv for training beside it. Set panda70m.csv.")
        self.csv, self.val_csv, self.videos, self.first_part = csv, val_csv, videos, first_part
        self.min_matching, self.only_desirable = min_matching, only_desirable

    def find(self, root: Path) -> Listing:
        """The parts that are there and pass the limits."""
        left_out: LeftOut = {}
        if self.csv is None:
            return Listing(self._downloaded(root, left_out), (), left_out)
        files = _Files(by_name(root, self.videos, left_out))
        train, val = (self._parts(Path(table), files, left_out) if table else () for table in (self.csv, self.val_csv))
        return Listing(train, val, left_out)

    def _parts(self, table: Path, files: "_Files", left_out: LeftOut) -> tuple[Clip, ...]:
        clips: list[Clip] = []
        for number, row in read_table(table, self._columns()):
            name = row["videoID"].strip()
            try:
                parts = self._read(row)
            except ValueError as error:
                leave_out(
                    left_out, "lists that cannot be read", f"{table.name}, row {number}, {name}: {error}".encode("utf-8", "backslashreplace").decode()
                )
                continue
            if files.cut.get((name, self.first_part + len(parts))):
                leave_out(left_out, "more cut files than captions (is first_part right?)", f"{table.name}, row {number}, {name}")
                continue
            for part, (start_s, end_s, caption, fault) in enumerate(parts, self.first_part):
                cut, whole = files.cut.get((name, part)), files.whole.get(name)
                if fault or not (cut or whole):
                    leave_out(left_out, fault or MISSING, f"{name}, part {part}")
                elif cut:
                    clips.append(Clip(cut, _caption(caption), name))
                elif whole:
                    clips.append(Clip(whole, _caption(caption), name, start_s=start_s, end_s=end_s))
        return tuple(clips)

    def _columns(self) -> tuple[str, ...]:
        filters = {"matching_score": self.min_matching is not None, "desirable_filtering": self.only_desirable}
        return ("videoID", "timestamp", "caption", *(column for column, used in filters.items() if used))

    def _read(self, row: Mapping[str, str]) -> list[tuple[float, float, str, str | None]]:
        """Start, end, caption, and what speaks against it, of each part."""
        lists = {column: list_of(row[column]) for column in self._columns()[1:]}
        if len(lengths := {len(values) for values in lists.values()}) > 1:
            raise ValueError(f"lists of {' and '.join(map(str, sorted(lengths)))} entries")
        parts = []
        for values in zip(*lists.values(), strict=True):
            of = dict(zip(lists, values, strict=True))
            if not isinstance(of["timestamp"], list | tuple) or len(of["timestamp"]) != 2 or not isinstance(of["caption"], str):
                raise ValueError("a part is two times and a caption")
            of["caption"].encode("utf-8")  # half a character cannot be written to an index; UnicodeEncodeError is a ValueError
            start_s, end_s = map(seconds_of, of["timestamp"])
            fault = "ends before it begins" if end_s <= start_s else self._fault(of.get("matching_score"), of.get("desirable_filtering"))
            parts.append((start_s, end_s, of["caption"].strip(), fault))
        return parts

    def _fault(self, matching: Any, desirable: Any) -> str | None:
        if self.min_matching is not None and not number_of(str(matching)) >= self.min_matching:
            return f"matching_score below {self.min_matching:g}"
        return "not desirable" if self.only_desirable and desirable != "desirable" else None

    def _downloaded(self, root: Path, left_out: LeftOut) -> tuple[Clip, ...]:
        """What the downloader wrote; for a video that it could not get there is a .json alone."""
        notes = {_stem(path): root / path for path in files_under(root, (".json",), {}, self.videos)}
        clips = []
        for path in files_under(root, VIDEOS, left_out, self.videos):
            note = notes.pop(_stem(path), None)
            fields = _fields(note) if note else None
            if fields is None:
                leave_out(left_out, "without a .json that can be read", path)
            elif fault := self._fault(fields.get("matching_score"), fields.get("desirable_filtering")):
                leave_out(left_out, fault, path)
            else:
                clips.append(Clip(path, _caption(fields.get("caption")), str(fields.get("url") or _stem(path).rpartition("_")[0])))
        for stem, note in notes.items():
            if "status" in (_fields(note) or {}):  # not a shard's statistics
                leave_out(left_out, MISSING, f"{stem}.mp4")
        return tuple(clips)


class _Files:
    """Videos by YouTube's name: cut ones with the number of their part, and whole ones."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.whole = {PurePosixPath(name).stem: path for name, path in files.items()}
        self.cut = {(match[1], int(match[2])): path for stem, path in self.whole.items() if (match := _CUT.fullmatch(stem)) and len(match[2]) < 10}


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _caption(text: Any) -> dict[str, tuple[str, ...]]:
    return {"caption": (text.strip(),)} if isinstance(text, str) and text.strip() else {}


def _fields(path: Path) -> Mapping[str, Any] | None:
    """The fields of a .json file, None if it holds none."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
        fields = json.loads(text) if len(text) <= MAX_JSON_BYTES else None
        json.dumps(fields, ensure_ascii=False).encode("utf-8")  # half a character cannot be written to an index
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
