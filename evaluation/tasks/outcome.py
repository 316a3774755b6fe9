"""What one part of the suite of tasks found: rows of the table, all figures, and clips to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.tasks.rows import Row

Video = NDArray[np.uint8]  # t h w c
ABOUT = {  # in the order in which they are measured and told
    "image to video": "The first frame is given; the caption names the motion alone, so what the object looks like can come from the picture only.",
    "extend forwards": "The first half of a clip is given, under a caption that names the motion alone.",
    "extend backwards": "The second half is given, and what led to it is made.",
    "extend both ways": "The middle is given, and what came before and comes after is made.",
    "first and last frame": "A first and a last picture are given.",
    "keyframes": "Pictures at three moments are given, one of them between two latent frames.",
    "in-betweening": "Every fourth frame is given as a picture; those between are made.",
    "re-cut": "A span is kept in its place, and all around it is made anew.",
    "behind a post": "The first frame is given; on its way the object passes behind a post. Is it the same when it comes out?",
    "connect": "The beginning of one clip and the end of another are given; the object must get from one to the other.",
    "inpainting": "The left part of every frame is kept, the right one is made anew.",
    "loop": "The last frame is followed by the first, in place and in speed.",
    "remix": "A given clip is noised up to a strength and made again under another caption.",
    "storyboard": "Prompts with times: one attribute switches at an asked moment.",
    "any shape": "The same model in sizes and lengths that it never saw; longer clips are brought into the time that it knows.",
    "draft and full size": "A draft begins with the averaged noise of the full size, so both have one layout; refined, the full size begins from it.",
    "rollout": "A video of twenty times the trained length, in overlapping windows that hand latents on, beside naive chaining of clips.",
}
SHOWN = 6  # clips of a task that are kept for the page, the first ones, whatever they look like


@dataclass(frozen=True, slots=True)
class Example:
    """A clip to look at.

    Args:
        given: (t,) bool, which frames were given; None: none.
        source: the clip that was given, or given parts of.
    """

    video: Video
    caption: str
    given: NDArray[np.bool_] | None = None
    source: Video | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Args:
    name: of the way of making video, one of ABOUT, perhaps with a comma and more behind it; its rows' task.
    figures: all of them, by measure.
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


def about(name: str) -> str:
    """What an outcome's name stands for; '' for an unknown one."""
    return ABOUT.get(name.partition(",")[0], "")


def rank(name: str) -> int:
    """Its place among all."""
    known = list(ABOUT)
    kind = name.partition(",")[0]
    return known.index(kind) if kind in known else len(known)
