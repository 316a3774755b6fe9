"""Laws of remixing: distance grows with strength where it does, what is shared proves nothing."""

from dataclasses import replace

import numpy as np
import pytest

from data.world.vocabulary import COLOURS, Attributes, Claim
from evaluation.tasks import remix
from evaluation.tasks.remix import differing, remixed

STRENGTHS = (0.0, 0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def pairs(clips, make_clip):
    """Clips and what a prompt for another colour should make of them."""
    found = []
    for clip in clips[:6]:
        body = clip.scene.objects[0]
        names = list(COLOURS)
        other = names[(names.index(body.colour) + 1) % 6]
        found.append((clip, make_clip(replace(clip.scene, objects=(replace(body, colour=other),)))))
    return found


def row(old, new, shares) -> list[remix.Remixed]:
    mixed = [(old.video + share * (new.video.astype(float) - old.video) + 0.5).astype(np.uint8) for share in shares]
    return [remixed(old.video, video, old.claim, new.claim) for video in mixed]


def test_the_more_of_the_new_the_farther_from_the_old(pairs) -> None:
    figures = remix.summary([row(old, new, STRENGTHS) for old, new in pairs], STRENGTHS)
    assert figures["monotone"]
    assert figures["ordered"]["value"] == 1
    assert figures["distance"][0]["value"] == 0
    assert (figures["kept"][0]["value"], figures["taken"][0]["value"], figures["follows"][0]["value"]) == (1, 0, 0)
    assert (figures["kept"][-1]["value"], figures["taken"][-1]["value"], figures["follows"][-1]["value"]) == (0, 1, 1)


def test_a_strength_that_does_nothing_is_not_monotone(pairs) -> None:
    for shares in ((0, 0, 0, 0), (1, 1, 1, 1)):
        figures = remix.summary([row(old, new, shares) for old, new in pairs], STRENGTHS)
        assert not figures["monotone"]
        assert figures["ordered"]["value"] == 0.5


def test_a_step_back_is_not_monotone(pairs) -> None:
    figures = remix.summary([row(old, new, (0, 0.6, 0.5, 1)) for old, new in pairs], STRENGTHS)
    assert not figures["monotone"]
    assert figures["steps"][1]["high"] < 0
    assert figures["ordered"]["value"] == pytest.approx(5 / 6)


def test_what_source_and_prompt_share_proves_nothing() -> None:
    red, blue = (Claim((Attributes("circle", colour, "right"),), "grey") for colour in ("red", "blue"))
    assert differing(red, blue) == ["colour"]
    assert differing(red, replace(blue, background="white", objects=(Attributes(None, "blue", "up"),))) == ["colour", "motion", "background"]
    video = np.zeros((5, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="claim the same"):
        remixed(video, video, red, red)
    with pytest.raises(ValueError, match="has its source's shape"):
        remixed(video, video[:3], red, blue)


def test_strengths_rise_and_no_clip_misses_one(pairs) -> None:
    old, new = pairs[0]
    results = [row(old, new, (0, 1))]
    with pytest.raises(ValueError, match="two or more in rising order"):
        remix.summary(results, (1.0, 0.0))
    with pytest.raises(ValueError, match="at each of 3 strengths"):
        remix.summary(results, (0.0, 0.5, 1.0))
