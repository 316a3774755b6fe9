"""Closed forms of the picture measures."""

from math import inf, log10

import numpy as np
import pytest

from evaluation.reconstruction import HIGHEST_DB, box_psnr_db, compare, flicker, psnr_db, ssim


def clip(value: int, frames: int = 3, height: int = 16, width: int = 20) -> np.ndarray:
    return np.full((frames, height, width, 3), value, dtype=np.uint8)


def noise(seed: int, frames: int = 2, height: int = 16, width: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("step", [1, 5, 255])
def test_psnr_of_a_constant_error_has_its_closed_form(step: int) -> None:
    assert psnr_db(clip(0), clip(step)) == pytest.approx(20 * log10(255 / step), abs=1e-9)
    # The difference of unsigned bytes must not wrap around.
    assert psnr_db(clip(step), clip(0)) == pytest.approx(20 * log10(255 / step), abs=1e-9)


def test_psnr_of_identical_clips_is_infinite_and_counts_as_the_cap_in_a_mean() -> None:
    assert psnr_db(noise(0), noise(0)) == inf
    result = compare([noise(0)], [noise(0)], [[[(0, 0, 4, 4)]] * 2])
    assert (result.psnr_db, result.psnr_box_db, result.flicker) == (HIGHEST_DB, HIGHEST_DB, 0)
    assert result.ssim == pytest.approx(1, abs=1e-12)


def test_box_psnr_counts_only_what_is_inside() -> None:
    result = clip(100)
    result[:, 4:8, 2:6] = 110
    result[:, 12:, 12:] = 0  # a gross error outside the box
    boxes = [[(2, 4, 6, 8)]] * 3
    assert box_psnr_db(clip(100), result, boxes) == pytest.approx(20 * log10(25.5), abs=1e-9)
    # A box of twice the area, half of it right: half the squared error.
    assert box_psnr_db(clip(100), result, [[(2, 4, 10, 8)]] * 3) == pytest.approx(20 * log10(25.5) + 10 * log10(2), abs=1e-9)


def test_boxes_are_cut_to_the_frame_and_absent_objects_leave_their_frame_out() -> None:
    result = clip(100)
    result[0] = 110
    boxes = [[(-9, -9, 99, 99)], [], [(30, 30, 40, 40), (-8, -8, -1, -1)]]
    assert box_psnr_db(clip(100), result, boxes) == pytest.approx(20 * log10(25.5), abs=1e-9)
    assert box_psnr_db(clip(100), result, [[], [], []]) is None
    with pytest.raises(ValueError, match="boxes for 1 frames of a clip of 3"):
        box_psnr_db(clip(100), result, [[]])


def test_pixels_in_two_boxes_count_once() -> None:
    result = clip(100)
    result[:, 0:4, 0:4] = 110
    boxes = [[(0, 0, 4, 4), (0, 0, 4, 8)]] * 3
    assert box_psnr_db(clip(100), result, boxes) == pytest.approx(20 * log10(25.5) + 10 * log10(2), abs=1e-9)


def test_ssim_of_constant_clips_is_its_luminance_term() -> None:
    c1 = (0.01 * 255) ** 2
    assert ssim(clip(60), clip(120)) == pytest.approx((2 * 60 * 120 + c1) / (60**2 + 120**2 + c1), abs=1e-9)


def test_ssim_agrees_with_the_definition_written_as_loops() -> None:
    a, b = noise(3)[:1], noise(4)[:1]
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    scores = []
    for channel in range(3):
        for top in range(6):
            for left in range(10):
                x = a[0, top : top + 11, left : left + 11, channel].astype(float)
                y = b[0, top : top + 11, left : left + 11, channel].astype(float)
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                scores.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(a, b) == pytest.approx(np.mean(scores), abs=1e-9)


def test_measures_are_symmetric_and_ssim_punishes_an_inverted_picture() -> None:
    a, b = noise(5), noise(6)
    for measure in (psnr_db, ssim, flicker):
        assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-9)
    assert ssim(a, 255 - a) < -0.5


def test_flicker_ignores_what_stands_still_and_counts_what_comes_and_goes() -> None:
    source = noise(7, frames=5) // 2
    assert flicker(source, source + np.uint8(9)) == 0
    blinking = source.copy()
    blinking[1::2] += np.uint8(9)
    assert flicker(source, blinking) == pytest.approx(9, abs=1e-12)


def test_float_videos_and_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        psnr_db(clip(0), clip(0).astype(np.float32) / 255)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="one shape"):
        psnr_db(clip(0), clip(0, frames=2))
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(clip(0, height=8), clip(0, height=8))
