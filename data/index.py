"""Which clips a set holds and what is said of them: read from any format, each with a path that stays under the set's folder."""

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.files.media import Media
from data.formats import sources
from data.formats.fields import Columns
from data.formats.rows import Box, Ignored, Row, TimedCaptions

__all__ = ["Box", "Columns", "Ignored", "Index", "Row", "Source", "TimedCaptions", "duplicates", "read_index", "read_sources"]

Source = str | Path | Mapping[str, Any]  # a set, or {"path": ..., "weight": 2.0, "root": ..., "columns": {...}}


@dataclass(frozen=True, slots=True)
class Part:
    """One of several sets that an index was put together from.

    Args:
        start: its first row.
    """

    source: str
    root: str
    start: int


@dataclass(frozen=True, slots=True)
class Index:
    """The rows of a set, in the order of their source.

    Args:
        source: the file, folder or pattern that the rows came from, for messages.
        root: the folder that all paths lie under.
        ignored: what the source holds besides, by sort.
        parts: the sets it was put together from; empty if it is one.
    """

    source: str
    root: str
    rows: tuple[Row, ...]
    ignored: tuple[Ignored, ...] = ()
    parts: tuple[Part, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def root_of(self, row: int) -> str:
        """The folder that paths of the row's own set start from."""
        return self._part(row).root if self.parts else self.root

    def relative(self, row: int) -> str:
        """The row's path as seen from the root of its own set, with its member of a tar file: the same however the set is named."""
        media = self.rows[row].media
        name = os.path.relpath(media.path, self.root_of(row))
        return f"{name}:{media.member}" if media.member else name

    def name(self, row: int) -> str:
        """The row's path as seen from the root, with its member of a tar file; of several sets, with the set before it."""
        return f"{self._part(row).source}: {self.relative(row)}" if self.parts else self.relative(row)

    def _part(self, row: int) -> Part:
        return self.parts[bisect_right(self.parts, row, key=lambda part: part.start) - 1]

    def take(self, rows: Sequence[int]) -> "Index":
        """An index of these rows alone, given in rising order."""
        parts = tuple(replace(part, start=bisect_left(rows, part.start)) for part in self.parts)
        return replace(self, rows=tuple(self.rows[row] for row in rows), parts=parts)


def read_index(source: str | Path, root: str | Path | None = None, columns: Columns | None = None) -> Index:
    """Read a set of any format, recognised by its name and checked by its content.

    - A file .jsonl, .ndjson, .json (a list of objects), .csv, .tsv or .parquet: one clip a row, see `data.formats.fields.ROLES` for the
      names of columns: path, caption (a text, several, or texts by kind), start_s, end_s, weight, fps, boxes, shots (a list of {"start_s",
      "end_s", "caption"}). In csv and tsv an empty cell is no value; there and in parquet a text in the columns `captions`, `boxes` or
      `shots` may be JSON.
    - A folder: if it holds an index of its own, index.* or metadata.*, that one and nothing else says what the clips are; the videos
      and pictures that it does not name are ignored. Else all videos and pictures in it and in its folders, hidden ones left out, in
      natural order, a picture being a video of one frame; the text file of the same name is one caption, else the captions of a JSON
      file of the same name. Else, if it holds neither, its .tar files are shards.
    - Shards of WebDataset: a .tar file or a pattern, "set-{0000..0009}.tar" or "set-*.tar". They are read in place; nothing is extracted.

    Args:
        root: where paths start and must stay; the folder itself, or the folder that the file lies in, if None.
        columns: role -> the column that plays it, where the names leave it open.
    Raises: ValueError naming the file and the row for whatever is wrong; nothing is skipped in silence. Whether the videos exist is not
        asked here: a missing one is a data fault, counted when it is read.
    """
    found = sources.read(os.fspath(source), None if root is None else os.fspath(root), columns)
    return Index(os.fspath(source), found.root, tuple(found.rows), tuple(found.ignored))


def read_sources(given: Source | Sequence[Source], root: str | Path | None = None) -> Index:
    """One index of several sets, one after the other: a mixture.

    Args:
        given: one set or several. A set's weight multiplies those of its rows.
        root: of the sets that name none of their own, see read_index.
    Raises: ValueError naming the set.
    """
    given = [given] if isinstance(given, str | Path | Mapping) else list(given)
    if not given:
        raise ValueError("there is no set to read: the list is empty. Name at least one folder or index file.")
    indexes = [_read_source(source, root, number) for number, source in enumerate(given, 1)]
    if len(indexes) == 1:
        return indexes[0]
    parts, rows = [], []
    for index in indexes:
        parts.append(Part(index.source, index.root, len(rows)))
        rows += index.rows
    ignored = [replace(item, what=f"{item.what} (in {index.source})") for index in indexes for item in index.ignored]
    common = os.path.commonpath([index.root for index in indexes])
    return Index(", ".join(index.source for index in indexes), common, tuple(rows), tuple(ignored), tuple(parts))


def _read_source(source: Source, root: str | Path | None, number: int) -> Index:
    if not isinstance(source, Mapping):
        return read_index(source, root)
    known = ("path", "weight", "root", "columns")
    wrong = [key for key in source if key not in known]
    path = source.get("path")
    if wrong or not isinstance(path, str | Path):
        raise ValueError(f"set {number} must be a path or have the keys {', '.join(known)} (path at least), got {dict(source)!r:.200}")
    weight = source.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"set {number}, {path}: weight must be a number from 0, got {weight!r}")
    index = read_index(path, source.get("root", root), source.get("columns"))
    if weight == 1:
        return index
    return replace(index, rows=tuple(replace(row, weight=row.weight * weight) for row in index.rows))


def duplicates(index: Index) -> list[tuple[int, ...]]:
    """Rows that show the same stretch of the same media, two or more each, in the order of their first."""
    found: dict[tuple[Media, float, float | None], list[int]] = {}
    for number, row in enumerate(index.rows):
        found.setdefault((row.media, row.start_s, row.end_s), []).append(number)
    return [tuple(numbers) for numbers in found.values() if len(numbers) > 1]
