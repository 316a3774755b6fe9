"""What one part of the suite of tasks found: rows of the table, all figures, and clips to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.tasks.rows import Row

Video = NDArray[np.uint8]  # t h w c
SHOWN = 6  # clips of a task that are kept for the page, the first ones, whatever they look like


@dataclass(frozen=True, slots=True)
class Example:
    """A clip to look at.

    Args:
        given: (t,) bool, which frames were given; None: none.
        loop: whether it is one.
    """

    video: Video
    caption: str
    given: NDArray[np.bool_] | None = None
    source: Video | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Args:
    name: of the part. figures: all of them, by measure.
    """

    name: str
    rows: Sequence[Row]
    figures: dict[str, Any]
    examples: Sequence[Example] = field(default_factory=tuple)


def mask(frames: int, *spans: tuple[int, int]) -> NDArray[np.bool_]:
    """(frames,) bool, True in [start, stop) of each span."""
    found = np.zeros(frames, bool)
    for start, stop in spans:
        found[start:stop] = True
    return found


def slug(name: str) -> str:
    """The folder of a part's clips."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)
