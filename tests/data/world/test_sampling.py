"""Scenes: drawn from counters alone, on the right side of every split, and clear to see."""

from collections import Counter

import numpy as np
import pytest

from data.world.sampling import draw_scene
from data.world.scene import Bounce, Orbit, shares, tracks
from data.world.splits import DIFFICULTIES, KINDS, heldout
from data.world.truth import visible_shares
from data.world.vocabulary import DIRECTIONS, PLAIN_BACKGROUNDS

COUNTS = {"easy": 250, "standard": 120, "hard": 40, "sora": 250}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_training_never_holds_a_held_out_combination(difficulty: str, split: str):
    rule = heldout(difficulty)
    for number in range(COUNTS[difficulty]):
        for body in draw_scene(3, number, difficulty, split).objects:
            assert rule.kind(body.shape, body.colour, body.motion) is None


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_heldout_holds_nothing_else_and_its_kinds_take_turns(difficulty: str):
    rule = heldout(difficulty)
    for number in range(30):
        for body in draw_scene(3, number, difficulty, "heldout").objects:
            assert rule.kind(body.shape, body.colour, body.motion) == KINDS[number % 3]


def test_a_scene_depends_on_its_numbers_alone():
    first = [draw_scene(1, number, "hard") for number in (7, 4, 0, 2, 1)]
    np.random.seed(99)
    for other in range(3):
        draw_scene(other, 4, "standard")
    assert [draw_scene(1, number, "hard") for number in (7, 4, 0, 2, 1)] == first
    scenes = [draw_scene(seed, 4, "easy", split) for seed in (1, 2) for split in ("train", "val", "heldout")]
    assert len(set(scenes)) == 6


@pytest.mark.parametrize("aspect", [1.0, 16 / 9, 0.6])
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_everything_stays_inside_the_frame(difficulty: str, aspect: float):
    for number in range(30 if difficulty != "hard" else 10):
        scene = draw_scene(5, number, difficulty, aspect=aspect)
        for body, track in zip(scene.objects, tracks(scene, shares(65)), strict=True):
            low, high = track.bounds(body.shape)
            half = np.asarray(scene.extent) / 2
            assert (low > -half).all()
            assert (high < half).all()


def test_easy_motions_are_clear():
    seen = Counter()
    for number in range(300):
        (body,) = draw_scene(2, number).objects
        seen[body.motion] += 1
        way = body.path.at(np.asarray([0.0, 1.0]))
        moved, grown = way[1] - way[0], body.radius[1] / body.radius[0]
        if body.motion in DIRECTIONS:
            # Compared with the word's own meaning, axis by axis.
            expected = np.asarray([("right" in body.motion) - ("left" in body.motion), ("down" in body.motion) - ("up" in body.motion)])
            assert (np.sign(moved) == expected).all()
            assert (np.abs(moved)[expected != 0] >= 0.35 - 1e-9).all()
            assert grown == 1
            assert 0.15 <= body.radius[0] <= 0.21
        else:
            assert (moved == 0).all()
            assert (grown if body.motion == "grow" else 1 / grown) >= 1.9
    assert len(seen) == 10
    assert min(seen.values()) >= 10


def test_easy_is_one_object_on_plain_ground_by_day():
    for number in range(50):
        scene = draw_scene(0, number)
        assert (len(scene.objects), scene.background.kind, scene.camera.name, scene.light, scene.occluder) == (1, "plain", "static", "day", None)
        assert scene.background.colour in PLAIN_BACKGROUNDS


def test_standard_objects_never_touch_and_differ_in_colour():
    pairs = 0
    for number in range(60):
        scene = draw_scene(8, number, "standard")
        if len(scene.objects) < 2:
            continue
        pairs += 1
        a, b = (track.bounds(body.shape) for body, track in zip(scene.objects, tracks(scene, shares(17)), strict=True))
        assert (np.maximum(a[0] - b[1], b[0] - a[1]).max(axis=1) > 0).all()
        assert scene.objects[0].colour != scene.objects[1].colour
    assert pairs > 15


def test_hard_has_everything():
    scenes = [draw_scene(0, number, "hard") for number in range(90)]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {scene.background.kind for scene in scenes} == {"plain", "gradient", "stripes", "checks", "speckles"}
    assert {scene.light for scene in scenes} == {"day", "night"}
    assert any(scene.occluder for scene in scenes)
    assert len({scene.camera.name for scene in scenes}) == 7
    assert len({body.motion for scene in scenes for body in scene.objects}) == 14
    paths = [body.path for scene in scenes for body in scene.objects]
    assert any(isinstance(path, Bounce) for path in paths)
    assert any(isinstance(path, Orbit) for path in paths)


def test_a_post_at_sora_tells_no_size_no_shape_and_no_speed():
    """As far as it can: a post stands where somebody crosses the frame, and hides a good part of it once."""
    behind, free = [], []
    for number in range(400):
        scene = draw_scene(0, number, "sora")
        (body,) = scene.objects
        assert (scene.background.kind, scene.camera.name, scene.light) == ("plain", "static", "day")
        if scene.occluder is None:
            free.append(body)
            continue
        behind.append(body)
        assert np.ptp(body.path.at(np.linspace(0, 1, 33))[:, 0]) > 0.3
        seen = visible_shares(scene, shares(17), 1.0)[0]
        assert min(seen[0], seen[-1]) > 0.7
        assert seen.min() < 0.72
    assert 0.2 < len(behind) / 400 < 0.34  # 0.63 of the motions that cross, 6 of 14 clips
    crossing = {body.motion for body in behind}
    alike = [body for body in free if body.motion in crossing]
    for name in ("size", "shape"):
        seen, wanted = (Counter(getattr(body, name) for body in bodies) for bodies in (behind, alike))
        for value in wanted:  # three standard errors
            assert abs(seen[value] / len(behind) - wanted[value] / len(alike)) < 3 * (0.25 / len(behind) + 0.25 / len(alike)) ** 0.5
    way = [np.mean([abs(body.path.step[0]) for body in bodies if body.motion in ("left", "right")]) for bodies in (behind, alike)]
    assert way[0] == pytest.approx(way[1], rel=0.06)


def test_a_camera_moves_only_where_the_ground_shows_it():
    for number in range(80):
        scene = draw_scene(4, number, "standard")
        assert scene.camera.name == "static" or scene.background.kind in ("checks", "speckles")


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, val, heldout"):
        draw_scene(0, 0, split="test")


def test_orbits_at_sora_go_one_way_round_and_come_back():
    def turns(difficulty, count):
        return [one.objects[0].path.turns for n in range(count) if (one := draw_scene(0, n, difficulty)).objects[0].motion == "circle_around"]

    assert all(0.97 <= found <= 1.03 for found in turns("sora", 60))
    assert len(turns("sora", 60)) > 8
    assert {found > 0 for found in turns("hard", 150)} == {True, False}
