"""Pixels against geometry: what is drawn has the area, the place and the movement that the truth tells."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from data.world.render import masks, render
from data.world.sampling import draw_scene
from data.world.scene import Background, Body, Bounce, Camera, Occluder, Orbit, Scene, Straight
from data.world.truth import truth
from data.world.vocabulary import COLOURS, NIGHT, PLAIN_BACKGROUNDS, SHAPES

GREY = Background("plain", "grey")


def one(shape: str = "circle", **changes) -> Body:
    return replace(Body(shape, "red", "still", None, Straight((0.02, -0.03)), (0.2, 0.2)), **changes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.4])
@pytest.mark.parametrize("size", [32, 64, 200])
def test_every_shape_has_the_area_and_the_centroid_of_its_disc(shape: str, angle: float, size: int):
    mask = masks(Scene((one(shape, angle=(angle, angle)),), GREY), 1, size, size)[0, 0].astype(np.float64)
    area = np.pi * (0.2 * size) ** 2
    assert mask.sum() == pytest.approx(area, rel=0.3 / size)  # an edge's coverage is off by some thousandths of a pixel
    y, x = np.indices(mask.shape) + 0.5
    assert (mask * x).sum() / mask.sum() == pytest.approx(0.52 * size, abs=0.05)
    assert (mask * y).sum() / mask.sum() == pytest.approx(0.47 * size, abs=0.05)


@pytest.mark.parametrize("difficulty", ["easy", "standard"])
def test_boxes_fit_the_pixels(difficulty: str):
    for number in range(8):
        scene = draw_scene(1, number, difficulty)
        seen, states = masks(scene, 5, 48, 64), truth(scene, 5, 48, 64)
        for place in range(len(scene.objects)):
            for frame, state in enumerate(states):
                rows, columns = (np.flatnonzero(seen[place, frame].max(axis=axis) > 0.02) for axis in (1, 0))
                found = np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                # A triangle's tip fills less than a pixel: up to 1.5 of its length cannot be seen.
                assert np.abs(found - np.asarray(state.objects[place].box)).max() < 1.5


def test_the_smaller_picture_is_the_larger_one_seen_from_afar():
    for number in range(6):
        scene = draw_scene(2, number, "standard")
        large = render(scene, 3, 192, 192).astype(np.float64).reshape(3, 64, 3, 64, 3, 3).mean(axis=(2, 4))
        assert np.abs(large - render(scene, 3, 64, 64)).mean() < 0.6  # of 255 levels


def test_more_frames_show_the_same_moments():
    scene = draw_scene(2, 7, "hard")
    np.testing.assert_array_equal(render(scene, 33, 32, 32)[::2], render(scene, 17, 32, 32))
    np.testing.assert_array_equal(render(scene, 1, 32, 32)[0], render(scene, 17, 32, 32)[0])


def test_a_wider_picture_shows_more_of_the_same_world():
    scene = draw_scene(2, 9, "standard")
    wide = render(scene, 5, 40, 80)
    assert np.abs(wide[:, :, 20:60].astype(int) - render(scene, 5, 40, 40)).max() <= 1


def test_the_same_scene_is_the_same_video():
    def digest(split: str) -> str:
        return hashlib.sha256(render(draw_scene(5, 3, "hard", split), 5, 48, 48).tobytes()).hexdigest()

    first = digest("train")
    np.random.seed(3)
    assert digest("train") == first
    assert digest("val") != first


def test_flat_areas_have_the_vocabularys_colours():
    for name, ground in PLAIN_BACKGROUNDS.items():
        for colour, rgb in COLOURS.items():
            scene = Scene((one(colour=colour),), Background("plain", name))
            day, night = render(scene, 1, 40, 40)[0], render(replace(scene, light="night"), 1, 40, 40)[0]
            assert np.abs(day[19, 21] / 255 - rgb).max() < 0.005
            assert np.abs(day[1, 1] / 255 - ground).max() < 0.005
            assert np.abs(night[19, 21] / 255 - np.multiply(rgb, NIGHT)).max() < 0.005


def test_later_objects_and_the_post_are_in_front():
    blue = one("square", colour="blue")
    scene = Scene((one(), blue), GREY, occluder=Occluder(0.2, 0.1))
    picture = render(scene, 1, 100, 100)[0]
    assert np.abs(picture[47, 52] / 255 - COLOURS["blue"]).max() < 0.005
    assert picture[47, 70].argmin() == 1  # the pink post
    hidden, shown = masks(scene, 1, 100, 100).sum(axis=(1, 2, 3))
    assert shown == pytest.approx(masks(Scene((blue,), GREY, occluder=scene.occluder), 1, 100, 100).sum())
    assert hidden < 0.3 * shown


@pytest.mark.parametrize(("name", "axis", "shift"), [("pan_right", 2, -1), ("pan_left", 2, 1), ("pan_down", 1, -1), ("pan_up", 1, 1)])
@pytest.mark.parametrize("kind", ["checks", "speckles"])
def test_the_world_slides_against_the_camera(name: str, axis: int, shift: int, kind: str):
    way = {"pan_right": (0.25, 0), "pan_left": (-0.25, 0), "pan_down": (0, 0.25), "pan_up": (0, -0.25)}[name]
    # A quarter of 64 pixels over 16 steps is one pixel a frame.
    video = render(Scene((), Background(kind, "brown", scale=0.15, seed=3), Camera(name, way)), 17, 64, 64).astype(int)
    moved = np.roll(video[:-1], shift, axis=axis)
    inner = np.s_[:, 2:-2, 2:-2]
    assert np.abs(moved[inner] - video[1:][inner]).max() <= 2
    assert np.abs(video[:-1] - video[1:]).mean() > 0.3


def test_zoom_magnifies_objects_and_ground_alike():
    scene = Scene((one(path=Straight((0.0, 0.0)), radius=(0.1, 0.1)),), Background("checks", "grey", scale=0.1), Camera("zoom_in", zoom=(1.0, 1.5)))
    areas = masks(scene, 2, 96, 96).sum(axis=(2, 3))[0]
    assert areas[1] / areas[0] == pytest.approx(2.25, rel=0.01)
    first, last = truth(scene, 2, 96, 96)
    assert last.magnification / first.magnification == pytest.approx(1.5)


def test_a_bouncing_path_keeps_to_its_box_and_its_speed():
    path = Bounce((0.1, -0.2), (1.1, 0.9), (-0.3, -0.3), (0.3, 0.3))
    places = path.at(np.linspace(0, 1, 2001))
    assert places[0] == pytest.approx((0.1, -0.2))
    assert np.abs(places).max() <= 0.3 + 1e-9
    steps = np.abs(np.diff(places, axis=0))
    usual = np.asarray([1.1, 0.9]) / 2000
    assert (np.abs(steps - usual) < 1e-9).mean() > 0.99  # all but the steps that hold a wall


def test_an_orbit_keeps_its_distance():
    places = Orbit((0.1, 0.0), 0.2, 0.3, -1.1).at(np.linspace(0, 1, 50))
    assert np.hypot(*(places - (0.1, 0.0)).T) == pytest.approx(0.2)


def test_hidden_shares_are_told():
    scene = Scene((one(path=Straight((-0.2, 0.0), (0.4, 0.0)), radius=(0.08, 0.08)),), GREY, occluder=Occluder(0.0, 0.2))
    seen = [state.objects[0].visible for state in truth(scene, 5, 64, 64)]
    assert seen[0] == pytest.approx(1.0, abs=0.01)
    assert seen[2] < 0.01
    assert seen[4] == pytest.approx(1.0, abs=0.01)
    leaving = Scene((one(path=Straight((0.5, 0.0)), radius=(0.1, 0.1)),), GREY)
    assert truth(leaving, 1, 64, 64)[0].objects[0].visible == pytest.approx(0.5, abs=0.01)


def test_truth_is_in_pixels_and_seconds():
    state = truth(Scene((one(),), GREY), 3, 48, 96, fps=4)[2]
    assert state.time_s == 0.5
    assert state.objects[0].centre == pytest.approx((48 + 0.02 * 48, 24 - 0.03 * 48))
    assert state.objects[0].radius == pytest.approx(0.2 * 48)


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        render(Scene((one(),), GREY), 0, 32, 32)
