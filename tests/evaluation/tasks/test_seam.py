"""Laws of loops: a true one passes, one that stands still, one that jumps and one that turns at the seam fail, each where it should."""

from dataclasses import replace

import numpy as np
import pytest

from data.world.render import render
from data.world.scene import Background, Body, Orbit, Scene, Straight
from data.world.vocabulary import COLOURS, PLAIN_BACKGROUNDS, SHAPES, Attributes, Claim
from evaluation.tasks import seam
from evaluation.tasks.controls import frozen
from evaluation.tasks.course import mean_speed
from evaluation.tasks.seam import HIGHEST_JUMP, MOST_JUMP, MOST_WORSE, largest_jump, loop

TINTS, GROUNDS = tuple(COLOURS), tuple(PLAIN_BACKGROUNDS)


def orbit(number: int, turns: float = 1.0) -> Scene:
    body = Body(
        SHAPES[number % 3], TINTS[number % 6], "circle_around", "small", Orbit((0.0, 0.0), 0.18 + 0.01 * (number % 4), number, turns), (0.16, 0.16)
    )
    return Scene((body,), Background("plain", GROUNDS[number % 4]))


def round_of(scene: Scene) -> np.ndarray:
    """17 frames of which the first follows the last: the 18th is the first again."""
    return render(scene, 18, 64, 64)[:17]


def figures_of(videos: list[np.ndarray], make_clip) -> dict:
    own = [make_clip(orbit(number), 18) for number in range(len(videos))]
    return seam.summary([loop(video, clip.claim, mean_speed(clip.course)) for video, clip in zip(videos, own, strict=True)])


def test_a_true_loop_passes_and_is_followed_wherever_it_begins(make_clip) -> None:
    figures = figures_of([round_of(orbit(number)) for number in range(12)], make_clip)
    assert figures["loops"]["value"] == figures["followed"]["value"] == figures["followed_rolled"]["value"] == 1
    assert figures["pace"]["value"] == pytest.approx(1, abs=0.02)
    for name in ("place", "velocity"):
        assert figures[name]["high"] < MOST_WORSE
    assert figures["jump_median"] < 1.2


def test_a_frozen_clip_has_a_perfect_seam_and_is_no_loop(make_clip) -> None:
    figures = figures_of([frozen(round_of(orbit(number))) for number in range(6)], make_clip)
    assert figures["place"]["value"] == figures["hidden"]["value"] == 1
    assert figures["moves"]["value"] == figures["even"]["value"] == figures["loops"]["value"] == figures["followed"]["value"] == 0


def test_a_clip_that_flickers_and_stands_still_is_no_loop(make_clip) -> None:
    rng = np.random.default_rng(0)
    videos = [np.clip(frozen(round_of(orbit(k))).astype(int) + rng.integers(-5, 6, (17, 64, 64, 3)), 0, 255).astype(np.uint8) for k in range(6)]
    figures = figures_of(videos, make_clip)
    assert figures["even"]["value"] == 1  # evenly flickering
    assert figures["moves"]["value"] == figures["loops"]["value"] == 0


@pytest.mark.parametrize("turns", [0.85, 0.6])
def test_a_round_that_is_not_closed_jumps_at_the_seam(make_clip, turns: float) -> None:
    figures = figures_of([round_of(orbit(number, turns)) for number in range(6)], make_clip)
    assert figures["moves"]["value"] == 1
    assert figures["place"]["low"] > MOST_WORSE
    assert figures["hidden"]["value"] == figures["loops"]["value"] == 0
    if turns == 0.6:
        assert figures["even"]["value"] == 0


def test_a_loop_with_a_corner_at_the_seam_shows_it_in_velocity(make_clip, make_video) -> None:
    # A drop: out of its tip to one side and back into it from the other. The place closes, the velocity across turns round.
    def drop(number: int) -> np.ndarray:
        u = (np.arange(17) / 17 + 0.5 / 17)[:, None]
        ways = np.concatenate([0.3 * np.sin(np.pi * u) - 0.15, 0.08 * np.sin(2 * np.pi * u)], 1)
        return make_video([place(orbit(number), way) for way in ways])

    def place(scene: Scene, way: np.ndarray) -> Scene:
        return replace(scene, objects=(replace(scene.objects[0], path=Straight((float(way[0]), float(way[1])))),))

    figures = figures_of([drop(number) for number in range(6)], make_clip)
    assert figures["velocity"]["low"] > MOST_WORSE
    assert figures["moves"]["value"] == 1
    assert figures["hidden"]["value"] == figures["loops"]["value"] == 0


def test_a_seam_is_judged_inside_the_rolled_clip_too() -> None:
    # One way only: as it stands the clip does what its prompt says, begun in its middle it jumps.
    body = Body("circle", "red", "right", "small", Straight((-0.22, 0.0), (0.44, 0.0)), (0.16, 0.16))
    video = render(Scene((body,), Background("plain", "grey")), 17, 64, 64)
    result = loop(video, Claim((Attributes("circle", "red", "right"),), "grey"), None)
    assert result.followed == (True, False)
    assert not result.hidden
    assert not result.even


def test_a_loop_is_the_same_wherever_it_is_cut(make_clip) -> None:
    scene = orbit(1)
    video, clip = round_of(scene), make_clip(scene, 18)
    results = [loop(np.roll(video, -k, axis=0), clip.claim, mean_speed(clip.course)) for k in (0, 5, 11)]
    assert [result.pace for result in results] == pytest.approx([results[0].pace] * 3, rel=1e-9)
    assert [result.jump for result in results] == pytest.approx([results[0].jump] * 3, rel=1e-6)


def test_the_largest_jump_is_in_median_changes_and_knows_the_seam() -> None:
    video = np.zeros((9, 16, 16, 3), np.uint8)
    video += (np.arange(9) * 10).astype(np.uint8)[:, None, None, None]
    assert largest_jump(video) == pytest.approx(8)  # back from 80 to 0 in one frame, in steps of 10
    assert largest_jump(np.zeros_like(video)) == HIGHEST_JUMP
    assert MOST_JUMP < 8


def test_a_lost_object_hides_no_seam(make_clip) -> None:
    video = np.zeros((17, 64, 64, 3), np.uint8)
    result = loop(video, make_clip(orbit(0)).claim, 0.05)
    assert not result.hidden
    assert result.pace == 0


def test_a_clip_without_interior_is_refused() -> None:
    with pytest.raises(ValueError, match="frames=8 are too few"):
        loop(np.zeros((8, 64, 64, 3), np.uint8), replace(Claim(())), None)
