import pickle
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from data.buckets import Bucket
from data.clips import Clips
from data.dataset import ClipMemory, Fault, StandIns, VideoDataset, check_faults
from data.files.faults import VideoError
from data.files.media import Media
from data.files.reader import PyAVReader, read_video
from data.index import Index, Row
from data.plan import Draw
from data.shapes import Fixed, Native
from data.transforms import DetailCrop, to_uint8


class CountingReader(PyAVReader):
    """Reads with PyAV and remembers what was asked for."""

    def __init__(self):
        super().__init__()
        self.paths = []

    def read(self, media, probe, frames, cover=None):
        self.paths.append(media.path)
        return super().read(media, probe, frames, cover)


class Frames:
    """A probe of 8 fps and 8x8 pixels."""

    width = height = 8

    def __init__(self, count):
        self.times = np.arange(count) / 8


class MadeReader:
    """Files that exist only by name: 'bad...' cannot be read, any other has as many frames as its name says; pixels are the frame numbers."""

    def read(self, media, probe, frames, cover=None):
        if "/bad" in media.path:
            raise VideoError(media.path, "unreadable", "made to fail")
        return np.broadcast_to(np.asarray(frames, np.uint8)[:, None, None, None], (len(frames), 8, 8, 3)).copy()


def made(names, segments=None, min_frames=5, **options):
    rows = [Row(Media(f"/set/{name}"), **(segments or {}).get(name, {})) for name in names]
    probes = tuple(Frames(int(name.split("-")[1])) for name in names)
    shape = Fixed(5, 8, 8, (4, 8, 8), min_frames)
    buckets, faults = [], []
    for number, name in enumerate(names):
        count = probes[number].times.size
        buckets.append(shape.bucket(count, 8, 8) if count >= min_frames else None)
        if count < min_frames:
            faults.append(Fault(number, name, "too_short", f"{count}"))
    only = tuple(bucket is not None and probe.times.size == bucket.frames for probe, bucket in zip(probes, buckets, strict=True))
    clips = Clips(Index("made", "/set", tuple(rows)), probes, tuple(buckets), only, tuple(faults), 8)
    return VideoDataset(clips, MadeReader(), **{"seed": 0, "bad_limit": 1.0, **options})


def only(fetched):
    """The one group of a micro-batch whose clips are all of one shape."""
    (group,) = fetched.groups
    return group


def test_a_batch_holds_the_files_pixels_and_captions(clips, clips_of):
    looked_at = clips_of(clips / "index.jsonl")
    index, dataset = looked_at.index, VideoDataset(looked_at, PyAVReader(), seed=0)
    fetched = dataset.run([Draw(70, 3), Draw(71, 0)])
    (group,) = fetched.groups
    batch = dataset.batch(group)
    assert (batch.samples, batch.rows, fetched.faults) == ((70, 71), (3, 0), ())
    assert [captions["short"] for captions in batch.captions] == [("clip 3",), ("clip 0",)]
    assert batch.fps.tolist() == [8.0, 8.0]
    assert batch.content.shape == (2, 3, 5, 32, 32)
    assert np.array_equal(to_uint8(batch.content)[0].numpy(), read_video(index.rows[3].path))


def test_a_bad_row_is_named_and_replaced_by_seed_and_row_alone():
    names = [f"clip{number}-5" for number in range(20)]
    names[4], names[9] = "bad4-5", "bad9-5"
    alone = {row: only(made(names).run([Draw(0, row)])).rows[0] for row in (4, 9)}
    fetched = made(names).run([Draw(100, 9), Draw(101, 3), Draw(102, 4), Draw(103, 9)])
    assert only(fetched).rows == (alone[9], 3, alone[4], alone[9])
    assert not {4, 9} & set(only(fetched).rows)
    assert {(fault.row, fault.path, fault.kind, fault.detail) for fault in fetched.faults} == {
        (row, f"bad{row}-5", "unreadable", "made to fail") for row in (4, 9)
    }
    others = {only(made(names, seed=seed).run([Draw(0, 4)])).rows[0] for seed in range(12)}
    assert len(others) > 3


def test_a_bad_row_shows_its_replacements_content_never_zeros():
    dataset = made(["bad0-5", "clip-5"], seed=3)
    fetched = dataset.run([Draw(0, 0)])
    assert only(fetched).rows == (1,)
    assert only(fetched).content[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_stand_in_has_the_shape_of_the_row_it_stands_in_for():
    shapes = [Bucket(5, 8, 8)] * 3 + [Bucket(1, 8, 8)] * 4 + [Bucket(9, 16, 8), None]
    stand_ins = StandIns(shapes, [1.0] * 9, seed=0)
    for row in range(7):
        tried = list(islice(stand_ins.candidates(row), 30))
        assert tried[0] == row
        assert {shapes[other] for other in tried} == {shapes[row]}
        assert len(set(tried)) > 2


def test_a_shape_of_one_clip_is_filled_by_a_clip_of_another_in_that_ones_own_shape():
    dataset = made(["bad-5", "still-1", "still-1"], min_frames=1)
    fetched = dataset.run([Draw(0, 0), Draw(1, 2)])
    (group,) = fetched.groups
    assert group.samples == (0, 1)
    assert group.rows[0] in (1, 2)
    assert group.content.shape == (2, 1, 8, 8, 3)
    both = made(["bad-9", "still-1", "clip-5", "clip-5"], min_frames=1).run([Draw(0, 2), Draw(1, 0), Draw(2, 1)])
    assert sorted(sample for group in both.groups for sample in group.samples) == [0, 1, 2]
    assert {group.content.shape[1:3] for group in both.groups} == {(1, 8), (5, 8)}


def test_a_row_of_weight_0_stands_in_for_nobody():
    rows = tuple(Row(Media(f"/set/{name}"), weight=weight) for name, weight in (("hidden-5", 0.0), ("bad-5", 1.0), ("clip-5", 1.0)))
    whole = made(["hidden-5", "bad-5", "clip-5"]).clips
    for seed in range(8):
        dataset = VideoDataset(replace(whole, index=replace(whole.index, rows=rows)), MadeReader(), seed=seed, bad_limit=1.0)
        assert only(dataset.run([Draw(0, 1)])).rows == (2,)


def test_crops_of_clips_that_are_smaller_than_the_crop_are_grouped_by_shape(tmp_path, write_video, numbered_video, clips_of):
    for number, size in enumerate([(48, 48), (16, 48), (64, 32)]):
        write_video(tmp_path / f"{number}.mp4", numbered_video(5, *size))
    dataset = VideoDataset(clips_of(tmp_path, Native(5, 4096, (4, 16, 16))), PyAVReader(), seed=0, crop=DetailCrop(32))
    shapes = {group.rows: group.content.shape[2:4] for row in range(3) for group in dataset.run([Draw(row, row)]).groups}
    assert shapes == {(0,): (32, 32), (1,): (16, 32), (2,): (32, 32)}


def test_a_segment_shows_its_own_frames_alone():
    segments = {"clip-30": {"start_s": 1.0, "end_s": 2.0}, "tail-30": {"start_s": 3.0}}
    dataset = made(["clip-30", "tail-30"], segments)
    starts = {int(only(dataset.run([Draw(sample, 0)])).content[0, 0, 0, 0, 0]) for sample in range(40)}
    assert starts == {8, 9, 10, 11}  # of frames 8 to 15
    assert {int(only(dataset.run([Draw(sample, 1)])).content[0, 0, 0, 0, 0]) for sample in range(20)} == {24, 25}


def test_a_row_that_is_given_up_is_not_opened_again():
    dataset = made(["clip-5", "other-5"])
    dataset.give_up(0, "hung", "took longer than 60 s")
    fetched = dataset.run([Draw(0, 0)])
    assert only(fetched).rows == (1,)
    assert [(fault.row, fault.kind) for fault in fetched.faults] == [(0, "hung")]


def test_nothing_usable_is_reported_not_made_up():
    fetched = made(["bad0-5", "bad1-5"]).run([Draw(0, 0)])
    assert fetched.groups == ()
    assert {fault.row for fault in fetched.faults} == {0, 1}


def test_faults_over_the_limit_end_the_run_with_the_first_ten():
    faults = [Fault(number, f"clip{number}.mp4", "empty", "0 bytes") for number in range(12)]
    check_faults(faults, 1200, 0.01)
    with pytest.raises(RuntimeError, match=r"(?s)12 of 1199 .*1\.0%.*clip0\.mp4: empty: 0 bytes.*clip9\.mp4.*and 2 more.*data\.bad_limit") as error:
        check_faults(faults, 1199, 0.01)
    assert "clip10.mp4" not in str(error.value)


def test_a_longer_file_is_seen_at_many_places_by_sample_number_alone():
    dataset = made(["clip-30"])
    starts = [int(only(dataset.run([Draw(sample, 0)])).content[0, 0, 0, 0, 0]) for sample in range(40)]
    assert len(set(starts)) > 15
    assert min(starts) >= 0
    assert max(starts) <= 25
    assert starts == [int(only(made(["clip-30"]).run([Draw(sample, 0)])).content[0, 0, 0, 0, 0]) for sample in range(40)]
    middle = made(["clip-30"], seed=None)
    assert {int(only(middle.run([Draw(sample, 0)])).content[0, 0, 0, 0, 0]) for sample in range(5)} == {13}


@pytest.mark.parametrize("crop", [None, DetailCrop(16)])
def test_memory_changes_no_bit_and_decodes_once(clips, clips_of, crop):
    looked_at = clips_of(clips / "index.jsonl")
    results, reads = [], []
    for memory in (0, 3 * 5 * 32 * 32 * 3, 2**20):
        reader = CountingReader()
        dataset = VideoDataset(looked_at, reader, seed=1, crop=crop, memory_bytes=memory)
        results.append([only(dataset.run([Draw(epoch * 7 + row, row) for row in range(7)])).content for epoch in range(3)])
        reads.append(len(reader.paths))
    assert reads == [21, 3 + 12, 7]
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert (crop is None) == np.array_equal(results[0][0], results[0][1])


def test_memory_does_not_pin_a_longer_file_to_one_place():
    dataset = made(["clip-30"], memory_bytes=2**20)
    assert len({int(only(dataset.run([Draw(sample, 0)])).content[0, 0, 0, 0, 0]) for sample in range(20)}) > 5


def test_memory_is_a_private_copy_of_what_is_put():
    shapes = (Bucket(1, 2, 4), None, Bucket(2, 1, 2), Bucket(1, 2, 4))
    memory = ClipMemory(shapes, memory_bytes=24 + 12 + 23)
    assert memory.rows == 3
    clips = [np.full((*(() if shape is None else (shape.frames, shape.height, shape.width)), 3), 7 + row) for row, shape in enumerate(shapes)]
    for row in (0, 2, 3):
        memory.put(row, clips[row])
    clips[2][:] = 0
    assert memory.get(0).tolist() == np.full((1, 2, 4, 3), 7).tolist()
    assert memory.get(2).tolist() == np.full((2, 1, 2, 3), 9).tolist()
    assert memory.get(1) is memory.get(3) is None
    assert pickle.loads(pickle.dumps(memory)).get(2) is None


@pytest.mark.parametrize(("options", "key"), [({"bad_limit": 1.5}, "bad_limit"), ({"bad_limit": -1}, "bad_limit")])
def test_wrong_settings_name_their_key(clips, clips_of, options, key):
    with pytest.raises(ValueError, match=rf"data\.{key}"):
        VideoDataset(clips_of(clips / "index.jsonl"), PyAVReader(), **{"seed": 0, **options})
