"""Files that hold what was given, are read alike by both readers, and are never half there."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.world.render import render
from data.world.sampling import draw_scene
from data.world.vocabulary import COLOURS, PLAIN_BACKGROUNDS
from data.writer import KEYFRAME_INTERVAL, contact_sheet, write_gif, write_mp4, write_png_strip, write_whole


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_round_trip_keeps_the_picture(tmp_path: Path):
    losses = []
    for number in range(12):
        video = render(draw_scene(0, number), 17, 64, 64)
        found = frames_of(write_mp4(tmp_path / "a.mp4", video, 8))
        assert found.shape == video.shape
        losses.append(np.mean((found.astype(float) - video) ** 2))
    assert 10 * np.log10(255**2 / np.mean(losses)) > 32  # 34 dB usual; halving the chroma alone costs down to 34.4


class Made:
    """A clip whose frames are made as they are asked for, and that knows how many of them anyone still holds."""

    def __init__(self, video: np.ndarray) -> None:
        self.video, self.made, self.most_held = video, [], 0

    def __len__(self) -> int:
        return len(self.video)

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(len(self.video)):
            picture = self.video[number].copy()
            self.made.append(weakref.ref(picture))
            yield picture
            del picture
            self.most_held = max(self.most_held, sum(held() is not None for held in self.made))


def test_frames_that_are_made_as_they_are_written_give_the_same_file_and_are_not_kept(tmp_path: Path):
    video = render(draw_scene(0, 1), 17, 32, 48)
    clip = Made(video)
    assert write_mp4(tmp_path / "a.mp4", clip, 8).read_bytes() == write_mp4(tmp_path / "b.mp4", video, 8).read_bytes()
    assert clip.most_held <= 2  # the first, which told the size, and the one just written
    assert write_gif(tmp_path / "a.gif", Made(video), 8).read_bytes() == write_gif(tmp_path / "b.gif", video, 8).read_bytes()
    assert write_png_strip(tmp_path / "a.png", Made(video)).read_bytes() == write_png_strip(tmp_path / "b.png", video).read_bytes()


def test_a_clip_that_changes_its_size_midway_leaves_no_file(tmp_path: Path):
    with pytest.raises(ValueError, match=r"its frame 1 is uint8 \(16, 32, 3\)"):
        write_mp4(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)], 8)
    assert not list(tmp_path.iterdir())


def test_flat_colours_come_back(tmp_path: Path):
    for rgb in (*COLOURS.values(), *PLAIN_BACKGROUNDS.values()):
        flat = np.broadcast_to((np.asarray(rgb) * 255).astype(np.uint8), (3, 32, 32, 3)).copy()
        assert np.abs(frames_of(write_mp4(tmp_path / "a.mp4", flat, 8)).astype(int) - flat).max() <= 3


def test_both_readers_see_the_same_pixels(tmp_path: Path):
    decord = pytest.importorskip("decord")
    path = write_mp4(tmp_path / "a.mp4", render(draw_scene(0, 3, "hard"), 17, 64, 64), 8)
    np.testing.assert_array_equal(decord.VideoReader(str(path), num_threads=1)[:].asnumpy(), frames_of(path))


def test_a_player_finds_size_rate_colours_and_keyframes(tmp_path: Path):
    video = render(draw_scene(0, 1), 33, 48, 64)
    path = write_mp4(tmp_path / "a.mp4", video, 12.5, metadata={"prompt": 'a "red" circle, ${x} – é'})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 64, 48)
        assert float(stream.average_rate) == 12.5
        assert (codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 5, 6, 6)
        assert "${x}" in container.metadata["comment"]
        keys = [place for place, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert max(np.diff([*keys, 33])) <= KEYFRAME_INTERVAL
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is loaded


def test_the_same_frames_give_the_same_bytes_whatever_the_memory_held(tmp_path: Path):
    video = render(draw_scene(4, 1, aspect=1.5), 9, 32, 48)
    found = set()
    for fill in range(8):
        junk = [np.full(length, 31 * fill, np.uint8) for length in range(1000, 200_000, 7001)]
        del junk[::2]
        found.add(write_mp4(tmp_path / "a.mp4", video, 8).read_bytes())
    assert len(found) == 1


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(3, 32, 32), (0, 32, 32, 3), (3, 32, 32, 4)])
def test_other_arrays_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="uint8 of shape"):
        write_mp4(tmp_path / "a.mp4", np.zeros(shape, np.uint8), 8)


def test_odd_sizes_are_refused_with_the_nearest_even_ones(tmp_path: Path):
    with pytest.raises(ValueError, match="34x32"):
        write_mp4(tmp_path / "a.mp4", np.zeros((3, 33, 32, 3), np.uint8), 8)
    assert not list(tmp_path.iterdir())


def test_gif_strip_and_sheet_have_their_sizes(tmp_path: Path):
    video = render(draw_scene(0, 2), 9, 32, 48)
    with Image.open(write_gif(tmp_path / "a.gif", video, 8)) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"], gif.info["duration"]) == (9, (48, 32), 0, 120)
    with Image.open(write_png_strip(tmp_path / "a.png", video, count=4, enlarge=2)) as strip:
        assert strip.size == (4 * 96 + 3 * 2, 64)
        pixels = np.asarray(strip.convert("RGB"))
    np.testing.assert_array_equal(pixels[::2, :96:2], video[0])
    np.testing.assert_array_equal(pixels[1::2, -95::2], video[-1])
    sheet = contact_sheet([video] * 5, ["a caption that is much longer than the strip is wide " * 3] * 5, tmp_path / "s.png", count=3)
    with Image.open(sheet) as picture:
        assert picture.size[0] == 8 + 2 * (3 * 48 + 2 * 2 + 8)


def test_a_sheet_without_a_caption_for_each_video_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="1 videos and 0 captions"):
        contact_sheet([np.zeros((1, 8, 8, 3), np.uint8)], [], tmp_path / "s.png")
