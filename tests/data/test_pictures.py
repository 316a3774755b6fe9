"""A picture is what a viewer shows of it: levels, transparency and orientation as its file says."""

import numpy as np
import pytest
from PIL import Image

from data.pictures import read_picture
from data.reader import Limits, VideoError

LEVELS = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16", "I", "LA", "RGBA"])
def test_grey_levels_survive_every_mode(tmp_path, mode):
    if mode.startswith("I"):
        picture = Image.fromarray(LEVELS.astype(np.uint16) * 257 if mode == "I;16" else LEVELS.astype(np.int32))
    else:
        picture = Image.fromarray(LEVELS).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "I" else "a.png")
    picture.save(path)
    assert np.array_equal(read_picture(path), np.repeat(LEVELS[None, ..., None], 3, axis=3))


def test_transparent_parts_are_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 10, 20, 30, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shown = read_picture(tmp_path / "a.png")[0]
    assert shown[0, 0].tolist() == [10, 20, 30]
    assert (shown[1] == 255).all()


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn right by 90 degrees
    Image.fromarray(np.repeat(LEVELS[..., None], 3, axis=2)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png")[0, ..., 0], np.rot90(LEVELS, -1))


@pytest.mark.parametrize("cut", [1, 60, 200])
def test_a_cut_picture_is_refused(tmp_path, cut):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(VideoError):
        read_picture(tmp_path / "cut.png")


def test_missing_empty_folder_and_oversize_are_told_apart(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(LEVELS).save(tmp_path / "big.png")
    cases = {tmp_path / "none.png": "missing", tmp_path / "empty.png": "empty", tmp_path: "not_a_file"}
    for path, kind in cases.items():
        with pytest.raises(VideoError) as error:
            read_picture(path)
        assert error.value.kind == kind
    with pytest.raises(VideoError) as error:
        read_picture(tmp_path / "big.png", Limits(frame_px=20))
    assert error.value.kind == "too_large"
