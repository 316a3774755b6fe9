"""What every format gives: rows, and a tally of what it left aside, so that nothing is left out in silence."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from data.batch import Captions
from data.files.media import Media

SHOWN = 5  # names that are kept of each sort of thing left aside
SORTS = 40  # a folder may hold a thousand different suffixes


@dataclass(frozen=True, slots=True)
class Box:
    """Where something is at one moment of a clip.

    Args:
        at_s: seconds from the start of the row's stretch.
        left, top, right, bottom: shares of the frame's width and height, in [0, 1].
    """

    label: str
    at_s: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class TimedCaptions:
    """What is said of a stretch of a file.

    Args:
        start_s, end_s: seconds from the file's first frame, half open.
        captions: texts by kind, at least one.
    """

    start_s: float
    end_s: float
    captions: Captions


@dataclass(frozen=True, slots=True)
class Row:
    """One clip of a set: a file or a stretch of it, and what is said of it.

    Args:
        captions: texts by kind; may be empty, the clip is then unconditional.
        start_s, end_s: the stretch of the file, in seconds from its first frame; end_s None is its end.
        weight: how often it is shown in an epoch: floor or ceiling of it; 0 is never.
        fps: of a folder of pictures, which has no time stamps. A video's own time stamps decide.
        boxes: for conditioning on boxes; may be empty.
        shots: in order and without overlap, with gaps or none; they may reach beyond the stretch. Empty if nothing is timed.
    """

    media: Media
    captions: Captions = field(default_factory=dict)
    start_s: float = 0.0
    end_s: float | None = None
    weight: float = 1.0
    fps: float | None = None
    boxes: tuple[Box, ...] = ()
    shots: tuple[TimedCaptions, ...] = ()

    @property
    def path(self) -> str:
        """The file that holds it: for a member of a tar file, the tar file."""
        return self.media.path

    @property
    def texts(self) -> Iterator[str]:
        """Everything that is said of it and of its shots, whatever the kind."""
        for said in (self.captions, *(shot.captions for shot in self.shots)):
            for texts in said.values():
                yield from texts


@dataclass(frozen=True, slots=True)
class Ignored:
    """Things of one sort that a source holds and an index does not use.

    Args:
        what: in the plural, such as "files that are neither videos nor pictures (.npy)".
        names: the first few of them.
    """

    what: str
    count: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.names) else ""
        return f"{self.count} {self.what}: {', '.join(self.names)}{more}"


class LeftAside:
    """Counts what is not used, by sort; keeps a few names of each, however many there are."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, what: str, name: str) -> None:
        if what not in self._counts and len(self._counts) >= SORTS:
            what = "other things"
        names = self._names.setdefault(what, [])
        if len(names) < SHOWN:
            names.append(name)
        self._counts[what] = self._counts.get(what, 0) + 1

    def __iter__(self) -> Iterator[Ignored]:
        for what, names in self._names.items():
            yield Ignored(what, self._counts[what], tuple(names))
