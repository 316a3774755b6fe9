"""Loops: does the end go over into the beginning as every frame goes over into the next, and does anything move at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Claim
from evaluation.oracle import judge, read
from evaluation.statistics import bootstrap, wilson
from evaluation.tasks.course import LEAST_PACE, WIDTH, Joint, course, mean_speed
from evaluation.tasks.ratios import median_ratio

Video = NDArray[np.uint8]  # t h w c
MOST_WORSE = 1.2  # errors at the seam, in those of the interior
MOST_JUMP = 2.0
HIGHEST_JUMP = 1000.0  # of a clip that stands still and jumps: JSON knows no infinity
# Levels of 255 (rms over all values) from one frame to the next below which a clip stands still: the slowest of the world change by 3.8. A
# decoded still picture may flicker by as much as 3, evenly; what refuses that is its pace.
STILL_LEVELS = 1.0


@dataclass(frozen=True, slots=True)
class Loop:
    """One clip that is shown again and again: after its last frame comes its first.

    Args:
        seam: the joint between last and first frame; `inside`: all joints whose frames do not reach over it.
        pace: mean speed over the loop in shares of the caption's; None where it names none.
        jump: the largest change from one frame to the next, the seam among them, over the median change.
        followed: whether the clip does what its prompt says, as it stands and begun in its middle, where the seam lies inside.
    """

    seam: Joint
    inside: tuple[Joint, ...]
    pace: float | None
    jump: float
    followed: tuple[bool, bool]

    @property
    def moves(self) -> bool:
        return self.pace is None or self.pace >= LEAST_PACE

    @property
    def even(self) -> bool:
        return self.jump <= MOST_JUMP

    @property
    def hidden(self) -> bool:
        """Whether nobody could tell the seam by its errors: neither exceeds MOST_WORSE x the largest of the interior."""
        worst = Joint(max(joint.place for joint in self.inside), max(joint.velocity for joint in self.inside))
        seen = isfinite(self.seam.place)
        return seen and self.seam.place <= MOST_WORSE * worst.place and self.seam.velocity <= MOST_WORSE * worst.velocity


def loop(video: Video, claim: Claim, speed: float | None) -> Loop:
    """Read one clip.

    Args:
        claim: of the prompt. A loop cannot move one way for ever: where the prompt asks for that, leave the motion out of the claim and ask
            for its speed alone.
        speed: of the caption, in shorter sides per frame, as `mean_speed` of a real clip; None where it names none.
    Raises: ValueError if the clip is shorter than two sides of a joint and one frame between.
    """
    if len(video) <= 2 * WIDTH:
        raise ValueError(f"frames={len(video)} are too few to tell a seam from the interior, wanted more than {2 * WIDTH}. Set task.frames.")
    state, half = read(video), len(video) // 2
    once = course(state)
    inside = tuple(once.joint(k) for k in range(WIDTH, len(video) - WIDTH + 1))
    pace = None if not speed else mean_speed(once, cyclic=True) / speed
    followed = judge(state, claim).correct, judge(read(np.roll(video, -half, axis=0)), claim).correct
    return Loop(once.rolled(half).joint(len(video) - half), inside, pace, largest_jump(video), followed)


def largest_jump(video: Video) -> float:
    """The largest change between frames that follow each other, the last and the first among them, over the median change.

    A change is the rms over all values. A clip that stands still has no median to compare with and is as uneven as can be.
    """
    after = np.roll(video, -1, axis=0).astype(np.float32)
    change = np.sqrt(np.square(after - video).mean((1, 2, 3)))
    median = float(np.median(change))
    return min(float(change.max()) / median, HIGHEST_JUMP) if median > STILL_LEVELS else HIGHEST_JUMP


def summary(results: Sequence[Loop], seed: int = 0) -> dict[str, Any]:
    """Errors at the seam as ratios to the interior's (medians over all joints), everything else as shares of clips.

    `loops` is the share of clips that move, without a jump, with a hidden seam; `followed` and `followed_rolled` stand beside text to video's.
    A true loop's seam is as good as its other joints, so it is now and then its worst: `hidden` of rendered loops is the ceiling.
    """
    figures: dict[str, Any] = {
        name: median_ratio(
            [[getattr(result.seam, name)] for result in results], [[getattr(joint, name) for joint in result.inside] for result in results], seed
        ).as_dict()
        for name in ("place", "velocity")
    }
    paces = [result.pace for result in results if result.pace is not None]
    if paces:
        figures["pace"] = bootstrap(paces, seed).as_dict()
    shares = {
        "moves": [result.moves for result in results],
        "even": [result.even for result in results],
        "hidden": [result.hidden for result in results],
        "loops": [result.moves and result.even and result.hidden for result in results],
        "followed": [result.followed[0] for result in results],
        "followed_rolled": [result.followed[1] for result in results],
    }
    figures |= {name: wilson(outcomes).as_dict() for name, outcomes in shares.items()}
    jumps = [result.jump for result in results]
    return figures | {"jump_median": float(np.median(jumps)), "loops_of": shares["loops"], "followed_of": shares["followed"], "n": len(results)}
