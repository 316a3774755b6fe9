"""What the tasks are tried on: functions of (seed, number), of the asked motions, under captions that say only what they may."""

from dataclasses import replace

import numpy as np
import pytest

from data.world.captions import facts
from data.world.render import masks, render
from data.world.scene import Story
from data.world.splits import heldout
from data.world.stories import STORIES, draw_clip
from data.world.truth import truth
from data.world.vocabulary import BACKGROUND_KINDS, COLOURS, EASY_MOTIONS, PLAIN_BACKGROUNDS, SHAPES
from evaluation.tasks.remix import differing
from evaluation.tasks.scenes import ROUND, STEADY, World, changes, pairs, source, sources

WORLD = World("sora", 5, 17, 32, 32)


def test_clips_are_functions_of_seed_and_number() -> None:
    clips, again = sources(WORLD, 6), sources(WORLD, 4)
    assert len({one.video.tobytes() for one in clips}) == 6
    assert [(one.video.tobytes(), one.short, one.motion) for one in again] == [(one.video.tobytes(), one.short, one.motion) for one in clips[:4]]
    assert sources(replace(WORLD, seed=6), 1)[0].scene != clips[0].scene
    assert [(one.first.scene, one.second.scene) for one in pairs(WORLD, 2)] == [(one.first.scene, one.second.scene) for one in pairs(WORLD, 3)[:2]]
    assert [(one.prompts, one.video.tobytes()) for one in changes(WORLD, 2)] == [(one.prompts, one.video.tobytes()) for one in changes(WORLD, 3)[:2]]


def test_clips_are_of_the_asked_motions_with_or_without_a_post() -> None:
    for motions, posts in ((EASY_MOTIONS, False), ((ROUND,), False), (EASY_MOTIONS, True)):
        for one in sources(WORLD, 4, motions, posts):
            (body,) = one.scene.objects
            assert body.motion in motions
            assert (one.scene.occluder is not None) == posts == one.claim.occluder
            assert one.video.shape == (17, 32, 32, 3)
            assert heldout("sora").kind(body.shape, body.colour, body.motion) is None


@pytest.mark.parametrize("difficulty", ["standard", "hard"])
def test_where_others_stand_by_and_cameras_move_the_clips_do_without(difficulty: str) -> None:
    world = replace(WORLD, difficulty=difficulty)
    for one in [*sources(world, 2), *(pair.second for pair in pairs(world, 1))]:
        assert len(one.scene.objects) == 1
        assert one.scene.camera.name == "static"


def test_what_a_level_has_not_is_refused() -> None:
    easy = replace(WORLD, difficulty="easy")
    with pytest.raises(ValueError, match=r"no clip of circle_around\. Set tasks\.parts"):
        sources(easy, 1, (ROUND,))
    with pytest.raises(ValueError, match=r"behind a post\. Set tasks\.parts"):
        sources(easy, 1, posts=True)


def test_a_caption_of_the_motion_names_no_attribute() -> None:
    """One that did would prove nothing about where the object's looks come from."""
    words = {*SHAPES, *COLOURS, *PLAIN_BACKGROUNDS, *BACKGROUND_KINDS, "small", "little", "large", "big", "post"}
    for one in sources(WORLD, 12):
        assert not set(one.motion.split()) & words, one.motion
        assert {one.claim.objects[0].shape, one.claim.objects[0].colour, one.claim.background} <= set(one.short.replace(",", "").split())


def test_the_truth_is_that_of_the_pixels() -> None:
    rows, columns = np.mgrid[:32, :32] + 0.5
    for one in sources(WORLD, 4):
        for cover, at in zip(masks(one.scene, 17, 32, 32)[0], one.course.at, strict=True):
            middle = np.array([(columns * cover).sum(), (rows * cover).sum()]) / cover.sum() / 32
            assert np.abs(middle - at[:2]).max() < 0.01
        velocity = one.velocity([range(9, 17)])
        assert velocity is not None
        assert np.allclose(velocity, (one.course.at[16] - one.course.at[9]) / 7, atol=0.002)
    assert sources(WORLD, 1, (ROUND,))[0].velocity([range(9, 17)]) is None


def test_a_pair_is_one_object_on_one_ground_on_two_ways_that_stay_in_the_picture() -> None:
    for pair in pairs(WORLD, 24):
        first, second = pair.first.scene, pair.second.scene
        (one,), (other,) = first.objects, second.objects
        assert (first.background, first.light, first.occluder) == (second.background, second.light, second.occluder)
        assert (one.shape, one.colour, one.size, one.radius) == (other.shape, other.colour, other.size, other.radius)
        assert {one.motion, other.motion} <= set(STEADY)
        assert one.path != other.path
        for clip in (pair.first, pair.second):
            boxes = np.array([state.objects[0].box for state in truth(clip.scene, 17, 32, 32)])
            assert boxes.min() >= -1e-6
            assert boxes.max() <= 32 + 1e-6


def test_a_change_lies_where_the_rendering_changes() -> None:
    places, kinds = set(), set()
    for world in (WORLD, replace(WORLD, frames=33)):
        for number, one in enumerate(changes(world, 16)):
            (kind,) = differing(one.before, one.after)
            assert one.prompts[0] != one.prompts[1]
            places.add((world.frames, one.switch))
            kinds.add(kind)
            story = draw_clip(world.seed, number, world.difficulty, STORIES, 1.0, world.frames)
            assert isinstance(story, Story)
            story = replace(story, switch=(one.switch - 0.5) / (world.frames - 1))
            assert kind == story.change
            first, second = (render(scene, world.frames, 32, 32) for scene in (story.first, story.second))
            assert (one.video[: one.switch] == first[: one.switch]).all()
            assert (one.video[one.switch :] == second[one.switch :]).all()
            boxes = np.array([state.objects[0].box for state in truth(story, world.frames, 32, 32)])
            assert boxes.min() >= -1e-6
            assert boxes.max() <= 32 + 1e-6
            assert (first != second).any(axis=(1, 2, 3))[[one.switch - 1, one.switch]].all()
    assert kinds == {"shape", "colour", "background", "motion"}
    assert places == {(17, 9), (33, 9), (33, 17), (33, 25)}  # else one who always changes in the middle would be right


def test_facts_are_those_of_the_scene() -> None:
    (one,) = sources(WORLD, 1)
    assert source(WORLD, 99, one.scene).claim == one.claim == facts(one.scene)
    assert one.claim.objects[0].size is None or one.short_claim.objects[0].size is None
