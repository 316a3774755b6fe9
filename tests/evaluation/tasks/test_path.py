"""Laws of connections: even and eased ways pass; standing, cutting, overshooting and fading from one end to the other do not."""

from dataclasses import replace

import numpy as np
import pytest

from data.world.scene import Background, Body, Scene, Straight
from data.world.vocabulary import COLOURS, PLAIN_BACKGROUNDS, SHAPES
from evaluation.oracle import read
from evaluation.tasks import path
from evaluation.tasks.controls import halted
from evaluation.tasks.course import Course, course
from evaluation.tasks.path import connection

MADE = range(4, 13)
EVEN = np.linspace(0, 1, 11)
CURVES = {
    "even": EVEN,
    "eased": EVEN**2 * (3 - 2 * EVEN),
    "cut": (EVEN > 0.5).astype(float),
    "overshot": EVEN + 0.35 * np.sin(2 * np.pi * EVEN),
}


def way(number: int, curve: np.ndarray, grows: bool = False) -> list[Scene]:
    """17 frames: four of one end, nine between, four of the other end."""
    rng = np.random.default_rng(number)
    start, end = rng.uniform(-0.22, 0.22, (2, 2))
    radii = (0.12, 0.2) if grows else (0.15, 0.15)
    scenes = []
    for share in np.concatenate([np.zeros(3), curve, np.ones(3)]):
        place = start if grows else start + (end - start) * share
        radius = radii[0] * (radii[1] / radii[0]) ** share
        body = Body(SHAPES[number % 3], tuple(COLOURS)[number % 6], "right", None, Straight((float(place[0]), float(place[1]))), (radius, radius))
        scenes.append(Scene((body,), Background("plain", tuple(PLAIN_BACKGROUNDS)[number % 4])))
    return scenes


@pytest.fixture(scope="module")
def straight(make_video) -> list[np.ndarray]:
    return [make_video(way(number, EVEN)) for number in range(8)]


@pytest.fixture(scope="module")
def ends(straight) -> list[Course]:
    return [course(read(video)) for video in straight]


def figures_of(videos, ends) -> dict:
    return path.summary([connection(video, MADE, end) for video, end in zip(videos, ends, strict=True)])


@pytest.mark.parametrize(("curve", "right"), [("even", 1), ("eased", 1), ("cut", 0), ("overshot", 0)])
def test_an_object_goes_steadily_from_end_to_end_or_it_does_not(ends, make_video, curve: str, right: int) -> None:
    figures = figures_of([make_video(way(number, CURVES[curve])) for number in range(8)], ends)
    assert figures["monotone"]["value"] == right
    assert figures["n"] >= 6
    assert figures["n"] + figures["not_asked"] == 8
    assert figures["goes_back"]["value"] == (curve == "overshot")
    assert figures["jumps"]["value"] == (curve == "cut")


def test_growth_between_ends_in_one_place_is_a_way_too(make_video) -> None:
    grown = [make_video(way(number, EVEN, grows=True)) for number in range(6)]
    grown_ends = [course(read(video)) for video in grown]
    back = [make_video(way(number, CURVES["overshot"], grows=True)) for number in range(6)]
    assert figures_of(grown, grown_ends)["monotone"]["value"] == 1
    assert figures_of(back, grown_ends)["goes_back"]["value"] == 1


def test_a_frozen_middle_jumps_at_its_end(straight, ends) -> None:
    figures = figures_of([halted(video, [MADE]) for video in straight], ends)
    assert figures["monotone"]["value"] == 0
    assert figures["jumps"]["value"] == 1


def test_a_clip_that_never_arrives_is_asked_by_what_was_given(straight, ends) -> None:
    figures = figures_of([np.repeat(video[:1], 17, axis=0) for video in straight], ends)
    assert figures["monotone"]["value"] == 0
    assert figures["n"] >= 6


def test_one_picture_fading_into_the_other_is_no_way(straight, ends) -> None:
    share = np.clip((np.arange(17) - 3) / 10, 0, 1)[:, None, None, None]
    faded = [((1 - share) * video[3] + share * video[13] + 0.5).astype(np.uint8) for video in straight]
    figures = figures_of(faded, ends)
    # Ends that nearly overlap pass for one moving object.
    assert figures["monotone"]["value"] <= 0.35


def test_ends_that_are_one_are_not_asked(straight) -> None:
    ends = course(read(np.repeat(straight[0][:1], 17, axis=0)))
    assert not connection(straight[0], MADE, ends).asked
    with pytest.raises(ValueError, match="at least one outcome"):
        path.summary([connection(straight[0], MADE, ends)])


def test_a_middle_needs_two_ends(straight) -> None:
    ends = course(read(straight[0]))
    for made in (range(9), range(9, 17), range(9, 9)):
        with pytest.raises(ValueError, match="given ones before and after"):
            connection(straight[0], made, ends)
    with pytest.raises(ValueError, match="has 5 frames"):
        connection(straight[0], MADE, replace(ends, at=ends.at[:5], seen=ends.seen[:5]))
