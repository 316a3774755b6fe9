"""What a source is: recognised by its name, checked by its first bytes, and handed to the one module that reads it."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from data.formats import folder, jsonl, parquet, table, tar
from data.formats.fields import Columns, Fields
from data.formats.paths import Paths
from data.formats.rows import Ignored, LeftAside, Row

FILES: dict[str, Callable[[str, Fields], Iterator[Row]]] = {
    "jsonl": jsonl.read_lines,
    "ndjson": jsonl.read_lines,
    "json": jsonl.read_list,
    "csv": table.read_csv,
    "tsv": table.read_tsv,
    "parquet": parquet.read_parquet,
}
OWN_INDEXES = [f"{name}.{kind}" for name in ("index", "metadata") for kind in ("jsonl", "ndjson", "csv", "tsv", "parquet")]
UNDERSTOOD = (
    "A set is a folder of videos and pictures, an index file (.jsonl, .ndjson, .json, .csv, .tsv, .parquet), or WebDataset shards "
    "(a .tar file, a folder of them, or a pattern such as 'set-{0000..0009}.tar')"
)
MAGIC = (  # (offset, bytes, what begins so)
    (0, b"PAR1", "a parquet file"),
    (0, b"\x1f\x8b", "a file compressed by gzip"),
    (0, b"BZh", "a file compressed by bzip2"),
    (0, b"\xfd7zXZ\0", "a file compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "a file compressed by zstd"),
    (0, b"PK\x03\x04", "a zip file"),
    (257, b"ustar", "a tar file"),
    (4, b"ftyp", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"\xff\xfe", "text in UTF-16"),
    (0, b"\xfe\xff", "text in UTF-16"),
)
BRACES = re.compile(r"\{([^{}]*)\}")
MAX_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of a source, the folder that they lie under, and what it holds besides."""

    root: str
    rows: list[Row]
    ignored: Iterable[Ignored] = ()


def read(source: str, root: str | None, columns: Columns | None) -> Found:
    """Raises: ValueError, see `data.index.read_index`."""
    if "\0" in source:
        raise ValueError(f"{source!r}: a path cannot hold a NUL character. {UNDERSTOOD}.")
    if os.path.isdir(source):
        return _folder(source, root, columns)
    if os.path.isfile(source):
        compressed = source.lower().endswith(folder.COMPRESSED_TARS)
        return _shards([source], source, root, columns) if compressed or folder.suffix(source) == "tar" else _file(source, root, columns)
    if os.path.lexists(source):
        raise ValueError(f"{source}: neither a file nor a folder. {UNDERSTOOD}.")
    if any(mark in source for mark in "{*?["):
        return _shards(_expanded(source), source, root, columns)
    raise ValueError(f"{source}: there is no such file or folder. {UNDERSTOOD}.")


def _file(source: str, root: str | None, columns: Columns | None) -> Found:
    kind, holds = folder.suffix(source), _content(source)
    if kind not in FILES:
        raise ValueError(f"{source}: {holds or 'a file'} named {f'.{kind}' if kind else 'without a suffix'} is no set. {UNDERSTOOD}.")
    if (holds == "a parquet file") != (kind == "parquet") or (holds and kind != "parquet"):
        raise ValueError(f"{source}: named .{kind}, but it is {holds or 'no parquet file'}. Mend the name, or save it anew (text as UTF-8).")
    paths = Paths(os.path.dirname(source) or "." if root is None else root)
    rows = list(FILES[kind](source, Fields(paths, columns)))
    if not rows:
        raise ValueError(f"{source}: the index names no clip. It needs a row for each, with a path.")
    return Found(paths.root, rows)


def _folder(source: str, root: str | None, columns: Columns | None) -> Found:
    files, left = folder.scan(source), LeftAside()
    own = [name for name in OWN_INDEXES if os.path.isfile(os.path.join(source, name))]
    if len(own) > 1:
        raise ValueError(f"{source}: the folder holds {' and '.join(own)}. Name one of them as the set.")
    if own:
        found = _file(os.path.join(source, own[0]), root or source, columns)
        named = {row.path for row in found.rows}
        for path in files.media:
            whole = os.path.join(files.folder, path)
            if not {whole, os.path.dirname(whole)} & named and os.path.realpath(whole) not in named:
                left.add(f"videos or pictures that {own[0]} does not name", path)
        for path in files.tars:
            left.add(f"tar files beside {own[0]}", path)
        return Found(found.root, found.rows, left)
    if not files.media and files.tars:
        return _shards([os.path.join(files.folder, path) for path in files.tars], source, root or source, columns)
    paths = Paths(source if root is None else root)
    rows = list(folder.read_clips(files, paths, Fields(paths, columns).columns.get("caption"), left))
    if not rows:
        held = "".join(f"\n  {item}" for item in left) or " nothing but hidden files, if anything"
        raise ValueError(f"{source}: the folder holds no video and no picture. {UNDERSTOOD}. It holds:{held}")
    return Found(paths.root, rows, left)


def _shards(tars: list[str], source: str, root: str | None, columns: Columns | None) -> Found:
    for path in tars:
        holds = _content(path) if os.path.isfile(path) else ""
        if path.lower().endswith(folder.COMPRESSED_TARS) or holds.startswith("a file compressed"):
            raise ValueError(f"{path}: a compressed tar file, of which no video can be read in place. Decompress it (gunzip, unxz, zstd -d).")
        if folder.suffix(path) != "tar":
            raise ValueError(f"{path}: a pattern names .tar files. Other sets are written out, as a list. {UNDERSTOOD}.")
    tars, left = [os.path.abspath(path) for path in tars], LeftAside()
    paths = Paths(os.path.commonpath([os.path.dirname(path) for path in tars]) if root is None else root)
    rows = list(tar.read_shards(tars, paths, Fields(paths, columns).columns.get("caption"), left))
    if not rows:
        held = "".join(f"\n  {item}" for item in left) or " nothing"
        raise ValueError(f"{source}: the shards hold no video and no picture. They hold:{held}")
    return Found(paths.root, rows, left)


def _content(path: str) -> str:
    """What a file's first bytes say it is; empty if they say nothing."""
    with open(path, "rb") as file:
        start = file.read(512)
    return next((what for offset, magic, what in MAGIC if start[offset:].startswith(magic)), "")


def _expanded(pattern: str) -> list[str]:
    """The files of a pattern: braces first, in their order; then stars, in natural order."""
    tars = []
    for name in _braces(pattern):
        if any(mark in name for mark in "*?["):
            matches = sorted(glob.glob(name, recursive=True), key=folder.natural)
            if not matches:
                raise ValueError(f"{name}: no file fits this pattern")
            tars += matches
        else:
            tars.append(name)
    return tars


def _braces(pattern: str) -> list[str]:
    match = BRACES.search(pattern)
    if match is None:
        return [pattern]
    inner, before, after = match[1], pattern[: match.start()], pattern[match.end() :]
    if numbers := re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inner):
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < MAX_SHARDS:
            raise ValueError(f"{pattern}: {{{inner}}} must count upwards, over at most {MAX_SHARDS} shards")
        width = max(map(len, numbers.groups())) if any(text.startswith("0") and len(text) > 1 for text in numbers.groups()) else 0
        choices = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        choices = inner.split(",")
    rest = _braces(after)
    if len(choices) * len(rest) > MAX_SHARDS:
        raise ValueError(f"{pattern}: names more than {MAX_SHARDS} shards")
    return [f"{before}{choice}{end}" for choice in choices for end in rest]
