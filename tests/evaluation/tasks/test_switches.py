"""Laws of switches: found where they are, and not where nothing switches."""

from dataclasses import replace

import numpy as np
import pytest

from data.world.render import render
from data.world.scene import Background, Body, Scene, Straight
from data.world.vocabulary import Attributes, Claim
from evaluation.tasks import switches as module
from evaluation.tasks.controls import frozen
from evaluation.tasks.switches import by_chance, change, switches

FRAMES, STRIDE = 33, 4
SECOND = {
    "colour": {"colour": "blue"},
    "shape": {"shape": "triangle"},
    "background": {"background": "white"},
    "motion": {"motion": "up"},
}


def claims(name: str) -> tuple[Claim, Claim]:
    first = Claim((Attributes("circle", "red", "right"),), "grey")
    if name == "background":
        return first, replace(first, background="white")
    return first, replace(first, objects=(replace(first.objects[0], **SECOND[name]),))


def switching(name: str, at: int, number: int = 0) -> np.ndarray:
    """A clip of 33 frames in which one attribute changes at a frame; the object stays in the picture."""
    way, rise = 0.012, 0.012
    low = -0.2 + 0.01 * (number % 5)

    def scene(k: int) -> Scene:
        second = k >= at
        shape = "triangle" if second and name == "shape" else "circle"
        colour = "blue" if second and name == "colour" else "red"
        up = max(0, k - at) if name == "motion" else 0
        body = Body(shape, colour, "right", "small", Straight((low + way * (k - up), 0.15 - rise * up)), (0.16, 0.16))
        return Scene((body,), Background("plain", "white" if second and name == "background" else "grey"))

    return np.concatenate([render(scene(k), 1, 64, 64) for k in range(FRAMES)])


@pytest.mark.parametrize("name", SECOND)
def test_a_switch_is_found_in_its_frame(name: str) -> None:
    for number, at in enumerate((9, 16, 22)):
        (found,) = switches(switching(name, at, number), *claims(name), asked=at, tolerance=STRIDE)
        assert found.attribute == name
        assert found.error is not None
        # A motion is read from five frames: between two of them it has no name.
        assert abs(found.error) <= (1 if name == "motion" else 0)


@pytest.mark.parametrize("name", SECOND)
def test_what_never_switches_or_always_was_so_has_no_switch(name: str) -> None:
    before, after = claims(name)
    for at in (FRAMES, 0):
        (found,) = switches(switching(name, at), before, after, asked=16, tolerance=STRIDE)
        assert found.found is None
        assert not found.within(FRAMES)
    (found,) = switches(frozen(switching(name, 16)), before, after, asked=16, tolerance=STRIDE)
    assert found.found is None


def test_a_switch_at_another_time_is_told_by_how_much() -> None:
    late = [switches(switching("colour", 22, k), *claims("colour"), asked=16, tolerance=STRIDE) for k in range(3)]
    right = [switches(switching("colour", 19, k), *claims("colour"), asked=16, tolerance=STRIDE) for k in range(3)]
    figures = module.summary([*late, *right], STRIDE)
    assert [row[0].error for row in late] == [6, 6, 6]
    assert figures["on_time"]["value"] == 0.5
    assert figures["attributes"]["colour"]["value"] == 0.5
    assert figures["switched"]["value"] == 1
    assert figures["frames_late"]["value"] == pytest.approx(4.5)


def test_a_switch_to_something_else_is_none() -> None:
    before, _ = claims("colour")
    other = replace(before, objects=(replace(before.objects[0], colour="green"),))
    (found,) = switches(switching("colour", 16), before, other, asked=16, tolerance=STRIDE)
    assert found.found is None


def test_all_switches_of_a_clip_must_be_on_time() -> None:
    before, after = claims("colour")
    after = replace(after, background="white")
    rows = switches(switching("colour", 16), before, after, asked=16, tolerance=STRIDE)
    assert {row.attribute: row.within(STRIDE) for row in rows} == {"colour": True, "background": False}
    assert module.summary([rows], STRIDE)["on_time"]["value"] == 0


def test_frames_of_neither_state_are_parted_evenly() -> None:
    before, after = np.arange(20) < 8, np.arange(20) >= 13
    assert change(before, after, 4) == 10
    assert change(after, before, 4) is None
    assert change(before, ~before, 4) == 8


def test_chance_counts_the_frames_within_the_tolerance() -> None:
    assert by_chance(17, 8, 4) == pytest.approx(9 / 16)
    assert by_chance(65, 32, 4) == pytest.approx(9 / 64)


def test_who_always_switches_in_the_middle_is_right_where_it_is_asked_there() -> None:
    rows = [[module.Switch("colour", asked, 17, 33)] for asked in (9, 13, 17, 21, 25)]
    figures = module.summary(rows, STRIDE)
    assert figures["in_the_middle"] == figures["on_time"]["value"] == 0.6
    assert [module.middle(frames) for frames in (17, 33, 65)] == [9, 17, 33]


def test_claims_that_agree_and_times_outside_are_refused() -> None:
    video = switching("colour", 16)
    before, after = claims("colour")
    with pytest.raises(ValueError, match="both claims are the same"):
        switches(video, before, before, 16, STRIDE)
    with pytest.raises(ValueError, match="asked=33 must lie inside"):
        switches(video, before, after, 33, STRIDE)
