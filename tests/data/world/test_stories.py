"""Stories: one attribute changes at a known frame, all else goes on, and each shot's words are true of it."""

from collections import Counter

import numpy as np
import pytest

from data.world.captions import facts
from data.world.render import masks, render
from data.world.sampling import draw_scene
from data.world.scene import Scene, Story, pixels_per_unit, shares, shots, tracks
from data.world.splits import heldout
from data.world.stories import CHANGES, STORIES, draw_clip, switches
from data.world.truth import truth
from data.world.vocabulary import DIRECTIONS

COUNT = 160


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    drawn = [draw_clip(3, number, "sora", STORIES) for number in range(COUNT)]
    assert all(isinstance(story, Story) for story in drawn)
    return drawn


def test_one_attribute_changes_and_the_kinds_of_change_come_equally_often(stories: list[Story]):
    for story in stories:
        first, second = (facts(scene) for scene in (story.first, story.second))
        values = [{"background": what.background, **{name: getattr(what.objects[0], name) for name in CHANGES[:3]}} for what in (first, second)]
        assert [name for name in CHANGES if values[0][name] != values[1][name]] == [story.change]
    assert min(Counter(story.change for story in stories).values()) > COUNT / 8


def test_the_switch_is_the_first_frame_of_a_latent_frame_with_room_on_both_sides():
    for frames in range(17, 130):
        for switch in switches(frames):
            first = int((shares(frames) < switch).sum())
            assert (first - 1) % 4 == 0
            assert first >= 9
            assert frames - first >= 8
            assert 0.39 < first / frames < 0.61
        assert switches(frames)
    assert [len(share) for _, share in shots(draw_clip(0, 0, "sora", STORIES), 17)] == [9, 8]


def test_nothing_jumps_at_the_switch_and_nothing_leaves_the_frame(stories: list[Story]):
    for story in stories:
        at = np.asarray([story.switch])
        before, after = (tracks(scene, at)[0] for scene in (story.first, story.second))
        np.testing.assert_allclose(before.centre, after.centre, atol=1e-12)
        np.testing.assert_allclose(before.radius, after.radius, rtol=1e-12)
        for scene, share in shots(story, 65):
            low, high = tracks(scene, share)[0].bounds(scene.objects[0].shape)
            assert low.min() > -0.5
            assert high.max() < 0.5


def test_each_shot_moves_as_its_motion_says_at_the_pace_of_a_whole_clip(stories: list[Story]):
    for story in stories:
        for scene, share in shots(story, 17):
            (body,), (track,) = scene.objects, tracks(scene, share)
            moved, grown, lasts = track.centre[-1] - track.centre[0], track.radius[-1] / track.radius[0], share[-1] - share[0]
            if body.motion in DIRECTIONS:
                way = np.asarray(DIRECTIONS[body.motion])
                assert (np.sign(moved.round(9)) == way).all()
                assert (np.abs(moved)[way != 0] >= 0.35 * lasts - 1e-9).all()
                assert grown == pytest.approx(1)
            else:
                assert np.abs(moved).max() < 1e-9
                assert (grown if body.motion == "grow" else 1 / grown) >= 1.9**lasts - 1e-9
            assert (body.size is None) == (body.motion in ("grow", "shrink") or story.first.objects[0].size is None)


def test_a_story_is_drawn_as_its_two_scenes_with_their_truth_and_masks():
    for number in range(12):
        story = draw_clip(1, number, "sora", STORIES)
        video, states, seen = render(story, 17, 40, 48), truth(story, 17, 40, 48, fps=8), masks(story, 17, 40, 48)
        assert [state.shot for state in states] == [0] * 9 + [1] * 8
        assert [state.time_s for state in states] == [k / 8 for k in range(17)]
        assert seen.shape == (1, 17, 40, 48)
        for frame, state in enumerate(states):
            scene = (story.first, story.second)[state.shot]
            np.testing.assert_array_equal(video[frame], render(scene, 17, 40, 48)[frame])
            np.testing.assert_array_equal(seen[:, frame], masks(scene, 17, 40, 48)[:, frame])
            (track,) = tracks(scene, shares(17)[frame : frame + 1])
            wanted = track.centre[0] * pixels_per_unit(scene, 40, 48) + (24, 20)
            assert state.objects[0].centre == pytest.approx(wanted)
            assert state.objects[0].visible == 1
    np.testing.assert_array_equal(render(story, 1, 40, 48), video[:1])


def test_both_shots_show_what_training_may_show(stories: list[Story]):
    rule = heldout("sora")
    for story in stories:
        for scene in (story.first, story.second):
            (body,) = scene.objects
            assert rule.kind(body.shape, body.colour, body.motion) is None
            assert body.motion != "circle_around"
            assert scene.occluder is None


def test_training_holds_some_stories_and_what_is_judged_as_one_clip_none():
    drawn = [draw_clip(0, number, "sora", "train") for number in range(240)]
    told = [isinstance(clip, Story) for clip in drawn]
    assert 0.1 < np.mean(told) < 0.25
    assert all(story or clip == draw_scene(0, number, "sora") for number, (story, clip) in enumerate(zip(told, drawn, strict=True)))
    assert all(isinstance(draw_clip(0, number, "sora", split), Scene) for split in ("val", "heldout") for number in range(60))
    assert all(isinstance(draw_clip(0, number, "sora", frames=13), Scene) for number in range(60))
    assert all(draw_clip(0, number, "standard") == draw_scene(0, number, "standard") for number in range(20))


def test_a_story_depends_on_its_numbers_alone():
    first = [draw_clip(2, number, "sora", STORIES) for number in (3, 1, 2)]
    np.random.seed(5)
    assert [draw_clip(2, number, "sora", STORIES) for number in (3, 1, 2)] == first
    assert len({*first, draw_clip(3, 3, "sora", STORIES)}) == 4


@pytest.mark.parametrize(("difficulty", "frames", "message"), [("easy", 17, "sora has"), ("sora", 13, "frames=13 is too short")])
def test_stories_where_there_can_be_none_are_refused(difficulty: str, frames: int, message: str):
    with pytest.raises(ValueError, match=message):
        draw_clip(0, 0, difficulty, STORIES, frames=frames)
