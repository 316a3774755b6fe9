"""A folder of videos and pictures, each with its caption in a file of the same name; what is neither is counted, never dropped unsaid."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from data.batch import Captions
from data.files.media import Media
from data.formats import captions
from data.formats.paths import Paths
from data.formats.rows import LeftAside, Row

VIDEOS = (
    frozenset(["mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "divx", "wmv", "asf", "flv", "f4v", "ogv", "ogm", "ogg", "gif", "apng"])
    | frozenset(["mpg", "mpeg", "mpe", "m1v", "m2v", "mpv", "vob", "ts", "mts", "m2ts", "mxf", "nut", "dv", "amv", "wtv", "y4m", "rm", "rmvb"])
    | frozenset(["h264", "264", "h265", "265", "hevc", "ivf", "obu", "mjpeg", "mjpg"])
)
PICTURES = frozenset(
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "avif", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga", "qoi"]
)
TEXTS = ("txt", "caption", "json")  # the first that there is has the caption
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
CHUNKS = re.compile(r"([0-9]+)")


@dataclass(slots=True)
class Files:
    """What a folder holds, as paths seen from it, in natural order; hidden files and folders are left out.

    Args:
        folder: absolute, links resolved.
        texts: the files that may hold captions, by suffix, by path without suffix.
        links: to folders, which are not followed: they may lead anywhere, also in a circle.
    """

    folder: str
    media: list[str] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    named_like_media: list[str] = field(default_factory=list)


def natural(path: str) -> list[tuple[list[str | int], str]]:
    """A sorting key: clip2 before clip10, folder by folder, whatever the case and the locale."""
    parts = [(CHUNKS.split(part.casefold()), part) for part in path.split(os.sep)]
    return [([int(chunk) if place % 2 else chunk for place, chunk in enumerate(chunks)], part) for chunks, part in parts]


def suffix(path: str) -> str:
    """In lower case, without its dot."""
    return os.path.splitext(path)[1][1:].lower()


def is_media(path: str) -> bool:
    """Whether the name is that of a video or a picture. The content is looked at when it is probed."""
    return suffix(path) in VIDEOS or suffix(path) in PICTURES


def scan(folder: str) -> Files:
    """Everything in a folder and its folders. Raises: ValueError if one cannot be read."""
    files = Files(os.path.realpath(folder))
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(os.path.join(files.folder, inner)) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if not entry.name.startswith("."):
                        _sort_in(entry, os.path.join(inner, entry.name), files, waiting)
        except OSError as error:
            raise ValueError(f"{os.path.join(folder, inner)}: cannot be read ({error.strerror})") from error
    for paths in (files.media, files.tars, files.others, files.links, files.named_like_media):
        paths.sort(key=natural)
    return files


def _sort_in(entry: os.DirEntry[str], path: str, files: Files, waiting: list[str]) -> None:
    kind = suffix(path)
    if entry.is_dir(follow_symlinks=False):
        waiting.append(path)
        if is_media(path):
            files.named_like_media.append(path)
    elif entry.is_symlink() and os.path.isdir(entry.path):  # not entry.is_dir(), which raises for a link to itself
        files.links.append(path)
    elif is_media(path):  # whatever it is, a pipe or a broken link: its probe says why it gives no clip
        files.media.append(path)
    elif kind == "tar" or path.lower().endswith(COMPRESSED_TARS):
        files.tars.append(path)
    elif kind in TEXTS and kind not in files.texts.get(os.path.splitext(path)[0], ()):
        files.texts.setdefault(os.path.splitext(path)[0], {})[kind] = path
    else:
        files.others.append(path)


def read_clips(files: Files, paths: Paths, column: str | None, left: LeftAside) -> Iterator[Row]:
    """A row for every video and picture.

    Args:
        column: of a JSON file, where the captions stand; None looks for the usual names.
        left: counts what is not used.
    Raises: ValueError naming the file: a caption that is no text, a name that is not Unicode, a link that leads out of the root.
    """
    used = set()
    for name in files.media:
        path = os.path.join(files.folder, captions.text(name, f"the name {name!r}", files.folder))
        stem = os.path.splitext(name)[0]
        used.add(stem)
        beside = files.texts.get(stem)
        found = _captions(beside, files, paths, column) if beside else {}
        yield Row(Media(paths.find(path, files.folder)), found)
    _count(files, used, left)


def _captions(beside: dict[str, str], files: Files, paths: Paths, column: str | None) -> Captions:
    kind = next(kind for kind in TEXTS if kind in beside)
    where = os.path.join(files.folder, beside[kind])
    path = paths.find(where, files.folder)
    if not os.path.isfile(path):
        raise ValueError(f"{where}: not a file")
    with open(path, "rb") as file:
        raw = file.read(min(os.fstat(file.fileno()).st_size, captions.MAX_CAPTION_BYTES + 1))
    return captions.of_json_file(raw, column, where) if kind == "json" else captions.of_text_file(raw, where)


def _count(files: Files, used: set[str], left: LeftAside) -> None:
    for stem in sorted(files.texts, key=natural):
        beside = files.texts[stem]
        kinds = [kind for kind in TEXTS if kind in beside]
        for kind in kinds[1:] if stem in used else kinds:
            if stem in used:
                left.add(f".{kind} files beside a .{kinds[0]} file of the same name, which has the caption", beside[kind])
            elif kind == "json":
                left.add("files that are neither videos nor pictures (.json)", beside[kind])
            else:
                left.add("captions without a video of the same name", beside[kind])
    for path in files.others:
        if suffix(path) in ("jsonl", "ndjson", "csv", "tsv", "parquet"):
            left.add("index files that are not called index or metadata (to use one, name it as the set)", path)
            continue
        left.add(f"files that are neither videos nor pictures (.{suffix(path)})" if suffix(path) else "files without a suffix", path)
    for path in files.tars:
        left.add("tar files beside videos (a pattern such as 'folder/*.tar' is a set of its own)", path)
    for path in files.links:
        left.add("links to folders, which are not followed", path)
    for path in files.named_like_media:
        left.add("folders named like a video", path)
