"""Remixing by strength: how far the result lies from its source, what it keeps of it, and what it takes from the new prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Claim
from evaluation.oracle import judge, read
from evaluation.statistics import bootstrap, paired_bootstrap, wilson

Video = NDArray[np.uint8]  # t h w c


@dataclass(frozen=True, slots=True)
class Remixed:
    """One source remixed at one strength.

    Args:
        distance: rms over all values, in levels of 255.
        kept, taken: of the attributes in which source and prompt differ, the shares that the result has from either.
        follows: whether it does all that the new prompt claims.
    """

    distance: float
    kept: float
    taken: float
    follows: bool


def remixed(source: Video, made: Video, old: Claim, new: Claim) -> Remixed:
    """Read one result.

    Args:
        old, new: what the source shows and what the prompt asks, of the same attributes. Those in which they agree prove nothing.
    Raises: ValueError if the videos' shapes differ, or the claims nowhere do.
    """
    if source.shape != made.shape:
        raise ValueError(f"a remix has its source's shape, got {made.shape} of {source.shape}")
    state = read(made)
    before, after = judge(state, old), judge(state, new)
    names = differing(old, new)
    if not names:
        raise ValueError("source and prompt claim the same, so a remix cannot be told from its source. Choose a prompt that differs.")
    distance = float(np.sqrt(np.square(source.astype(np.float32) - made).mean()))
    kept, taken = (float(np.mean([verdict.attributes[name] for name in names])) for verdict in (before, after))
    return Remixed(distance, kept, taken, after.correct)


def differing(one: Claim, other: Claim) -> list[str]:
    """The attributes that both claim, of one object or of the clip, and claim differently."""
    names = [(name, getattr(one.objects[0], name), getattr(other.objects[0], name)) for name in ("shape", "colour", "motion", "size")]
    names += [(name, getattr(one, name), getattr(other, name)) for name in ("background", "camera", "light")]
    return [name for name, first, second in names if first is not None and second is not None and first != second]


def summary(results: Sequence[Sequence[Remixed]], strengths: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Figures by strength, and whether distance grows with it.

    `steps`: the paired difference between neighbouring strengths; `monotone`: no step's interval reaches below 0; `ordered`: the share of
    a clip's pairs of strengths whose distances stand in order (ties count half), 0.5 where strength does nothing.

    Args:
        results: for each clip, one of every strength.
        strengths: rising, at least two.
    Raises: ValueError if the strengths do not rise, or a clip misses one.
    """
    if len(strengths) < 2 or any(a >= b for a, b in pairwise(strengths)):
        raise ValueError(f"strengths={list(strengths)} must be two or more in rising order. Set strengths.")
    distance = np.array([[one.distance for one in row] for row in results])  # clips strengths
    if distance.ndim != 2 or distance.shape[1] != len(strengths):
        raise ValueError(f"each clip needs a remix at each of {len(strengths)} strengths, got {[len(row) for row in results]}")
    steps = [paired_bootstrap(distance[:, i + 1].tolist(), distance[:, i].tolist(), seed) for i in range(len(strengths) - 1)]
    lower, upper = np.triu_indices(len(strengths), 1)
    ordered = ((distance[:, upper] > distance[:, lower]) + (distance[:, upper] == distance[:, lower]) / 2).mean(1)
    columns = list(zip(*results, strict=True))
    return {
        "strengths": list(strengths),
        "distance": [bootstrap([one.distance for one in column], seed).as_dict() for column in columns],
        "kept": [bootstrap([one.kept for one in column], seed).as_dict() for column in columns],
        "taken": [bootstrap([one.taken for one in column], seed).as_dict() for column in columns],
        "follows": [wilson([one.follows for one in column]).as_dict() for column in columns],
        "follows_of": [[one.follows for one in column] for column in columns],
        "steps": [step.as_dict() for step in steps],
        "monotone": all(step.low > 0 for step in steps),
        "ordered": bootstrap(ordered.tolist(), seed).as_dict(),
        "n": len(results),
    }
