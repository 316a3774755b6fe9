import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.buckets import Bucket, TooShort, Windows, longest


def test_equal_rate_and_length_takes_every_frame():
    assert Windows(np.arange(17) / 8, 17, 8).count == 1
    assert Windows(np.arange(17) / 8, 17, 8).pick(0.99).tolist() == list(range(17))


def test_a_longer_file_has_one_window_for_each_start():
    windows = Windows(np.arange(20) / 8, 17, 8)
    assert windows.count == 4
    starts = [windows.pick(place)[0] for place in (0.0, 0.25, 0.5, 0.999)]
    assert starts == [0, 1, 2, 3]
    assert all(len(windows.pick(place)) == 17 for place in (0.0, 0.999))


@pytest.mark.parametrize("rounding", [1e-9, 1e-3])
@pytest.mark.parametrize("fps", [24, 25, 30, 60])
def test_rounded_time_stamps_thin_evenly(fps, rounding):
    times = np.round(np.arange(3 * fps) / fps / rounding) * rounding + 0.7  # a time line need not start at 0
    picked = Windows(times, 9, fps / 5).pick(0.0)
    assert picked.tolist() == list(range(0, 45, 5))


def test_variable_rate_is_followed_by_time():
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.9, 1.5])
    assert Windows(times, 4, 2.0).pick(0.0).tolist() == [0, 3, 4, 5]


def test_a_slower_file_repeats_frames():
    assert Windows(np.arange(4) / 4, 7, 8).pick(0.0).tolist() == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(("have", "fps", "counted"), [(16, 8, "16 frames at 8 fps (16"), (60, 30, "16 frames at 8 fps (60"), (1, 8, "1 frames")])
def test_a_short_file_is_refused_with_both_counts(have, fps, counted):
    windows = Windows(np.arange(have) / fps, 17, 8)
    with pytest.raises(TooShort) as error:
        windows.pick(0.0)
    assert counted in str(error.value)
    assert "17 are wanted" in str(error.value)
    assert windows.count == 0


@given(st.lists(st.floats(0.005, 1), min_size=1, max_size=40), st.integers(1, 9), st.sampled_from([2.0, 8.0, 30.0]), st.floats(0, 0.999))
def test_every_picked_frame_is_the_one_on_screen(gaps, frames, fps, place):
    times = np.cumsum([0.0, *gaps])
    windows = Windows(times, frames, fps)
    if windows.count == 0:
        return
    picked = windows.pick(place)
    assert len(picked) == frames
    wanted = times[picked[0]] + np.arange(frames) / fps
    assert (times[picked] <= wanted + 0.0021).all()
    later = times[np.minimum(picked + 1, len(times) - 1)]
    assert ((later > wanted) | (picked == len(times) - 1)).all()


@given(st.lists(st.floats(0.005, 1), min_size=0, max_size=40), st.sampled_from([2.0, 8.0, 30.0]), st.floats(0, 9))
def test_the_longest_clip_is_the_last_that_has_a_start(gaps, fps, begin):
    times = np.cumsum([begin, *gaps])
    most = longest(times, fps)
    assert Windows(times, most, fps).count >= (1 if most > 1 else 0)
    assert Windows(times, most + 1, fps).count == 0


@pytest.mark.parametrize(("frames", "fps"), [(1, 8), (16, 8), (17, 8), (300, 29.97)])
def test_a_clip_of_its_own_rate_is_as_long_as_its_file(frames, fps):
    assert longest(np.arange(frames) / fps, fps) == frames


def test_tokens_count_the_first_frame_by_itself_and_cells_that_stick_out():
    assert [Bucket(frames, 64, 64).tokens((4, 16, 16)) for frames in (1, 2, 5, 6, 17)] == [16, 32, 32, 48, 80]
    assert Bucket(1, 17, 33).tokens((4, 16, 16)) == 2 * 3


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 0, 8), (1, 8, -1)])
def test_a_bucket_has_a_size(shape):
    with pytest.raises(ValueError, match=r"Set data\."):
        Bucket(*shape)
