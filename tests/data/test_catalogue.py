import json
import os
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from data import catalogue
from data.buckets import Bucket
from data.catalogue import look
from data.clips import segment
from data.files.media import Media
from data.files.probe import Probe
from data.index import Index, Row, read_index, read_sources
from data.shapes import Fixed, Native


def index_of(folder, *names, **fields):
    return Index("made", str(folder), tuple(Row(Media(str(folder / name)), **fields) for name in names))


@pytest.fixture
def counted(monkeypatch):
    """The files that are opened to be looked at, in this process."""
    opened, probe = [], catalogue.probe
    monkeypatch.setattr(catalogue, "probe", lambda media, *others: (opened.append(os.path.basename(media.path)), probe(media, *others))[1])
    return opened


def test_every_file_is_looked_at_once_and_remembered_until_it_changes(clips, tmp_path, counted):
    index = read_index(clips / "index.jsonl")
    first = look(index, tmp_path, 0, 60)
    assert sorted(counted) == sorted(f"{number}.mp4" for number in range(7))
    assert [found.to_json() for found in look(index, tmp_path, 0, 60)] == [found.to_json() for found in first]
    assert len(counted) == 7
    os.utime(clips / "3.mp4", ns=(1, 1))
    look(index, tmp_path, 0, 60)
    assert counted[7:] == ["3.mp4"]
    look(index, None, 0, 60)
    assert len(counted) == 15


def test_rows_of_one_file_share_one_look(clips, counted):
    found = look(index_of(clips, "1.mp4", "1.mp4", "2.mp4"), None, 0, 60)
    assert counted == ["1.mp4", "2.mp4"]
    assert found[0] is found[1]


def test_faults_are_remembered_but_not_that_a_file_is_absent(clips, tmp_path, counted):
    (tmp_path / "text.mp4").write_text("no video")
    index, table = index_of(tmp_path, "text.mp4", "absent.mp4"), tmp_path / "table"
    assert [found[0] for found in look(index, table, 0, 60)] == ["unreadable", "missing"]
    (tmp_path / "absent.mp4").write_bytes((clips / "1.mp4").read_bytes())
    found = look(index, table, 0, 60)
    assert found[0][0] == "unreadable"
    assert isinstance(found[1], Probe)
    assert counted == ["text.mp4", "absent.mp4", "absent.mp4"]


def test_half_a_line_is_passed_over_and_does_not_spoil_the_next(clips, tmp_path, counted):
    index = read_index(clips / "index.jsonl")
    look(index, tmp_path, 0, 60)
    (table,) = tmp_path.glob("*.jsonl")
    table.write_bytes(table.read_bytes()[:-20])  # killed while it wrote
    look(index, tmp_path, 0, 60)
    assert len(counted) == 8
    look(index, tmp_path, 0, 60)
    assert len(counted) == 8
    table.write_text("[1]\nnull\n" + json.dumps({"format": catalogue.FORMAT, "path": 3}) + "\n")
    look(index, tmp_path, 0, 60)
    assert len(counted) == 15


def test_workers_find_what_one_process_finds(clips):
    index = read_index(clips / "index.jsonl")
    alone, together = look(index, None, 0, 60), look(index, None, 2, 60)
    assert [found.to_json() for found in alone] == [found.to_json() for found in together]


def test_a_file_that_hangs_is_given_up_and_the_others_are_looked_at(clips, monkeypatch):
    probe = catalogue.probe
    monkeypatch.setattr(catalogue, "probe", lambda media, *others: time.sleep(600) if "3.mp4" in media.path else probe(media, *others))
    found = look(read_index(clips / "index.jsonl"), None, 2, 1.0)
    assert [what[0] if isinstance(what, tuple) else "" for what in found] == ["", "", "", "hung", "", "", ""]


def test_a_deep_look_finds_damage_that_no_header_tells_of_and_is_done_once(broken_clips, tmp_path, monkeypatch):
    index = read_index(broken_clips / "index.jsonl")
    assert all(isinstance(found, Probe) and found.sound is None for found in look(index, tmp_path, 0, 60))
    found = look(index, tmp_path, 0, 60, deep=True)
    assert found[2][0] == "damaged"
    assert all(what.sound for row, what in enumerate(found) if row != 2)
    monkeypatch.setattr(catalogue, "deep_check", lambda *_: pytest.fail("decoded again"))
    assert look(index, tmp_path, 0, 60, deep=True)[2] == found[2]
    assert look(index, tmp_path, 0, 60)[0].sound


def test_each_row_gets_its_shape_or_its_reason(tmp_path, write_video, numbered_video, clips_of):
    write_video(tmp_path / "a.mp4", numbered_video(20, 32, 64))
    write_video(tmp_path / "b.mp4", numbered_video(3, 64, 32))
    (tmp_path / "c.mp4").write_bytes(b"")
    clips = clips_of(tmp_path, Native(17, 2048, (4, 16, 16)))
    assert clips.buckets == (Bucket(17, 32, 64), Bucket(1, 64, 32), None)
    assert [(fault.row, fault.path, fault.kind) for fault in clips.faults] == [(2, "c.mp4", "empty")]
    strict = clips_of(tmp_path, Fixed(17, 32, 32, (4, 16, 16), min_frames=5))
    assert [(fault.path, fault.kind) for fault in strict.faults] == [("b.mp4", "too_short"), ("c.mp4", "empty")]
    assert strict.probes[1] is None


def test_segments_of_one_file_have_lengths_of_their_own(tmp_path, write_video, numbered_video, clips_of):
    write_video(tmp_path / "a.mp4", numbered_video(24))
    rows = [{"start_s": 0.0, "end_s": 1.0}, {"start_s": 2.0}, {"start_s": 0.5, "end_s": 2.75}, {"start_s": 9.0}]
    media = Media(str(tmp_path / "a.mp4"))
    clips = clips_of(Index("made", str(tmp_path), tuple(Row(media, **row) for row in rows)), Fixed(17, 32, 32, (4, 16, 16)))
    assert [bucket and bucket.frames for bucket in clips.buckets] == [5, 5, 17, None]
    assert clips.faults[0].kind == "too_short"


@pytest.mark.parametrize(("start", "stop", "expected"), [(0.0, None, (0, 10)), (0.2, 0.5, (2, 3)), (0.15, 0.21, (2, 1)), (0.9, None, (9, 1))])
def test_a_segment_counts_from_the_files_first_frame(start, stop, expected):
    times = 5 + np.arange(10) / 10
    first, part = segment(times, Row(Media("/x"), start_s=start, end_s=stop))
    assert (first, len(part)) == expected
    assert np.array_equal(part, times[first : first + len(part)])


def test_a_file_that_changes_while_others_are_looked_at_does_not_end_the_look(clips, broken_clips, monkeypatch):
    probe = catalogue.probe
    monkeypatch.setattr(catalogue, "probe", lambda media, *others: (os.utime(broken_clips / "0.mp4"), probe(media, *others))[1])
    assert all(isinstance(found, Probe) for found in look(read_index(broken_clips / "index.jsonl"), None, 0, 60))


@pytest.mark.parametrize("kind", ["hung", "crashed"])
def test_a_fault_that_another_machine_might_not_have_is_not_remembered(clips, tmp_path, monkeypatch, kind):
    probe, index = catalogue.probe, index_of(clips, "1.mp4")
    monkeypatch.setattr(catalogue, "probe", lambda media, *others: (_ for _ in ()).throw(catalogue.VideoError(media.path, kind, "too slow")))
    assert look(index, tmp_path, 0, 60) == [(kind, "too slow")]
    monkeypatch.setattr(catalogue, "probe", probe)
    assert isinstance(look(index, tmp_path, 0, 60)[0], Probe)


def test_a_folder_of_pictures_is_looked_at_again_when_one_of_them_changes(tmp_path, counted, clips_of):
    folder, table = tmp_path / "frames", tmp_path / "table"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number}.png")
    index = Index("made", str(tmp_path), (Row(Media(str(folder)), fps=8.0),))
    (first,) = look(index, table, 0, 60)
    (again,) = look(index, table, 0, 60)
    assert (first.bytes, first.mtime_ns) == (again.bytes, again.mtime_ns)
    assert len(counted) == 1
    Image.new("RGB", (32, 32), (9, 9, 9)).save(folder / "1.png")
    (changed,) = look(index, table, 0, 60)
    assert len(counted) == 2
    assert (first.bytes, first.mtime_ns) != (changed.bytes, changed.mtime_ns)
    (fault,) = clips_of(Index("made", str(tmp_path), (Row(Media(str(folder))),))).faults
    assert fault.kind == "timeline"
    assert "its row must give their rate" in fault.detail


def test_members_of_one_name_in_a_tar_file_are_two_files(tmp_path, clips):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name in ("0.mp4", "6.mp4"):
            tar.add(clips / name, arcname="same.mp4")
    with tarfile.open(tmp_path / "set.tar") as tar:
        places = [(member.offset_data, member.size) for member in tar]
    index = Index("made", str(tmp_path), tuple(Row(Media(str(tmp_path / "set.tar"), "same.mp4", *place)) for place in places))
    first, second = look(index, tmp_path, 0, 60)
    assert first is not second
    assert [found.to_json() for found in look(index, tmp_path, 0, 60)] == [first.to_json(), second.to_json()]


def test_a_set_is_known_by_itself_and_in_a_mixture(clips, tmp_path, counted):
    look(read_sources(str(clips)), tmp_path, 0, 60)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.mp4").write_bytes((clips / "1.mp4").read_bytes())
    look(read_sources([str(clips), str(other)]), tmp_path, 0, 60)
    assert counted[7:] == ["x.mp4"]


def test_a_table_that_cannot_be_used_names_the_key(clips, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match=r"Set data\.probes"):
        look(read_index(clips / "index.jsonl"), tmp_path / "file", 0, 60)
