"""WebDataset shards, indexed where they lie: only headers and captions are read; nothing is extracted, unpickled or decompressed."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from data.batch import Captions
from data.files.media import Media
from data.formats import captions
from data.formats.folder import PICTURES, TEXTS, VIDEOS
from data.formats.paths import Paths
from data.formats.rows import LeftAside, Row

MAX_HEADER_BYTES = 2**14  # of one member: its name and the like; tarfile's memory for a crafted one grows with its square
MAX_GLOBAL_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Member:
    """A file within a tar file: `size` bytes from `start`."""

    name: str
    start: int
    size: int


@dataclass(slots=True)
class Sample:
    """Members that share a key."""

    videos: list[Member] = field(default_factory=list)
    pictures: list[Member] = field(default_factory=list)
    texts: dict[str, Member] = field(default_factory=dict)
    suffixes: set[str] = field(default_factory=set)


def read_shards(tars: list[str], paths: Paths, column: str | None, left: LeftAside) -> Iterator[Row]:
    """A row for every sample that holds a video or a picture, shard by shard.

    A sample is what shares a key, the name up to the first dot after the last slash. Its videos are clips, or its pictures if it
    has none; of txt, caption and json the first gives the captions. Names of members are only names: no path is made of them.

    Args:
        tars: absolute.
        column: of the JSON members, where the captions stand; None looks for the usual names.
        left: counts what is not used.
    Raises: ValueError naming the shard and the member: a shard that is compressed, cut or damaged, a caption that is no text.
    """
    for tar in tars:
        path = paths.find(tar, tar)
        if not os.path.isfile(path):
            raise ValueError(f"{tar}: there is no such file")
        with open(path, "rb") as file:
            shown = os.path.relpath(path, paths.root)
            for sample in _samples(file, tar, shown, left):
                yield from _rows(sample, file, path, column, shown, left)


def _rows(sample: Sample, file: BinaryIO, path: str, column: str | None, shown: str, left: LeftAside) -> Iterator[Row]:
    clips, spare = (sample.videos, sample.pictures) if sample.videos else (sample.pictures, [])
    if clips:
        found = _captions(sample, file, path, column)
        for member in clips:
            yield Row(Media(path, member.name, member.start, member.size), found)
    for member in spare:
        left.add("pictures of a sample that has a video", f"{shown}:{member.name}")
    if not clips:
        for member in sample.texts.values():
            left.add("captions without a video of the same key", f"{shown}:{member.name}")


def _captions(sample: Sample, file: BinaryIO, path: str, column: str | None) -> Captions:
    kind = next((kind for kind in TEXTS if kind in sample.texts), None)
    if kind is None:
        return {}
    member = sample.texts[kind]
    file.seek(member.start)
    raw = file.read(min(member.size, captions.MAX_CAPTION_BYTES + 1))
    where = f"{path}, member {member.name!r}"
    return captions.of_json_file(raw, column, where) if kind == "json" else captions.of_text_file(raw, where)


def _samples(file: BinaryIO, tar: str, shown: str, left: LeftAside) -> list[Sample]:
    """The samples of a shard, in the order of their first members.

    Members of a sample should stand side by side, but tar writes a folder in any order: a key that comes again adds to its sample, unless
    that has such a member already. Then it is another sample, as in two shards that were joined.
    """
    samples: list[Sample] = []
    latest: dict[str, Sample] = {}
    for info in _members(file, tar):
        folder, _, base = info.name.rpartition("/")
        stem, _, suffix = base.lower().partition(".")
        kind = suffix.rpartition(".")[2]
        if not info.isfile() or info.issparse():
            if not info.isdir():
                left.add("members that are links, devices or sparse", f"{shown}:{_printable(info.name)}")
            continue
        if not stem or not (kind in VIDEOS or kind in PICTURES or suffix in TEXTS):
            left.add(f"members that are neither videos nor pictures nor captions (.{_printable(kind)})", f"{shown}:{_printable(info.name)}")
            continue
        key = f"{folder}/{base.partition('.')[0]}"
        sample = latest.get(key)
        if sample is None or suffix in sample.suffixes:
            sample = latest[key] = Sample()
            samples.append(sample)
        sample.suffixes.add(suffix)
        member = Member(_printable(info.name), info.offset_data, info.size)
        if suffix in TEXTS:
            sample.texts[suffix] = member
        else:
            (sample.videos if kind in VIDEOS else sample.pictures).append(member)
    return samples


def _members(file: BinaryIO, tar: str) -> Iterator[tarfile.TarInfo]:
    """The members' headers, one at a time."""
    size = os.fstat(file.fileno()).st_size
    headers = _Headers(file)
    end = 0
    try:
        with tarfile.open(fileobj=headers, mode="r:", errors="surrogateescape") as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
            while True:
                headers.left = MAX_HEADER_BYTES
                info = archive.next()
                if info is None:
                    break
                archive.members.clear()  # or every header of the shard stays in memory
                if len(archive.pax_headers) > MAX_GLOBAL_FIELDS:
                    raise tarfile.ReadError("a global header with too many fields")
                plain = info.isreg() and not info.issparse()  # the size of others is not what they take up
                if info.size < 0 or archive.offset <= end or (plain and info.offset_data + info.size > size):
                    raise tarfile.ReadError(f"the member {info.name!r} claims {info.size} bytes from {info.offset_data}, the file has {size}")
                end = archive.offset
                yield info
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError(f"the header at byte {archive.offset} is damaged")
    except (tarfile.TarError, OSError, OverflowError, RecursionError, ValueError) as error:
        raise ValueError(f"{tar}: damaged, cut or no tar file ({error}). Copy or make it again.") from error


class _Headers:
    """What tarfile reads of a shard: a header may claim any length for what comes with it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"a header longer than {MAX_HEADER_BYTES >> 10} KiB")
        return self.file.read(size)


def _printable(name: str) -> str:
    """The name as text: bytes that are not UTF-8 are spelt out, since a name is only for people here."""
    return name.encode("utf-8", "backslashreplace").decode()
