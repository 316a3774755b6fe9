"""A style is written around a prompt; nothing in a prompt is ever read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts.style import Style
from data.world.captions import captions, claim
from data.world.parser import parse
from data.world.sampling import draw_scene
from runtime.config import build, compose


@given(st.text().filter(str.strip))
def test_a_prompt_stands_in_its_style_word_for_word(prompt: str) -> None:
    assert Style("{prompt}, a, %s: $x").prompt(prompt) == prompt + ", a, %s: $x"
    assert Style().prompt(prompt) == prompt


def test_braces_and_commas_of_a_prompt_are_text() -> None:
    odd = r"{prompt} {0} {a.b}, %s {{ \1 ${run}"
    assert Style("<{prompt}>").prompt(odd) == f"<{odd}>"


def test_a_blank_prompt_still_lets_the_model_choose() -> None:
    assert [Style("{prompt}, anime").prompt(blank) for blank in ("", " ")] == ["", " "]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("anime", "{prompt} 0 times"),
        ("", "{prompt} 0 times"),
        ("{prompt} {prompt}", "{prompt} 2 times"),
        ("{prompt}, {mood}", "{mood}, which nothing"),
    ],
)
def test_a_template_without_one_place_for_the_prompt_is_refused(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=rf"{says}.*wanted {{prompt}} once.*Set style\.template"):
        Style(template)


def test_a_clip_may_add_to_what_its_style_leads_away_from_or_want_none() -> None:
    style = Style("{prompt}, anime", "photo, text")
    assert style.negatives(None) == "photo, text"
    assert style.negatives("rain") == "rain, photo, text"
    assert style.negatives("") == ""
    assert Style().negatives("rain") == "rain"
    assert Style().negatives(None) == ""


@pytest.mark.parametrize(
    ("name", "field", "value"), [("night", "light", "night"), ("daylight", "light", "day"), ("still_camera", "camera", "static")]
)
def test_the_worlds_styles_say_one_thing_more_in_its_own_words(name: str, field: str, value: str) -> None:
    style = build(compose("sample", ["run=x", f"style={name}"])["style"])
    told = 0
    for number in range(40):
        scene = draw_scene(5, number, "standard")
        if getattr(claim(scene), field) is not None:
            continue
        for text in captions(scene, 5, number)["short"]:
            told += 1
            before, after = parse(text).claim, parse(style.prompt(text)).claim
            assert getattr(after, field) == value
            for part in ("objects", "background", "camera", "light", "occluder"):
                assert part == field or getattr(after, part) == getattr(before, part), text
    assert told > 20
