"""Every phrase that a prompt for the world may hold, and what it says: the captions' own wordings in every form, and near relatives."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from data.world.captions import gerund, phrases, words
from data.world.vocabulary import COLOURS, DIRECTIONS, PLAIN_BACKGROUNDS, SHAPES

SOMEWHERE = "somewhere"  # the motion of what is said to move, but not where to
# A prompt is read without articles, so no phrase below has any; neither does the key of a phrase in the lexicon.
ARTICLES = frozenset({"a", "an", "the"})
PAUSES = (*",;:.!", "and", "while", "with")
FILLERS = (*(f"{what}{of}" for what in ("clip", "video", "picture", "image") for of in ("", " of")), "there is", "that", "which", "is", "one")
# What the captions never say, by field and value.
ALSO: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {"circle": ("disc", "disk")},
    "size": {"small": ("tiny",), "large": ("huge",)},
    "light": {"day": ("day", "daylight", "by daylight", "daytime"), "night": ("night", "by night", "nighttime")},
    "camera": {
        "static": ("still camera", "camera stands still", "camera stays still", "camera does not move", "camera is still", "camera is static"),
        **{f"zoom_{way}": (f"zoom {way}", f"zooms {way}", f"zooming {way}", f"camera zooming {way}") for way in ("in", "out")},
        **{
            f"pan_{side}": (*(f"{verb} {side}" for verb in ("pan", "pans", "panning", "camera moves", "camera moving")), f"camera pans to {side}")
            for side in ("left", "right", "up", "down")
        },
    },
    "occluder": {"post": ("behind pink post", "behind post", "pink post")},
    "noun": {"it": ("it", "object", "shape", "thing", "one object", "one shape")},
    "another": {"another": ("another", "another object", "another shape")},
}
GROUNDS = {"gray": "grey", "chequered": "checks", "checkerboard": "checks"}
# Each in the third person, as a gerund, and as a plural where there is one.
VERBS: dict[str, tuple[tuple[str, ...], ...]] = {
    "up": (("rises", "rising", "rise"),),
    "down": (("falls", "falling", "fall"), ("sinks", "sinking", "sink")),
    "bounce": (("bounces", "bouncing", "bounce"),),
    "rotate": (("spins", "spinning", "spin"),),
    "circle_around": (("circling",), ("orbits", "orbiting", "orbit"), ("moves in circle", "moving in circle", "move in circle")),
    "still": (("stands still", "standing still", "stand still"), ("still", "motionless")),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a phrase says.

    Args:
        field: of a claim or of its objects; or "pause", "filler"; "noun", which stands for a shape; "another", which begins an object.
        shared: a plural verb: it tells of all objects named before whose motion is not told yet.
        adjective: before a noun it tells of that noun.
    """

    field: str
    value: str = ""
    shared: bool = False
    adjective: bool = False


@cache
def lexicon() -> Mapping[tuple[str, ...], Meaning]:
    """The words of each phrase -> what it says."""
    held: dict[tuple[str, ...], Meaning] = {}
    for phrase, meaning in (*_plain(), *_backgrounds(), *_motions()):
        key = tuple(word for word in words(phrase) if word not in ARTICLES)
        assert held.setdefault(key, meaning) == meaning, f"{phrase!r} would say {held[key]} and {meaning}"
    return held


def understood() -> str:
    """What a prompt may be made of, for people."""
    wordings = phrases()
    first = {field: ", ".join(options[0] for options in wordings[field].values()) for field in wordings}
    return (
        f"shapes ({', '.join(SHAPES)}), colours ({', '.join(COLOURS)}), sizes ({first['size']}), motions ({first['motion']}), "
        f"backgrounds ({', '.join(PLAIN_BACKGROUNDS)}, {first['background']}), light ({first['light']}), camera ({first['camera']}), "
        "and 'behind a pink post'"
    )


def _plain() -> Iterator[tuple[str, Meaning]]:
    yield from ((phrase, Meaning("pause")) for phrase in PAUSES)
    yield from ((phrase, Meaning("filler")) for phrase in FILLERS)
    yield from ((name, Meaning("shape", name)) for name in SHAPES)
    yield from ((name, Meaning("colour", name)) for name in COLOURS)
    wordings = phrases()
    for field, values in (*ALSO.items(), *((field, wordings[field]) for field in ("size", "light", "camera"))):
        for value, options in values.items():
            yield from ((option, Meaning(field, value)) for option in options)


def _backgrounds() -> Iterator[tuple[str, Meaning]]:
    grounds = GROUNDS | {name: name for name in PLAIN_BACKGROUNDS}
    grounds |= {option: value for value, options in phrases()["background"].items() for option in options}
    for name, value in grounds.items():
        yield name, Meaning("background", value, adjective=True)
        yield from ((f"{before} {name}", Meaning("background", value)) for before in ("on", "over", "against"))
    for name, value in (grounds | {colour: colour for colour in COLOURS}).items():  # a red one is understood, to be refused
        yield from ((f"{before} {name} background", Meaning("background", value)) for before in ("", "on", "over", "against", "with"))


def _motions() -> Iterator[tuple[str, Meaning]]:
    ways = {("", SOMEWHERE): None}  # where to, in words, and the motion
    verbs: dict[str, None] = {}
    for motion, options in phrases()["motion"].items():
        for option in options:
            if motion in DIRECTIONS:
                verb, _, way = option.partition(" ")
                verbs[verb] = ways[way, motion] = None
            else:
                yield option, Meaning("motion", motion)
                yield gerund(option), Meaning("motion", motion)
                if option != "circles around":  # a circle around what? a plural that begins with a noun is none
                    yield _plural(option), Meaning("motion", motion, shared=True)
    for rise, side in product(("up", "down"), ("right", "left")):
        corner = f"{'top' if rise == 'up' else 'bottom'} {side}"
        for way in (f"{rise} {side}", f"{side} {rise}", f"{side} and {rise}", corner, f"to {corner}", f"diagonally {rise} {side}"):
            ways[way, f"{rise}_{side}"] = None
    for way, motion in ways:
        if way:
            yield way, Meaning("motion", motion)
        for verb in verbs:
            yield f"{verb} {way}", Meaning("motion", motion)
            yield f"{gerund(verb)} {way}", Meaning("motion", motion)
            yield f"{_plural(verb)} {way}", Meaning("motion", motion, shared=True)
    for motion, verbs_also in VERBS.items():
        for forms in verbs_also:
            yield from ((form, Meaning("motion", motion, shared=place == 2)) for place, form in enumerate(forms))


def _plural(phrase: str) -> str:
    """'moves up' -> 'move up'."""
    first, _, rest = phrase.partition(" ")
    plural = {"goes": "go", "does": "do"}.get(first, first.removesuffix("s"))
    return f"{plural} {rest}".strip()
