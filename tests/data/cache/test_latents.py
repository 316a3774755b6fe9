import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from data.cache import latents as module
from data.cache.latents import LatentDataset, cache_latents, division
from data.dataset import VideoDataset
from data.files.media import Media
from data.files.reader import PyAVReader
from data.index import Index, Row
from data.loader import Loader
from data.plan import Draw, EpochPlan, MicroBatches
from data.shapes import Fixed, Native
from data.transforms import to_float

ROOT = Path(__file__).resolve().parents[3]
GRID = (4, 16, 16)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of two clips, shards of three."""
    monkeypatch.setattr(module, "PARTS", MicroBatches(2, None, GRID))
    monkeypatch.setattr(module, "SHARD_ROWS", 3)


@pytest.fixture
def dataset_of(clips_of):
    def make(folder, bad_limit=0.5, shape=None, fps=8):
        return VideoDataset(clips_of(folder / "index.jsonl", shape, fps), PyAVReader(), None, bad_limit=bad_limit)

    return make


def encode(video):
    """A stand-in for a VAE: stride 4x8x8, 3 channels."""
    return functional.avg_pool3d(functional.pad(video, (0, 0, 0, 0, 3, 0), mode="replicate"), (4, 8, 8))  # b 3 f h w


def cache(dataset, folder, encode=encode, vae="vae-a", **options):
    return cache_latents(dataset, encode, folder, vae, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loader(source, seed=0, workers=0):
    plan = EpochPlan([1.0 if bucket else 0.0 for bucket in source.buckets], [1] * len(source.buckets), 3, None, seed)
    return Loader(source, plan, MicroBatches(2, None, GRID), workers)


def latents(dataset, rows):
    (group,) = dataset.run([Draw(row, row) for row in rows]).groups
    return dataset.batch(group)


@pytest.mark.parametrize("memory_bytes", [0, 2**20])
def test_every_row_gives_the_latents_of_its_clip(clips, tmp_path, memory_bytes, dataset_of):
    source = dataset_of(clips)
    dataset = LatentDataset(cache(source, tmp_path / "cache"), source.clips, memory_bytes=memory_bytes)
    assert dataset.in_memory == bool(memory_bytes)
    batch = latents(dataset, (6, 0, 3))
    whole = to_float(torch.stack([torch.from_numpy(source.clip(row, 0)) for row in (6, 0, 3)]))
    assert batch.latents.dtype == torch.float32
    assert torch.allclose(batch.latents, encode(whole), atol=1e-6)  # encoded in other batches
    assert (batch.rows, batch.samples, batch.fps.tolist()) == ((6, 0, 3), (6, 0, 3), [8.0] * 3)
    assert batch.captions[1] == {"short": ("clip 0",)}


def test_clips_of_many_shapes_are_cached_in_one_folder(tmp_path, write_video, numbered_video, clips_of):
    (tmp_path / "set").mkdir()
    sizes = [(5, 32, 32), (9, 48, 32), (1, 32, 32), (9, 32, 64), (5, 32, 32)]
    for number, size in enumerate(sizes):
        write_video(tmp_path / f"set/{number}.mp4", numbered_video(*size))
    source = VideoDataset(clips_of(tmp_path / "set", Native(9, 2048, GRID)), PyAVReader(), None)
    store = cache(source, tmp_path / "cache")
    dataset = LatentDataset(store, source.clips, memory_bytes=2**20)
    for row, (frames, height, width) in enumerate(sizes):
        (latent,) = latents(dataset, (row,)).latents
        assert latent.shape == (3, 1 + (frames - 1) // 4, height // 8, width // 8)
        assert torch.allclose(latent, encode(to_float(torch.from_numpy(source.clip(row, 0)[None])))[0], atol=1e-6)


def test_the_division_holds_every_usable_row_once_in_parts_of_one_shape(broken_clips, dataset_of):
    source = dataset_of(broken_clips, shape=Fixed(5, 32, 32, GRID))
    shards = division(source.clips)
    assert sorted(int(key) for shard in shards for part in shard for key in part) == list(range(7))
    assert [[len(part) for part in shard] for shard in shards] == [[2, 1], [2, 1], [1]]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", range(4))
def test_a_build_that_dies_goes_on_and_ends_with_the_same_files(broken_clips, tmp_path, stop, workers, dataset_of):
    cache(dataset_of(broken_clips), tmp_path / "undisturbed")
    seen = []

    def dying(video):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(len(video))
        return encode(video)

    with pytest.raises(KeyboardInterrupt):
        cache(dataset_of(broken_clips), tmp_path / "disturbed", dying, workers=workers)
    count = []
    cache(dataset_of(broken_clips), tmp_path / "disturbed", lambda video: count.append(len(video)) or encode(video), workers=workers)
    assert sum(count) + sum(seen) == 6  # nothing is encoded twice
    assert contents(tmp_path / "disturbed") == contents(tmp_path / "undisturbed")


CHILD = """
import sys, time; sys.path[:0] = [{root!r}, {tests!r}]
import test_latents as t
from data.cache import latents as m
from data.catalogue import look
from data.clips import Clips
from data.index import read_index
m.PARTS, m.SHARD_ROWS = t.MicroBatches(2, None, t.GRID), 3
clips = Clips.of(read_index({index!r}), look(read_index({index!r}), None, 0, 60), t.Fixed(5, 32, 32, t.GRID), 8)
print("begun", flush=True)
dataset = t.VideoDataset(clips, t.PyAVReader(), None, bad_limit=0.5)
m.cache_latents(dataset, lambda video: (time.sleep(0.02), t.encode(video))[1], {folder!r}, "vae-a", workers=1)
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_of_caching_leads_to_the_same_files(broken_clips, tmp_path, dataset_of):
    cache(dataset_of(broken_clips), tmp_path / "undisturbed")
    folder, index = tmp_path / "killed", str(broken_clips / "index.jsonl")
    code = CHILD.format(root=str(ROOT), tests=str(Path(__file__).parent), index=index, folder=str(folder))
    rng, killed = np.random.default_rng(0), 0
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"begun\n"
        time.sleep(rng.uniform(0, 0.25))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert killed >= 3
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert contents(folder) == contents(tmp_path / "undisturbed")


def test_a_complete_cache_is_not_encoded_again(clips, tmp_path, dataset_of):
    cache(dataset_of(clips), tmp_path)
    before = contents(tmp_path)
    cache(dataset_of(clips), tmp_path, lambda _: pytest.fail("encoded again"))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vae": "vae-b"}, "another VAE .weights vae-a, now vae-b"),
        ({"shape": Fixed(1, 32, 32, GRID)}, "5x32x32 at 8 fps.*now 1x32x32"),
        ({"shape": Fixed(3, 32, 32, GRID), "fps": 4}, "now 3x32x32 at 4 fps"),
        ({"dtype": "bfloat16"}, "another dtype .float32, now bfloat16"),
        ({"touch": True}, "other files"),
    ],
)
def test_a_stale_cache_is_refused_by_name(broken_clips, tmp_path, change, says, dataset_of):
    cache(dataset_of(broken_clips), tmp_path / "cache")
    before = contents(tmp_path / "cache")
    change = dict(change)
    if change.pop("touch", False):
        os.utime(broken_clips / "3.mp4", ns=(1, 1))
    clips = dataset_of(broken_clips, **{key: change.pop(key) for key in ("shape", "fps") if key in change})
    with pytest.raises(ValueError, match=f"(?s)cache were made from .*{says}.*data.latents"):
        cache(clips, tmp_path / "cache", lambda _: pytest.fail("encoded"), **change)
    assert contents(tmp_path / "cache") == before


def test_another_segment_of_the_same_file_is_another_clip(clips, clips_of, tmp_path):
    def segment(start_s):
        row = Row(Media(str(clips / "0.mp4")), start_s=start_s, end_s=start_s + 0.125)
        return VideoDataset(clips_of(Index("made", str(clips), (row,)), Fixed(1, 32, 32, GRID)), PyAVReader(), None)

    cache(segment(0.0), tmp_path / "cache")
    with pytest.raises(ValueError, match="other files"):
        cache(segment(0.25), tmp_path / "cache")


def test_a_clip_that_cannot_be_decoded_is_a_fault_and_is_never_drawn(broken_clips, tmp_path, dataset_of):
    source = dataset_of(broken_clips)
    dataset = LatentDataset(cache(source, tmp_path / "cache"), source.clips, bad_limit=0.5, memory_bytes=2**20)
    each = loader(dataset)
    assert [(fault.row, fault.path, fault.kind) for fault in each.faults] == [(2, "2.mp4", "damaged")]
    list(each.steps(0, each.steps_per_epoch))
    assert each.shown.tolist() == [1, 1, 0, 1, 1, 1, 1]
    with pytest.raises(RuntimeError, match=r"1 of 7 clips cannot be used.*\n  2\.mp4: damaged"):
        cache(dataset_of(broken_clips, bad_limit=0.1), tmp_path / "other")
    with pytest.raises(RuntimeError, match="1 of 7 clips"):
        loader(LatentDataset(cache(source, tmp_path / "cache"), source.clips, bad_limit=0.1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mapped_cache_serves_workers(clips, tmp_path, workers, dataset_of):
    source = dataset_of(clips)
    store = cache(source, tmp_path)
    mapped = loader(LatentDataset(store, source.clips), workers=workers)
    held = loader(LatentDataset(store, source.clips, memory_bytes=2**20))
    for ours, theirs in zip(mapped.steps(0, 4), held.steps(0, 4), strict=True):
        assert all(torch.equal(a.content, b.content) for a, b in zip(ours, theirs, strict=True))


def test_broken_weights_are_not_cached(clips, tmp_path, dataset_of):
    with pytest.raises(RuntimeError, match=r"0\.mp4 to 1\.mp4 are not finite"):
        cache(dataset_of(clips), tmp_path, lambda video: encode(video) * float("nan"))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_smaller_numbers_on_disk_are_delivered_as_float32(clips, tmp_path, dtype, tolerance, dataset_of):
    source = dataset_of(clips)
    small = LatentDataset(cache(source, tmp_path / "small", dtype=dtype), source.clips, memory_bytes=2**20)
    exact = LatentDataset(cache(source, tmp_path / "exact"), source.clips, memory_bytes=2**20)
    ours, theirs = latents(small, range(7)).content, latents(exact, range(7)).content
    assert ours.dtype == torch.float32
    assert 0 < (ours - theirs).abs().max() < tolerance
    with pytest.raises(ValueError, match=r"data\.latent_dtype"):
        cache(source, tmp_path / "other", dtype="int8")
