"""Which combinations of shape, colour and motion are never shown in training: declared once, the same on every machine."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np

from data.world.vocabulary import COLOURS, EASY_MOTIONS, MOTIONS, SHAPES
from runtime.seeding import Stream, generator

DIFFICULTIES = ("easy", "standard", "hard", "sora")  # a place here is a counter of random numbers: new ones go to the end
SPLITS = ("train", "val", "heldout")
KINDS = ("shape_colour", "colour_motion", "triple")
Triple = tuple[str, str, str]

# Whole pairs: three shapes with three colours, and motions that each lose another colour. The last two name motions beyond `easy`.
SHAPE_COLOUR = (("circle", "purple"), ("square", "cyan"), ("triangle", "yellow"))
EASY_COLOUR_MOTION = (("red", "up"), ("green", "left"), ("blue", "grow"), ("yellow", "down_right"), ("cyan", "up_left"))
LATER_COLOUR_MOTION = (("purple", "bounce"), ("red", "rotate"))
# The share of all triples that is held out on top of the whole pairs.
TRIPLE_SHARE = 0.3
# How often a level shows a motion among the seen combinations, where that is not as often as every other: each frame of an orbit moves another
# way, and what moves straight on teaches a model nothing of it. Shown like the others, 99 % of theirs came out right and 2 % of the orbits.
ODDS = {"sora": {"circle_around": 4.0}}


@dataclass(frozen=True, slots=True)
class Heldout:
    """The combinations that training never sees. What one level holds out every other one does, as far as it has the motion."""

    pairs_shape_colour: frozenset[tuple[str, str]]
    pairs_colour_motion: frozenset[tuple[str, str]]
    triples: frozenset[Triple]

    def kind(self, shape: str, colour: str, motion: str) -> str | None:
        """Which of KINDS forbids this combination, whole pairs before single triples; None if it may be seen."""
        if (shape, colour) in self.pairs_shape_colour:
            return "shape_colour"
        if (colour, motion) in self.pairs_colour_motion:
            return "colour_motion"
        return "triple" if (shape, colour, motion) in self.triples else None


def check_difficulty(difficulty: str) -> None:
    """Raises: ValueError if it is none of DIFFICULTIES."""
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty={difficulty!r} is unknown: choose one of {', '.join(DIFFICULTIES)}.")


def possible(shape: str, motion: str) -> bool:
    """Whether a viewer could see it: nobody can see a plain circle rotate."""
    return not (shape == "circle" and motion == "rotate")


def motions(difficulty: str) -> tuple[str, ...]:
    """The motions of a level."""
    check_difficulty(difficulty)
    return {"easy": EASY_MOTIONS, "sora": (*EASY_MOTIONS, "circle_around")}.get(difficulty, MOTIONS)


@cache
def combinations(difficulty: str) -> tuple[Triple, ...]:
    """All (shape, colour, motion) of a level, in a fixed order."""
    return tuple((s, c, m) for s in SHAPES for c in COLOURS for m in motions(difficulty) if possible(s, m))


@cache
def heldout(difficulty: str) -> Heldout:
    """What is held out at this level."""
    own = motions(difficulty)
    triples = _choose(EASY_MOTIONS, frozenset(EASY_COLOUR_MOTION)) | _choose(MOTIONS[len(EASY_MOTIONS) :], frozenset(LATER_COLOUR_MOTION))
    pairs = frozenset(pair for pair in EASY_COLOUR_MOTION + LATER_COLOUR_MOTION if pair[1] in own)
    return Heldout(frozenset(SHAPE_COLOUR), pairs, frozenset(triple for triple in triples if triple[2] in own))


@cache
def by_kind(difficulty: str) -> dict[str | None, tuple[Triple, ...]]:
    """Every combination of a level under the kind that forbids it; the seen ones under None."""
    rule = heldout(difficulty)
    kinds = [rule.kind(*triple) for triple in combinations(difficulty)]
    return {kind: tuple(t for t, k in zip(combinations(difficulty), kinds, strict=True) if k == kind) for kind in (None, *KINDS)}


def _choose(names: tuple[str, ...], pairs: frozenset[tuple[str, str]]) -> frozenset[Triple]:
    """Takes triples one by one where least was taken, as long as what is left still shows every motion with enough company."""
    every = [(s, c, m) for s in SHAPES for c in COLOURS for m in names if possible(s, m)]
    left = [t for t in every if t[:2] not in SHAPE_COLOUR and t[1:] not in pairs]
    order = generator(0, Stream.WORLD, 2**32).permutation(len(left))
    rank = {left[i]: place for place, i in enumerate(order)}
    taken: list[Triple] = []
    seen = Counter(left_of for t in left for left_of in _company(t))
    lost: Counter[str] = Counter()
    for _ in range(round(TRIPLE_SHARE * len(every))):
        open_ = [t for t in left if t not in taken and all(seen[part] > least for part, least in zip(_company(t), (1, 2), strict=True))]
        pick = min(open_, key=lambda t: (lost[t[0]] / len(names) / 2 + lost[t[1]] / len(names) + lost[t[2]] / len(COLOURS), rank[t]))
        taken.append(pick)
        lost.update(pick)
        seen.subtract(_company(pick))
    return frozenset(taken)


def _company(triple: Triple) -> tuple[tuple[str, str], tuple[str, str]]:
    """The pairs that must stay visible: colour + motion in at least 1 shape, shape + motion in at least 2 colours."""
    shape, colour, motion = triple
    return (colour, motion), (shape, motion)


@cache
def seen_weights(difficulty: str) -> np.ndarray:
    """Probabilities of the seen combinations under which every shape, every colour and every motion is about equally frequent, but for `ODDS`.

    Plain equal odds would show a colour that lost a whole pair half as often as the others.
    """
    triples, odds = by_kind(difficulty)[None], ODDS.get(difficulty, {})
    weights = np.full(len(triples), 1 / len(triples))
    for _ in range(100):  # iterative proportional fitting: one margin after the other is set right
        for part in range(3):
            names = np.asarray([triple[part] for triple in triples])
            total = sum(odds.get(name, 1.0) for name in np.unique(names))
            for name in np.unique(names):
                weights[names == name] /= weights[names == name].sum() * (total / odds.get(name, 1.0))
    return weights / weights.sum()


def draw_triple(rng: np.random.Generator, difficulty: str, kind: str | None) -> Triple:
    """One combination: of a held-out kind all equally likely, of the seen ones (None) by `seen_weights`."""
    choices = by_kind(difficulty)[kind]
    return choices[int(rng.choice(len(choices), p=seen_weights(difficulty) if kind is None else None))]
