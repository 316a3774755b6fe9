"""Whatever a caption claims is read out of it again, in any order; what is not of the world is refused by name."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.world.captions import captions, facts, said
from data.world.lexicon import lexicon
from data.world.parser import PromptError, parse
from data.world.sampling import LEVELS, draw_scene
from data.world.vocabulary import Attributes, Claim


def same(a: Claim, b: Claim) -> bool:
    """Equal, but for the order of the objects."""
    parts = ("background", "camera", "light", "occluder")
    return Counter(a.objects) == Counter(b.objects) and all(getattr(a, part) == getattr(b, part) for part in parts)


@settings(max_examples=40, deadline=None)
@given(level=st.sampled_from(sorted(LEVELS)), seed=st.integers(0, 99), number=st.integers(0, 999))
def test_every_caption_of_the_world_parses_to_what_it_claims(level: str, seed: int, number: int) -> None:
    scene = draw_scene(seed, number, level)
    kinds = LEVELS[level].captions
    for kind, texts in captions(scene, seed, number, kinds).items():
        for text in texts:
            parsed = parse(text)
            assert same(parsed.claim, said(facts(scene), kind)), text
            assert not any(parsed.moving), text


PARTS = ("red", "circle", "large", "drifting to the right", "over grey", "at night", "the camera zooms in", "behind a pink post")


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(PARTS), between=st.lists(st.sampled_from([" ", ", "]), min_size=len(PARTS), max_size=len(PARTS)))
def test_the_order_of_what_is_said_of_one_object_does_not_matter(order: list[str], between: list[str]) -> None:
    text = "".join(part + pause for part, pause in zip(order, between, strict=True))
    assert parse(text).claim == Claim((Attributes("circle", "red", "right", "large"),), "grey", "zoom_in", "night", True)


@pytest.mark.parametrize(
    ("prompt", "objects"),
    [
        ("red circle right", "red circle right"),
        ("a tiny GREEN triangle, rising!", "small green triangle up"),
        ("up-right blue_square", "blue square up_right"),
        ("bottom left yellow disc", "yellow circle down_left"),
        ("moving up and to the left: a square", "square up_left"),
        ("a circle does not move", "circle still"),
        ("it is growing", "grow"),
        ("the object is a red square", "red square"),
        ("a square, red and large", "large red square"),
        ("red square up, blue circle down", "red square up; blue circle down"),
        ("red square large blue circle", "red square; large blue circle"),
        ("growing red square, shrinking blue circle", "red square grow; blue circle shrink"),
        ("a red square grows while a large blue circle moves left", "red square grow; large blue circle left"),
        ("a red square and a blue circle move up", "red square up; blue circle up"),
        ("a red square grows and a blue circle and a triangle bounce", "red square grow; blue circle bounce; triangle bounce"),
        ("one object rises and another falls", "up; down"),
        ("a red square with a blue circle, which spins", "red square; blue circle rotate"),
        ("night", ""),
    ],
)
def test_a_prompt_tells_of_the_objects_that_it_names(prompt: str, objects: str) -> None:
    def attributes(text: str) -> Attributes:
        meanings = {word: lexicon()[tuple(word.replace("_", " ").split())] for word in text.split()}
        return Attributes(**{meaning.field: meaning.value for meaning in meanings.values()})

    assert parse(prompt).claim.objects == tuple(attributes(one) for one in objects.split("; ") if one)


def test_that_something_moves_may_be_said_without_where_to() -> None:
    assert parse("a red circle moves, a blue square stays still, another slides up").moving == (True, False, False)
    assert parse("a moving circle goes up").claim.objects == (Attributes("circle", motion="up"),)
    with pytest.raises(PromptError, match="two things at once: 'grow' and 'somewhere'"):
        parse("a growing circle moves")


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a red dragon flies rihgt", r"does not know 'dragon', 'flies', 'rihgt' \(did you mean 'right'\?\)\. It knows shapes \(circle, square, "),
        ("two red squares", r"does not know 'two', 'squares' \(did you mean 'square'\?\)"),
        ("dogs, cats, birds, fish, ants, bees", r"'dogs', 'cats', 'birds', 'fish', 'ants' and more\. It knows"),
        ("a red blue circle", "two things at once: 'red' and 'blue' .colour."),
        ("a circle at night in daylight", "two things at once: 'night' and 'day' .light."),
        ("a circle grows and moves up", "two things at once: 'grow' and 'up' .motion."),
        ("static camera, the camera pans left", "two things at once: 'static' and 'pan_left' .camera."),
        ("a black circle moves up", "no object is black, only a background; objects are red, green, blue, yellow, purple, cyan"),
        ("a striped red circle", "no object is striped"),
        ("a circle on a red background", "no background is red; backgrounds are black, grey, white, brown, gradient, striped, checkered, speckled"),
        ("a red and blue circle", "'red' tells of no object"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(prompt: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        parse(prompt)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(sorted(" ".join(phrase) for phrase in lexicon()))).map(" ".join)))
def test_any_text_is_read_or_refused_in_few_words(prompt: str) -> None:
    try:
        parsed = parse(prompt)
    except PromptError as error:
        said_of_it = str(error)
    else:
        said_of_it = ""
        assert len(parsed.moving) == parsed.claim.count
    assert len(said_of_it) < 1500
