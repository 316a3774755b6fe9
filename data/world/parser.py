"""From a prompt in free order to what it claims of the world; what cannot be meant is refused by name, and nothing is guessed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from data.world.captions import phrases, words
from data.world.lexicon import ARTICLES, SOMEWHERE, Meaning, lexicon, understood
from data.world.vocabulary import COLOURS, DIRECTIONS, PLAIN_BACKGROUNDS, Attributes, Claim

SCENE = ("background", "camera", "light", "occluder")  # fields of a claim that no object has

SHOWN = 5  # unknown words that a message names


class PromptError(ValueError):
    """A prompt that does not say one scene of the world."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a prompt says.

    Args:
        claim: its objects in the order in which the prompt names them.
        moving: of each object, whether it is said to move, but not where to.
    """

    claim: Claim
    moving: tuple[bool, ...]


def parse(prompt: str) -> Parsed:
    """What a prompt says of the scene; a blank one says nothing.

    The words are those of all captions (short, long, motion, picture), in any form and order. With several objects, what is said between two
    pauses (a comma, "and", "while") tells of the object that is named there, or else of the one before; a plural verb tells of all of them.

    Raises: PromptError naming the words that are not understood, or those that contradict each other.
    """
    said = _meanings(prompt)
    for (first, phrase), (second, _) in pairwise(said):
        if first.adjective and second.field in ("colour", "size", "shape", "noun"):
            raise PromptError(f"prompt {prompt!r:.120}: no object is {phrase}, only a background; objects are {', '.join(COLOURS)}.")
    scene: dict[str, str] = {}
    for meaning, _ in said:
        if meaning.field in SCENE:
            _tell(scene, meaning.field, meaning.value, prompt)
    ground = scene.get("background")
    if ground in COLOURS:
        grounds = (*PLAIN_BACKGROUNDS, *(options[0] for options in phrases()["background"].values()))
        raise PromptError(f"prompt {prompt!r:.120}: no background is {ground}; backgrounds are {', '.join(grounds)}.")
    cast = _cast([meaning for meaning, _ in said if meaning.field not in SCENE], prompt)
    moving = tuple(one.get("motion") == SOMEWHERE for one in cast)
    objects = tuple(
        Attributes(one.get("shape"), one.get("colour"), None if somewhere else one.get("motion"), one.get("size"))
        for one, somewhere in zip(cast, moving, strict=True)
    )
    return Parsed(Claim(objects, ground, scene.get("camera"), scene.get("light"), True if "occluder" in scene else None), moving)


def _meanings(prompt: str) -> list[tuple[Meaning, str]]:
    """Each phrase's meaning and its words, at every place the longest phrase that there is; fillers are left out."""
    held = lexicon()
    tokens = tuple(token for token in words(prompt.replace("_", " ").replace("-", " ")) if token not in ARTICLES)
    longest = max(map(len, held))
    found: list[tuple[Meaning, str]] = []
    unknown: dict[str, None] = {}
    place = 0
    while place < len(tokens):
        length = next((n for n in range(min(longest, len(tokens) - place), 0, -1) if tokens[place : place + n] in held), 0)
        if length:
            found.append((held[tokens[place : place + length]], " ".join(tokens[place : place + length])))
        else:
            unknown[tokens[place]] = None
        place += length or 1
    if unknown:
        single = sorted(phrase[0] for phrase in held if len(phrase) == 1)
        first = list(unknown)[:SHOWN]
        near = {word: get_close_matches(word, single, n=1, cutoff=0.75) for word in first}
        named = ", ".join(f"'{word:.40}'" + "".join(f" (did you mean '{close}'?)" for close in near[word]) for word in first)
        named += " and more" if len(unknown) > SHOWN else ""
        raise PromptError(f"prompt {prompt!r:.120}: the world does not know {named}. It knows {understood()}.")
    return [(meaning, phrase) for meaning, phrase in found if meaning.field != "filler"]


def _cast(said: Sequence[Meaning], prompt: str) -> list[dict[str, str]]:
    """The objects, each with the fields that are told of it."""
    cast: list[dict[str, str]] = []
    held: list[str] = []  # motions that stand before the object that they tell of
    for clause in _clauses(said):
        names_somebody, named = any(meaning.field != "motion" for meaning in clause), False
        for group in _groups(clause):
            if group[0].field != "motion":
                _name(cast, group, prompt)
                named = True
                while held:
                    _move(cast[-1], held.pop(0), prompt)
            elif named or (cast and not names_somebody):
                silent = [one for one in cast if "motion" not in one] if group[0].shared else []
                for one in silent or cast[-1:]:
                    _move(one, group[0].value, prompt)
            else:
                held.append(group[0].value)
    if held:
        cast.append({})
        for motion in held:
            _move(cast[-1], motion, prompt)
    for one in cast if len(cast) > 1 else ():
        if "noun" not in one:
            told = " ".join(one.values())
            raise PromptError(f"prompt {prompt!r:.120}: {told!r} tells of no object. Where there are several, give each its shape, or say 'object'.")
    return cast


def _clauses(said: Sequence[Meaning]) -> Iterator[list[Meaning]]:
    """What stands between pauses."""
    clause: list[Meaning] = []
    for meaning in said:
        if meaning.field == "pause":
            yield clause
            clause = []
        else:
            clause.append(meaning)
    yield clause


def _groups(clause: Sequence[Meaning]) -> list[list[Meaning]]:
    """Motions one by one, and what stands between them by its shape: all before the first one, then what stands before the next."""
    groups: list[list[Meaning]] = []
    for place, meaning in enumerate(clause):
        after = [later.field for later in clause[place:]]
        ahead = after[: after.index("motion")] if "motion" in after else after
        run = groups[-1] if groups and groups[-1][0].field != "motion" else []
        next_shape = "shape" in ahead and any(one.field == "shape" for one in run)
        if run and not next_shape and meaning.field not in ("motion", "another"):
            run.append(meaning)
        else:
            groups.append([meaning])
    return groups


def _name(cast: list[dict[str, str]], group: Sequence[Meaning], prompt: str) -> None:
    """Tells of the last object, or of a new one if something of that kind is told of the last one already."""
    told: dict[str, str] = {}
    for meaning in group:
        _tell(told, meaning.field, meaning.value, prompt)
    if told.pop("another", None) or not cast or told.keys() & cast[-1].keys() or ("shape" in told and "noun" in cast[-1]):
        cast.append({})
    if "shape" in told or not told:
        told["noun"] = "it"
    cast[-1].update(told)


def _tell(told: dict[str, str], field: str, value: str, prompt: str) -> None:
    if told.setdefault(field, value) != value:
        raise PromptError(f"prompt {prompt!r:.120} says two things at once: {told[field]!r} and {value!r} ({field}).")


def _move(one: dict[str, str], motion: str, prompt: str) -> None:
    """Tells a motion of an object; that it moves may be told apart from where to."""
    have = one.get("motion")
    if have == SOMEWHERE and motion in DIRECTIONS:
        one["motion"] = motion
    elif not (motion == SOMEWHERE and have in DIRECTIONS):
        _tell(one, "motion", motion, prompt)
