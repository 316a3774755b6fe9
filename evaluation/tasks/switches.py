"""Storyboards: in which frame does what is asked at one time give way to what is asked at the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Claim
from evaluation.oracle import State, judge, read
from evaluation.oracle.motion import direction
from evaluation.statistics import bootstrap, wilson
from evaluation.tasks.course import Course, course
from evaluation.tasks.remix import differing

Video = NDArray[np.uint8]  # t h w c
# On each side of the switch this share of the frames must show what is asked there, those within the tolerance left out.
MOST = 0.8
# Frames to either side over which a motion is named, and the least way in that time: a quarter of what the world's slowest cover.
REACH = 2
LEAST_STEP = 0.006  # shorter sides per frame


@dataclass(frozen=True, slots=True)
class Switch:
    """One attribute that should change at a frame.

    Args:
        asked: the first frame that should show the second claim. found: the first that does; None where it never changes so.
        frames: how long the clip is.
    """

    attribute: str
    asked: int
    found: int | None
    frames: int

    @property
    def error(self) -> int | None:
        """Frames too late; below 0 too early."""
        return None if self.found is None else self.found - self.asked

    def within(self, frames: int) -> bool:
        return self.error is not None and abs(self.error) <= frames


def switches(video: Video, before: Claim, after: Claim, asked: int, tolerance: int) -> list[Switch]:
    """Find the change of every attribute in which the claims differ.

    Args:
        before, after: of one object, what is asked until frame `asked` and from it on.
        tolerance: in frames; one latent frame is the VAE's stride_t.
    Raises: ValueError if the claims agree, or nothing is asked before or after.
    """
    names = differing(before, after)
    if not names:
        raise ValueError("both claims are the same, so no switch can be seen. Ask for something else at the second time.")
    if not 0 < asked < len(video):
        raise ValueError(f"asked={asked} must lie inside the clip of {len(video)} frames")
    frames = [read(video[k : k + 1]) for k in range(len(video))] if set(names) - {"motion"} else []
    ways = motions(course(read(video))) if "motion" in names else []
    first, second = (shows(claim, names, frames, ways) for claim in (before, after))
    return [Switch(name, asked, change(first[name], second[name], tolerance), len(video)) for name in names]


def shows(claim: Claim, names: Sequence[str], frames: Sequence[State], ways: Sequence[str | None]) -> dict[str, NDArray[np.bool_]]:
    """For each attribute, (t,) bool: which frames show what is claimed of it.

    Args:
        frames: every frame read as a clip of its own: medians over a clip that changes mean nothing.
        ways: by `motions`, from a few frames either side.
    """
    still = replace(claim, objects=tuple(replace(one, motion=None) for one in claim.objects))
    verdicts = [judge(frame, still).attributes for frame in frames]
    moving = np.array([way == claim.objects[0].motion for way in ways])
    return {name: moving if name == "motion" else np.array([verdict[name] for verdict in verdicts]) for name in names}


def motions(track: Course) -> list[str | None]:
    """What the object does at each frame: a direction, "grow", "shrink", or None."""
    named: list[str | None] = []
    for k in range(len(track)):
        velocity = track.cut(max(0, k - REACH), k + REACH + 1).velocity()
        if velocity is None or np.linalg.norm(velocity) < LEAST_STEP:
            named.append(None)
        elif abs(velocity[2]) > np.linalg.norm(velocity[:2]):
            named.append("grow" if velocity[2] > 0 else "shrink")
        else:
            named.append(direction(velocity[:2] / np.linalg.norm(velocity[:2])))
    return named


def change(before: NDArray[np.bool_], after: NDArray[np.bool_], tolerance: int) -> int | None:
    """The first frame of the second state: where a split leaves most frames on their side.

    Frames that show neither or both speak for no place; among equally good ones the middle is taken.

    Returns: None where a side is empty, or too few of its frames, those within `tolerance` of the split left out, show what they should:
        a clip that never switches, or was in its second state from the beginning, or ends in something else.
    """
    votes = np.concatenate([[0], np.cumsum(before.astype(int) - after)])  # of a split before frame k: what stands before it
    score = 2 * votes - votes[-1]
    best = np.flatnonzero(score == score.max())
    split = int(best[(len(best) - 1) // 2])
    if not 0 < split < len(before):
        return None
    early, late = before[: max(1, split - tolerance)], after[min(len(after) - 1, split + tolerance) :]
    return split if early.mean() >= MOST and late.mean() >= MOST else None


def by_chance(frames: int, asked: int, tolerance: int) -> float:
    """How often a switch at a frame drawn at random lies within the tolerance: much, in short clips."""
    return sum(abs(k - asked) <= tolerance for k in range(1, frames)) / (frames - 1)


def middle(frames: int) -> int:
    """The first frame of the second half: of 1 + 8k frames the first of a latent frame of 4."""
    return (frames + 1) // 2


def summary(results: Sequence[Sequence[Switch]], tolerance: int, seed: int = 0) -> dict[str, Any]:
    """`on_time`: the share of clips all of whose switches lie within the tolerance; the same by attribute, and the errors of those that switch.

    `by_chance` and `in_the_middle`: what those score that never listen to the time, and switch at a random one or always in the middle.
    """
    every = [switch for row in results for switch in row]
    on_time = [all(switch.within(tolerance) for switch in row) for row in results]
    by_name: Mapping[str, list[Switch]] = {name: [s for s in every if s.attribute == name] for name in dict.fromkeys(s.attribute for s in every)}
    errors = [switch.error for switch in every if switch.error is not None]
    figures: dict[str, Any] = {
        "on_time": wilson(on_time).as_dict(),
        "attributes": {name: wilson([s.within(tolerance) for s in part]).as_dict() for name, part in by_name.items()},
        "switched": wilson([switch.found is not None for switch in every]).as_dict(),
        "by_chance": float(np.mean([by_chance(switch.frames, switch.asked, tolerance) for switch in every])),
        "in_the_middle": float(np.mean([all(abs(middle(one.frames) - one.asked) <= tolerance for one in row) for row in results])),
        "on_time_of": on_time,
        "n": len(results),
    }
    return figures | ({"frames_late": bootstrap(errors, seed).as_dict()} if errors else {})
