"""What is said about a scene: a small grammar whose every sentence claims exactly what `said` lists, so that a claim can be judged."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data.world.scene import Scene
from data.world.vocabulary import Attributes, Claim
from runtime.seeding import Stream, generator

WORDINGS = {"short": 4, "long": 2, "motion": 3, "picture": 3}  # how many of each kind a clip gets, if its level has the kind
# Each kind draws from a counter of its own, and so do prompts: a new kind gets a new number.
_COUNTERS = {"short": 0, "long": 1, "motion": 2, "prompt": 3, "picture": 4}
LONGEST = 24  # words and punctuation marks of a caption of one object without moving camera: the small text encoder holds no more

_SIDES = {"right": "right", "left": "left", "up": "up", "down": "down"}
_FROM = {"right": "from left to right", "left": "from right to left", "up": "from bottom to top", "down": "from top to bottom"}
# The first wording of a motion is the compact one, used where several objects share a sentence.
_MOTIONS: dict[str, tuple[str, ...]] = {
    "grow": ("grows", "gets bigger", "becomes larger", "grows bigger and bigger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller", "shrinks more and more"),
    "bounce": ("bounces around", "bounces off the walls", "bounces from wall to wall"),
    "circle_around": ("circles around", "goes around in a loop", "orbits one spot"),
    "rotate": ("rotates", "spins in place", "turns around itself"),
    "still": ("stays still", "does not move", "rests in place"),
}
for _side, _word in _SIDES.items():
    _to = f"to the {_word}" if _side in ("right", "left") else f"{_word}wards"
    _MOTIONS[_side] = (f"moves {_word}", f"moves {_to}", f"moves {_FROM[_side]}", f"drifts {_to}", f"slides {_word}", f"goes {_FROM[_side]}")
for _rise, _level in (("up", "upper"), ("down", "lower")):
    for _side in ("right", "left"):
        _MOTIONS[f"{_rise}_{_side}"] = (
            f"moves to the {_level} {_side}",
            f"moves {_rise} and to the {_side}",
            f"moves diagonally {_rise} and {_side}",
            f"drifts towards the {_level} {_side}",
            f"slides {_rise} and {_side}",
        )
_GERUNDS = {
    "grows": "growing",
    "gets": "getting",
    "becomes": "becoming",
    "shrinks": "shrinking",
    "bounces": "bouncing",
    "circles": "circling",
    "goes": "going",
    "orbits": "orbiting",
    "rotates": "rotating",
    "spins": "spinning",
    "turns": "turning",
    "stays": "staying",
    "rests": "resting",
    "moves": "moving",
    "drifts": "drifting",
    "slides": "sliding",
}
# A background as an adjective before "background" and as a noun after "over".
_BACKGROUNDS: dict[str, tuple[str, str]] = {
    "gradient": ("gradient", "a gradient"),
    "stripes": ("striped", "stripes"),
    "checks": ("checkered", "checks"),
    "speckles": ("speckled", "speckles"),
}
_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_LIGHTS = {"day": ("in daylight", "by day"), "night": ("at night",)}
_CAMERAS: dict[str, tuple[str, ...]] = {
    "static": ("static camera", "fixed camera"),
    "zoom_in": ("the camera zooms in",),
    "zoom_out": ("the camera zooms out",),
    **{f"pan_{side}": (f"the camera pans {side}", f"camera panning {side}") for side in _SIDES},
}
_SHORT_ONE = (
    "a {thing} {does} on a {ground} background",
    "a {thing} {does} over a {ground} background",
    "a {thing} {does} over {floor}",
    "on a {ground} background, a {thing} {does}",
    "{ground} background, a {thing} {does}",
    "a {thing} that {does}, {ground} background",
    "with a {ground} background, a {thing} {does}",
    "over {floor} a {thing} {does}",
)
_SHORT_MANY = (
    "{cast}, on a {ground} background",
    "{cast}, over {floor}",
    "on a {ground} background, {cast}",
    "{ground} background, {cast}",
)
_LONG_ONE = (
    "a {thing} {does} on a {ground} background {light}, {camera}",
    "a clip of a {thing} that {does} over {floor} {light}, {camera}",
    "{light}, with a {ground} background, a {thing} {does}, {camera}",
    "{camera}, {light}: a {thing} {does} over {floor}",
)
_LONG_MANY = (
    "{cast}, on a {ground} background {light}, {camera}",
    "a clip {light}, {camera}: {cast}, over {floor}",
)
_PICTURE = (
    "a {thing} on a {ground} background",
    "a {thing} over {floor}",
    "{ground} background with a {thing}",
    "on a {ground} background, a {thing}",
    "a picture of a {thing} over {floor}",
    "an image of a {thing} on a {ground} background",
)
_MOTION_ONE = ("it {does}", "the shape {does}", "the object {does}", "the thing {does}", "{doing}")
Captions = dict[str, tuple[str, ...]]


def facts(scene: Scene) -> Claim:
    """Everything a caption could truly say of a scene."""
    ground = scene.background
    return Claim(
        objects=tuple(Attributes(body.shape, body.colour, body.motion, body.size) for body in scene.objects),
        background=ground.colour if ground.kind == "plain" else ground.kind,
        camera=scene.camera.name,
        light=scene.light,
        occluder=scene.occluder is not None,
    )


def said(everything: Claim, kind: str) -> Claim:
    """What each caption of a kind claims, out of all facts.

    "short" names shape, colour and motion of every object and the background, and of the rest what is unusual: a moving camera, the
    night, a post. "long" adds sizes, the still camera and daylight. "motion" names motions and a moving camera alone. "picture" says
    what every single frame of a still camera shows: shape, colour, background, a post.
    """
    unusual = None if everything.camera == "static" else everything.camera
    post = True if everything.occluder else None
    if kind == "long":
        return replace(everything, occluder=post)
    if kind == "motion":
        return Claim(tuple(Attributes(motion=one.motion) for one in everything.objects), camera=unusual)
    if kind == "picture":
        return Claim(tuple(Attributes(one.shape, one.colour) for one in everything.objects), everything.background, occluder=post)
    if kind != "short":
        raise ValueError(f"caption kind {kind!r} is unknown: choose one of {', '.join(WORDINGS)}.")
    return Claim(
        objects=tuple(replace(one, size=None) for one in everything.objects),
        background=everything.background,
        camera=unusual,
        light="night" if everything.light == "night" else None,
        occluder=post,
    )


def claim(scene: Scene) -> Claim:
    """What each short caption of the scene claims: the measure of prompt following."""
    return said(facts(scene), "short")


def captions(scene: Scene, seed: int, number: int, kinds: Sequence[str] = ("short", "long", "motion"), most_words: int | None = None) -> Captions:
    """Distinct wordings of each kind, a function of the scene and (seed, number).

    Args:
        most_words: wordings of more words and punctuation marks are drawn again.
    """
    everything = facts(scene)
    result: Captions = {}
    for kind in kinds:
        rng = generator(seed, Stream.WORDING, number, _COUNTERS[kind])
        texts: dict[str, None] = {}
        while len(texts) < WORDINGS[kind]:
            text = wording(said(everything, kind), kind, rng)
            if most_words is None or len(words(text)) <= most_words:
                texts[text] = None
        result[kind] = tuple(texts)
    return result


def prompt_for(what: Claim, seed: int, number: int = 0) -> str:
    """One short wording of a claim, a function of (seed, number)."""
    return wording(said(what, "short"), "short", generator(seed, Stream.WORDING, number, _COUNTERS["prompt"]))


def phrases() -> dict[str, dict[str, tuple[str, ...]]]:
    """Field -> value -> every wording of it, in the third person: what somebody who reads captions has to understand."""
    return {"motion": _MOTIONS, "background": _BACKGROUNDS, "size": _SIZES, "light": _LIGHTS, "camera": _CAMERAS}


def gerund(phrase: str) -> str:
    """'moves up' -> 'moving up'."""
    first, _, rest = phrase.partition(" ")
    return "not moving" if phrase == "does not move" else f"{_GERUNDS[first]} {rest}".strip()


def words(text: str) -> list[str]:
    """The words and punctuation marks of a caption, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def wording(what: Claim, kind: str, rng: np.random.Generator) -> str:
    """One sentence of the grammar that claims `what`."""
    if kind == "motion":
        return _motion(what, rng)
    ground, floor = _BACKGROUNDS.get(what.background or "", (what.background, what.background))
    if kind == "picture":
        return _picture(what, str(ground), str(floor), rng)
    single = len(what.objects) == 1
    forms = {("short", True): _SHORT_ONE, ("short", False): _SHORT_MANY, ("long", True): _LONG_ONE, ("long", False): _LONG_MANY}
    parts: dict[str, str] = {
        "ground": str(ground),
        "floor": str(floor),
        "light": _pick(rng, _LIGHTS[what.light or "day"]),
        "camera": _pick(rng, _CAMERAS[what.camera or "static"]),
    }
    if single:
        parts |= {"thing": _thing(what.objects[0], rng), "does": _pick(rng, _motion_words(what.objects[0]))}
    else:
        parts["cast"] = _cast(what.objects, rng)
    text = _pick(rng, forms[kind, single]).format_map(parts)
    if kind == "short" and what.light == "night":
        text += " at night"
    if kind == "short" and what.camera is not None:
        text += f", {parts['camera']}"
    return text + (", behind a pink post" if what.occluder else "")


def _motion(what: Claim, rng: np.random.Generator) -> str:
    does = [_pick(rng, _motion_words(one)) for one in what.objects]
    if len(does) == 1:
        text = _pick(rng, _MOTION_ONE).format_map({"does": does[0], "doing": gerund(does[0])})
    else:
        order = [does[i] for i in rng.permutation(len(does))]
        text = _pick(rng, ("one object ", "one shape ")) + " and another ".join(order)
    return text if what.camera is None else f"{text}, {_pick(rng, _CAMERAS[what.camera])}"


def _picture(what: Claim, ground: str, floor: str, rng: np.random.Generator) -> str:
    things = [_thing(what.objects[i], rng) for i in rng.permutation(len(what.objects))]
    text = _pick(rng, _PICTURE).format(thing=" and a ".join(things), ground=ground, floor=floor)
    return text + (", and a pink post" if what.occluder else "")  # in a single frame nothing need be behind it


def _cast(objects: Sequence[Attributes], rng: np.random.Generator) -> str:
    parts = [f"a {_thing(objects[i], rng)} {_motion_words(objects[i])[0]}" for i in rng.permutation(len(objects))]
    return ", ".join(parts[:-1]) + _pick(rng, (" and ", " while ")) + parts[-1]


def _thing(one: Attributes, rng: np.random.Generator) -> str:
    size = "" if one.size is None else _pick(rng, _SIZES[one.size]) + " "
    return f"{size}{one.colour} {one.shape}"


def _motion_words(one: Attributes) -> tuple[str, ...]:
    assert one.motion is not None, "every caption names the motion"
    return _MOTIONS[one.motion]


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
