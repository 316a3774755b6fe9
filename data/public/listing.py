"""What a recipe finds in a public set: clips for training and validation, and by reason everything that it left out."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from data.batch import Captions
from data.formats.paths import Paths
from data.index import read_index
from runtime.files import sync_file, sync_folder

VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
PICTURES = (".jpeg", ".jpg", ".png")
MISSING = "no such file"

# Names by reason.
LeftOut = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of an index to be.

    Args:
        path: seen from the set's folder, with forward slashes.
        source: what the clip was cut from; clips of one source look alike, so a hold-out takes all of them or none.
        fps: of a folder of pictures, which have no time stamps.
        start_s, end_s: the part of the file; None is the file's own end.
    """

    path: str
    captions: Captions
    source: str
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None

    def line(self) -> str:
        """The row as JSON, without a line feed."""
        row = {"path": self.path, "captions": self.captions or None, "fps": self.fps, "start_s": self.start_s, "end_s": self.end_s}
        return json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Listing:
    """A set as a recipe found it.

    Args:
        val: empty if the set has no split of its own.
        left_out: names by reason; files that the set names but that are not there stand under MISSING.
        classes: the names of its classes, sorted; empty if it has none.
    """

    train: tuple[Clip, ...]
    val: tuple[Clip, ...]
    left_out: LeftOut
    classes: tuple[str, ...] = ()

    @property
    def missing_share(self) -> float:
        """Files that are not there over all that the set names."""
        missing = len(self.left_out.get(MISSING, ()))
        return missing / max(1, missing + len(self.train) + len(self.val))


def with_validation(listing: Listing, share: float) -> Listing:
    """Moves about a share of the training clips to validation, where the set has no split of its own, and mixes the clips of validation.

    Whole sources are moved, by a hash of their names: the same ones on every machine, and files added later move none of them back (unless
    the share is so small that it makes no source; then it is the first one by hash).
    Mixed, also by hash, because a run looks at the first clips of data.val only, which would be those of one class.

    Raises: ValueError if there is one source only.
    """
    if listing.val or share == 0:
        return replace(listing, val=tuple(sorted(listing.val, key=lambda clip: _place(clip.path))))
    places = {clip.source: _place(clip.source) for clip in listing.train}
    if len(places) < 2:
        raise ValueError(f"all {len(listing.train)} clips come from one source, so none can be held out. Set hold_out=0 and data.val yourself.")
    first, *_, last = sorted(places, key=places.__getitem__)
    held = ({source for source, place in places.items() if place < share} | {first}) - {last}
    train, val = (tuple(clip for clip in listing.train if (clip.source in held) == side) for side in (False, True))
    return with_validation(replace(listing, train=train, val=val), share)


def write_index(path: Path, clips: Iterable[Clip], root: Path) -> None:
    """Writes an index whose paths start at `root`: there whole or not at all, and only if the reader of indexes takes every row.

    Raises: ValueError naming the row, for instance of a link that leads out of `root`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".index-", dir=path.parent) as part:
        target = Path(part) / path.name
        with open(target, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{clip.line()}\n" for clip in clips)
        sync_file(target)
        read_index(target, root)
        os.replace(target, path)
    sync_folder(path.parent)


def files_under(root: Path, suffixes: tuple[str, ...], left_out: LeftOut, inside: str | None = None) -> Iterator[str]:
    """Paths seen from `root`, sorted by folder and name; hidden files, links to folders and what an index may not hold are left out.

    Args:
        inside: a folder of `root` to stay in; None for all of it.
    Raises: OSError if a folder cannot be read; ValueError if `inside` is none of `root`.
    """
    for folder, names in folders_under(root, suffixes, left_out, inside):
        yield from (str(PurePosixPath(folder, name)) for name in names)


def folders_under(root: Path, suffixes: tuple[str, ...], left_out: LeftOut, inside: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """As `files_under`, folder by folder: its path and the names in it, both sorted; folders without such a file are passed over."""
    top = root if inside is None else root / inside
    if not top.is_dir() or not top.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{inside or root} is no folder{f' inside {root}' if inside else ''}. Set root to the folder that holds all the videos.")
    paths = Paths(str(root))
    for folder, folders, names in os.walk(top, onerror=_refuse):
        seen = PurePosixPath(Path(folder).relative_to(root).as_posix())
        links = {name for name in folders if os.path.islink(os.path.join(folder, name))}
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in links)
        faults = dict.fromkeys(sorted(links), "a link to a folder")
        fitting = sorted(name for name in names if name.lower().endswith(suffixes))
        faults |= {name: fault for name in fitting if (fault := _fault(str(seen / name), paths))}
        for name, fault in faults.items():
            leave_out(left_out, fault, str(seen / name).encode("utf-8", "backslashreplace").decode())
        if kept := [name for name in fitting if name not in faults]:
            yield str(seen), kept


def leave_out(left_out: LeftOut, reason: str, name: str) -> None:
    """Notes a name under a reason."""
    left_out.setdefault(reason, []).append(name)


def _fault(path: str, paths: Paths) -> str | None:
    """What keeps a file out of every index."""
    if PurePosixPath(path).name.startswith("."):
        return "a hidden file"
    try:
        path.encode("utf-8")
        paths.resolve(path, "")
    except UnicodeEncodeError:
        return "a name that is no Unicode"
    except ValueError:
        return "a name or a link that no index may hold"
    return None


def _place(source: str) -> float:
    """A number in [0, 1) that only the name decides."""
    return int.from_bytes(blake2b(source.encode("utf-8"), digest_size=8).digest(), "big") / 2**64


def _refuse(error: OSError) -> None:
    raise error
