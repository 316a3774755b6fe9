import os
import time

import numpy as np
import pytest
import torch

from data.batch import Batch, Packed
from data.buckets import Bucket
from data.dataset import Fetched, Group, VideoDataset
from data.files.media import Media
from data.files.reader import PyAVReader
from data.index import Index, Row
from data.loader import Loader
from data.plan import EpochPlan, MicroBatches, Sequences
from data.shapes import Native
from data.transforms import DetailCrop
from data.workers import UNWATCHED

GRID = (4, 16, 16)


@pytest.fixture
def loader(clips_of):
    def make(folder, workers, micro_batch=2, seed=0, bad_limit=0.5, crop=True, memory_bytes=0, shape=None, **options):
        clips = clips_of(folder / "index.jsonl", shape)
        dataset = VideoDataset(clips, PyAVReader(), seed, DetailCrop(16) if crop else None, bad_limit, memory_bytes)
        plan = EpochPlan([row.weight for row in clips.index.rows], [1] * len(clips), 3, None, seed)
        return Loader(dataset, plan, MicroBatches(micro_batch, None, GRID), workers, **options)

    return make


def same(a, b):
    assert [len(step) for step in a] == [len(step) for step in b]
    for one, other in zip([batch for step in a for batch in step], [batch for step in b for batch in step], strict=True):
        assert (one.samples, one.rows, one.captions) == (other.samples, other.rows, other.captions)
        assert torch.equal(one.content, other.content)


def test_batches_do_not_depend_on_the_number_of_workers(broken_clips, loader):
    loaders = [loader(broken_clips, workers) for workers in (0, 1, 2)]
    results = [list(each.steps(0, 6)) for each in loaders]
    same(results[0], results[1])
    same(results[0], results[2])
    assert [[len(batch) for batch in step] for step in results[0]] == [[2, 1], [2, 1], [1]] * 2
    assert 2 not in {row for step in results[0] for batch in step for row in batch.rows}
    for each in loaders:
        assert [(fault.row, fault.path, fault.kind) for fault in each.faults] == [(2, "2.mp4", "damaged")]


def test_every_clip_is_handed_over_once_an_epoch_and_a_bad_ones_place_is_filled(clips, broken_clips, loader):
    whole, broken = loader(clips, 1), loader(broken_clips, 1)
    for each in (whole, broken):
        list(each.steps(0, 6))
    assert whole.shown.tolist() == [2] * 7
    assert broken.shown[2] == 0
    assert broken.shown.sum() == 14


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_at_a_step_gives_the_tail(clips, workers, loader):
    whole = loader(clips, 0)
    expected = list(whole.steps(0, 6))
    resumed = loader(clips, workers)
    for start in (4, 1):
        same(list(resumed.steps(start, 6)), expected[start:])
    part = resumed.steps(0, 6)
    next(part)  # a caller that stops in the middle and asks anew
    same(list(resumed.steps(2, 5)), expected[2:5])


def test_micro_batches_hold_the_samples_of_the_whole_step(clips, loader):
    whole = [batch for (batch,) in loader(clips, 0, micro_batch=8).steps(0, 3)]
    parts = list(loader(clips, 0, micro_batch=2).steps(0, 3))
    for batch, step in zip(whole, parts, strict=True):
        assert batch.samples == tuple(sample for part in step for sample in part.samples)
        assert torch.equal(batch.content, torch.cat([part.content for part in step]))


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_together_see_what_one_process_sees(clips, loader, ranks):
    def by_sample(steps):
        return [{s: (row, clip) for b in step for s, row, clip in zip(b.samples, b.rows, b.content, strict=True)} for step in steps]

    alone = by_sample(loader(clips, 0).steps(0, 4))
    parts = [by_sample(loader(clips, 0, rank=rank, ranks=ranks).steps(0, 4)) for rank in range(ranks)]  # of 5 ranks, 2 have nothing in a step
    for step, whole in enumerate(alone):
        together = {sample: clip for part in parts for sample, clip in part[step].items()}
        assert together.keys() == whole.keys()
        assert sum(len(part[step]) for part in parts) == len(whole)
        for sample, (row, clip) in whole.items():
            assert together[sample][0] == row
            assert torch.equal(together[sample][1], clip)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_files_end_the_run_by_name(broken_clips, workers, loader):
    with pytest.raises(RuntimeError, match=r"1 of 7 clips cannot be used, the limit is 10\.0%:\n  2\.mp4: damaged: .*\n.*data\.bad_limit"):
        list(loader(broken_clips, workers, bad_limit=0.1).steps(0, 3))


def test_files_known_to_be_bad_count_before_the_first_step(broken_clips, loader):
    (broken_clips / "2.mp4").write_bytes(b"text")
    with pytest.raises(RuntimeError, match=r"1 of 7 clips cannot be used, the limit is 10\.0%:\n  2\.mp4: unreadable: "):
        loader(broken_clips, 0, bad_limit=0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_without_a_usable_file_ends_the_run_whatever_the_limit(broken_clips, workers, loader):
    (broken_clips / "2.mp4").write_bytes((broken_clips / "1.mp4").read_bytes())
    each = loader(broken_clips, workers, bad_limit=1.0)
    for file in broken_clips.glob("*.mp4"):
        file.write_bytes(b"text")
    with pytest.raises(RuntimeError, match=r"(?s)7 of 7 clips cannot be used.*has changed since it was looked at"):
        list(each.steps(0, 3))
    with pytest.raises(RuntimeError, match=r"(?s)7 of 7 clips cannot be used.*unreadable"):
        loader(broken_clips, workers, bad_limit=1.0)


def test_memory_is_filled_by_workers_for_each_other(clips, tmp_path, loader):
    each = loader(clips, 2, memory_bytes=2**20)
    first = list(each.steps(0, 3))
    moved = tmp_path / "moved"
    moved.mkdir()
    files = sorted(clips.glob("*.mp4"))
    for file in files:
        file.rename(moved / file.name)
    try:
        again = list(each.steps(0, 3))  # from memory: the files are away
        assert each.faults == []
    finally:
        for file in files:
            (moved / file.name).rename(file)
    same(first, again)


def test_clips_of_many_shapes_come_in_batches_of_one(tmp_path, write_video, numbered_video, loader):
    sizes = [(5, 32, 32), (9, 32, 32), (1, 32, 32), (9, 48, 32), (4, 32, 64), (6, 64, 32), (9, 64, 64)]
    for number, size in enumerate(sizes * 2):
        write_video(tmp_path / f"{number:02d}.mp4", numbered_video(*size))
    (tmp_path / "index.jsonl").write_text("".join(f'{{"path": "{number:02d}.mp4"}}\n' for number in range(14)))
    each = loader(tmp_path, 2, shape=Native(9, 2048, GRID), crop=False)
    steps = list(each.steps(0, each.steps_per_epoch))
    shapes = {tuple(batch.content.shape[2:]) for step in steps for batch in step}
    assert shapes == {(5, 32, 32), (9, 32, 32), (1, 32, 32), (9, 48, 32), (1, 32, 64), (5, 64, 32)}
    assert each.shown.tolist() == [1] * 14


def test_reading_leaves_torchs_random_numbers_alone(clips, loader):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(loader(clips, 1).steps(0, 1))
    assert torch.equal(torch.rand(3), expected)


class SlowSource:
    """Takes 20 ms a micro-batch; content is the worker's session."""

    bad_limit, known_faults = 0.0, ()
    index = Index("made", "/", tuple(Row(Media(f"/{number}")) for number in range(8)))
    buckets = (Bucket(1, 16, 16),) * 8

    def run(self, item, watch=UNWATCHED):
        time.sleep(0.02)
        content = np.full((len(item), 1, 1, 1, 1), os.getsid(0))
        return Fetched((Group(tuple(draw.sample for draw in item), tuple(draw.row for draw in item), content),))

    def give_up(self, token, kind, detail):
        raise AssertionError("nothing hangs here")

    def batch(self, group):
        return Batch(group.samples, group.rows, ({},) * len(group.rows), torch.ones(len(group.rows)), video=torch.from_numpy(group.content))


def slow(micro_batch, workers=0):
    return Loader(SlowSource(), EpochPlan([1.0] * 8, [1] * 8, 2, None, 0), MicroBatches(micro_batch, None, GRID), workers)


def test_waiting_is_measured_and_the_callers_own_time_is_not():
    each = slow(1)
    for _ in each.steps(0, 2):
        time.sleep(0.25)
    assert 0.08 <= each.wait_s < 0.5  # 4 micro-batches; with the caller's time it would be 0.58


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="sessions are POSIX")
def test_signals_to_the_group_do_not_reach_workers():
    ((batch,), *_) = slow(2, workers=1).steps(0, 4)
    assert batch.content.unique().item() != os.getsid(0)


class ManyShapes:
    """16 rows in 8 shapes, content is the row; where row 3 is asked for, the larger row 7 stands in."""

    bad_limit, known_faults = 1.0, ()
    index = Index("made", "/", tuple(Row(Media(f"/{number}")) for number in range(16)))
    buckets = tuple(Bucket(1 + 4 * (number % 8), 16, 16) for number in range(16))  # 1 to 8 tokens

    def run(self, item, watch=UNWATCHED):
        shapes = {}
        for draw in item:
            row = 7 if draw.row == 3 else draw.row
            shapes.setdefault(self.buckets[row], []).append((draw.sample, row))
        groups = []
        for bucket, members in shapes.items():
            samples, rows = zip(*members, strict=True)
            content = torch.tensor(rows).float()[:, None, None, None, None].expand(-1, 1, bucket.frames, 16, 16)
            groups.append(Group(samples, rows, content.numpy()))
        return Fetched(tuple(groups))

    def give_up(self, token, kind, detail):
        raise AssertionError("nothing hangs here")

    def batch(self, group):
        content = torch.from_numpy(group.content)
        return Batch(group.samples, group.rows, ({},) * len(group.rows), torch.ones(len(group.rows)), video=content)


def packed(micro=Sequences, workers=0, **options):
    tokens = [bucket.tokens(GRID) for bucket in ManyShapes.buckets]
    each = Loader(ManyShapes(), EpochPlan([1.0] * 16, tokens, 16, None, 0), micro(6, 20, GRID), workers, **options)
    return list(each.steps(0, 2))


def by_sample(passes):
    return {s: (r, clip) for each in passes for part in each.parts for s, r, clip in zip(part.samples, part.rows, part.content, strict=True)}


def same_clips(a, b):
    assert a.keys() == b.keys()
    assert all(a[sample][0] == b[sample][0] and torch.equal(a[sample][1], b[sample][1]) for sample in a)


def test_passes_of_many_shapes_hold_the_clips_of_the_micro_batches_in_fewer_passes_within_the_limits():
    buckets, sequences = packed(MicroBatches), packed()
    for one, other in zip(buckets, sequences, strict=True):
        same_clips(by_sample(one), by_sample(other))
        assert len(other) < 0.7 * len(one)
        assert any(isinstance(each, Packed) for each in other)
        for each in other:
            assert len(each) <= 6
            assert sum(len(part) * ManyShapes.buckets[part.rows[0]].tokens(GRID) for part in each.parts) <= 20  # with the stand-in's 8 tokens
            assert each.rows == tuple(row for part in each.parts for row in part.rows)
    assert sum(each.rows.count(7) for step in sequences for each in step) == 4  # itself and for row 3, in two epochs


@pytest.mark.parametrize("workers", [1, 2])
def test_packs_do_not_depend_on_the_number_of_workers(workers):
    for one, other in zip(packed(), packed(workers=workers), strict=True):
        assert [[part.samples for part in each.parts] for each in one] == [[part.samples for part in each.parts] for each in other]
        same_clips(by_sample(one), by_sample(other))


def test_ranks_together_see_the_packs_clips_of_one_process():
    parts = [packed(rank=rank, ranks=3) for rank in range(3)]
    for step, alone in enumerate(packed()):
        same_clips(by_sample(alone), {sample: clip for part in parts for sample, clip in by_sample(part[step]).items()})


class HangingReader(PyAVReader):
    """Never comes back from clip 3."""

    def read(self, media, probe, frames, cover=None):
        if media.path.endswith("3.mp4"):
            time.sleep(600)
        return super().read(media, probe, frames, cover)


def test_a_file_that_hangs_is_given_up_and_its_place_filled(clips, clips_of):
    dataset = VideoDataset(clips_of(clips / "index.jsonl"), HangingReader(), 0, None, bad_limit=0.5)
    each = Loader(dataset, EpochPlan([1.0] * 7, [1] * 7, 3, None, 0), MicroBatches(2, None, GRID), workers=2, file_budget_s=1.0)
    begun = time.monotonic()
    list(each.steps(0, 6))
    assert time.monotonic() - begun < 5  # one wait, though two epochs ask for it
    assert [(fault.row, fault.kind) for fault in each.faults] == [(3, "hung")]
    assert each.shown[3] == 0
    assert each.shown.sum() == 14


def test_wrong_settings_name_their_key():
    with pytest.raises(ValueError, match=r"Set data\.workers"):
        slow(2, workers=-1)
