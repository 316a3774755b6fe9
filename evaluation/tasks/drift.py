"""Rollouts: are the attributes still right, and does it still move, after one, two, twenty times the trained length."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Claim
from evaluation.oracle import judge, read
from evaluation.statistics import paired_bootstrap, paired_shares, wilson
from evaluation.tasks.course import LEAST_PACE, course, mean_speed

Video = NDArray[np.uint8]  # t h w c


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a long clip: which claimed attributes it has, and its mean speed in shorter sides per frame."""

    attributes: dict[str, bool]
    speed: float

    @property
    def held(self) -> bool:
        return all(self.attributes.values())


def windows(pieces: Iterable[Video], frames: int) -> Iterator[Video]:
    """Cut a long clip that comes in pieces of any length into windows of `frames`; a shorter rest is dropped. Holds two windows at most, and
    a piece."""
    if frames < 1:
        raise ValueError(f"frames={frames} of a window must be at least 1. Set task.frames.")
    rest: Video | None = None
    for piece in pieces:
        rest = piece if rest is None or not len(rest) else np.concatenate([rest, piece])
        while len(rest) >= frames:
            yield rest[:frames]
            rest = rest[frames:]


def drift(pieces: Iterable[Video], claim: Claim, frames: int) -> list[Window]:
    """Read a long clip window by window.

    Args:
        pieces: the clip in order, at once or as it is read from its file.
        claim: what should hold all the time. Its motion is left out, but for whether it turns the shape: a window is no whole clip of it.
        frames: of a window, the trained length.
    Raises: ValueError if the clip is shorter than one window.
    """
    lasting = replace(claim, objects=tuple(replace(one, motion="rotate" if one.motion == "rotate" else None) for one in claim.objects))
    found = []
    for part in windows(pieces, frames):
        state = read(part)
        attributes = {name: right for name, right in judge(state, lasting).attributes.items() if name != "motion"}
        found.append(Window(attributes, mean_speed(course(state))))
    if not found:
        raise ValueError(f"the clip is shorter than one window of {frames} frames, so nothing can drift. Make it longer.")
    return found


def curve(results: Sequence[Sequence[Window]], speeds: Sequence[float | None] | None = None) -> dict[str, Any]:
    """Attributes over time: the share of clips that have them in each window, for window 1, 2, ... of the trained length.

    A frozen clip holds all its attributes: `moves` stands beside them, and `lasting` asks for both at once.

    Args:
        results: for each clip its windows, as many for every clip.
        speeds: of each clip's caption in shorter sides per frame, None where it names none and nothing need move; None: of all clips.
    """
    _even(results)
    both = lasting(results, speeds)
    columns = list(zip(*results, strict=True))
    names = dict.fromkeys(name for row in results for name in row[0].attributes)
    shares = {name: [wilson([w.attributes[name] for w in column if name in w.attributes]).as_dict() for column in columns] for name in names}
    figures: dict[str, Any] = {
        "lengths": list(range(1, len(columns) + 1)),
        "held": [wilson([window.held for window in column]).as_dict() for column in columns],
        "lasting": [wilson(column).as_dict() for column in both.T.tolist()],
        "attributes": shares,
        "held_of": [[window.held for window in row] for row in results],
        "n": len(results),
    }
    if speeds is not None and any(speeds):
        asked = [(row, speed) for row, speed in zip(results, speeds, strict=True) if speed]
        figures["moves"] = [wilson([row[i].speed >= LEAST_PACE * speed for row, speed in asked]).as_dict() for i in range(len(columns))]
    return figures


def lasting(results: Sequence[Sequence[Window]], speeds: Sequence[float | None] | None) -> NDArray[np.bool_]:
    """(clips, windows): those whose attributes hold, and that move at LEAST_PACE of the caption's speed or more."""
    least = [LEAST_PACE * (speed or 0) for speed in speeds or [None] * len(results)]
    return np.array([[window.held and window.speed >= slowest for window in row] for row, slowest in zip(results, least, strict=True)])


def compared(
    first: Sequence[Sequence[Window]], second: Sequence[Sequence[Window]], speeds: Sequence[float | None] | None = None, seed: int = 0
) -> dict[str, Any]:
    """How much better `first` lasts than `second`, prompt by prompt: at every length, and on average over all of them.

    Args:
        speeds: as in `curve`.
    Raises: ValueError if clips or windows of the two do not match.
    """
    _even([*first, *second])
    if len(first) != len(second):
        raise ValueError(f"rollouts are compared prompt by prompt, got {len(first)} and {len(second)}")
    ours, theirs = lasting(first, speeds), lasting(second, speeds)
    return {
        "lengths": list(range(1, ours.shape[1] + 1)),
        "lasting": [paired_shares(a.tolist(), b.tolist()).as_dict() for a, b in zip(ours.T, theirs.T, strict=True)],
        "mean": paired_bootstrap(ours.mean(1).tolist(), theirs.mean(1).tolist(), seed).as_dict(),
    }


def _even(results: Sequence[Sequence[Window]]) -> None:
    lengths = sorted({len(row) for row in results})
    if len(lengths) != 1:
        raise ValueError(f"a curve needs as many windows of every clip, got {lengths or 'no clip'}. Cut all to one length.")
