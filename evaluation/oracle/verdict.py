"""State against claim: every attribute on its own, and all of them together."""

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np

from data.world.vocabulary import COLOURS, EASY_MOTIONS, PLAIN_BACKGROUNDS, SHAPES, Attributes, Claim
from evaluation.oracle.reading import State, Track, read

# The named shape's overlap, and how far it must lie above the second best. Rendered clips after H.264 and a simulated autoencoder keep
# 0.86 and 0.09, a trained autoencoder's reconstructions 0.03 in 97 % of the clips; a square rounded until it is as near to a circle stays
# below 0.03, mostly below 0.02. Of 630 forgeries 4 pass at a margin of 0.02, 1 at 0.03, 16 at 0.
# Below a radius of 8 px, where a codec's half-resolution colour blunts corners, half of the margin has to do.
LEAST_IOU = 0.75
LEAST_MARGIN = 0.02
# The widest rim: 1.9 px and 0.12 of the radius. Codec and autoencoder together make 2.5 px at a radius of 6, a blob without outline 4.
RIM_PX, RIM_SHARE = 1.9, 0.12
# Area radii in shares of the shorter side above which an object is large.
LARGE_ALONE, LARGE_TOGETHER = 0.1775, 0.125
LEAST_ASKED = 0.3  # share of the frames in which a shape must be seen at all
MOST = 0.8  # share of the frames in which an attribute must hold
MOST_HALF = 0.7  # and in each half of the clip


@dataclass(frozen=True, slots=True)
class Verdict:
    """`correct` is strict, `lenient` differs in the shape rule alone; `attributes` holds the strict verdict on each claimed attribute."""

    correct: bool
    lenient: bool
    attributes: dict[str, bool]


def judge(state: State | np.ndarray, claim: Claim) -> Verdict:
    """Whether the video does what the claim says.

    Args:
        state: from `read`, or the uint8 video itself.
    """
    if isinstance(state, np.ndarray):
        state = read(state)
    best: tuple[int, dict[str, bool], bool] | None = None
    for order in permutations(range(len(state.tracks)), min(claim.count, len(state.tracks))):
        attributes, lenient = _assigned(state, [state.tracks[place] for place in order], claim)
        rank = sum(attributes.values()) + lenient
        if best is None or rank > best[0]:
            best = rank, attributes, lenient
    assert best is not None, "permutations yield at least the empty order"
    _, attributes, lenient_shapes = best
    attributes["count"] = counted(state, claim.count)
    if claim.background is not None:
        attributes["background"] = claim.background in state.background and state.background_steady
    if claim.camera is not None:
        attributes["camera"] = state.camera == claim.camera
    if claim.light is not None:
        attributes["light"] = state.light == claim.light
    if claim.occluder is not None:
        attributes["occluder"] = state.occluder == claim.occluder
    others = all(right for name, right in attributes.items() if name not in ("shape", "binding"))
    return Verdict(all(attributes.values()), others and lenient_shapes, attributes)


def counted(state: State, count: int) -> bool:
    """Whether the number of objects is right in nearly all frames; several, or a post, may hide some of them for a while."""
    hideable = count > 1 or state.occluder
    exact, more = (state.counts == count).mean(), (state.counts > count).mean()
    return len(state.tracks) == count and bool(exact >= (0.6 if hideable else 0.85) and more <= 0.15)


def _assigned(state: State, tracks: list[Track], claim: Claim) -> tuple[dict[str, bool], bool]:
    attributes: dict[str, bool] = {}
    joint, lenient = len(tracks) == claim.count, len(tracks) == claim.count
    for place, wanted in enumerate(claim.objects):
        track = tracks[place] if place < len(tracks) else None
        for name, right in object_attributes(state, track, wanted).items():
            attributes[name] = attributes.get(name, True) and right
            joint &= right
        if wanted.shape is not None:
            moments = track is not None and mostly(track.fit.lenient == SHAPES.index(wanted.shape), track.whole)
            # Never stricter than the strict rule, which alone can tell a half-hidden shape.
            lenient &= moments or (track is not None and shape_holds(track, wanted.shape, free=wanted.motion == "rotate"))
    if claim.count > 1:
        attributes["binding"] = joint
    return attributes, lenient


def object_attributes(state: State, track: Track | None, wanted: Attributes) -> dict[str, bool]:
    """The strict verdict on each attribute that is claimed of one object."""
    claimed = {name: getattr(wanted, name) for name in ("shape", "colour", "motion", "size")}
    if track is None:
        return {name: False for name, value in claimed.items() if value is not None}
    result = {}
    if wanted.shape is not None:
        result["shape"] = shape_holds(track, wanted.shape, free=wanted.motion == "rotate")
    if wanted.colour is not None:
        result["colour"] = mostly(np.array([name == wanted.colour for name in track.colours]), track.found)
    if wanted.motion is not None:
        result["motion"] = present(track, state.occluder) and track.motion == wanted.motion
    if wanted.size is not None:
        result["size"] = size(track, len(state.tracks), min(state.height, state.width)) == wanted.size
    return result


def shape_holds(track: Track, name: str, free: bool) -> bool:
    """The strict rule: best overlap by a margin, enough of it, and an outline.

    Args:
        free: whether the shape may stand at any angle, as it may where the clip's motion is a rotation.
    """
    overlap = track.fit.turned if free else track.fit.upright
    column = SHAPES.index(name)
    others = np.delete(overlap, column, axis=1).max(1)
    radius = np.sqrt(track.fit.area / np.pi)
    margin = np.clip(LEAST_MARGIN * (radius - 4) / 4, LEAST_MARGIN / 2, LEAST_MARGIN)
    named = (overlap[:, column] >= LEAST_IOU) & (overlap[:, column] >= others + margin)
    named &= track.fit.edge_px <= RIM_PX + RIM_SHARE * radius
    # A frame in which something covers a part may speak for the shape, never against it.
    asked = track.whole | (track.found & named)
    # But in each half of the clip some must, or an object could come out from behind a post as another one.
    told = all(half.any() for half in np.array_split(asked, 2) if len(half))
    return bool(asked.mean() >= LEAST_ASKED) and told and mostly(named, asked)


def size(track: Track, objects: int, side_px: int) -> str:
    """Small or large, by the median area radius; where several share the frame all are smaller."""
    seen = track.whole if track.whole.any() else track.found
    radius = float(np.median(track.radius[seen])) / side_px
    return "large" if radius > (LARGE_ALONE if objects == 1 else LARGE_TOGETHER) else "small"


def present(track: Track, parted: bool) -> bool:
    """Whether the object is there nearly all the time, or, where a post stands, most of it."""
    return bool(track.found.mean() >= (0.6 if parted else 0.9))


def mostly(holds: np.ndarray, asked: np.ndarray) -> bool:
    """Whether something holds in most of the frames in which it is asked for, and in most of each half of the clip."""
    halves = np.array_split(np.arange(len(holds)), 2)
    if not asked.any() or holds[asked].mean() < MOST:
        return False
    return all(not asked[half].any() or holds[half][asked[half]].mean() >= MOST_HALF for half in halves)


def chance(
    objects: int = 1,
    shapes: int = len(SHAPES),
    colours: int = len(COLOURS),
    motions: int = len(EASY_MOTIONS),
    backgrounds: int = len(PLAIN_BACKGROUNDS),
) -> float:
    """How often a video of drawn-at-random attributes fulfils a claim of all of them; 1 / 720 at `easy`.

    Several objects are in no order, so any assignment of them to the claimed ones will do.
    """
    one = shapes * colours * motions
    return factorial(objects) / one**objects / backgrounds
