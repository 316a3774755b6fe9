"""What is made before, after or between given frames: is the object still itself, does it move as the caption says, is the joint smooth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Claim
from evaluation.oracle import read
from evaluation.oracle.motion import WITHIN
from evaluation.statistics import bootstrap, wilson
from evaluation.tasks.course import LEAST_PACE, LEAST_SEEN, WIDTH, Course, Joint, course
from evaluation.tasks.identity import appearance
from evaluation.tasks.ratios import median_ratio

Video = NDArray[np.uint8]  # t h w c
MOST_WORSE = 1.5  # errors at a joint, in those inside real clips


@dataclass(frozen=True, slots=True)
class Continued:
    """One clip of which some frames were made.

    Args:
        identity: for shape, colour and size, as far as claimed, whether the made frames show it.
        pace: the made frames' velocity along the caption's, in shares of it; below 0 backwards, 0 where the object is lost. None where
            the caption names no speed: what turns, bounces or rests has no single velocity.
        heading: whether the direction is the caption's, within half of the angle between two named ones.
        joints, real: where made and given frames meet, and the same places of the real clip; none where a single picture was given.
    """

    identity: dict[str, bool]
    pace: float | None
    heading: bool
    joints: tuple[Joint, ...]
    real: tuple[Joint, ...]

    @property
    def moves(self) -> bool:
        """Whether it moves as the caption says, and at least at half its speed."""
        return self.heading and (self.pace is None or self.pace >= LEAST_PACE)


def continued(
    video: Video, made: Sequence[range], claim: Claim, wanted: np.ndarray | None, real: Course | None, whole: Course | None = None
) -> Continued:
    """Read one clip; forwards, backwards and in between alike: a made span has a joint at each end at which frames were given.

    All made frames are read together and by themselves: given ones would vouch for those that forget them.

    A past that was made, read forwards, must come to the state in which the given frames begin, in place and in velocity: that is the
    joint. Its motion played forwards is the caption's.

    Args:
        made: spans of the clip's frames, in order; the others were given.
        claim: of the source, with the attributes that the prompt left out.
        wanted: (3,), the caption's velocity as in Course: that of the source's truth over the made frames, or of the real clip. None
            where the caption names none.
        real: of a real clip with as many frames, through the same VAE: read noise is most of what it shows at a joint. None: no joint is asked.
        whole: of this clip, where it is known; None: it is read, if a joint is asked.
    Raises: ValueError if a made span is empty, leaves the clip or meets the next, or no given frame is left.
    """
    ends = [end for span in made for end in (span.start, span.stop)]
    apart = bool(ends) and all(one < other for one, other in pairwise(ends)) and all(span.step == 1 for span in made)
    if not apart or ends[0] < 0 or ends[-1] > len(video) or ends == [0, len(video)]:
        raise ValueError(f"made={list(made)} must be spans of the {len(video)} frames, in order and apart, and leave some that were given")
    if real is not None and len(real) != len(video):
        raise ValueError(f"the real clip has {len(real)} frames, the made one {len(video)}: cut both to one length")
    frames = np.concatenate([np.asarray(span) for span in made])
    state = read(video[frames])
    pace, heading = _motion(course(state).among(frames, len(video)).velocity_in(made), wanted)
    places = joints_of(made, len(video)) if real is not None else []
    if places and whole is None:
        whole = course(read(video))
    joints, own = (tuple(track.joint(place, width) for place, width in places if track is not None) for track in (whole, real))
    return Continued(appearance(state, claim), pace, heading, joints, own)


def joints_of(made: Sequence[range], frames: int) -> list[tuple[int, int]]:
    """Where made and given frames meet, and how many frames on either side tell: WIDTH, or as many as there are. A single picture has no
    velocity: where fewer than LEAST_SEEN stand on a side, there is no joint."""
    stops, starts = [0, *(span.stop for span in made)], [*(span.start for span in made), frames]
    given = [start - stop for stop, start in zip(stops, starts, strict=True)]  # frames before each span, and behind the last
    widths = [
        (place, min(WIDTH, beside, len(span)))
        for number, span in enumerate(made)
        for place, beside in ((span.start, given[number]), (span.stop, given[number + 1]))
    ]
    return [(place, width) for place, width in widths if width >= LEAST_SEEN]


def _motion(velocity: np.ndarray | None, wanted: np.ndarray | None) -> tuple[float | None, bool]:
    if wanted is None:
        return None, True
    speed = float(np.linalg.norm(wanted))
    if velocity is None or speed == 0:
        return 0.0, False
    along = float(velocity @ wanted) / speed
    return along / speed, bool(along > WITHIN * np.linalg.norm(velocity))


def summary(results: Sequence[Continued], seed: int = 0) -> dict[str, Any]:
    """Identity and motion as shares of clips, errors at the joints as ratios to those of real clips.

    `identity` is all of it at once. `place` and `velocity` are ratios of medians over all joints (see median_ratio); `smooth` is the share
    of clips with no joint worse than MOST_WORSE x the real clips' 95th percentile, which knows the clips that a median does not see.
    Joints at which the real clip cannot be read (something hides the object) are not asked.
    """
    names = dict.fromkeys(name for result in results for name in result.identity)
    paces = [result.pace for result in results if result.pace is not None]
    figures: dict[str, Any] = {
        "identity": wilson([all(result.identity.values()) for result in results]).as_dict(),
        "attributes": {name: wilson([result.identity[name] for result in results if name in result.identity]).as_dict() for name in names},
        "moves": wilson([result.moves for result in results]).as_dict(),
        "identity_of": [all(result.identity.values()) for result in results],
        "moves_of": [result.moves for result in results],
        "n": len(results),
    }
    if paces:
        figures["pace"] = bootstrap(paces, seed).as_dict()
        figures["fast_enough"] = wilson([pace >= LEAST_PACE for pace in paces]).as_dict()
    if results[0].joints:
        figures["joint"] = continuity([result.joints for result in results], [result.real for result in results], seed)
    return figures


def continuity(made: Sequence[Sequence[Joint]], real: Sequence[Sequence[Joint]], seed: int = 0) -> dict[str, Any]:
    """Errors at joints against those at the same places of real clips; `n` clips could be asked, and where none could there is nothing else."""
    asked = [i for i, joints in enumerate(real) if np.isfinite([joint.velocity for joint in joints]).all()]
    if not asked:
        return {"n": 0}
    figures: dict[str, Any] = {}
    smooth = np.ones(len(asked), bool)
    for name in ("place", "velocity"):
        errors, own = (np.array([[getattr(joint, name) for joint in clips[i]] for i in asked]) for clips in (made, real))
        figures[name] = median_ratio(errors.tolist(), own.tolist(), seed).as_dict()
        figures[f"{name}_real"] = float(np.median(own))
        smooth &= (errors <= MOST_WORSE * np.quantile(own, 0.95)).all(1)
    return figures | {"smooth": wilson(smooth.tolist()).as_dict(), "smooth_of": smooth.tolist(), "n": len(asked)}
