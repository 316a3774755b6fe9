"""An expansion claims all that the prompt claims, adds what training shows, and hangs on the prompt and the seed alone."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.world.captions import LONGEST, captions, facts, said, words
from data.world.expander import SHOW_THE_CAMERA, WorldGrammar
from data.world.parser import PromptError, parse
from data.world.sampling import LEVELS, draw_scene
from data.world.splits import by_kind
from data.world.vocabulary import COLOURS, DIRECTIONS, PLAIN_BACKGROUNDS, SHAPES, Claim

LEVEL = st.sampled_from(sorted(LEVELS))
SOME = st.integers(0, 999)
LIKE = {name: name.replace("_", " ") for name in DIRECTIONS} | {"grow": "growing", "shrink": "shrinking", "bounce": "bouncing", "rotate": "spinning"}
LIKE |= {"circle_around": "circling", "still": "still"}


def agrees(part: Any, whole: Any, names: Sequence[str]) -> bool:
    return all(getattr(part, name) in (None, getattr(whole, name)) for name in names)


def contains(whole: Claim, part: Claim) -> bool:
    """Whether whatever `part` says, `whole` says too; objects may stand in another order."""
    cast = (zip(part.objects, order, strict=False) for order in permutations(whole.objects, part.count))
    found = any(all(agrees(*pair, ("shape", "colour", "motion", "size")) for pair in pairs) for pairs in cast)
    return found and agrees(part, whole, ("background", "camera", "light", "occluder"))


def same(a: Claim, b: Claim) -> bool:
    return a.count == b.count and contains(a, b) and contains(b, a)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[str, str]:
    """A level, and a prompt that tells of one of its scenes and leaves out anything."""
    level = draw(LEVEL)
    scene = facts(draw_scene(draw(SOME), draw(SOME), level))
    parts = []
    for one in scene.objects[: draw(st.integers(0, scene.count))]:
        kept = draw(st.tuples(*[st.booleans()] * 4))
        told = [word for word, keep in zip((one.size, one.colour, one.shape, LIKE[one.motion]), kept, strict=True) if keep and word]
        parts.append(" ".join(told if kept[2] else ["object", *told]))
    camera = "static camera" if scene.camera == "static" else scene.camera.replace("_", " ")
    scenery = [f"over {scene.background}", camera, "at night" if scene.light == "night" else "by day", *["behind a post"] * scene.occluder]
    return level, ", ".join(draw(st.permutations([*parts, *(part for part in scenery if draw(st.booleans()))])))


@settings(max_examples=100, deadline=None)
@given(prompts().filter(lambda asked: asked[1]), SOME)
def test_an_expansion_claims_all_that_its_prompt_claims(asked: tuple[str, str], seed: int) -> None:
    level, prompt = asked
    short, long = parse(prompt).claim, parse(WorldGrammar(level).expand(prompt, seed)).claim
    assert contains(long, short), prompt
    assert long.count == max(1, short.count), "nobody joins"
    assert None not in (long.background, long.camera, long.light)
    assert all(one.shape and one.colour and one.motion for one in long.objects)
    assert all(one.size or one.motion in ("grow", "shrink") for one in long.objects)


@settings(max_examples=30, deadline=None)
@given(level=LEVEL, number=SOME, seed=SOME)
def test_a_short_caption_becomes_a_true_long_one(level: str, number: int, seed: int) -> None:
    scene = draw_scene(3, number, level)
    truth = said(facts(scene), "long")
    for text in captions(scene, 3, number)["short"]:
        found = parse(WorldGrammar(level).expand(text, seed)).claim
        sizeless = [replace(one, objects=tuple(replace(body, size=None) for body in one.objects)) for one in (found, truth)]
        assert same(*sizeless), text


@settings(max_examples=30, deadline=None)
@given(level=LEVEL, number=SOME, seed=SOME)
def test_a_long_caption_claims_the_same_after_expansion(level: str, number: int, seed: int) -> None:
    for text in captions(draw_scene(4, number, level), 4, number)["long"]:
        assert same(parse(WorldGrammar(level).expand(text, seed)).claim, parse(text).claim), text


def test_an_expansion_is_a_function_of_prompt_and_seed() -> None:
    grammar = WorldGrammar()
    texts = [grammar.expand("red circle", seed) for seed in range(40)]
    assert texts == [WorldGrammar().expand("red circle", seed) for seed in range(40)]
    assert len(set(texts)) > 30
    open_ = [{parse(text).claim.objects[0].motion for text in texts}, {parse(text).claim.background for text in texts}]
    assert len(open_[0]) >= 5
    assert open_[1] == set(PLAIN_BACKGROUNDS)
    grounds = {parse(grammar.expand(f"{colour} circle", 0)).claim.background for colour in COLOURS}
    assert len(grounds) > 1, "prompts of one seed do not all get the same"


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_what_is_open_is_drawn_as_training_shows_it(level: str) -> None:
    seen = set(by_kind(level)[None])
    for seed in range(20):
        for prompt in ("object", *SHAPES, *COLOURS, "moving", "shrinking"):
            (one,) = parse(WorldGrammar(level).expand(prompt, seed)).claim.objects
            assert (one.shape, one.colour, one.motion) in seen, "never a combination that is held out"
            assert prompt != "moving" or one.motion in DIRECTIONS
    unseen = WorldGrammar(level).expand("purple circle", 0)
    assert {"purple", "circle"} <= set(words(unseen)), "what is held out can be asked for"


def test_objects_that_are_drawn_have_colours_of_their_own() -> None:
    for seed in range(60):
        claim = parse(WorldGrammar("hard").expand("an object, another, a red triangle", seed)).claim
        assert len({one.colour for one in claim.objects}) == 3


def test_a_moving_camera_gets_a_background_that_shows_it() -> None:
    grounds = {parse(WorldGrammar("standard").expand("circle, the camera pans left", seed)).claim.background for seed in range(40)}
    assert grounds == set(SHOW_THE_CAMERA)


def test_captions_fit_the_small_text_encoder_where_training_kept_them_short() -> None:
    for seed in range(300):
        assert len(words(WorldGrammar("sora").expand("behind a post", seed))) <= LONGEST


@pytest.mark.parametrize(
    ("level", "prompt", "says"),
    [
        ("easy", "a red dragon", r"does not know 'dragon'.* set expander\.strict=false"),
        ("easy", "red circle, night", r"no clip of expander\.difficulty=easy shows night"),
        ("easy", "red circle and blue circle", "shows 2 objects"),
        ("easy", "red circle over checks", "shows the background 'checks'"),
        ("easy", "a square spins", "shows the motion 'rotate'"),
        ("easy", "the camera pans left", "shows a moving camera"),
        ("standard", "behind a post", "shows a post"),
        ("sora", "a circle grows behind a post", "a post with nothing but the motion 'grow'"),
        ("hard", "a circle spins", "shows a circle with the motion 'rotate'"),
        ("hard", "red circle and red square", "two objects of one colour"),
        ("hard", "circle over black, the camera pans left", "a moving camera over any background but checks and speckles"),
    ],
)
def test_what_the_model_cannot_know_is_refused_or_left_as_it_is(level: str, prompt: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        WorldGrammar(level).expand(prompt, 0)
    assert WorldGrammar(level, strict=False).expand(prompt, 0) == prompt


def test_a_blank_prompt_lets_the_model_choose() -> None:
    assert WorldGrammar().expand("", 0) == ""
    assert WorldGrammar().expand(" \n", 0) == " \n"
