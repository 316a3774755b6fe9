import os
import pickle
import time
from pathlib import Path

import av
import numpy as np
import pytest

from data import reader as module
from data.reader import AutoReader, DecordReader, Limits, PyAVReader, VideoError

READERS = [DecordReader, PyAVReader, AutoReader]


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_video, numbered_video):
    folder = tmp_path_factory.mktemp("files")
    return {
        "clip": write_video(folder / "clip.mp4", numbered_video(17)),
        "long": write_video(folder / "long.mp4", numbered_video(25, 48, 64), fps=30, gop=6),
        "odd": write_video(folder / "odd.mp4", numbered_video(9, 34, 70), fps=25, b_frames=0),
        "mkv": write_video(folder / "video.mkv", numbered_video(12), fps=30),
        "vfr": write_video(folder / "vfr.mp4", numbered_video(8), pts=[0, 100, 200, 300, 700, 1100, 1200, 1900]),
        "turned": write_video(folder / "turned.mp4", numbered_video(6, 32, 64), rotation=90),
        "single": write_video(folder / "single.mp4", numbered_video(1)),
        "folder": folder,
    }


@pytest.mark.parametrize("name", ["clip", "long", "odd", "mkv", "vfr", "turned", "single"])
def test_decord_and_pyav_agree_frame_for_frame(files, name):
    decord, pyav = DecordReader(), PyAVReader()
    ours, theirs = pyav.probe(files[name]), decord.probe(files[name])
    assert (ours.frames, ours.width, ours.height) == (theirs.frames, theirs.width, theirs.height)
    assert np.abs((ours.times - ours.times[0]) - (theirs.times - theirs.times[0])).max() < 1e-4
    assert np.array_equal(decord.read(files[name]), pyav.read(files[name]))


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("wanted", [[0], [24], [13], [3, 4, 5], [20, 2, 11], [7, 7, 6, 6], list(range(0, 25, 3)), list(range(25))])
def test_the_frames_asked_for_are_the_ones_delivered(files, numbered_video, make, wanted):
    video = make().read(files["long"], wanted)
    assert video.shape == (len(wanted), 48, 64, 3)
    assert video.dtype == np.uint8
    assert np.array_equal(video, PyAVReader().read(files["long"])[wanted])
    levels = video[:, 20:, :, 1].mean((1, 2))
    assert np.abs(levels - numbered_video(25)[wanted, 20, 20, 1]).max() < 3  # neighbours are 9 levels apart


@pytest.mark.parametrize("width", [16, 24, 48, 50, 72])
def test_every_even_width_is_read(tmp_path, write_video, numbered_video, width):
    """decord 0.6 gives an error for rows of 16, 24, 48 and 72 pixels, whose stride FFmpeg rounds up."""
    path = write_video(tmp_path / "narrow.mp4", numbered_video(3, 32, width))
    assert np.array_equal(AutoReader().read(path), PyAVReader().read(path))


def test_frames_can_be_chosen_from_the_header(files):
    seen = []

    def choose(info):
        seen.append((info.frames, round(info.fps, 3)))
        return np.array([info.frames - 1])

    assert len(AutoReader().read(files["long"], choose)) == 1
    assert seen == [(25, 30.0)]


def test_rotation_is_applied(files):
    assert PyAVReader().read(files["turned"]).shape == (6, 64, 32, 3)


@pytest.mark.parametrize("make", READERS)
def test_variable_rate_keeps_its_times(files, make):
    assert np.abs(make().probe(files["vfr"]).times - np.array([0, 0.1, 0.2, 0.3, 0.7, 1.1, 1.2, 1.9])).max() < 1e-3


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def bad(files):
    folder = files["folder"]
    data = Path(files["clip"]).read_bytes()
    content = {
        "empty.mp4": b"",
        "text.mp4": b"this is not a video\n" * 200,
        "noise.mp4": np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8).tobytes(),
        "truncated.mp4": data[: len(data) * 6 // 10],
        "header.mp4": data[:40],
    }
    for name, part in content.items():
        (folder / name).write_bytes(part)
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    audio_only(folder / "audio.mp4")
    return folder


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("empty.mp4", {"empty"}),
        ("text.mp4", {"unreadable"}),
        ("noise.mp4", {"unreadable"}),
        ("truncated.mp4", {"unreadable", "damaged"}),
        ("header.mp4", {"unreadable", "damaged"}),
        ("folder.mp4", {"not_a_file"}),
        ("pipe.mp4", {"not_a_file"}),
        ("loop.mp4", {"missing"}),
        ("dangling.mp4", {"missing"}),
        ("nothing.mp4", {"missing"}),
        ("nul\0.mp4", {"missing"}),
        ("audio.mp4", {"no_video"}),
    ],
)
def test_a_bad_file_gives_a_typed_reason_in_time(bad, make, name, kinds):
    started = time.monotonic()
    with pytest.raises(VideoError) as error:
        make().read(str(bad / name))
    assert error.value.kind in kinds
    assert time.monotonic() - started < 5
    copy = pickle.loads(pickle.dumps(error.value))
    assert (copy.path, copy.kind, copy.detail) == (error.value.path, error.value.kind, error.value.detail)


@pytest.mark.parametrize("make", READERS)
def test_a_file_cut_behind_its_header_delivers_no_made_up_frame(tmp_path, write_video, numbered_video, make):
    """Matroska keeps its header in front: the frames in front of the cut are right or all are refused."""
    path = Path(write_video(tmp_path / "cut.mkv", numbered_video(40, 64, 64), fps=30, gop=5, b_frames=0))
    whole = PyAVReader().read(str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    try:
        video = make().read(str(path))
    except VideoError as error:
        video, kind = whole[:0], error.kind
    else:
        kind = "damaged"
    assert kind in {"damaged", "unreadable"}
    assert len(video) < 40
    assert len(video) == 0 or np.abs(video.astype(int) - whole[: len(video)]).mean((1, 2, 3)).max() < 1


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize(
    ("limits", "says"),
    [(Limits(frame_px=1000), "32x32 pixels"), (Limits(frames=16), "17 frames"), (Limits(clip_px=10_000), "17 frames of 32x32 in one read")],
)
def test_what_the_header_claims_is_limited(files, make, limits, says):
    with pytest.raises(VideoError, match=says) as error:
        make(limits).read(files["clip"])
    assert error.value.kind == "too_large"


def test_limits_are_checked_before_anything_is_decoded(files, monkeypatch):
    monkeypatch.setattr(module, "_decode", lambda *_: pytest.fail("decoded"))
    for limits in (Limits(frame_px=1000), Limits(frames=16), Limits(clip_px=10_000)):
        with pytest.raises(VideoError):
            PyAVReader(limits).read(files["clip"])


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("wanted", [[17], [-1], [], [[0, 1]]])
def test_wrong_frame_numbers_are_the_callers_mistake(files, make, wanted):
    with pytest.raises(IndexError):
        make().read(files["clip"], wanted)


def test_auto_uses_decord_first_and_pyav_when_decord_fails(files, monkeypatch):
    expected = PyAVReader().read(files["clip"])
    monkeypatch.setattr(module.PyAVReader, "read", lambda *_: pytest.fail("decord was to be used"))
    assert np.array_equal(AutoReader().read(files["clip"]), expected)
    monkeypatch.undo()

    def fails(self, path, wanted=None):
        raise VideoError(path, "unreadable", "decord does not know this codec")

    monkeypatch.setattr(module.DecordReader, "read", fails)
    assert np.array_equal(AutoReader().read(files["clip"]), expected)


def test_auto_works_without_decord(files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    assert [type(reader) for reader in AutoReader().readers] == [PyAVReader]
    assert len(AutoReader().read(files["clip"])) == 17
    with pytest.raises(RuntimeError, match="data/reader=auto"):
        DecordReader().read(files["clip"])


def test_a_cut_by_edit_list_is_not_left_to_decord(files, tmp_path):
    path = str(tmp_path / "edit.mp4")
    with av.open(files["long"]) as source, av.open(path, "w") as target:
        old = source.streams.video[0]
        new = target.add_stream_from_template(old)
        shift = round(3 / 30 / old.time_base)  # the cut lies three frames behind the first key frame
        for packet in source.demux(old):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, new
                target.mux(packet)
    with pytest.raises(VideoError) as error:
        DecordReader().read(path)
    assert error.value.kind == "timeline"
    assert np.array_equal(AutoReader().read(path), PyAVReader().read(files["long"])[3:])
