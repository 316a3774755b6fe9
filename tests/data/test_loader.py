import os
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import Batch
from data.buckets import Bucket
from data.dataset import Draw, Fetched, VideoDataset
from data.index import read_index
from data.loader import EpochPlan, Loader, OnePass
from data.reader import PyAVReader
from data.transforms import DetailCrop


def loader(folder, workers, micro_batch=2, seed=0, bad_limit=0.5, crop=True, memory_bytes=0):
    index = read_index(folder / "index.jsonl")
    dataset = VideoDataset(index, PyAVReader(), Bucket(5, 32, 32), 8, seed, DetailCrop(16) if crop else None, bad_limit, memory_bytes)
    return Loader(dataset, EpochPlan(len(index), 3, seed), micro_batch, workers)


def same(a, b):
    assert [len(step) for step in a] == [len(step) for step in b]
    for one, other in zip([batch for step in a for batch in step], [batch for step in b for batch in step], strict=True):
        assert (one.samples, one.rows, one.captions) == (other.samples, other.rows, other.captions)
        assert torch.equal(one.content, other.content)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=60)
def test_every_row_comes_once_an_epoch_and_samples_count_on(rows, batch_size, seed, epoch):
    plan = EpochPlan(rows, batch_size, seed)
    steps = [plan.draws(step) for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)]
    draws = [draw for step in steps for draw in step]
    assert sorted(draw.row for draw in draws) == list(range(rows))
    assert [draw.sample for draw in draws] == list(range(epoch * rows, (epoch + 1) * rows))
    assert {len(step) for step in steps[:-1]} <= {batch_size}
    assert len(steps[-1]) == rows - batch_size * (len(steps) - 1) > 0


def test_the_order_is_a_function_of_seed_and_step():
    plan = EpochPlan(100, 8, seed=4)
    forward = [plan.draws(step) for step in range(30)]
    assert [EpochPlan(100, 8, seed=4).draws(step) for step in reversed(range(30))] == forward[::-1]
    assert plan.draws(0) != plan.draws(13)  # the next epoch has another order
    assert EpochPlan(100, 8, seed=5).draws(0) != forward[0]


def test_batches_do_not_depend_on_the_number_of_workers(broken_clips):
    loaders = [loader(broken_clips, workers) for workers in (0, 1, 2)]
    results = [list(each.steps(0, 6)) for each in loaders]
    same(results[0], results[1])
    same(results[0], results[2])
    assert [[len(batch) for batch in step] for step in results[0]] == [[2, 1], [2, 1], [1]] * 2
    assert 2 not in {row for step in results[0] for batch in step for row in batch.rows}
    for each in loaders:
        assert [(fault.row, fault.path, fault.kind) for fault in each.faults] == [(2, "2.mp4", "missing")]


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_at_a_step_gives_the_tail(clips, workers):
    whole = loader(clips, 0)
    expected = list(whole.steps(0, 6))
    resumed = loader(clips, workers)
    for start in (4, 1):
        same(list(resumed.steps(start, 6)), expected[start:])
    part = resumed.steps(0, 6)
    next(part)  # a caller that stops in the middle and asks anew
    same(list(resumed.steps(2, 5)), expected[2:5])


def test_micro_batches_hold_the_samples_of_the_whole_step(clips):
    whole = [batch for (batch,) in loader(clips, 0, micro_batch=8).steps(0, 3)]
    parts = list(loader(clips, 0, micro_batch=2).steps(0, 3))
    for batch, step in zip(whole, parts, strict=True):
        assert batch.samples == tuple(sample for part in step for sample in part.samples)
        assert torch.equal(batch.content, torch.cat([part.content for part in step]))


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_files_end_the_run_by_name(broken_clips, workers):
    with pytest.raises(RuntimeError, match=r"1 of 7 clips cannot be used, the limit is 10\.0%:\n  2\.mp4: missing: no such file\n.*data\.bad_limit"):
        list(loader(broken_clips, workers, bad_limit=0.1).steps(0, 3))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_without_a_usable_file_ends_the_run_whatever_the_limit(broken_clips, workers):
    for file in broken_clips.glob("*.mp4"):
        file.write_bytes(b"text")
    with pytest.raises(RuntimeError, match=r"(?s)clips cannot be used.*unreadable"):
        list(loader(broken_clips, workers, bad_limit=1.0).steps(0, 3))


def test_memory_is_filled_by_workers_for_each_other(clips, tmp_path):
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


def test_reading_leaves_torchs_random_numbers_alone(clips):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(loader(clips, 1).steps(0, 1))
    assert torch.equal(torch.rand(3), expected)


class SlowSource:
    """Takes 20 ms a micro-batch; content is the worker's session."""

    bad_limit, known_faults = 0.0, ()

    def __len__(self):
        return 8

    def fetch(self, draws):
        time.sleep(0.02)
        content = torch.full((len(draws), 1, 1, 1, 1), os.getsid(0), dtype=torch.int64)
        return Fetched(tuple(draw.sample for draw in draws), tuple(draw.row for draw in draws), content, ())

    def batch(self, fetched):
        return Batch(fetched.samples, fetched.rows, ({},) * len(fetched.rows), torch.ones(len(fetched.rows)), video=fetched.content)


def test_waiting_is_measured_and_the_callers_own_time_is_not():
    each = Loader(SlowSource(), EpochPlan(8, 2, 0), micro_batch=1)
    for _ in each.steps(0, 2):
        time.sleep(0.25)
    assert 0.08 <= each.wait_s < 0.5  # 4 micro-batches; with the caller's time it would be 0.58


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="sessions are POSIX")
def test_signals_to_the_group_do_not_reach_workers():
    ((batch,), *_) = Loader(SlowSource(), EpochPlan(8, 2, 0), micro_batch=2, workers=1).steps(0, 4)
    assert batch.content.unique().item() != os.getsid(0)


def test_one_pass_takes_all_rows_in_order():
    assert OnePass(3).draws(0) == [Draw(0, 0), Draw(1, 1), Draw(2, 2)]


@pytest.mark.parametrize("micro_batch", [0, -1])
def test_wrong_settings_name_their_key(micro_batch):
    with pytest.raises(ValueError, match=r"data\.micro_batch"):
        Loader(SlowSource(), EpochPlan(8, 2, 0), micro_batch)
    with pytest.raises(ValueError, match=r"data\.batch_size"):
        EpochPlan(8, 0, 0)
