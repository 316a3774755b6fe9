import numpy as np
import pytest
import torch
from torch.nn import functional

from data import stills as module
from data.batch import Batch, Packed
from data.cache import latents as cache_module
from data.cache.latents import LatentDataset, cache_latents, identity
from data.dataset import VideoDataset
from data.files.reader import PyAVReader
from data.plan import Draw, MicroBatches
from data.shapes import Native
from data.stills import NO_STILLS, StillFrames, encode_stills
from data.transforms import Stills, to_float

GRID = (4, 16, 16)
SOME = StillFrames(4, 2)


def encode(video):
    """A stand-in for a VAE: stride 4x8x8, 3 channels."""
    return functional.avg_pool3d(functional.pad(video, (0, 0, 0, 0, 3, 0), mode="replicate"), (4, 8, 8))  # b 3 f h w


def delivered(source, rows):
    (group,) = source.run([Draw(row + 100, row) for row in rows]).groups
    return source.batch(group)


@pytest.fixture
def dataset_of(clips_of, monkeypatch):
    monkeypatch.setattr(cache_module, "PARTS", MicroBatches(2, None, GRID))

    def make(folder, stills=NO_STILLS, shape=None):
        return VideoDataset(clips_of(folder / "index.jsonl", shape), PyAVReader(), None, bad_limit=0.5, stills=stills)

    return make


@pytest.mark.parametrize(("frames", "drawn"), [(17, 2), (5, 2), (5, 3), (5, 40), (81, 7)])
def test_stills_are_the_last_frames_of_later_latents_and_others_drawn_by_the_row(frames, drawn):
    rows = [StillFrames(4, drawn).of(row, frames) for row in range(200)]
    later = (frames - 1) // 4
    for each in rows:
        assert each.dtype == np.int64
        assert len(each) == min(later + drawn, frames - 1)
        assert each[:later].tolist() == [4 * number for number in range(1, later + 1)]
        assert len(set(each.tolist())) == len(each)
        assert 1 <= each.min() <= each.max() < frames
    counts = np.bincount(np.concatenate([each[later:] for each in rows]), minlength=frames)
    others = [frame for frame in range(1, frames) if frame % 4]
    mean = 200 * min(drawn, len(others)) / len(others)
    assert np.abs(counts[others] - mean).max() < 6 * np.sqrt(mean)  # each is as likely as any
    if drawn < len(others):
        assert len({tuple(each[later:]) for each in rows}) > 2


def test_a_rows_stills_depend_on_nothing_but_the_row():
    table = SOME.table(range(40), 17)
    for rows in ((7,), (39, 0, 7), range(39, -1, -1)):
        assert torch.equal(SOME.table(rows, 17), table[list(rows)])
    assert SOME.table((3, 4), 1) is None
    assert NO_STILLS.table((3, 4), 17) is None


def test_stills_are_encoded_alone_in_bounded_parts(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE_PX", 5 * 16 * 24 + 1)
    video, sizes = torch.randn(3, 3, 9, 16, 24), []
    frames = StillFrames(4, 3).table((0, 1, 2), 9)

    def counted(clip):
        sizes.append(tuple(clip.shape))
        return encode(clip)

    found = encode_stills(counted, video, frames)
    assert sizes == [(5, 3, 1, 16, 24)] * 3
    for clip, (numbers, latents) in enumerate(zip(frames.tolist(), found, strict=True)):
        for place, number in enumerate(numbers):
            assert torch.equal(latents[:, place : place + 1], encode(video[clip : clip + 1, :, number : number + 1])[0])
    monkeypatch.setattr(module, "AT_ONCE_PX", 1)
    assert torch.equal(encode_stills(counted, video, frames), found)
    assert sizes[3:] == [(1, 3, 1, 16, 24)] * 15


@pytest.mark.parametrize("memory_bytes", [0, 2**20])
def test_a_cache_gives_the_latents_of_each_still_alone_behind_the_same_latents_as_ever(clips, tmp_path, memory_bytes, dataset_of):
    source, plain = dataset_of(clips, SOME), dataset_of(clips)
    cached = LatentDataset(cache_latents(source, encode, tmp_path / "with", "vae-a"), source.clips, 0.5, memory_bytes, SOME)
    without = LatentDataset(cache_latents(plain, encode, tmp_path / "without", "vae-a"), plain.clips, 0.5, memory_bytes)
    assert cached.in_memory == bool(memory_bytes)
    rows = (6, 0, 3)
    batch, old = delivered(cached, rows), delivered(without, rows)
    assert torch.equal(batch.latents, old.latents)
    assert (old.stills, old.still_frames) == (None, None)
    assert torch.equal(batch.still_frames, SOME.table(rows, 5))
    assert batch.stills.shape == (3, 3, 3, 4, 4)
    for place, row in enumerate(rows):
        video = to_float(torch.from_numpy(source.clip(row, 0)[None]))
        for number, frame in enumerate(batch.still_frames[place].tolist()):
            assert torch.equal(batch.stills[place, :, number : number + 1], encode(video[:, :, frame : frame + 1])[0])
    alone = delivered(cached, (3,))
    assert torch.equal(alone.stills[0], batch.stills[2])
    assert torch.equal(alone.still_frames[0], batch.still_frames[2])


def test_clips_of_many_lengths_have_stills_and_single_frames_none(tmp_path, write_video, numbered_video, clips_of):
    (tmp_path / "set").mkdir()
    sizes = [(5, 32, 32), (9, 48, 32), (1, 32, 32)]
    for number, size in enumerate(sizes):
        write_video(tmp_path / f"set/{number}.mp4", numbered_video(*size))
    source = VideoDataset(clips_of(tmp_path / "set", Native(9, 2048, GRID)), PyAVReader(), None, stills=SOME)
    cached = LatentDataset(cache_latents(source, encode, tmp_path / "cache", "vae-a"), source.clips, stills=SOME)
    batches = [delivered(cached, (row,)) for row in range(3)]
    assert [batch.latents.shape[2] for batch in batches] == [2, 3, 1]
    assert [None if batch.stills is None else batch.stills.shape[2] for batch in batches] == [3, 4, None]
    assert [batch.still_frames is None for batch in batches] == [False, False, True]
    packed = Packed(tuple(batches)).to("cpu")
    assert all(torch.equal(ours.stills, theirs.stills) for ours, theirs in zip(packed.parts[:2], batches, strict=False))


def test_videos_name_their_stills_and_a_clip_cut_to_one_frame_has_none(clips, clips_of):
    looked_at = clips_of(clips / "index.jsonl")
    batch = delivered(VideoDataset(looked_at, PyAVReader(), 0, stills=SOME), (4, 2))
    assert torch.equal(batch.still_frames, SOME.table((4, 2), 5))
    assert batch.stills is None
    assert delivered(VideoDataset(looked_at, PyAVReader(), 0, Stills(1.0, None), stills=SOME), (4,)).still_frames is None
    assert delivered(VideoDataset(looked_at, PyAVReader(), 0), (4,)).still_frames is None


def test_a_cache_from_before_there_were_stills_is_still_valid_without_them_and_refused_with_them(clips, tmp_path, dataset_of):
    plain = dataset_of(clips)
    now = identity(plain.clips, "vae-a", "float32", plain.reader.pixels)
    assert set(now.facts) == {"vae", "clips", "dtype", "reader", "files"}  # as they always were
    assert now.facts == identity(plain.clips, "vae-a", "float32", plain.reader.pixels, StillFrames(4, 0)).facts
    cache_latents(plain, encode, tmp_path, "vae-a")
    cache_latents(dataset_of(clips, StillFrames(4, 0)), lambda _: pytest.fail("encoded again"), tmp_path, "vae-a")
    with pytest.raises(ValueError, match=r"other pictures encoded alone \(none; now the last of every 4 frames and 2 drawn; data\.stills\)"):
        cache_latents(dataset_of(clips, SOME), lambda _: pytest.fail("encoded"), tmp_path, "vae-a")


@pytest.mark.parametrize(("other", "says"), [(NO_STILLS, "2 drawn; now none"), (StillFrames(4, 1), "2 drawn; now .* 1 drawn")])
def test_a_cache_with_other_stills_is_refused_by_name(clips, tmp_path, dataset_of, other, says):
    cache_latents(dataset_of(clips, SOME), encode, tmp_path, "vae-a")
    cache_latents(dataset_of(clips, SOME), lambda _: pytest.fail("encoded again"), tmp_path, "vae-a")
    with pytest.raises(ValueError, match=rf"other pictures encoded alone \(.*{says}.*data\.latents"):
        cache_latents(dataset_of(clips, other), lambda _: pytest.fail("encoded"), tmp_path, "vae-a")


def test_a_still_that_is_not_finite_is_not_cached(clips, tmp_path, dataset_of):
    with pytest.raises(RuntimeError, match="are not finite"):
        cache_latents(dataset_of(clips, SOME), lambda video: encode(video) / (video.shape[2] > 1), tmp_path, "vae-a")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"still_frames": None}, "need the numbers"),
        ({"still_frames": torch.zeros(2, 3)}, "int64"),
        ({"still_frames": torch.zeros(1, 3, dtype=torch.int64)}, "1 clips in a Batch of 2"),
        ({"stills": None}, "beside latents"),
        ({"latents": None, "video": torch.zeros(2, 3, 5, 8, 8)}, "beside latents"),
        ({"stills": torch.zeros(2, 4, 2, 1, 1)}, "stills must be"),
        ({"stills": torch.zeros(2, 4, 3, 2, 1)}, "stills must be"),
    ],
)
def test_a_batch_refuses_stills_that_do_not_fit(changes, says):
    parts = {"samples": (0, 1), "rows": (0, 1), "captions": ({}, {}), "fps": torch.ones(2), "latents": torch.zeros(2, 4, 2, 1, 1)}
    parts |= {"stills": torch.zeros(2, 4, 3, 1, 1), "still_frames": torch.zeros(2, 3, dtype=torch.int64)}
    whole = Batch(**parts).to("meta")
    assert (whole.stills.device.type, whole.still_frames.device.type) == ("meta", "cpu")
    with pytest.raises(AssertionError, match=says):
        Batch(**{**parts, **changes})
