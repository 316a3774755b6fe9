import numpy as np
import pytest
import torch

from data.transforms import DetailCrop, Stills, fit, fit_box, to_float, to_uint8


def test_a_clip_of_the_right_size_is_untouched():
    video = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3)).astype(np.uint8)
    assert fit(video, 8, 10) is video


@pytest.mark.parametrize(("h", "w"), [(32, 64), (64, 32), (31, 47), (8, 9)])
def test_fit_keeps_the_middle_and_the_aspect(h, w):
    y, x = np.mgrid[:h, :w]
    ramp = np.stack([(x + 0.5) / w * 255, (y + 0.5) / h * 255, 0 * x], -1).round().astype(np.uint8)
    out = fit(ramp[None], 16, 16)[0].astype(float)
    scale = max(16 / h, 16 / w)
    assert out.shape == (16, 16, 3)
    assert out[:, :, 0].mean() == pytest.approx(127.5, abs=4)  # centred
    assert out[:, :, 1].mean() == pytest.approx(127.5, abs=4)
    # inside, away from the borders that the filter repeats, the slopes are those of one scale in both directions
    assert np.diff(out[8, 4:12, 0]).mean() == pytest.approx(255 / w / scale, rel=0.1)
    assert np.diff(out[4:12, 8, 1]).mean() == pytest.approx(255 / h / scale, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (96, 64), (40, 160), (24, 32)])
def test_a_box_goes_where_its_picture_goes(height, width):
    picture = np.zeros((1, 48, 64, 3), np.uint8)
    picture[:, 18:30, 26:36] = 255
    inside = fit(picture, height, width)[0, :, :, 0] > 127
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert fit_box((26, 18, 36, 30), (48, 64), height, width) == pytest.approx(found, abs=0.51)  # a pixel is lit from one half on
    assert fit_box((0, 0, 64, 48), (48, 64), 48, 48) == (-8, 0, 56, 48)


def test_all_levels_survive_the_way_to_float_and_back():
    video = torch.arange(256, dtype=torch.uint8).reshape(1, 4, 8, 8, 1).expand(2, 4, 8, 8, 3)
    floats = to_float(video)
    assert floats.shape == (2, 3, 4, 8, 8)
    assert (floats.min().item(), floats.max().item()) == (-1.0, 1.0)
    assert floats.is_contiguous()
    assert torch.equal(to_uint8(floats), video)
    assert to_uint8(torch.tensor([-3.0, 3.0]).reshape(1, 1, 2, 1, 1)).flatten().tolist() == [0, 255]


def clip_with_detail():
    video = np.full((2, 32, 32, 3), 90, np.uint8)
    video[:, :8, :8] = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    return video


def test_crops_depend_on_seed_and_sample_alone():
    video, crop = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8), DetailCrop(16, 3, 0.7)
    first = [crop(video, 5, sample) for sample in range(8)]
    again = [crop(video, 5, sample) for sample in reversed(range(8))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (2, 16, 16, 3)
    assert len({part.tobytes() for part in first}) > 4
    assert any(not np.array_equal(a, crop(video, 6, sample)) for sample, a in enumerate(first))


def test_more_candidates_find_more_detail():
    video = clip_with_detail()
    spread = {count: np.mean([DetailCrop(12, count, 1.0)(video, 0, sample).var() for sample in range(60)]) for count in (1, 3, 9)}
    assert spread[3] > 1.3 * spread[1]
    assert spread[9] > 1.3 * spread[3]


def test_share_zero_takes_the_first_place():
    video = clip_with_detail()
    for sample in range(20):
        assert np.array_equal(DetailCrop(12, 3, 0.0)(video, 0, sample), DetailCrop(12, 1, 1.0)(video, 0, sample))
    plain = np.mean([DetailCrop(12, 3, 0.0)(video, 0, sample).var() for sample in range(60)])
    picky = np.mean([DetailCrop(12, 3, 1.0)(video, 0, sample).var() for sample in range(60)])
    assert plain < picky


def test_every_place_can_be_cropped():
    video = (
        np.arange(6, dtype=np.uint8)[None, :, None, None] * 10 + np.arange(6, dtype=np.uint8)[None, None, :, None] + np.zeros((1, 1, 1, 3), np.uint8)
    )
    corners = {DetailCrop(5, 1, 0.0)(video, 0, sample)[0, 0, 0, 0] for sample in range(60)}
    assert corners == {0, 1, 10, 11}


def test_wrong_crops_name_the_key():
    with pytest.raises(ValueError, match=r"Set data\.crop"):
        DetailCrop(0)
    with pytest.raises(ValueError, match=r"Set data\.crop"):
        DetailCrop(8, 0)


def numbered(frames: int = 9) -> np.ndarray:
    """A clip whose pixels tell their frame and their place."""
    rows, columns = np.mgrid[:8, :8]
    return np.stack([np.stack([np.full((8, 8), frame), rows, columns], -1) for frame in range(frames)]).astype(np.uint8)


def test_a_share_of_the_samples_are_single_frames_from_anywhere_in_their_clip():
    stills = [shown[0, 0, 0, 0] for sample in range(1500) if len(shown := Stills(0.2, None)(numbered(), 0, sample)) == 1]
    assert len(stills) / 1500 == pytest.approx(0.2, abs=0.03)
    counts = np.bincount(stills, minlength=9)
    assert counts.min() > 0.6 * len(stills) / 9
    assert all(len(Stills(share, None)(numbered(), 0, sample)) == length for share, length in ((0.0, 9), (1.0, 1)) for sample in range(20))


def test_which_frame_is_shown_depends_on_the_seed_and_the_sample_alone():
    stills, again = Stills(0.5, None), Stills(0.5, None)
    shown = {sample: stills(numbered(), 0, sample) for sample in range(40)}
    assert all(np.array_equal(shown[sample], again(numbered(), 0, sample)) for sample in reversed(range(40)))
    assert any(not np.array_equal(shown[sample], again(numbered(), 1, sample)) for sample in range(40))


def test_a_still_is_cropped_where_its_clip_would_have_been():
    crop = DetailCrop(4, candidates=1)
    for sample in range(20):
        clip, still = crop(numbered(), 0, sample), Stills(1.0, crop)(numbered(), 0, sample)
        assert still.shape == (1, 4, 4, 3)
        assert any(np.array_equal(still[0], frame) for frame in clip)


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"Set data\.crop\.share"):
        Stills(1.2, None)
