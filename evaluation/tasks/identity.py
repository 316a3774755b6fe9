"""Whether an object is still itself: shape, colour and size by the oracle's strict rules, in some of a clip's frames alone."""

from dataclasses import replace

from data.world.vocabulary import Claim
from evaluation.oracle import State, judge

OF_APPEARANCE = ("shape", "colour", "size")


def appearance(state: State, claim: Claim) -> dict[str, bool]:
    """Which of the claimed shape, colour and size were seen.

    Args:
        state: of the frames that were made: given ones would speak for a part that forgets them.
        claim: of a caption or of all facts; of motions it only matters whether they turn the shape.
    Raises: ValueError if nothing of it is claimed.
    """
    if not any(getattr(one, name) for one in claim.objects for name in OF_APPEARANCE):
        raise ValueError(f"the claim names no {', '.join(OF_APPEARANCE)} of any object, so identity cannot be judged. Give all facts of the source.")
    objects = tuple(replace(one, motion="rotate" if one.motion == "rotate" else None) for one in claim.objects)
    verdict = judge(state, Claim(objects))
    return {name: verdict.attributes[name] for name in OF_APPEARANCE if name in verdict.attributes}
