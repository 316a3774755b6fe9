import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from data import latents as module
from data.buckets import Bucket
from data.dataset import Draw, VideoDataset
from data.index import read_index
from data.latents import LatentCache, LatentDataset
from data.loader import EpochPlan, Loader
from data.reader import PyAVReader
from data.transforms import to_float


def clips_of(folder, seed=None, bad_limit=0.5, frames=5, fps=8):
    return VideoDataset(read_index(folder / "index.jsonl"), PyAVReader(), Bucket(frames, 32, 32), fps, seed, bad_limit=bad_limit)


def encode(video):
    """A stand-in for a VAE: stride 4x8x8, 3 channels."""
    return functional.avg_pool3d(functional.pad(video, (0, 0, 0, 0, 3, 0), mode="replicate"), (4, 8, 8))  # b 3 2 4 4


def build(clips, folder, encode=encode, key="vae-a", **options):
    return LatentCache.build(clips, encode, folder, key, **{"batch_size": 2, "shard_rows": 3, **options})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("memory_bytes", [0, 2**20])
def test_every_row_gives_the_latents_of_its_clip(clips, tmp_path, memory_bytes):
    source = clips_of(clips)
    dataset = LatentDataset(build(source, tmp_path / "cache"), source.index, fps=8, seed=0, memory_bytes=memory_bytes)
    assert dataset.in_memory == bool(memory_bytes)
    batch = dataset.batch(dataset.fetch([Draw(row, row) for row in (6, 0, 3)]))
    whole = to_float(torch.stack([torch.from_numpy(source.clip(row, 0)) for row in (6, 0, 3)]))
    assert batch.latents.dtype == torch.float32
    assert torch.allclose(batch.latents, encode(whole), atol=1e-6)  # encoded in other batches
    assert (batch.rows, batch.samples, batch.fps.tolist()) == ((6, 0, 3), (6, 0, 3), [8.0] * 3)
    assert batch.captions[1] == {"short": ("clip 0",)}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("stop", "shards"), [(0, 0), (1, 1), (2, 1), (3, 2)])  # calls of the encoder: 1, 2, 1 in the three shards
def test_a_build_that_dies_goes_on_and_ends_with_the_same_files(broken_clips, tmp_path, stop, shards, workers):
    build(clips_of(broken_clips), tmp_path / "undisturbed")
    seen = []

    def dying(video):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(len(video))
        return encode(video)

    folder = tmp_path / "disturbed"
    with pytest.raises(KeyboardInterrupt):
        build(clips_of(broken_clips), folder, dying, workers=workers)
    (folder / "shard-00002.safetensors.tmp").write_bytes(b"half a shard")
    (folder / "shard-00002.safetensors").write_bytes(b"a shard that was never named")
    named = json.loads((folder / "manifest.json").read_text())["shards"] if (folder / "manifest.json").exists() else []
    assert [shard["name"] for shard in named] == [f"shard-0000{number}.safetensors" for number in range(shards)]
    count = []
    build(clips_of(broken_clips), folder, lambda video: count.append(len(video)) or encode(video), workers=workers)
    assert sum(count) == 6 - sum(len(load_file(folder / shard["name"])["rows"]) for shard in named)
    assert contents(folder) == contents(tmp_path / "undisturbed")


def test_a_complete_cache_is_not_encoded_again(clips, tmp_path):
    first = build(clips_of(clips), tmp_path)
    before = contents(tmp_path)
    again = build(clips_of(clips), tmp_path, lambda _: pytest.fail("encoded again"))
    assert again.manifest == first.manifest
    assert contents(tmp_path) == before
    assert sorted(before) == ["manifest.json", *(f"shard-0000{number}.safetensors" for number in range(3))]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "vae-b"}, "another VAE .weights vae-a, now vae-b"),
        ({"frames": 1}, "5x32x32 at 8 fps.*now 1x32x32"),
        ({"fps": 4, "frames": 3}, "now 3x32x32 at 4 fps"),
        ({"dtype": "bfloat16"}, "another dtype .float32, now bfloat16"),
        ({"touch": True}, "other files"),
        ({"shard_rows": 4}, "3 clips a shard, now 4"),
    ],
)
def test_a_stale_cache_is_refused_by_name(broken_clips, tmp_path, change, says):
    build(clips_of(broken_clips), tmp_path / "cache")
    before = contents(tmp_path / "cache")
    change = dict(change)
    if change.pop("touch", False):
        os.utime(broken_clips / "3.mp4", ns=(1, 1))
    shape = {key: change.pop(key) for key in ("frames", "fps") if key in change}
    with pytest.raises(ValueError, match=f"(?s)cache were made from .*{says}.*data.latents"):
        build(clips_of(broken_clips, **shape), tmp_path / "cache", lambda _: pytest.fail("encoded"), **change)
    assert contents(tmp_path / "cache") == before


def test_unusable_clips_have_no_latent_and_the_same_replacement_as_without_a_cache(broken_clips, tmp_path):
    source = clips_of(broken_clips)
    dataset = LatentDataset(build(source, tmp_path / "cache"), source.index, 8, seed=4, bad_limit=0.5, memory_bytes=2**20)
    loader = Loader(dataset, EpochPlan(7, 3, seed=4), micro_batch=3)
    assert [(fault.row, fault.path, fault.kind) for fault in loader.faults] == [(2, "2.mp4", "missing")]
    direct = Loader(clips_of(broken_clips, seed=4), EpochPlan(7, 3, seed=4), micro_batch=3)
    for (cached,), (decoded,) in zip(loader.steps(0, 6), direct.steps(0, 6), strict=True):
        assert (cached.rows, cached.samples) == (decoded.rows, decoded.samples)
    with pytest.raises(RuntimeError, match=r"1 of 7 clips cannot be used.*\n  2\.mp4: missing"):
        build(clips_of(broken_clips, bad_limit=0.1), tmp_path / "other")
    with pytest.raises(RuntimeError, match="1 of 7 clips"):
        LatentDataset(build(source, tmp_path / "cache"), source.index, 8, seed=4, bad_limit=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mapped_cache_serves_workers(clips, tmp_path, workers):
    source = clips_of(clips)
    cache = build(source, tmp_path)
    mapped = Loader(LatentDataset(cache, source.index, 8, seed=0), EpochPlan(7, 3, 0), 2, workers)
    held = Loader(LatentDataset(cache, source.index, 8, seed=0, memory_bytes=2**20), EpochPlan(7, 3, 0), 2)
    for ours, theirs in zip(mapped.steps(0, 4), held.steps(0, 4), strict=True):
        assert all(torch.equal(a.content, b.content) for a, b in zip(ours, theirs, strict=True))


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[:-1])
    elif how == "gone":
        path.unlink()
    else:
        data[-5] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize(("how", "memory_bytes"), [("cut", 0), ("gone", 0), ("cut", 2**20), ("gone", 2**20), ("bit", 2**20)])
def test_a_damaged_shard_is_noticed(clips, tmp_path, how, memory_bytes):
    source = clips_of(clips)
    cache = build(source, tmp_path)
    damage(tmp_path / "shard-00001.safetensors", how)
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors (is missing|is not what was written).*Delete"):
        LatentDataset(cache, source.index, 8, seed=0, memory_bytes=memory_bytes)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', '{"format": 1, "shards": [{"name": "../x", "sha256": "", "bytes": 1}]}', "[]"])
def test_a_strange_manifest_is_refused(clips, tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is not a latent cache's manifest"):
        build(clips_of(clips), tmp_path)


def test_a_shard_is_on_the_disk_before_it_is_named(clips, tmp_path, monkeypatch):
    save = module.Manifest.save

    def watched(self, folder):
        for shard in self.shards:
            assert (folder / shard["name"]).stat().st_size == shard["bytes"]
        save(self, folder)

    monkeypatch.setattr(module.Manifest, "save", watched)
    build(clips_of(clips), tmp_path)


def test_a_failed_write_leaves_no_litter(clips, tmp_path, monkeypatch):
    def full(tensors, path):
        save_file(tensors, path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        build(clips_of(clips), tmp_path)
    assert contents(tmp_path) == {}


def test_broken_weights_are_not_cached(clips, tmp_path):
    with pytest.raises(RuntimeError, match="rows 0 to 2 are not finite"):
        build(clips_of(clips), tmp_path, lambda video: encode(video) * float("nan"))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_smaller_numbers_on_disk_are_delivered_as_float32(clips, tmp_path, dtype, tolerance):
    source = clips_of(clips)
    dataset = LatentDataset(build(source, tmp_path / "small", dtype=dtype), source.index, 8, seed=0, memory_bytes=2**20)
    exact = LatentDataset(build(source, tmp_path / "exact"), source.index, 8, seed=0, memory_bytes=2**20)
    draws = [Draw(row, row) for row in range(7)]
    ours, theirs = dataset.batch(dataset.fetch(draws)).content, exact.batch(exact.fetch(draws)).content
    assert ours.dtype == torch.float32
    assert 0 < (ours - theirs).abs().max() < tolerance
    with pytest.raises(ValueError, match=r"data\.latent_dtype"):
        build(source, tmp_path / "other", dtype="int8")
