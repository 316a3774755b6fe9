import pickle

import numpy as np
import pytest

from data.buckets import Bucket
from data.dataset import ClipMemory, Draw, Fault, VideoDataset, check_faults
from data.index import Index, Row, read_index
from data.reader import PyAVReader, VideoError, VideoInfo
from data.transforms import DetailCrop, to_uint8


class CountingReader:
    """Reads with PyAV and remembers what was asked for."""

    def __init__(self):
        self.paths = []

    def probe(self, path):
        return PyAVReader().probe(path)

    def read(self, path, wanted=None):
        self.paths.append(path)
        return PyAVReader().read(path, wanted)


class MadeReader:
    """Files that exist only by name: 'bad...' cannot be read, any other has as many frames as its name says; pixels are the frame numbers."""

    def probe(self, path):
        raise NotImplementedError

    def read(self, path, wanted=None):
        name = path.rsplit("/", 1)[-1]
        if name.startswith("bad"):
            raise VideoError(path, "unreadable", "made to fail")
        count = int(name.split("-")[1])
        picked = wanted(VideoInfo(np.arange(count) / 8, 8, 8))
        return np.broadcast_to(picked.astype(np.uint8)[:, None, None, None], (len(picked), 8, 8, 3)).copy()


def made(names, **options):
    index = Index("made", "/set", tuple(Row(f"/set/{name}") for name in names))
    return VideoDataset(index, MadeReader(), Bucket(5, 8, 8), fps=8, **{"seed": 0, "bad_limit": 1.0, **options})


def test_a_batch_holds_the_files_pixels_and_captions(clips):
    index = read_index(clips / "index.jsonl")
    dataset = VideoDataset(index, PyAVReader(), Bucket(5, 32, 32), fps=8, seed=0)
    fetched = dataset.fetch([Draw(70, 3), Draw(71, 0)])
    batch = dataset.batch(fetched)
    assert (batch.samples, batch.rows, fetched.faults) == ((70, 71), (3, 0), ())
    assert [captions["short"] for captions in batch.captions] == [("clip 3",), ("clip 0",)]
    assert batch.fps.tolist() == [8.0, 8.0]
    assert batch.content.shape == (2, 3, 5, 32, 32)
    assert np.array_equal(to_uint8(batch.content)[0].numpy(), PyAVReader().read(index.rows[3].path))


def test_a_bad_row_is_named_and_replaced_by_seed_and_row_alone():
    names = [f"clip{number}-5" for number in range(20)]
    names[4], names[9] = "bad4", "bad9"
    alone = {row: made(names).fetch([Draw(0, row)]).rows[0] for row in (4, 9)}
    fetched = made(names).fetch([Draw(100, 9), Draw(101, 3), Draw(102, 4), Draw(103, 9)])
    assert fetched.rows == (alone[9], 3, alone[4], alone[9])
    assert not {4, 9} & set(fetched.rows)
    assert {(fault.row, fault.path, fault.kind, fault.detail) for fault in fetched.faults} == {
        (row, f"bad{row}", "unreadable", "made to fail") for row in (4, 9)
    }
    others = {made(names, seed=seed).fetch([Draw(0, 4)]).rows[0] for seed in range(12)}
    assert len(others) > 3


def test_a_bad_row_shows_its_replacements_content_never_zeros():
    dataset = made(["bad0", "clip-5"], seed=3)
    fetched = dataset.fetch([Draw(0, 0)])
    assert fetched.rows == (1,)
    assert fetched.content[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_short_files_are_faults_that_name_both_counts():
    fetched = made(["clip-4", "clip-5"]).fetch([Draw(0, 0)])
    (fault,) = fetched.faults
    assert fault.kind == "too_short"
    assert "has 4 frames" in fault.detail
    assert "5 are wanted" in fault.detail


def test_nothing_usable_is_reported_not_made_up():
    fetched = made(["bad0", "bad1"]).fetch([Draw(0, 0)])
    assert fetched.content is None
    assert {fault.row for fault in fetched.faults} == {0, 1}


def test_faults_over_the_limit_end_the_run_with_the_first_ten():
    faults = [Fault(number, f"clip{number}.mp4", "empty", "0 bytes") for number in range(12)]
    check_faults(faults, 1200, 0.01)
    with pytest.raises(RuntimeError, match=r"(?s)12 of 1199 .*1\.0%.*clip0\.mp4: empty: 0 bytes.*clip9\.mp4.*and 2 more.*data\.bad_limit") as error:
        check_faults(faults, 1199, 0.01)
    assert "clip10.mp4" not in str(error.value)


def test_a_longer_file_is_seen_at_many_places_by_sample_number_alone():
    dataset = made(["clip-30"])
    starts = [int(dataset.fetch([Draw(sample, 0)]).content[0, 0, 0, 0, 0]) for sample in range(40)]
    assert len(set(starts)) > 15
    assert min(starts) >= 0
    assert max(starts) <= 25
    assert starts == [int(made(["clip-30"]).fetch([Draw(sample, 0)]).content[0, 0, 0, 0, 0]) for sample in range(40)]
    middle = made(["clip-30"], seed=None)
    assert {int(middle.fetch([Draw(sample, 0)]).content[0, 0, 0, 0, 0]) for sample in range(5)} == {13}


@pytest.mark.parametrize("crop", [None, DetailCrop(16)])
def test_memory_changes_no_bit_and_decodes_once(clips, crop):
    index = read_index(clips / "index.jsonl")
    results, reads = [], []
    for memory in (0, 3 * 5 * 32 * 32 * 3, 2**20):
        reader = CountingReader()
        dataset = VideoDataset(index, reader, Bucket(5, 32, 32), 8, seed=1, crop=crop, memory_bytes=memory)
        results.append([dataset.fetch([Draw(epoch * 7 + row, row) for row in range(7)]).content.numpy() for epoch in range(3)])
        reads.append(len(reader.paths))
    assert reads == [21, 3 + 12, 7]
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert (crop is None) == np.array_equal(results[0][0], results[0][1])


def test_memory_does_not_pin_a_longer_file_to_one_place():
    dataset = made(["clip-30"], memory_bytes=2**20)
    assert len({int(dataset.fetch([Draw(sample, 0)]).content[0, 0, 0, 0, 0]) for sample in range(20)}) > 5


def test_memory_is_a_private_copy_of_what_is_put():
    memory = ClipMemory((2, 4), rows=3, memory_bytes=17)
    clip = np.full((2, 4), 7, np.uint8)
    assert memory.rows == 2
    for row in range(3):
        memory.put(row, clip)
    clip[:] = 0
    assert memory.get(1).tolist() == [[7] * 4] * 2
    assert memory.get(2) is None
    assert pickle.loads(pickle.dumps(memory)).get(1) is None


@pytest.mark.parametrize(("options", "key"), [({"fps": 0}, "fps"), ({"bad_limit": 1.5}, "bad_limit"), ({"crop": DetailCrop(33)}, "crop.size")])
def test_wrong_settings_name_their_key(clips, options, key):
    settings = {"fps": 8, "seed": 0, **options}
    with pytest.raises(ValueError, match=rf"data\.{key}"):
        VideoDataset(read_index(clips / "index.jsonl"), PyAVReader(), Bucket(5, 32, 32), **settings)
