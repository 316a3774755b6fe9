import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from data.files import packets
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.probe import Probe, deep_check, probe
from data.files.series import Series

LIMITS = Limits()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, maker):
    return maker.write(tmp_path_factory.mktemp("plain") / "plain.mp4", range(9))


def look(path, limits=LIMITS, **options):
    return probe(Media.of(path), limits, **options)


SMALL = some.integers(-(2**40), 2**40)
REGULAR = some.builds(lambda start, step, count: list(range(start, start + step * count, step)), SMALL, some.integers(1, 2**40), some.integers(0, 9))


@given(some.lists(SMALL, max_size=20) | REGULAR)
def test_a_series_gives_back_its_numbers(numbers):
    series = Series.of(numbers)
    assert series.numbers.tolist() == numbers
    assert len(series) == len(numbers)
    assert Series.from_json(json.loads(json.dumps(series.to_json())), "x", 100) == series


@pytest.mark.parametrize(
    "bad", [None, [], [1, 2], [0, 1, -1], [0, 1, 10**9], [0, 2**61, 9], [0.5, 1, 2], [True, 1, 2], [0, [2**61] * 9], [0, ["1"]], {}]
)
def test_a_series_refuses_what_it_cannot_have_written(bad):
    with pytest.raises(ValueError, match="x must be"):
        Series.from_json(bad, "x", 100)


def test_a_probe_tells_what_the_file_holds(plain):
    found = look(plain)
    assert (found.kind, found.width, found.height, found.frames, found.codec, found.pixel_format) == ("video", 64, 48, 9, "h264", "yuv420p")
    assert (found.fps, found.duration_s) == (pytest.approx(10), pytest.approx(0.9))
    assert found.times.tolist() == pytest.approx([number / 10 for number in range(9)])
    assert (found.odd, found.sound, found.variable, found.audio, found.rotation) == ("", None, False, False, 0)
    assert (found.bytes, found.mtime_ns) == (plain.stat().st_size, plain.stat().st_mtime_ns)


def test_times_count_from_the_first_frames_own_stamp(tmp_path, maker):
    found = look(maker.write(tmp_path / "late.mkv", range(4), times_ms=[500, 600, 700, 900]))
    assert found.times.tolist() == pytest.approx([0, 0.1, 0.2, 0.4])
    assert found.variable


def test_one_frame_has_no_rate_and_no_length(tmp_path, maker):
    found = look(maker.write(tmp_path / "one.mp4", [3]))
    assert math.isnan(found.fps)
    assert (found.duration_s, found.variable, found.times.tolist()) == (0, False, [0])


def test_rounding_to_milliseconds_is_no_variable_rate(tmp_path, write_video, numbered_video):
    found = look(write_video(tmp_path / "clip.mkv", numbered_video(12), fps=30))
    assert found.timeline.listed
    assert not found.variable
    assert found.odd == ""


def test_a_probe_survives_json(tmp_path, plain, maker):
    Image.fromarray(maker.grey(1)).save(tmp_path / "a.png")
    uneven = look(maker.write(tmp_path / "uneven.mp4", range(4), times_ms=[0, 100, 400, 450]))
    for found in (look(plain), look(tmp_path / "a.png"), uneven, replace(look(plain), sound=True)):
        assert Probe.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "film"}, {"kind": None}, {"width": 0}, {"height": 2.5}, {"width": "64"}, {"timeline": [0, 0, 9]}, {"timeline": [0, -1, 9]},
        {"timeline": [0, 1, 0]}, {"timeline": "0"}, {"key_pts": [0, 1, 5]}, {"time_base": [1, 0]}, {"time_base": 0.1}, {"time_base": [-1, 5]},
        {"rotation": 4}, {"rotation": -1}, {"mirrored": 1}, {"audio": "no"}, {"sound": 0}, {"odd": None}, {"codec": 5}, {"bytes": -1},
        {"mtime_ns": True}, {"more": 1},
    ],
)  # fmt: skip
def test_a_probe_refuses_json_that_it_cannot_have_written(plain, change):
    with pytest.raises(ValueError, match=r"must be|needs"):
        Probe.from_json(look(plain).to_json() | change)


@pytest.mark.parametrize("bad", [None, 3, [], {}, "x"])
def test_a_probe_is_an_object(bad):
    with pytest.raises(ValueError, match="a probe must be an object"):
        Probe.from_json(bad)


@pytest.mark.parametrize(
    ("name", "options", "odd"),
    [
        ("a.mkv", {}, ""),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"b": "200k", "cpu-used": "8"}}, ""),
        ("a.mp4", {"times_ms": [0, 100, 200, 400, 500]}, "variable frame rate"),
        ("a.mp4", {"pixels": "yuv444p"}, "pixels yuv444p"),
        ("a.mp4", {"pixels": "yuv420p10le"}, "pixels yuv420p10le"),
        ("a.mp4", {"codec": "libsvtav1"}, "codec av1"),
        ("a.mp4", {"codec": "mpeg4", "options": {"b": "2M"}}, "codec mpeg4"),
        ("a.flv", {}, "container flv"),
        ("a.mp4", {"setup": lambda stream: stream.set_display_rotation(90)}, "rotated"),
        ("a.mp4", {"setup": lambda stream: stream.set_display_rotation(0, hflip=True)}, "rotated"),
        ("a.mp4", {"options": {"x264-params": "log-level=none:threads=1:open-gop=1:keyint=3:min-keyint=1:bframes=2"}}, "key frames that are"),
        ("a.mp4", {"options": {"x264-params": "log-level=none:threads=1:intra-refresh=1:keyint=3:bframes=0"}}, "key frames that are"),
        ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=3:min-keyint=1"}}, "key frames that are"),
        ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=3:open-gop=0"}}, ""),
        ("a.mp4", {"options": {"x264-params": "log-level=none:threads=1:tff=1"}}, "interlaced"),
        ("a.avi", {}, "packets do not say when"),
    ],
)
def test_what_is_not_plain_is_odd(tmp_path, maker, name, options, odd):
    path = maker.write(tmp_path / name, range(5), **{"codec": "libx264", **options})
    found = look(path)
    assert found.odd.startswith(odd)
    assert bool(found.odd) == bool(odd)
    video = [frame.to_ndarray(format="gray").mean() for frame in av.open(str(path)).decode(video=0)]
    assert len(video) == found.frames


def test_a_member_of_a_tar_file_is_odd_and_found_in_place(tmp_path, plain):
    data = plain.read_bytes()
    (tmp_path / "shard.tar").write_bytes(bytes(700) + data + bytes(900))
    found = probe(Media(str(tmp_path / "shard.tar"), "a.mp4", 700, len(data)), LIMITS)
    assert found.odd == "a part of a tar file"
    assert (found.timeline, found.bytes) == (look(plain).timeline, len(data))


def remade(source, target, change):
    """The same packets with other content: `change` gets the number and the bytes of each."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            changed = av.Packet(change(number, bytearray(memoryview(packet))))
            changed.pts, changed.dts, changed.time_base, changed.stream = packet.pts, packet.dts, packet.time_base, stream
            changed.is_keyframe = packet.is_keyframe
            new.mux(changed)
    return target


def test_side_data_that_pyav_does_not_know_is_no_fault(tmp_path, maker):
    """FFmpeg 8 hands on the EXIF of motion JPEG, at which PyAV 18 raises ValueError."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn right by 90 degrees

    def change(number, content):
        Image.fromarray(maker.grey(number)).save(tmp_path / "one.jpg", exif=exif, quality=95)
        return (tmp_path / "one.jpg").read_bytes()

    path = remade(maker.write(tmp_path / "a.avi", range(3), "mjpeg", pixels="yuvj420p"), tmp_path / "b.avi", change)
    found = look(path)
    assert (found.frames, found.width, found.height, found.rotation) == (3, 48, 64, 3)
    deep_check(Media.of(path), found, LIMITS)


def test_vp8_frames_that_are_never_shown_are_not_counted(tmp_path, maker):
    """The encoder stores pictures for others to be built on; here the fourth one's bit that shows it is cleared."""

    def change(number, content):
        content[0] &= 0xEF if number == 3 else 0xFF
        return content

    remade(maker.write(tmp_path / "a.webm", range(9), "libvpx", options={"b": "400k"}), tmp_path / "b.webm", change)
    media = Media.of(tmp_path / "b.webm")
    found = probe(media, LIMITS)
    assert (found.frames, found.odd) == (8, "packets that are not shown (an edit list?)")
    deep_check(media, found, LIMITS)


@pytest.mark.parametrize(("limits", "says"), [(Limits(frame_px=1000), "64x48 pixels"), (Limits(frames=8), "9 frames")])
def test_limits_are_checked_before_anything_is_decoded(plain, monkeypatch, limits, says):
    for name in ("decode", "_look"):
        monkeypatch.setattr(packets, name, lambda *_: pytest.fail("decoded"))
    with pytest.raises(VideoError, match=says) as error:
        look(plain, limits)
    assert error.value.kind == "too_large"


def test_frames_are_limited_where_no_header_counts_them(tmp_path, maker):
    for name in ("a.mkv", "a.ts"):
        with pytest.raises(VideoError, match="more than 8 frames") as error:
            look(maker.write(tmp_path / name, range(9)), Limits(frames=8))
        assert error.value.kind == "too_large"


def test_a_bitstream_larger_than_its_header_is_not_decoded(tmp_path, maker):
    """The limit holds for what the decoder finds, too: a header may be smaller than its pictures."""
    path = maker.write(tmp_path / "large.h264", range(2), size=(256, 256), muxer="h264")
    with pytest.raises(VideoError):
        look(path, Limits(frame_px=200 * 200))


def test_a_deep_check_names_the_first_damaged_time(tmp_path, maker):
    clean = maker.write_textured(tmp_path / "clean.mp4", 60, 64, 96)
    deep_check(Media.of(clean), look(clean), LIMITS)
    zeros = maker.with_zeros(clean)
    with pytest.raises(VideoError, match=r"at 0\.\d\d\d s|at 1\.\d\d\d s") as error:
        deep_check(Media.of(zeros), look(zeros), LIMITS)
    assert error.value.kind == "damaged"


def test_a_deep_check_misses_no_frame(plain):
    found = look(plain)
    promised = replace(found, timeline=Series.of(np.append(found.timeline.numbers, found.timeline.numbers[-1] + 999)))
    with pytest.raises(VideoError, match="does not come out of the decoder"):
        deep_check(Media.of(plain), promised, LIMITS)


def test_a_deep_check_looks_at_every_picture_of_a_folder(tmp_path, maker):
    for number in range(3):
        Image.fromarray(maker.grey(number)).save(tmp_path / f"{number}.png")
    found = look(tmp_path, fps=8)
    deep_check(Media.of(tmp_path), found, LIMITS)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    with pytest.raises(VideoError) as error:
        deep_check(Media.of(tmp_path), found, LIMITS)
    assert error.value.kind == "damaged"


def test_a_folder_of_pictures_needs_a_rate(tmp_path, maker):
    for number in (1, 2, 10):
        Image.fromarray(maker.grey(number)).save(tmp_path / f"frame_{number}.png")
    with pytest.raises(VideoError, match=r"timeline.*its row must give their rate"):
        look(tmp_path)
    found = look(tmp_path, fps=12.5)
    assert (found.kind, found.frames, found.fps, found.time_base) == ("pictures", 3, 12.5, Fraction(2, 25))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_missing(tmp_path, plain):
    path = tmp_path / "locked.mp4"
    path.write_bytes(plain.read_bytes())
    path.chmod(0)
    with pytest.raises(VideoError) as error:
        look(path)
    assert error.value.kind in ("missing", "unreadable")


def test_probing_leaves_no_pictures_behind(tmp_path, maker):
    """PyAV's frames and their side data hold each other: whole pictures would wait for Python's collector."""
    code = (
        "import gc, sys\nfrom data.files.faults import Limits\nfrom data.files.media import Media\nfrom data.files.probe import probe\n"
        "probe(Media.of(sys.argv[1]), Limits())\n"
        "print(sum(type(thing).__name__ == 'VideoFrame' for thing in gc.get_objects()))"
    )
    path = maker.write(tmp_path / "turned.mp4", range(3), setup=lambda stream: stream.set_display_rotation(90))
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True).stdout == "0\n"
