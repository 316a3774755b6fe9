"""A picture is what a viewer shows of it: levels, transparency and orientation as its file says."""

import numpy as np
import pytest
from PIL import Image

from data.files.decord_reader import DecordReader
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.pictures import picture_names, read_picture
from data.files.probe import probe
from data.files.reader import AutoReader, PyAVReader, read_video
from data.transforms import fit

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


def test_a_video_gives_its_first_frame_upright(tmp_path, write_video, numbered_video):
    path = write_video(tmp_path / "a.mp4", numbered_video(4, 32, 64), rotation=90)
    assert np.array_equal(read_picture(path), read_video(path)[:1])
    assert read_picture(path).shape == (1, 64, 32, 3)


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(LEVELS).save(tmp_path / "a.png")
    media = Media.of(tmp_path / "a.png")
    found = probe(media, Limits())
    assert (found.kind, found.frames, found.width, found.height, found.duration_s) == ("picture", 1, 6, 4, 0)
    for reader in (AutoReader(), PyAVReader(), DecordReader()):
        assert np.array_equal(reader.read(media, found, [0, 0]), read_picture(media.path).repeat(2, axis=0))
    with pytest.raises(IndexError):
        AutoReader().read(media, found, [1])


def test_a_scaled_picture_is_the_picture_scaled(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    Image.fromarray(picture).save(tmp_path / "a.png")
    media = Media.of(tmp_path / "a.png")
    scaled = PyAVReader().read(media, probe(media, Limits()), [0], (24, 30))
    assert scaled.shape == (1, 24, 36, 3)
    assert np.abs(scaled.astype(int) - fit(picture[None], 24, 36)).max() <= 3


@pytest.fixture
def frames(tmp_path):
    """A folder of pictures, picture k of grey k."""
    for number in (10, 2, 1, 33):
        Image.fromarray(np.full((4, 6), number, np.uint8)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    return tmp_path


def test_a_folder_of_pictures_is_a_video_in_the_order_of_its_numbers(frames):
    media = Media.of(frames)
    found = probe(media, Limits(), 5)
    assert picture_names(media) == ["frame_1.png", "frame_2.png", "frame_10.png", "frame_33.png"]
    assert (found.kind, found.frames, found.times.tolist()) == ("pictures", 4, pytest.approx([0, 0.2, 0.4, 0.6]))
    assert AutoReader().read(media, found, [3, 0, 2, 2])[:, 0, 0, 0].tolist() == [33, 1, 10, 10]


def test_pictures_of_one_folder_have_one_size(frames):
    media = Media.of(frames)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(frames / "frame_2.png")
    found = probe(media, Limits(), 5)
    assert len(PyAVReader().read(media, found, [0, 2, 3])) == 3
    with pytest.raises(VideoError, match=r"frame_2\.png has another size: 6x5, wanted 6x4") as error:
        PyAVReader().read(media, found, [0, 1])
    assert error.value.kind == "damaged"


def test_a_folder_that_grew_since_it_was_looked_at_is_refused(frames):
    media = Media.of(frames)
    found = probe(media, Limits(), 5)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(frames / "frame_0.png")
    with pytest.raises(VideoError, match="4 pictures then, 5 now"):
        PyAVReader().read(media, found, [0])


def test_a_picture_in_a_tar_file_is_read_in_place_and_no_further(tmp_path):
    Image.fromarray(LEVELS).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.tar").write_bytes(bytes(512) + data + data)
    media = Media(str(tmp_path / "a.tar"), "a.png", 512, len(data))
    found = probe(media, Limits())
    assert np.array_equal(PyAVReader().read(media, found, [0]), read_picture(tmp_path / "a.png"))
    short = Media(media.path, "a.png", 512, len(data) - 30)
    with pytest.raises(VideoError) as error:
        PyAVReader().read(short, probe(short, Limits()), [0])
    assert error.value.kind == "damaged"


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_picture_that_moves_is_a_video(tmp_path, kind):
    pictures = [Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)) for number in range(4)]
    path = tmp_path / f"a.{kind.lower()}"
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], duration=100)
    media = Media.of(path)
    found = probe(media, Limits())
    assert (found.kind, found.frames, found.fps) == ("video", 4, pytest.approx(10))
    assert PyAVReader().read(media, found, [2, 0])[:, 0, 0, 0].tolist() == [80, 0]


def test_no_other_program_is_started_for_a_picture(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, which has had holes."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started a program"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(VideoError) as error:
        read_picture(tmp_path / "a.png")
    assert error.value.kind == "unreadable"
