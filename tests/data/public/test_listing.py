"""What a recipe lists: nothing is dropped without a reason, nothing of one video falls on both sides, and an index is whole or not there."""

import json
import os
from pathlib import Path

import pytest

from data.index import read_index
from data.public.listing import VIDEOS, Clip, Listing, files_under, with_validation, write_index


def listing(sources: int, takes: int = 4) -> Listing:
    clips = [Clip(f"{source}/{take}.mp4", {}, f"s{source}") for source in range(sources) for take in range(takes)]
    return Listing(tuple(clips), (), {})


def sources(clips) -> set[str]:
    return {clip.source for clip in clips}


def test_a_hold_out_takes_whole_sources_and_loses_no_clip():
    split = with_validation(listing(1000), 0.1)
    assert not sources(split.train) & sources(split.val)
    assert len(split.train) + len(split.val) == 4000
    assert 300 < len(split.val) < 500  # 400 expected, with a deviation of 38


def test_a_hold_out_is_the_same_when_files_are_added():
    few, many = with_validation(listing(500), 0.1), with_validation(listing(1000), 0.1)
    assert sources(few.val) < sources(many.val)
    assert not sources(few.train) & sources(many.val)


def test_a_small_set_has_something_on_both_sides():
    for count in (2, 3, 10):
        for share in (1e-9, 0.5, 0.999):
            split = with_validation(listing(count), share)
            assert split.train
            assert split.val
    with pytest.raises(ValueError, match="one source"):
        with_validation(listing(1), 0.1)
    assert not with_validation(listing(1), 0).val


def test_a_split_of_the_sets_own_stays_and_is_mixed():
    clips = listing(50).train
    given = Listing(clips[:100], clips[100:], {})
    split = with_validation(given, 0.5)
    assert split.train == given.train
    assert sorted(split.val, key=lambda clip: clip.path) == sorted(given.val, key=lambda clip: clip.path)
    assert len(sources(split.val[:12])) > 6, "the first clips, which validation looks at, are of many sources"


def test_files_are_found_or_named_with_a_reason(tmp_path):
    (tmp_path / "a").mkdir()
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    for name in ("a/1.mp4", "a/2.MP4", "a/._1.mp4", "a/b\\c.mp4", "a/notes.txt"):
        (tmp_path / name).touch()
    (elsewhere / "3.mp4").touch()
    (tmp_path / "a/out.mp4").symlink_to(elsewhere / "3.mp4")
    (tmp_path / "link").symlink_to(elsewhere)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.mp4")).touch()
    left_out = {}
    assert list(files_under(tmp_path, VIDEOS, left_out)) == ["a/1.mp4", "a/2.MP4"]
    assert left_out == {
        "a link to a folder": ["link"],
        "a hidden file": ["a/._1.mp4"],
        "a name or a link that no index may hold": ["a/b\\c.mp4", "a/out.mp4"],
        "a name that is no Unicode": ["a/\\udcff.mp4"],
    }
    with pytest.raises(ValueError, match="no folder inside"):
        list(files_under(tmp_path, VIDEOS, {}, f"../{elsewhere.name}"))
    with pytest.raises(ValueError, match="no folder inside"):
        list(files_under(tmp_path, VIDEOS, {}, "link"))


def test_an_index_says_what_the_clips_say(tmp_path):
    (tmp_path / "clips").mkdir()
    clips = [
        Clip("clips/a.mp4", {"label": ("TaiChi",), "caption": ("tai\nchi “圆”",)}, "a"),
        Clip("clips/b", {}, "b", fps=25.0),
        Clip("clips/c.mp4", {}, "c", start_s=1.5, end_s=2.25),
    ]
    write_index(tmp_path / "deep" / "er" / "train.jsonl", clips, tmp_path)
    rows = read_index(tmp_path / "deep" / "er" / "train.jsonl", tmp_path).rows
    assert [os.path.relpath(row.path, tmp_path) for row in rows] == ["clips/a.mp4", "clips/b", "clips/c.mp4"]
    assert [dict(row.captions) for row in rows] == [dict(clip.captions) for clip in clips]
    assert rows[1].fps == 25
    assert (rows[2].start_s, rows[2].end_s) == (1.5, 2.25)
    lines = (tmp_path / "deep" / "er" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {"path": "clips/b", "fps": 25.0}, "nothing is written of what is not known"


def test_an_index_that_its_reader_refuses_is_not_published(tmp_path):
    out = tmp_path / "train.jsonl"
    write_index(out, [Clip("a.mp4", {}, "a")], tmp_path)
    with pytest.raises(ValueError, match="row 2"):
        write_index(out, [Clip("b.mp4", {}, "b"), Clip("../c.mp4", {}, "c")], tmp_path)
    assert [json.loads(line)["path"] for line in out.read_text().splitlines()] == ["a.mp4"]
    assert list(tmp_path.iterdir()) == [out]
