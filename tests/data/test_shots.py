import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.batch import Batch, Shot
from data.cache.latents import LatentDataset, cache_latents
from data.clips import Clips
from data.dataset import VideoDataset
from data.files.media import Media
from data.files.reader import PyAVReader
from data.index import Index, Row, TimedCaptions, read_index
from data.plan import Draw
from data.shapes import Fixed
from data.transforms import DetailCrop, Stills

SHAPE = Fixed(5, 8, 8, (4, 8, 8))
# Of a file of 4 s: a gap from 1.5 to 2 s, and one that lies between two frames of 8 fps.
SHOTS = (
    TimedCaptions(0.0, 1.5, {"caption": ("a",)}),
    TimedCaptions(2.0, 2.125, {"caption": ("b",)}),
    TimedCaptions(2.13, 2.24, {"caption": ("between",)}),
    TimedCaptions(2.25, 9.0, {"short": ("c",), "long": ("c c",)}),
)


class File:
    """A probe of 8x8 pixels."""

    width = height = 8

    def __init__(self, times):
        self.times = np.asarray(times)


class NumberReader:
    """Pixels are the numbers of the frames in the file."""

    def read(self, media, probe, frames, cover=None):
        return np.broadcast_to(np.asarray(frames, np.uint8)[:, None, None, None], (len(frames), 8, 8, 3)).copy()


def dataset(times, fps=8.0, seed=0, crop=None, shots=SHOTS, **row):
    """One file whose frames come at `times`, in clips of 5 frames at `fps`."""
    rows = (Row(Media("/set/0.mp4"), shots=shots, **row), Row(Media("/set/1.mp4")))
    clips = Clips(Index("made", "/set", rows), (File(times),) * 2, (SHAPE.bucket(5, 8, 8),) * 2, (False,) * 2, (), fps)
    return VideoDataset(clips, NumberReader(), seed, crop, bad_limit=1.0)


def drawn(source, sample, row=0):
    """The numbers in the file of a clip's frames, and its shots."""
    (group,) = source.run([Draw(sample, row)]).groups
    return group.content[0, :, 0, 0, 0].tolist(), source.batch(group).shots


def said(shots, count):
    """What is said of each frame."""
    found: list[str | None] = [None] * count
    for shot in shots:
        for frame in range(shot.start, shot.stop):
            assert found[frame] is None
            found[frame] = next(iter(shot.captions.values()))[0]
    return found


def expected(at_s):
    return next((next(iter(shot.captions.values()))[0] for shot in SHOTS if shot.start_s <= at_s < shot.end_s), None)


@pytest.mark.parametrize(
    ("rate", "fps", "row"),
    [(8, 8.0, {}), (24, 8.0, {}), (2, 8.0, {}), (8, 4.0, {}), (8, 8.0, {"start_s": 1.0, "end_s": 3.0}), (8, 2.0, {"start_s": 1.375})],
)
def test_each_frame_of_a_clip_is_in_the_shot_in_which_it_comes_on_screen_wherever_the_clip_begins_and_whatever_its_rate(rate, fps, row):
    source, seen = dataset(np.arange(4 * rate) / rate, fps, **row), set()
    for sample in range(40):
        frames, shots = drawn(source, sample)
        assert said(shots[0] if shots else (), 5) == [expected(frame / rate) for frame in frames]
        assert [shot.start for each in shots for shot in each] == sorted(shot.start for each in shots for shot in each)
        seen |= {caption for frame in frames for caption in [expected(frame / rate)]}
    assert len(seen) >= 3  # the law was tried on several shots


def test_time_stamps_that_were_rounded_to_milliseconds_do_not_move_a_shot_by_a_frame():
    shots = tuple(TimedCaptions(start / 3, (start + 1) / 3, {"caption": (str(start),)}) for start in range(4))
    source = dataset([0.0, 0.333, 0.667, 1.0, 1.333, 1.667], fps=3.0, shots=shots)
    frames, (given,) = drawn(source, 0)
    assert frames[:4] in ([0, 1, 2, 3], [1, 2, 3, 4])
    assert said(given, 5) == [str(frame) if frame < 4 else None for frame in frames]


def test_a_clip_that_is_cut_to_one_frame_keeps_that_frames_shot():
    times, seen = np.arange(32) / 8, set()
    for sample in range(30):
        frames, shots = drawn(dataset(times, crop=Stills(1.0, DetailCrop(8))), sample)
        assert len(frames) == 1
        assert said(shots[0] if shots else (), 1) == [expected(frames[0] / 8)]
        seen.add(expected(frames[0] / 8))
    assert {"a", "c"} <= seen


def test_clips_without_shots_have_empty_ones_and_a_batch_of_them_has_none():
    source = dataset(np.arange(32) / 8)
    (group,) = source.run([Draw(0, 1), Draw(1, 0)]).groups
    none, some = source.batch(group).shots
    assert none == ()
    assert some
    assert drawn(source, 0, row=1)[1] == ()
    beyond = dataset(np.arange(32) / 8, shots=(TimedCaptions(60.0, 61.0, {"caption": ("x",)}),))
    assert drawn(beyond, 0)[1] == ()


def test_a_cache_gives_the_shots_of_the_middle_that_it_holds(clips, clips_of, tmp_path):
    looked_at = clips_of(clips / "index.jsonl", Fixed(1, 32, 32, (4, 16, 16)))
    shots = (TimedCaptions(0.0, 0.25, {"caption": ("early",)}), TimedCaptions(0.25, 0.375, {"caption": ("middle",)}))
    rows = (replace(looked_at.index.rows[0], shots=shots), *looked_at.index.rows[1:])
    source = VideoDataset(replace(looked_at, index=replace(looked_at.index, rows=rows)), PyAVReader(), None)
    store = cache_latents(source, lambda video: video[:, :, :, ::8, ::8], tmp_path / "cache", "vae-a")
    cached = LatentDataset(store, source.clips)
    found = [each.batch(each.run([Draw(5, 1), Draw(9, 0)]).groups[0]).shots for each in (source, cached)]
    assert found[0] == found[1] == ((), (Shot(0, 1, {"caption": ("middle",)}),))


def one(folder, **fields):
    (folder / "index.jsonl").write_text(json.dumps({"path": "a.mp4", **fields}) + "\n", encoding="utf-8")
    (row,) = read_index(folder / "index.jsonl").rows
    return row


def test_shots_keep_what_was_written_and_a_row_with_them_needs_no_caption(tmp_path):
    texts = ["eins", ["zwei", "deux"], {"short": "drei", "long": ["vier"]}]
    given = [{"start_s": 0, "end_s": 1, "caption": texts[0]}, {"start_s": 1.0, "end_s": "0:00:02.5", "captions": texts[1]}]
    row = one(tmp_path, shots=[*given, {"start_s": "4", "end_s": 5, "captions": texts[2], "note": "left alone"}])
    kinds = [{"caption": ("eins",)}, {"caption": ("zwei", "deux")}, {"short": ("drei",), "long": ("vier",)}]
    assert row.captions == {}
    assert row.shots == tuple(TimedCaptions(*span, said) for span, said in zip([(0.0, 1.0), (1.0, 2.5), (4.0, 5.0)], kinds, strict=True))
    assert list(replace(row, captions={"caption": ("null",)}).texts) == ["null", "eins", "zwei", "deux", "drei", "vier"]
    assert one(tmp_path, shots=[]).shots == one(tmp_path, shots=None).shots == one(tmp_path).shots == ()


@pytest.mark.parametrize(
    ("shot", "says"),
    [
        (3, "got 3, wanted {'start_s'"),
        ({"start_s": 2, "end_s": 3}, "wanted {'start_s'"),
        ({"end_s": 3, "caption": "x"}, "wanted {'start_s'"),
        ({"start_s": 2, "caption": "x"}, "wanted {'start_s'"),
        ({"start_s": 2, "end_s": 3, "caption": "x", "captions": "y"}, "wanted {'start_s'"),
        ({"start_s": 2, "end_s": 3, "captions": {}}, "has no caption, got {}"),
        ({"start_s": 2, "end_s": 3, "captions": {"short": 1}}, "kind 'short'"),
        ({"start_s": 2, "end_s": 3, "caption": "\ud800"}, "half a character"),
        ({"start_s": -1, "end_s": 3, "caption": "x"}, "'start_s' must be a number of seconds from 0 or HH:MM:SS.mmm, got -1"),
        ({"start_s": 2, "end_s": float("nan"), "caption": "x"}, "'end_s' must be"),
        ({"start_s": 2, "end_s": 2, "caption": "x"}, "the end, 2 s, must come after the start, 2 s"),
        ({"start_s": 0.5, "end_s": 3, "caption": "x"}, "starts at 0.5 s, before the end of the one before it, 1 s"),
    ],
)
def test_a_shot_that_cannot_be_meant_names_its_row(tmp_path, shot, says):
    with pytest.raises(ValueError, match=r"index\.jsonl, row 1, shot 2: ") as error:
        one(tmp_path, shots=[{"start_s": 0, "end_s": 1, "caption": "first"}, shot])
    assert says in str(error.value)


def test_tables_hold_shots_as_json(tmp_path):
    cell = json.dumps([{"start_s": 0, "end_s": 1, "caption": "x"}]).replace('"', '""')
    (tmp_path / "a.csv").write_text(f'path,Shots\na.mp4,"{cell}"\nb.mp4,\n', encoding="utf-8")
    assert [row.shots for row in read_index(tmp_path / "a.csv").rows] == [(TimedCaptions(0.0, 1.0, {"caption": ("x",)}),), ()]
    (tmp_path / "b.csv").write_text("path,shots\na.mp4,soon\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"row 1 \(line 2\): the column 'shots' must hold JSON, got 'soon'"):
        read_index(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"row 1: 'shots' must be a list, got \{\}"):
        one(tmp_path, shots={})


def test_parquet_holds_shots_as_structures(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    shots = [[{"start_s": 0.0, "end_s": 1.0, "caption": "x", "captions": None}], None]
    pq.write_table(pa.table({"path": ["a.mp4", "b.mp4"], "shots": shots}), tmp_path / "a.parquet")
    assert [row.shots for row in read_index(tmp_path / "a.parquet").rows] == [(TimedCaptions(0.0, 1.0, {"caption": ("x",)}),), ()]


def test_a_batch_refuses_shots_of_another_length_and_empty_ones():
    clips = {"samples": (0, 1), "rows": (0, 1), "captions": ({}, {}), "fps": torch.ones(2), "latents": torch.zeros(2, 1, 2, 1, 1)}
    assert Batch(**clips, shots=((Shot(0, 2, {}),), ())).to("cpu").shots == ((Shot(0, 2, {}),), ())
    with pytest.raises(AssertionError, match="disagree on its length"):
        Batch(**clips, shots=((),))
    with pytest.raises(AssertionError, match="2 to 2"):
        Shot(2, 2, {})
