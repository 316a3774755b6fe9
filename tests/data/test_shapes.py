import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.buckets import Bucket, TooShort
from data.shapes import Fixed, Native, kept_share

GRID = (4, 16, 16)


@pytest.mark.parametrize(("have", "kept"), [(100, 17), (17, 17), (16, 13), (13, 13), (6, 5), (5, 5), (4, 1), (1, 1)])
def test_a_short_clip_keeps_the_longest_length_that_it_fills(have, kept):
    assert Fixed(17, 64, 48, GRID).bucket(have, 1000, 10) == Bucket(kept, 64, 48)
    assert Native(17, 4096, GRID).bucket(have, 500, 500) == Bucket(kept, 64, 64)


@pytest.mark.parametrize("shapes", [Fixed(17, 64, 48, GRID, min_frames=9), Native(17, 4096, GRID, min_frames=9)])
def test_a_clip_below_the_least_length_is_refused_with_both_counts(shapes):
    assert shapes.bucket(9, 100, 100).frames == 9
    with pytest.raises(TooShort, match=r"5 frames, at least 9 .*min_frames"):
        shapes.bucket(8, 100, 100)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([256, 4096, 65536]))
def test_a_native_size_is_on_the_grid_within_the_pixels_and_no_larger_than_the_file(height, width, pixels):
    bucket = Native(17, pixels, GRID).bucket(17, height, width)
    assert bucket.height % 16 == bucket.width % 16 == 0
    assert bucket.height * bucket.width <= pixels
    assert bucket.height <= max(height, 16)
    assert bucket.width <= max(width, 16)


@given(st.integers(64, 3000), st.floats(0.4, 2.5))
def test_a_native_size_keeps_most_of_the_picture(height, ratio):
    width = round(height * ratio)
    bucket = Native(17, 65536, GRID).bucket(17, height, width)
    assert kept_share(height, width, bucket.height, bucket.width) > 0.8
    assert bucket.height * bucket.width > 0.5 * min(65536, (height - 15) * (width - 15))


@pytest.mark.parametrize(
    ("source", "size"), [((720, 1280), (720, 1280)), ((1080, 1920), (720, 1280)), ((1920, 1080), (1280, 720)), ((720, 960), (720, 960))]
)
def test_usual_videos_keep_their_aspect_ratio(source, size):
    bucket = Native(129, 720 * 1280, GRID).bucket(200, *source)
    assert (bucket.height, bucket.width) == size


def test_the_largest_shape_is_square():
    assert Native(17, 4096, GRID).largest == Bucket(17, 64, 64)
    assert Fixed(17, 48, 80, GRID).largest == Bucket(17, 48, 80)


def test_shapes_pass_to_worker_processes():
    copy = pickle.loads(pickle.dumps(Native(17, 4096, GRID)))
    assert copy.bucket(17, 300, 100) == Native(17, 4096, GRID).bucket(17, 300, 100)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Native(17, 255, GRID), "pixels"),
        (lambda: Native(17, 4096, (4, 0, 16)), "grid"),
        (lambda: Fixed(17, 64, 64, (16, 16)), "grid"),
        (lambda: Fixed(17, 64, 64, GRID, min_frames=18), "min_frames"),
        (lambda: Fixed(0, 64, 64, GRID), "frames"),
    ],
)
def test_wrong_settings_name_their_key(make, key):
    with pytest.raises(ValueError, match=rf"Set data\..*{key}"):
        make()
