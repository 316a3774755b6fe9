"""Which clips a set holds and what is said of them: rows read from an index file, each with a path that stays under the set's folder."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.batch import Captions

MAX_LINE_BYTES = 16 * 2**20  # a longer line is no caption but a mistake; also the bound on memory per line


@dataclass(frozen=True, slots=True)
class Row:
    """One clip of a set.

    Args:
        path: the file, absolute, with links resolved.
        captions: texts by kind; may be empty, the clip is then unconditional.
        frames, fps, width, height: what the index says, for planning; None where it says nothing. The file's own header decides.
    """

    path: str
    captions: Captions = field(default_factory=dict)
    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """The rows of a set, in the order of their source. Every format is a function that returns one of these.

    Args:
        source: the file or folder that the rows came from, for messages.
        root: the folder that all paths lie under.
    """

    source: str
    root: str
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """The row's path as seen from the root."""
        return os.path.relpath(self.rows[row].path, self.root)


def read_index(path: str | Path, root: str | Path | None = None) -> Index:
    """Read an index of JSON lines: {"path": "clips/0.mp4", "caption": "...", ...}, one clip a line.

    Keys: path; `caption` (a text or several) or `captions` (texts by kind); frames, fps, width, height (optional). Other keys are left alone.

    Args:
        root: where paths start and must stay; the index file's folder if None.
    Raises: ValueError naming the file and the row for whatever is wrong with a line; nothing is skipped in silence. Whether the videos
        exist is not asked here: a missing one is a data fault, counted when it is read.
    """
    source = os.fspath(path)
    base = os.path.realpath(os.path.dirname(source) or "." if root is None else root)
    paths = _Paths(base)
    rows = []
    for number, line in _lines(source):
        where = f"{source}, row {number}"
        try:
            rows.append(_row(json.loads(line), paths, where))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not a JSON object ({error.msg} at column {error.colno}). Each line must be one.") from error
        except RecursionError as error:
            raise ValueError(f"{where}: JSON nested too deeply. Each line must be one flat object.") from error
    if not rows:
        raise ValueError(f"{source}: the index names no clip. Each line must be a JSON object with a path.")
    return Index(source, base, tuple(rows))


class _Paths:
    """Resolves paths under a root, one realpath a folder rather than one a file."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folders: dict[str, str] = {}

    def resolve(self, path: str, where: str) -> str:
        if "\0" in path:
            raise ValueError(f"{where}: the path {path!r} holds a NUL character, no file can have that name")
        joined = os.path.join(self.root, path)
        folder, name = os.path.split(joined)
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        resolved = os.path.join(self.folders[folder], name)
        if name in ("", ".", "..") or os.path.islink(resolved):
            resolved = os.path.realpath(joined)
        if os.path.commonpath([self.root, resolved]) != self.root:
            raise ValueError(f"{where}: the path {path!r} leads out of {self.root} (to {resolved}). Put the file under that folder.")
        return resolved


def _lines(source: str) -> Iterator[tuple[int, str]]:
    """Rows of the file with their numbers from 1, blank ones left out; a line ends at a line feed and nowhere else."""
    if not os.path.isfile(source):
        raise ValueError(f"there is no index file {source}. Set data.train and data.val to index files.")
    with open(source, "rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(f"{source}, row {number}: longer than {MAX_LINE_BYTES >> 20} MiB. One line is one clip.")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{source}, row {number}: not UTF-8 ({error.reason} at byte {error.start}). Save the index as UTF-8.") from error
            if line.strip():
                yield number, line


def _row(fields: Any, paths: _Paths, where: str) -> Row:
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: got a {type(fields).__name__}, wanted a JSON object such as {{'path': 'clips/0.mp4', 'caption': '...'}}")
    path = fields.get("path")
    if not isinstance(path, str) or not path:
        raise ValueError(f"{where}: 'path' must be a text naming the video, got {path!r} (keys: {', '.join(map(str, fields)) or 'none'})")
    return Row(
        path=paths.resolve(_text(path, "path", where), where),
        captions=_captions(fields, where),
        frames=_count(fields, "frames", where),
        fps=_rate(fields, where),
        width=_count(fields, "width", where),
        height=_count(fields, "height", where),
    )


def _captions(fields: Mapping[str, Any], where: str) -> Captions:
    if "caption" in fields and "captions" in fields:
        raise ValueError(f"{where}: has both 'caption' and 'captions'; give one")
    given = fields.get("captions")
    if given is None:
        given = fields.get("caption")
        given = {} if given is None else {"caption": given}
    if isinstance(given, list):
        given = {"caption": given}
    if not isinstance(given, dict):
        raise ValueError(f"{where}: 'captions' must be texts by kind, such as {{'short': ['...']}}, got {given!r:.80}")
    captions = {}
    for kind, texts in given.items():
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{where}: the captions of kind {kind!r} must be a text or a list of texts, got {texts!r:.80}")
        if texts:
            captions[_text(kind, "a kind of caption", where)] = tuple(_text(text, "a caption", where) for text in texts)
    return captions


def _text(text: str, what: str, where: str) -> str:
    """The text itself; a lone surrogate is refused here, because it can be written to no file and would end a run much later."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: {what} holds half a character (a lone surrogate at position {error.start}), which is not Unicode") from error
    return text


def _count(fields: Mapping[str, Any], key: str, where: str) -> int | None:
    value = fields.get(key)
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value == int(value))
    if isinstance(value, bool) or not whole or value < 1:
        raise ValueError(f"{where}: {key!r} must be a whole number from 1, got {value!r}")
    return int(value)


def _rate(fields: Mapping[str, Any], where: str) -> float | None:
    value = fields.get("fps")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{where}: 'fps' must be a number above 0, got {value!r}")
    return float(value)
