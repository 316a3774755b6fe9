"""Laws of continuing a clip: real futures and pasts pass, frozen, forgotten, reversed and displaced ones each fail where they should."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data.world.render import render
from data.world.vocabulary import COLOURS, Attributes, Claim
from evaluation.reconstruction import HIGHEST_RATIO
from evaluation.tasks import motion
from evaluation.tasks.controls import frozen, halted
from evaluation.tasks.course import Course
from evaluation.tasks.motion import MOST_WORSE, continued, joints_of

SPANS = {"forward": [range(9, 17)], "backward": [range(8)], "between": [range(5, 12)], "both": [range(4), range(13, 17)]}


def measured(clips, make: Callable, made: list[range]) -> dict:
    results = []
    for clip in clips:
        wanted = clip.course.velocity_in(made)
        results.append(continued(make(clip), made, clip.claim, wanted, clip.seen))
    return motion.summary(results)


@pytest.mark.parametrize("span", SPANS)
def test_the_real_clip_passes(clips, span: str) -> None:
    figures = measured(clips, lambda clip: clip.video, SPANS[span])
    assert figures["identity"]["value"] == figures["moves"]["value"] == 1
    assert figures["pace"]["value"] == pytest.approx(1, abs=0.01)
    assert figures["joint"]["velocity"]["value"] == figures["joint"]["place"]["value"] == 1
    assert figures["joint"]["smooth"]["value"] >= 0.9  # 1.5 x the 95th percentile of themselves


@pytest.mark.parametrize("span", SPANS)
def test_a_frozen_rest_keeps_the_object_and_fails_motion_and_joint(clips, span: str) -> None:
    made = SPANS[span]
    figures = measured(clips, lambda clip: halted(clip.video, made), made)
    assert figures["identity"]["value"] == 1
    assert figures["moves"]["value"] == figures["fast_enough"]["value"] == figures["joint"]["smooth"]["value"] == 0
    assert figures["pace"]["value"] == pytest.approx(0, abs=0.01)
    assert figures["joint"]["velocity"]["low"] > MOST_WORSE


def test_a_frozen_clip_has_a_perfect_joint_and_does_not_move(clips) -> None:
    figures = measured(clips, lambda clip: frozen(clip.video), SPANS["forward"])
    assert figures["joint"]["velocity"]["high"] <= 1
    assert figures["moves"]["value"] == 0


def test_an_object_that_changes_where_it_was_made_is_not_itself_however_long_it_was_given(clips, make_clip) -> None:
    made = [range(29, 33)]  # of 33: the oracle would take the whole clip's colour for the given one

    def recoloured(clip) -> np.ndarray:
        body = clip.scene.objects[0]
        other = next(colour for colour in COLOURS if colour != body.colour)
        changed = render(replace(clip.scene, objects=(replace(body, colour=other),)), 33, 64, 64)
        return np.concatenate([clip.video[:29], changed[29:]])

    longer = [make_clip(clip.scene, 33) for clip in clips[:4]]
    figures = measured(longer, recoloured, made)
    assert figures["attributes"]["colour"]["value"] == figures["identity"]["value"] == 0
    assert figures["attributes"]["shape"]["value"] == figures["moves"]["value"] == 1


def test_a_past_that_leads_away_from_the_given_frames_is_none(clips) -> None:
    # The future played backwards stands in its place: it comes to the joint's place, from the wrong side.
    def mirrored(clip) -> np.ndarray:
        return np.concatenate([clip.video[16:8:-1], clip.video[8:]])

    figures = measured(clips, mirrored, SPANS["backward"])
    assert figures["moves"]["value"] == 0
    assert figures["joint"]["velocity"]["low"] > 10 * MOST_WORSE


def test_a_past_that_ends_elsewhere_than_the_given_frames_begin_has_an_error_of_place(clips) -> None:
    def displaced(clip) -> np.ndarray:
        video = clip.video.copy()
        video[:8] = np.roll(video[:8], 4, axis=2)
        return video

    # Objects that do not reach the edge by 4 px: rolled, the others come in on the other side.
    inside = [clip for clip in clips if (clip.course.at[:8, 0] + np.exp(clip.course.at[:8, 2] / 0.7) * 1.4 < 0.92).all()]
    assert len(inside) >= 4
    figures = measured(inside, displaced, SPANS["backward"])
    assert figures["moves"]["value"] == 1
    assert figures["joint"]["place"]["low"] > 10 * MOST_WORSE
    assert figures["joint"]["velocity"]["value"] < MOST_WORSE


def test_a_clip_whose_object_is_lost_fails_everything(clips) -> None:
    def emptied(clip) -> np.ndarray:
        return np.concatenate([clip.video[:9], np.broadcast_to(clip.video[9:, :1, :1], (8, 64, 64, 3))])

    figures = measured(clips, emptied, SPANS["forward"])
    assert figures["identity"]["value"] == figures["moves"]["value"] == figures["joint"]["smooth"]["value"] == 0
    assert figures["joint"]["velocity"]["value"] == HIGHEST_RATIO


def test_a_joint_needs_a_velocity_on_both_sides() -> None:
    assert joints_of([range(1, 17)], 17) == []
    assert joints_of([range(3, 17)], 17) == [(3, 3)]
    assert joints_of([range(4, 13)], 17) == [(4, 4), (13, 4)]
    assert joints_of([range(8)], 17) == [(8, 4)]
    assert joints_of([range(4), range(14, 17)], 17) == [(4, 4), (14, 3)]
    assert joints_of([range(1, 6), range(9, 16)], 17) == [(6, 3), (9, 3)]


def test_one_given_picture_asks_no_joint_and_a_caption_without_speed_no_pace(clips) -> None:
    clip = clips[0]
    result = continued(clip.video, [range(1, 17)], clip.claim, None, clip.course)
    figures = motion.summary([result])
    assert "joint" not in figures
    assert "pace" not in figures
    assert figures["moves"]["value"] == 1


def test_a_joint_that_the_real_clip_hides_is_not_asked_and_one_that_only_the_made_clip_lost_is(clips) -> None:
    clip, made = clips[0], SPANS["forward"]
    lost = Course(clip.seen.at, np.zeros(17, bool))
    for real, n in ((lost, 0), (clip.seen, 1)):
        emptied = np.broadcast_to(clip.video[:1, :1, :1], clip.video.shape)
        figures = motion.summary([continued(emptied, made, clip.claim, None, real)])["joint"]
        assert figures["n"] == n
        assert ("smooth" in figures) == (n == 1)


def test_spans_that_are_none_are_refused(clips) -> None:
    clip = clips[0]
    for made in ([], [range(17)], [range(9, 18)], [range(9, 9)], [range(2, 9, 2)], [range(9, 12), range(2, 4)], [range(2, 4), range(4, 6)]):
        with pytest.raises(ValueError, match="must be spans of the 17 frames, in order and apart"):
            continued(clip.video, made, clip.claim, None, clip.course)
    with pytest.raises(ValueError, match="names no shape, colour, size"):
        continued(clip.video, [range(9, 17)], Claim((Attributes(motion="up"),)), None, clip.course)
    with pytest.raises(ValueError, match="the real clip has 5 frames"):
        continued(clip.video, [range(9, 17)], clip.claim, None, clip.course.cut(0, 5))
