"""Laws of an object's course: what is read is what is true, and a joint shows what is wrong with it and nothing else."""

from math import inf, log

import numpy as np
import pytest

from data.world.truth import truth
from evaluation.calibration import reconstructed
from evaluation.oracle import read
from evaluation.tasks.course import GROWTH, READ_NOISE, Course, Joint, course, mean_speed, true_course


def steady(frames: int = 17, velocity: tuple[float, float, float] = (0.02, 0.01, 0.0)) -> Course:
    return Course(np.arange(frames)[:, None] * np.array(velocity), np.ones(frames, bool))


def test_what_is_read_of_a_rendered_clip_is_its_truth(clips) -> None:
    for clip in clips:
        assert clip.seen.seen.all()
        # Rendered to 8 bits: 0.01 px in place, 0.03 px in what log radius counts.
        assert np.abs(clip.seen.at - clip.course.at).max() < 0.2 / 64


def test_read_noise_is_what_an_autoencoder_leaves(clips) -> None:
    errors = []
    for number, clip in enumerate(clips):
        error = course(read(reconstructed(clip.video, number))).at - clip.course.at
        errors.append(error - error.mean(0))  # a blur enlarges all frames alike: no motion
    deviation = np.concatenate(errors).std(0)
    assert (deviation < READ_NOISE).all()
    assert (deviation > READ_NOISE / 20).all()


def test_a_velocity_is_per_frame_and_growth_counts_as_travel(clips) -> None:
    growing = [clip for clip in clips if clip.claim.objects[0].motion == "grow"]
    assert growing
    for clip in growing:
        start, end = clip.scene.objects[0].radius
        velocity = clip.seen.velocity()
        assert velocity is not None
        assert velocity == pytest.approx([0, 0, GROWTH * log(end / start) / 16], abs=2e-4)


def test_a_size_is_the_same_in_any_number_of_pixels(clips) -> None:
    scene = clips[0].scene
    small, large = (true_course(truth(scene, 5, side, side), side) for side in (64, 128))
    np.testing.assert_allclose(small.at, large.at, atol=1e-6)


def test_a_velocity_in_spans_is_theirs_and_not_that_from_one_to_the_next() -> None:
    spans, halting = [range(4), range(6, 12), range(15, 17)], steady()
    assert halting.velocity_in(spans) == pytest.approx((0.02, 0.01, 0))
    for span in spans:
        halting.at[span.start : span.stop] = halting.at[span.start]
    assert halting.velocity_in(spans) == pytest.approx((0, 0, 0), abs=1e-12)
    assert halting.velocity() == pytest.approx((0.02, 0.01, 0), rel=0.2)
    halting.at[6:12] += np.arange(6)[:, None] * (0.01, 0, 0)
    assert halting.velocity_in(spans) == pytest.approx((0.006, 0, 0))  # of 10 frames that tell
    halting.seen[:2] = False
    assert halting.velocity_in(spans) is None
    assert steady().velocity_in(spans[2:]) is None


def test_a_joint_in_steady_motion_is_nothing() -> None:
    joint = steady().joint(8)
    assert (joint.place, joint.velocity) == pytest.approx((0, 0), abs=1e-12)


def test_a_joint_tells_a_jump_from_a_kink() -> None:
    jump, kink = steady(), steady()
    jump.at[8:] += (0.03, 0.04, 0.0)
    kink.at[8:] = kink.at[7] - steady().at[1:10]
    at_jump, at_kink = jump.joint(8), kink.joint(8)
    assert (at_jump.place, at_jump.velocity) == (pytest.approx(0.05), pytest.approx(0, abs=1e-12))
    assert at_kink.velocity == pytest.approx(2 * np.hypot(0.02, 0.01))
    # Turned back at frame 7: half a frame before the moment between 7 and 8, on both sides.
    assert at_kink.place == pytest.approx(np.hypot(0.02, 0.01))


def test_one_frame_beside_the_joint_counts() -> None:
    glitch = steady()
    glitch.at[8] += (0.05, 0.0, 0.0)
    assert glitch.joint(8).place > 0.02


def test_a_lost_object_is_infinitely_far(clips) -> None:
    empty = clips[0].video.copy()
    empty[8:] = empty[8, 0, 0]
    assert course(read(empty)).joint(8) == Joint(inf, inf)
    assert course(read(np.zeros_like(empty))).velocity() is None


def test_a_joint_needs_frames_on_both_sides() -> None:
    with pytest.raises(ValueError, match="joint=3 of a clip of 17 frames"):
        steady().joint(3)


def test_mean_speed_has_no_direction() -> None:
    there_and_back = Course(np.stack([np.abs(np.arange(32) - 16) * 0.02, np.zeros(32), np.zeros(32)], 1), np.ones(32, bool))
    assert mean_speed(steady()) == pytest.approx(np.hypot(0.02, 0.01))
    # In windows that hold a turn less is left of it: 6 of the 32 that go round.
    assert 0.85 * 0.02 < mean_speed(there_and_back, cyclic=True) < 0.02
