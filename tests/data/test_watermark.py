"""Marks in frames: what they cost, what they outlast, and how rarely a video without one seems to carry one."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from data.files.reader import read_video
from data.watermark import CHANCE, Invisible, Marked, NoWatermark, Visible, Watermark
from data.world.render import render
from data.world.sampling import draw_scene

ID = 0x9E3779B9


def clip(number: int, frames: int = 9, height: int = 64, width: int = 64) -> np.ndarray:
    return render(draw_scene(0, number, ("easy", "standard", "hard")[number % 3]), frames, height, width)


def marked(mark: Watermark, video: np.ndarray, payload: int = ID) -> np.ndarray:
    return np.stack(list(mark(video, payload)))


def through_h264(path: Path, video: np.ndarray, crf: int, scale: float = 1) -> np.ndarray:
    """As another tool would publish it: its own size, key frames and quality."""
    height, width = (round(side * scale / 2) * 2 for side in video.shape[1:3])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf), "preset": "medium", "x264-params": "threads=1:log-level=error"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in video:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(width=width, height=height, interpolation="BICUBIC")))
        container.mux(stream.encode())
    return read_video(path)


@pytest.mark.parametrize("mark", [NoWatermark(), Visible(), Invisible()], ids=["none", "visible", "invisible"])
def test_frames_are_marked_as_they_come_alike_each_time_and_the_given_ones_stay(mark: Watermark):
    video = clip(2)
    before, taken = video.copy(), []

    def noted() -> Iterator[np.ndarray]:
        for number, picture in enumerate(video):
            taken.append(number)
            yield picture

    stream = mark(noted(), ID)
    first = next(stream)
    assert taken == [0]
    whole = Marked(video, mark, ID)
    assert (len(whole), first.dtype, first.shape) == (9, np.uint8, video.shape[1:])
    np.testing.assert_array_equal(np.stack([first, *stream]), np.stack(list(whole)))
    np.testing.assert_array_equal(np.stack(list(whole)), np.stack(list(whole)))
    np.testing.assert_array_equal(video, before)
    assert np.array_equal(np.stack(list(whole)), video) == isinstance(mark, NoWatermark)


@pytest.mark.parametrize("psnr", [40, 42, 46])
@pytest.mark.parametrize("size", [(64, 64), (96, 176)])
def test_an_invisible_mark_costs_as_much_as_it_says(psnr: float, size: tuple[int, int]):
    error = [np.mean((marked(Invisible(psnr), clip(number, 3, *size)).astype(float) - clip(number, 3, *size)) ** 2) for number in range(12)]
    # The law of the lattice is step^2 / 12 in the mean; colours at 0 or 255 cannot move, and rounding to whole levels adds up to 1/12.
    assert abs(10 * np.log10(255**2 / np.mean(error)) - psnr) < 0.4


@pytest.mark.parametrize(("crf", "scale"), [(12, 1), (23, 1), (12, 0.5), (23, 2)])
def test_the_payload_outlasts_h264_and_other_sizes_at_64_px(tmp_path: Path, crf: int, scale: float):
    mark = Invisible()
    for number in range(4):
        payload = ID * (number + 1) % 2**32
        found = mark.detect(through_h264(tmp_path / "a.mp4", marked(mark, clip(number, 17), payload), crf, scale))
        assert found.found
        assert found.payload == payload
        assert found.confidence > 0.9


def test_at_a_coarse_quality_a_larger_frame_carries_what_64_px_cannot(tmp_path: Path):
    mark = Invisible()
    small, large = (
        [mark.detect(through_h264(tmp_path / "a.mp4", marked(mark, clip(number, 9, side, side)), 32)) for number in range(6)] for side in (64, 192)
    )
    assert all(found.found and found.payload == ID for found in large)
    assert sum(found.found for found in small) < 6


def test_another_shape_of_the_same_picture_carries_the_same_mark():
    mark = Invisible()
    video = clip(1, 5, 96, 160)
    stretched = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(width=130, height=210).to_ndarray() for frame in marked(mark, video)]
    assert mark.detect(stretched).payload == ID
    cut = marked(mark, video)[:, 8:, 8:]
    assert not mark.detect(cut).found  # said in the docstring: cosines are counted over the whole frame


@pytest.mark.parametrize("bits", [1, 8, 32])
def test_the_lowest_bits_are_kept_and_other_keys_or_strengths_see_nothing(bits: int):
    video = marked(Invisible(42, bits, 3), clip(0))
    found = Invisible(42, bits, 3).detect(video)
    assert found.found
    assert found.payload == ID % 2**bits
    assert not Invisible(42, bits, 4).detect(video).found
    assert not Invisible(48, bits, 3).detect(video).found


def test_no_clip_of_a_thousand_without_a_mark_seems_to_carry_one():
    mark = Invisible()
    shown = [clip(number, 1, 32, 48) for number in range(250)]
    chances = [mark.detect(video).chance for each in shown for video in (each, each[:, ::-1], each[:, :, ::-1], 255 - each)]
    assert min(chances) > CHANCE
    assert min(mark.detect([np.full((32, 32, 3), level, np.uint8)]).chance for level in range(256)) > CHANCE  # black, white, grey


def test_chance_is_an_upper_bound_on_false_alarms_whatever_is_shown():
    """With one bit the bound is nearly tight; each trial has a key of its own, so even one flat frame is a fair draw."""
    shown = [np.full((1, 32, 32, 3), 0, np.uint8), clip(1, 3, 32, 32), np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)]
    for video in shown:
        chances = np.array([Invisible(bits=1, key=key).detect(video).chance for key in range(1500)])
        for bound in (0.5, 0.1, 0.02):
            share = (chances < bound).mean()
            assert share <= bound
            assert share > bound / 20  # a bound that is never met would prove nothing


def test_confidence_is_how_often_all_bits_are_right():
    rng, mark, found = np.random.default_rng(0), Invisible(46), []
    shown = [clip(number, 1) for number in range(12)]
    for number in range(240):
        video = marked(mark, shown[number % 12], payload := int(rng.integers(2**32)))
        noise = rng.normal(0, 1, (1, 8, 8, 1)).repeat(8, axis=1).repeat(8, axis=2) * rng.uniform(0.5, 1.5)
        read = mark.detect(np.clip(np.rint(video + noise), 0, 255).astype(np.uint8))
        found.append((read.confidence, read.payload == payload))
    said, right = np.array(found).T
    assert 0.2 < right.mean() < 0.8  # both happen
    assert abs(said.mean() - right.mean()) < 0.15  # the normal law is a little hopeful: 0.08 in 400 draws; two standard errors are 0.06
    assert right[said > 0.99].mean() > 0.95
    assert right[said < 0.5].mean() < 0.4


def test_too_small_frames_and_none_are_refused():
    with pytest.raises(ValueError, match="at least 32 px a side, got 24"):
        next(iter(Invisible()(np.zeros((1, 24, 48, 3), np.uint8))))
    with pytest.raises(ValueError, match="without frames"):
        Invisible().detect([])
    with pytest.raises(ValueError, match=r"'made somewhere' needs \d+x\d+ px at its smallest, the frames have 32x32"):
        next(iter(Visible("made somewhere")(np.zeros((1, 32, 32, 3), np.uint8))))


@pytest.mark.parametrize("wrong", [{"psnr": 39.9}, {"bits": 0}, {"bits": 33}, {"key": -1}])
def test_settings_of_an_invisible_mark_are_checked(wrong: dict):
    with pytest.raises(ValueError, match="Set watermark"):
        Invisible(**wrong)


@pytest.mark.parametrize("wrong", [{"text": " "}, {"text": "a\nb"}, {"size": 0}, {"size": 1.1}, {"opacity": 0}])
def test_settings_of_a_visible_mark_are_checked(wrong: dict):
    with pytest.raises(ValueError, match="Set watermark"):
        Visible(**wrong)


@pytest.mark.parametrize("size", [(64, 64), (64, 112), (256, 256), (1080, 1920)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_letters_stand_out_from_any_ground_in_their_corner_after_the_codec(tmp_path: Path, size: tuple[int, int], level: int):
    ground = np.full((2, *size, 3), level, np.uint8)
    luma = through_h264(tmp_path / "a.mp4", marked(Visible("AI"), ground), 23)[0].mean(axis=-1)
    rows, columns = np.nonzero(np.abs(luma - level) > 24)
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert rows.min() > size[0] // 2
    assert columns.min() > size[1] // 2
    assert max(7, 0.03 * min(size)) <= high <= 0.25 * min(size)
    assert wide <= 0.35 * size[1]
    inside = luma[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.percentile(inside, 99) - np.percentile(inside, 1) > 90  # light letters and dark rim, whatever lies behind


@pytest.mark.parametrize("side", [64, 256])
def test_letters_can_be_told_apart_after_the_codec(tmp_path: Path, side: int):
    """The picture of a text is nearer to its own letters than to any other's."""
    texts = ["AI", "AL", "IA", "OK", "NO"]
    clean = [marked(Visible(text), np.full((2, side, side, 3), 90, np.uint8))[0].astype(float) for text in texts]
    for number, text in enumerate(texts):
        video = np.random.default_rng(number).integers(80, 100, (2, side, side, 3), np.uint8)
        seen = through_h264(tmp_path / "a.mp4", marked(Visible(text), video), 28)[0].astype(float)
        assert int(np.argmin([np.mean((seen - other) ** 2) for other in clean])) == number


@pytest.mark.parametrize("corner", ["top_left", "top_right", "bottom_left", "bottom_right"])
def test_each_corner_has_its_place(corner: str):
    video = np.full((1, 64, 96, 3), 60, np.uint8)
    rows, columns = np.nonzero((marked(Visible("AI", corner), video)[0] != 60).any(axis=-1))  # pyright: ignore[reportArgumentType]
    assert (rows.max() < 32) == corner.startswith("top")
    assert (columns.max() < 48) == corner.endswith("left")
