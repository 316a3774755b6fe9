"""Captions against an independent reader of English: each says what it claims, all of it, and nothing else."""

import re
from collections import Counter

import pytest

from data.world.captions import LONGEST, WORDINGS, captions, claim, facts, prompt_for, said, words
from data.world.sampling import LEVELS, draw_scene
from data.world.splits import DIFFICULTIES, combinations
from data.world.vocabulary import COLOURS, PLAIN_BACKGROUNDS, SHAPES, Attributes, Claim

GROUNDS = {"gradient": "gradient", "striped": "stripes", "stripes": "stripes", "checkered": "checks", "checks": "checks"}
GROUNDS |= {"speckled": "speckles", "speckles": "speckles"} | {name: name for name in PLAIN_BACKGROUNDS}
MOTIONS = {
    "grow": "grow|bigger|larger",
    "shrink": "shrink|smaller",
    "bounce": "bounc",
    "circle_around": r"circles around|circling around|loop|orbit",
    "rotate": r"rotat|spin|turn",
    "still": r"still|not move|not moving|rest",
}


def heard(text: str, kind: str) -> Claim:
    """What a listener takes from a caption; knows English, not the grammar."""
    text, camera = cut(text, r",? ?(?:the )?camera (?:pans|panning|zooms) (\w+)|(static|fixed) camera")
    if camera is not None:
        camera = "static" if camera in ("static", "fixed") else f"{'zoom' if camera in ('in', 'out') else 'pan'}_{camera}"
    text, light = cut(text, r"at (night)|in (daylight)|by (day)")
    text, post = cut(text, r"(?:behind|, and) a (pink post)")
    ground = None
    if kind != "motion":
        text, ground = cut(text, r"(\w+) background|over (?:a )?(\w+)")
    if kind == "motion":
        objects = tuple(Attributes(motion=movement(part)) for part in re.split(r" and another ", text))
    else:
        mention = rf"(?:(small|little|large|big) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b"
        found = list(re.finditer(mention, text))
        ends = [match.start() for match in found[1:]] + [len(text)]
        objects = tuple(
            Attributes(
                match[3],
                match[2],
                None if kind == "picture" else movement(text[match.end() : end]),
                {"little": "small", "big": "large"}.get(match[1], match[1]),
            )
            for match, end in zip(found, ends, strict=True)
        )
    return Claim(objects, GROUNDS.get(ground or ""), camera, {"daylight": "day"}.get(light or "", light), True if post else None)


def cut(text: str, pattern: str) -> tuple[str, str | None]:
    found = re.findall(pattern, text)
    assert len(found) <= 1, (text, pattern)
    if not found:
        return text, None
    return re.sub(pattern, " ", text), found[0] if isinstance(found[0], str) else next(part for part in found[0] if part)


def movement(text: str) -> str:
    named = [name for name, pattern in MOTIONS.items() if re.search(pattern, text)]
    text = re.sub(r"from (left|right|bottom|top) ", "", text)
    rise = {"up": "up", "upwards": "up", "upper": "up", "top": "up", "down": "down", "downwards": "down", "lower": "down", "bottom": "down"}
    ways = [list(dict.fromkeys(table[word] for word in words(text) if word in table)) for table in (rise, {"left": "left", "right": "right"})]
    assert all(len(way) <= 1 for way in ways), text
    direction = "_".join(way[0] for way in ways if way)
    named += [direction] if direction else []
    assert len(named) == 1, (text, named)
    return named[0]


def same(a: Claim, b: Claim) -> bool:
    return Counter(a.objects) == Counter(b.objects) and all(
        getattr(a, part) == getattr(b, part) for part in ("background", "camera", "light", "occluder")
    )


@pytest.mark.parametrize(("difficulty", "count"), [("easy", 400), ("standard", 150), ("hard", 40), ("sora", 200)])
def test_each_caption_says_exactly_what_its_kind_claims(difficulty: str, count: int):
    for number in range(count):
        scene = draw_scene(6, number, difficulty)
        for kind, texts in captions(scene, 6, number, WORDINGS).items():
            assert len(set(texts)) == WORDINGS[kind]
            for text in texts:
                assert same(heard(text, kind), said(facts(scene), kind)), (text, said(facts(scene), kind))


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_combination_can_be_asked_for(difficulty: str):
    for number, (shape, colour, motion) in enumerate(combinations(difficulty)):
        what = Claim((Attributes(shape, colour, motion),), list(PLAIN_BACKGROUNDS)[number % 4])
        for seed in range(4):
            assert same(heard(prompt_for(what, seed, number), "short"), what)


def test_a_caption_names_no_word_that_it_does_not_claim():
    for number in range(200):
        scene = draw_scene(9, number)
        (body,) = scene.objects
        for kind, texts in captions(scene, 9, number).items():
            for text in texts:
                named = set(words(text)) & {*COLOURS, *SHAPES, *PLAIN_BACKGROUNDS}
                assert named == ({body.colour, body.shape, scene.background.colour} if kind != "motion" else set()), text


def test_easy_captions_fit_the_small_text_encoder():
    longest = max(len(words(text)) for number in range(800) for texts in captions(draw_scene(0, number), 0, number).values() for text in texts)
    assert longest <= LONGEST


def test_captions_of_sora_fit_the_small_text_encoder_with_their_posts():
    level = LEVELS["sora"]
    for number in range(300):
        texts = captions(draw_scene(0, number, "sora"), 0, number, level.captions, level.most_words)
        assert list(texts) == ["short", "long", "motion", "picture"]
        assert max(len(words(text)) for several in texts.values() for text in several) <= LONGEST


def test_a_picture_is_told_without_a_word_of_motion_or_camera():
    for number in range(100):
        (*_, pictures) = captions(draw_scene(4, number, "sora"), 4, number, WORDINGS).values()
        for text in pictures:
            assert not re.search(r"moves|drifts|slides|goes|grow|shrink|bigger|smaller|circles|loop|orbit|camera|clip", text), text


def test_a_new_kind_of_caption_changes_no_other():
    scene = draw_scene(0, 3)
    assert list(captions(scene, 0, 3)) == ["short", "long", "motion"]
    assert captions(scene, 0, 3).items() <= captions(scene, 0, 3, WORDINGS).items()


def test_the_wording_varies():
    what = Claim((Attributes("circle", "red", "right"),), "grey")
    texts = {prompt_for(what, 0, number) for number in range(300)}
    forms = {re.sub("|".join(("moves", "drifts", "slides", "goes", "from left", "to the", "to", "right", " ")), "", text) for text in texts}
    assert len(texts) >= 30
    assert len(forms) >= 6


def test_captions_depend_on_their_numbers_alone():
    scene = draw_scene(0, 1, "standard")
    assert captions(scene, 3, 4) == captions(scene, 3, 4)
    assert captions(scene, 3, 4) != captions(scene, 3, 5)
    assert captions(scene, 3, 4) != captions(scene, 4, 4)


def test_short_captions_leave_the_usual_unsaid():
    for number in range(40):
        scene = draw_scene(1, number, "hard")
        what = claim(scene)
        assert what.camera == (None if scene.camera.name == "static" else scene.camera.name)
        assert what.light == ("night" if scene.light == "night" else None)
        assert what.occluder == (True if scene.occluder else None)
        assert all(one.size is None for one in what.objects)
        assert what.count == len(scene.objects)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="short, long, motion"):
        said(claim(draw_scene(0, 0)), "medium")
