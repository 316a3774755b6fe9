import gc
import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from data.files import reader as module
from data.files.decord_reader import DecordReader
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.pixels import covering
from data.files.probe import Series, probe
from data.files.reader import AutoReader, PyAVReader, read_video
from data.files.torchcodec_reader import TorchcodecReader
from data.transforms import fit

LIMITS = Limits()
ROOT = Path(__file__).parents[3]


def torchcodec():
    try:
        return TorchcodecReader()
    except RuntimeError as error:
        pytest.skip(str(error))  # an extra, whose wheels need FFmpeg's libraries: it is not among the packages for development


READERS = [PyAVReader, DecordReader, AutoReader, torchcodec]


def look(path):
    """(media, probe), told sound, so that AutoReader takes decord where it may."""
    media = Media.of(path)
    return media, replace(probe(media, LIMITS), sound=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_video, numbered_video):
    folder = tmp_path_factory.mktemp("files")
    return {
        "clip": write_video(folder / "clip.mp4", numbered_video(17)),
        "long": write_video(folder / "long.mp4", numbered_video(25, 48, 64), fps=30, gop=6),
        "odd": write_video(folder / "odd.mp4", numbered_video(9, 34, 70), fps=25, b_frames=0),
        "mkv": write_video(folder / "video.mkv", numbered_video(12), fps=30),
        "turned": write_video(folder / "turned.mp4", numbered_video(6, 32, 64), rotation=90),
        "single": write_video(folder / "single.mp4", numbered_video(1)),
    }


@pytest.fixture(scope="module")
def textured(tmp_path_factory, maker):
    """A clean clip of 120 frames, and the same with wrong bytes and with zeros."""
    folder = tmp_path_factory.mktemp("textured")
    clean = maker.write_textured(folder / "clean.mp4", 120, 64, 96)
    return {"clean": clean, "wrong bytes": maker.with_wrong_bytes(clean, 120), "zeros": maker.with_zeros(clean)}


@pytest.mark.parametrize("make", [DecordReader, torchcodec])
@pytest.mark.parametrize("name", ["clip", "long", "odd", "mkv", "single"])
def test_back_ends_agree_frame_for_frame(files, name, make):
    media, found = look(files[name])
    assert found.odd == ""
    assert np.array_equal(make().read(media, found, range(found.frames)), PyAVReader().read(media, found, range(found.frames)))


@pytest.mark.parametrize("make", [DecordReader, torchcodec])
@pytest.mark.parametrize("cover", [(40, 40), (80, 50)])
def test_back_ends_agree_closely_on_scaled_frames(tmp_path, write_video, make, cover):
    """Brightness to rounding. Not bitwise, and colour less closely at sharp edges: H.264's colour samples lie at the left of their pixels;
    FFmpeg 8 heeds that where it scales, decord's FFmpeg of 2018 does not, and torchcodec's frames are RGB before they are scaled."""
    coarse = np.random.default_rng(0).integers(30, 220, (4, 8, 12, 1)).repeat(8, axis=1).repeat(8, axis=2)
    media, found = look(write_video(tmp_path / "grey.mp4", np.repeat(coarse, 3, axis=3).astype(np.uint8)))
    ours, theirs = (reader.read(media, found, range(4), cover).astype(int) for reader in (PyAVReader(), make()))
    assert np.abs(ours - theirs).max() <= 3
    assert np.abs(ours[0] - ours[1]).mean() > 20


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("wanted", [[0], [24], [13], [3, 4, 5], [20, 2, 11], [7, 7, 6, 6], list(range(0, 25, 3)), list(range(25))])
def test_the_frames_asked_for_are_the_ones_delivered(files, numbered_video, make, wanted):
    video = make().read(*look(files["long"]), wanted)
    assert video.shape == (len(wanted), 48, 64, 3)
    assert video.dtype == np.uint8
    assert np.array_equal(video, read_video(files["long"])[wanted])
    levels = video[:, 20:, :, 1].mean((1, 2))
    assert np.abs(levels - numbered_video(25)[wanted, 20, 20, 1]).max() < 3  # neighbours are 9 levels apart


@pytest.mark.parametrize("width", [16, 24, 48, 50, 72])
def test_every_even_width_is_read(tmp_path, write_video, numbered_video, width):
    """decord 0.6 gives an error for rows of 16, 24, 48 and 72 pixels, whose stride FFmpeg rounds up."""
    media, found = look(write_video(tmp_path / "narrow.mp4", numbered_video(3, 32, width)))
    assert np.array_equal(AutoReader().read(media, found, range(3)), read_video(media.path))


def test_reading_from_any_key_frame_equals_reading_from_the_beginning(textured):
    media, found = look(textured["clean"])
    whole = PyAVReader().read(media, found, range(found.frames))
    for start in range(0, 120, 7):
        wanted = np.arange(start, min(120, start + 5))
        assert np.array_equal(PyAVReader().read(media, found, wanted), whole[wanted])


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_stand_as_the_file_says(tmp_path, rotation, mirrored):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[16:, :24], picture[16:, 24:] = 220, 120, 60
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.set_display_rotation(rotation, hflip=mirrored)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    expected = np.rot90(picture, rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected  # as the ffmpeg program shows it
    media, found = look(tmp_path / "turned.mp4")
    assert (found.height, found.width) == expected.shape[:2]
    assert np.abs(PyAVReader().read(media, found, [0])[0].astype(int) - expected).mean() < 3
    small = PyAVReader().read(media, found, [0], (8, 8))
    assert small.shape[1:3] == covering(*expected.shape[:2], (8, 8))
    assert np.abs(small[0].astype(int) - fit(expected[None], *small.shape[1:3])[0]).mean() < 6  # edges


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize(("cover", "size"), [((24, 24), (24, 32)), ((24, 64), (48, 64)), ((96, 10), (96, 128)), ((31, 33), (31, 41))])
def test_frames_are_scaled_to_the_smallest_size_that_covers(files, make, cover, size):
    assert make().read(*look(files["long"]), [2, 7], cover).shape == (2, *size, 3)


@pytest.mark.parametrize("cover", [(12, 16), (96, 128)])
def test_a_scaled_frame_is_the_frame_scaled(tmp_path, write_video, cover):
    """Against torch's antialiased bilinear scaling, on a gradient, where colour at half resolution does not matter."""
    ramp = np.linspace(20, 230, 64)[None, None, :, None] * np.linspace(0.3, 1, 48)[None, :, None, None]
    media, found = look(write_video(tmp_path / "ramp.mp4", np.repeat(ramp, 3, axis=3).astype(np.uint8)))
    scaled, whole = PyAVReader().read(media, found, [0], cover), PyAVReader().read(media, found, [0])
    assert np.abs(scaled.astype(int) - fit(whole, *cover)).max() <= 3


@pytest.mark.parametrize(("matrix", "full"), [("itu709", False), ("itu709", True), ("itu601", False), ("itu601", True)])
def test_colours_are_read_as_the_file_tags_them(tmp_path, matrix, full):
    from av.video.reformatter import ColorRange, Colorspace

    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = (200, 40, 60), (30, 90, 180)
    with av.open(str(tmp_path / "colour.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        codec = stream.codec_context
        codec.color_range, codec.colorspace = (ColorRange.JPEG if full else ColorRange.MPEG), (1 if matrix == "itu709" else 6)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace[matrix], dst_color_range=codec.color_range)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    media, found = look(tmp_path / "colour.mp4")
    video = PyAVReader().read(media, found, [0])
    assert np.abs(video[0, 16, [8, 56]] - picture[0, [8, 56]].astype(int)).max() < 6
    assert np.array_equal(DecordReader().read(media, found, [0]), video)


@pytest.mark.parametrize("name", ["wrong bytes", "zeros"])
def test_no_damaged_frame_is_delivered(textured, name):
    truth = read_video(textured["clean"])
    media, found = look(textured[name])
    found = replace(found, sound=None)
    accepted, kinds = 0, set()
    for start in range(0, 120 - 9, 3):
        try:
            video = AutoReader().read(media, found, range(start, start + 9))
        except VideoError as error:
            kinds.add(error.kind)
        else:
            accepted += 1
            assert np.array_equal(video, truth[start : start + 9])
    assert kinds == {"damaged"}
    assert accepted == 0 if name == "wrong bytes" else accepted > 15  # the whole parts of a damaged file are not thrown away


@pytest.mark.slow
def test_damage_costs_the_published_share_of_windows(tmp_path, maker):
    """300 frames of 256x256 and 200 windows of 33 frames, as in the issue."""
    clean = maker.write_textured(tmp_path / "clean.mp4", 300, 256, 256)
    truth, accepted = read_video(clean), {}
    for path in (clean, maker.with_wrong_bytes(clean, 400), maker.with_zeros(clean)):
        media, rng = Media.of(path), random.Random(0)
        found, accepted[path.name] = probe(media, LIMITS), 0
        for start in [rng.randrange(267) for _ in range(200)]:
            try:
                video = AutoReader().read(media, found, range(start, start + 33))
            except VideoError:
                continue
            accepted[path.name] += 1
            assert np.array_equal(video, truth[start : start + 33])
    assert accepted["clean.mp4"] == 200
    assert accepted["zeros_clean.mp4"] >= 110


@pytest.mark.slow
@pytest.mark.parametrize("make", [PyAVReader, DecordReader, torchcodec])
def test_memory_does_not_grow_with_the_files_opened(textured, make):
    def memory_mb():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    reader, media = make(), Media.of(textured["clean"])
    for count in range(2100):
        if count == 100:
            before = memory_mb()
        reader.read(media, probe(media, LIMITS), [count % 100, count % 100 + 1], (40, 40))
    assert memory_mb() - before <= 12


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("wanted", [[17], [-1], [], [[0, 1]]])
def test_wrong_frame_numbers_are_the_callers_mistake(files, make, wanted):
    with pytest.raises(IndexError):
        make().read(*look(files["clip"]), wanted)


@pytest.mark.parametrize("make", [PyAVReader, DecordReader, AutoReader])
def test_a_read_is_limited_by_what_it_delivers(files, make):
    limited = make(Limits(clip_px=9 * 32 * 32))
    media, found = look(files["clip"])
    with pytest.raises(VideoError, match="10 frames of 32x32 in one read") as error:
        limited.read(media, found, range(10))
    assert error.value.kind == "too_large"
    assert len(limited.read(media, found, range(9))) == 9
    assert len(limited.read(media, found, range(17), (10, 10))) == 17


@pytest.mark.parametrize("make", READERS)
def test_a_file_that_changed_since_it_was_looked_at_is_refused(files, tmp_path, make):
    path = tmp_path / "clip.mp4"
    path.write_bytes(Path(files["clip"]).read_bytes())
    media, found = look(path)
    path.write_bytes(Path(files["long"]).read_bytes())
    with pytest.raises(VideoError, match="has changed") as error:
        make().read(media, found, [0])
    assert error.value.kind == "timeline"


def test_a_frame_that_the_packets_promise_and_that_does_not_come_is_never_replaced(files):
    media, found = look(files["clip"])
    between = replace(found, timeline=Series.of(np.sort(np.append(found.timeline.numbers, found.timeline.numbers[4] + 1))))
    assert np.array_equal(PyAVReader().read(media, between, [4, 6]), PyAVReader().read(media, found, [4, 5]))
    with pytest.raises(VideoError, match="not all come out") as error:
        PyAVReader().read(media, between, [4, 5, 6])
    assert error.value.kind == "damaged"


class Refuses:
    def __init__(self, kind="damaged"):
        self.kind, self.asked = kind, 0

    def read(self, media, probe, frames, cover=None):
        self.asked += 1
        raise VideoError(str(media), self.kind, "refused")


@pytest.mark.parametrize(("odd", "sound", "takes"), [("", True, True), ("", None, False), ("", False, False), ("an edit list", True, False)])
def test_auto_gives_decord_only_plain_files_that_were_checked(files, odd, sound, takes):
    media, found = look(files["clip"])
    reader = AutoReader()
    reader.decord = Refuses()
    video = reader.read(media, replace(found, odd=odd, sound=sound), range(17))
    assert reader.decord.asked == takes
    assert np.array_equal(video, read_video(files["clip"]))  # and where decord fails, PyAV reads


def test_auto_uses_decord_where_it_may(files):
    media, found = look(files["clip"])
    reader = AutoReader()
    reader.pyav = Refuses()
    assert len(reader.read(media, found, [0, 3])) == 2


@pytest.mark.parametrize("cover", [None, (48, 64), (32, 32), (96, 64)])
def test_a_deep_check_changes_no_bit_of_what_auto_delivers(tmp_path, write_video, cover):
    noise = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3)).astype(np.uint8)
    media = Media.of(write_video(tmp_path / "noise.mp4", noise))
    found = probe(media, Limits())
    assert found.odd == ""
    before, after = (AutoReader().read(media, replace(found, sound=sound), range(9), cover) for sound in (None, True))
    assert np.array_equal(before, after)


def test_auto_works_without_decord(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    reader = AutoReader()
    assert reader.decord is None
    assert len(reader.read(*look(files["clip"]), range(17))) == 17
    with pytest.raises(RuntimeError, match="data/reader=auto"):
        DecordReader().read(*look(files["clip"]), [0])


@pytest.mark.parametrize("make", [DecordReader, torchcodec])
def test_other_back_ends_refuse_what_is_odd(files, make):
    media, found = look(files["turned"])
    assert found.odd == "rotated"
    with pytest.raises(VideoError, match="rotated") as error:
        make().read(media, found, [0])
    assert error.value.kind == "timeline"


def test_decord_is_held_to_the_frames_that_the_packets_promise(files):
    media, found = look(files["clip"])
    with pytest.raises(VideoError, match="decord counts 17 frames, its packets are 16"):
        DecordReader().read(media, replace(found, timeline=Series.of(range(16))), [0])


def test_torchcodec_missing_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(RuntimeError, match=r"pip install -e '\.\[torchcodec\]'"):
        TorchcodecReader()


def test_torchcodec_is_held_to_the_times_of_the_packets(files):
    reader, (media, found) = torchcodec(), look(files["clip"])
    moved = replace(found, timeline=Series.of(found.timeline.numbers + found.timeline.step))
    with pytest.raises(VideoError, match="other times"):
        reader.read(media, moved, [0])


@pytest.mark.parametrize("make", READERS)
def test_readers_pass_between_processes(files, make):
    reader = pickle.loads(pickle.dumps(make()))
    assert isinstance(reader, module.VideoReader)
    assert len(reader.read(*look(files["clip"]), [0])) == 1


def test_a_broken_file_leaves_the_process_quiet(textured):
    """What is wrong with a file stands in its reason; a decoder that talks would fill the log of a long run."""
    code = "import sys; from data.files.reader import read_video\ntry: read_video(sys.argv[1])\nexcept ValueError: pass"
    command = [sys.executable, "-c", code, str(textured["wrong bytes"])]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout == child.stderr == ""
