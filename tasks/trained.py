"""What a run's training must have shown for a plan: it follows from what stands on the canvas, whichever task put it there."""

from collections.abc import Mapping, Sequence
from typing import Any

from flow.conditioning import LATE
from tasks.task import Plan

Needs = Sequence[Sequence[str]]  # patterns of known frames, each as the names of which any one will do


def needs(plan: Plan) -> Needs:
    """Which patterns of known frames a plan relies on."""
    canvas = plan.canvas
    given = canvas.given[0].tolist()
    known, pictures = given[: canvas.shown], any(given[canvas.shown :])
    if all(given) or not any(given):
        return [("picture",)] if canvas.shown == 1 else [("none",)]
    prefix = known.index(False) if False in known else len(known)
    found: list[Sequence[str]] = []
    if any(known[prefix:]):
        found.append(("ends",) if prefix else ("last_n", "span") if known[-1] else ("span",))
    elif prefix:
        alone = ("first", "first_n") if prefix == 1 else ("first_n",)
        beside = ("ends", "keyframes") if prefix == 1 else ("ends",)  # patterns that show a beginning with pictures behind it
        found.append((*alone, *beside) if pictures else alone)
    return [*found, LATE] if pictures else found


def missing(plan: Plan, conditioning: Mapping[str, Any], frames: int) -> list[str]:
    """What a run's training did not show that a plan relies on, in words; empty if it showed all.

    Args:
        conditioning: the run's objective.conditioning.
        frames: pixel frames of its clips.
    """
    if plan.canvas.shown == 1 and frames == 1:
        return []  # it was trained on pictures alone
    found = _lacking(needs(plan), plan.canvas.cyclic, conditioning)
    count, canvas = int(plan.given.sum()), plan.canvas
    if found and canvas.latents.shape[2] > canvas.shown and plan.given[:count].all():
        step = (plan.frames - 1) // (canvas.shown - 1)
        found.append(f"a beginning of {1 + (count - 1) // step * step} frames instead of {count} would hold no pictures")
    return found


def missing_for_windows(plan: Plan, conditioning: Mapping[str, Any]) -> list[str]:
    """The same for a plan that is made window by window."""
    return _lacking([("first_n",), *([("last_n",)] if plan.begin else [])], True, conditioning)


def missing_for_level(level: float, conditioning: Mapping[str, Any]) -> list[str]:
    """The same for the flow time at which the network is shown what is given."""
    most = conditioning.get("noise", 0.0)  # a run from before there was a choice
    return [f"objective.conditioning.noise is {most:g}: what was given never stood under more"] if level > most else []


def _lacking(needs: Needs, windows: bool, conditioning: Mapping[str, Any]) -> list[str]:
    weights = conditioning.get("weights", {})
    lacking = [" or ".join(names) for names in needs if not any(weights.get(name, 0) > 0 for name in names)]
    found = [f"objective.conditioning.weights has no {names}" for names in lacking]
    if windows and not conditioning.get("windows", 0) > 0:
        found.append("objective.conditioning.windows is 0: it never saw a piece of a longer video")
    return found
