"""Closed forms of the picture measures."""

from math import inf, log10

import numpy as np
import pytest

from evaluation.reconstruction import HIGHEST_DB, HIGHEST_RATIO, box_psnr_db, compare, edge_ratio, flicker, psnr_db, ssim


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


def test_edge_ratio_is_one_without_seams_whatever_the_source_shows() -> None:
    source = noise(8, height=32, width=24)
    assert edge_ratio(source, source, 8) == 1
    # Half the contrast everywhere is no seam.
    assert edge_ratio(source, source // 2, 8) == pytest.approx(1, abs=0.01)
    # What the source shows lies on the grid: eight times the contrast across it. A faithful result has no seam.
    blocky = source // 8 + (16 * (np.add.outer(np.arange(32) // 8, np.arange(24) // 8) % 2 * 8))[:, :, None].astype(np.uint8)
    assert edge_ratio(blocky, blocky, 8) == 1


def test_edge_ratio_has_its_closed_form_on_stairs() -> None:
    """A ramp of 2 levels a pixel in width, and one that takes 6 at every 4th pixel instead."""
    steps = np.full(19, 2)
    source = np.broadcast_to(np.r_[0, steps.cumsum()].astype(np.uint8)[None, None, :, None], (2, 16, 20, 3))
    steps[3::4] = 6
    result = np.broadcast_to(np.r_[0, steps.cumsum()].astype(np.uint8)[None, None, :, None], (2, 16, 20, 3))
    assert edge_ratio(source, result, 4) == pytest.approx(3, abs=1e-12)
    assert edge_ratio(result, source, 4) == pytest.approx(1 / 3, abs=1e-12)
    turned = [video.swapaxes(1, 2) for video in (source, result)]
    assert edge_ratio(*turned, 4) == pytest.approx(3, abs=1e-12)


def test_edge_ratio_of_nothing_to_compare_is_none_and_of_pure_blocks_the_cap_in_a_mean() -> None:
    source = noise(9, height=16, width=16)
    assert edge_ratio(clip(9), clip(9), 8) is None
    assert edge_ratio(source, source, 16) is None  # no edge inside the frame
    assert edge_ratio(source, source, 1) is None  # no two pixels of one block
    blocks = source[:, ::8, ::8].repeat(8, 1).repeat(8, 2)
    assert edge_ratio(source, blocks, 8) == inf
    assert compare([source], [blocks], [None], blocks={"stride": 8}).edge_ratio == {"stride": HIGHEST_RATIO}
    with pytest.raises(ValueError, match="block=0"):
        edge_ratio(source, source, 0)


def test_edge_ratio_of_many_clips_weighs_them_by_what_they_show() -> None:
    """A clip that is flat but for a level or two of dither would rule a mean of ratios."""
    textured, flat = noise(10, height=16, width=16), noise(11, height=16, width=16) // 128
    seams = flat.copy()
    seams[:, :, 8:] += 9
    assert (edge_ratio(flat, seams, 8) or 0) > 3
    both = compare([textured, flat], [textured, seams], [None, None], blocks={"stride": 8}).edge_ratio["stride"]
    assert both == pytest.approx(1, abs=0.05)


def test_float_videos_and_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        psnr_db(clip(0), clip(0).astype(np.float32) / 255)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="one shape"):
        psnr_db(clip(0), clip(0, frames=2))
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(clip(0, height=8), clip(0, height=8))
