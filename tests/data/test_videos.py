import json

import pytest
import torch
from torch.nn import functional

from data.files.reader import AutoReader
from data.shapes import Fixed, Native
from data.transforms import DetailCrop
from data.videos import Encoder, Videos
from runtime.build import build, check

GRID = (4, 16, 16)


def videos(folder, **changes):
    settings = {
        "train": str(folder / "index.jsonl"),
        "val": str(folder / "index.jsonl"),
        "hold_out": 0,
        "root": None,
        "shape": Fixed(5, 32, 32, GRID),
        "grid": GRID,
        "fps": 8,
        "batch_size": 4,
        "batch_tokens": None,
        "micro_batch": 2,
        "micro_tokens": None,
        "packing": "bucket",
        "workers": 0,
        "reader": AutoReader(),
        "crop": None,
        "memory_mb": 16,
        "latents": None,
        "latent_dtype": "float32",
        "val_samples": 3,
        "bad_limit": 0.01,
        "probes": None,
        "file_budget_s": 60,
    }
    return Videos(**{**settings, **changes})


def encoder():
    return Encoder(lambda video: functional.avg_pool3d(functional.pad(video, (0, 0, 0, 0, 3, 0), mode="replicate"), (4, 8, 8)), "key", (4, 8, 8))


def rows_of(steps):
    return sorted(row for step in steps for batch in step for row in batch.rows)


def test_training_gives_videos_and_crops_them(clips):
    loader = videos(clips, crop=DetailCrop(16)).loader(seed=0, encoder=None)
    steps = list(loader.steps(0, loader.steps_per_epoch))
    assert [[tuple(batch.video.shape) for batch in step] for step in steps] == [[(2, 3, 5, 16, 16)] * 2, [(2, 3, 5, 16, 16), (1, 3, 5, 16, 16)]]
    assert rows_of(steps) == list(range(7))


def test_validation_is_fixed_whole_and_never_cropped(clips):
    first, second = (videos(clips, crop=DetailCrop(16), micro_batch=micro).validation(None) for micro in (2, 3))
    assert [batch.samples for batch in first] == [(0, 1), (2,)]
    assert [batch.rows for batch in first] == [(0, 1), (2,)]
    assert first[0].video.shape == (2, 3, 5, 32, 32)
    assert torch.equal(torch.cat([batch.video for batch in first]), second[0].video)


@pytest.mark.parametrize("shape", [Fixed(5, 32, 32, GRID), Native(9, 2048, GRID)])
def test_an_encoder_and_a_folder_give_latents(clips, tmp_path, shape):
    made = videos(clips, latents=str(tmp_path / "latents"), shape=shape)
    (batch, _), *_ = made.loader(0, encoder()).steps(0, 2)
    plain = videos(clips, shape=shape)
    (clip, _), *_ = plain.loader(0, None).steps(0, 2)
    assert batch.video is None
    assert batch.rows == clip.rows
    assert torch.allclose(batch.latents, encoder().encode(clip.video), atol=1e-6)
    (valid, _), (pixels, _) = made.validation(encoder()), plain.validation(encoder())
    assert torch.equal(valid.latents, encoder().encode(pixels.video))
    assert made.loader(0, None).steps(0, 1).__next__()[0].latents is None  # a VAE trains on pixels whatever the folder


@pytest.mark.parametrize(("memory_mb", "workers"), [(16, 0), (0, 2)])
def test_stills_come_with_training_and_validation_latents_whoever_reads_them(clips, tmp_path, memory_mb, workers):
    made = videos(clips, latents=str(tmp_path / "latents"), stills=2, memory_mb=memory_mb, workers=workers)
    (pixels,) = videos(clips, stills=2, val_samples=7, micro_batch=7).validation(encoder())  # to be encoded by whoever wants them
    assert pixels.stills is None
    loader = made.loader(0, encoder())
    batches = [batch for step in loader.steps(0, 2) for batch in step]
    for batch in [*batches, *made.validation(encoder())]:
        assert batch.stills.shape == (len(batch), 3, 3, 4, 4)
        for row, frames, stills in zip(batch.rows, batch.still_frames, batch.stills, strict=True):
            assert torch.equal(frames, pixels.still_frames[row])
            alone = [encoder().encode(pixels.video[row : row + 1, :, frame : frame + 1])[0] for frame in frames.tolist()]
            assert torch.allclose(stills, torch.cat(alone, dim=1), atol=1e-6)
    loader.close()
    assert videos(clips, stills=2).loader(0, None).steps(0, 1).__next__()[0].still_frames is None  # a VAE has no use for them


def test_clips_that_are_held_out_are_never_trained_on_and_stay_so_when_files_are_added(clips, tmp_path):
    for file in clips.glob("*.mp4"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made = videos(clips, train=str(tmp_path), val=None, hold_out=2)
    names = [{index.name(row) for row in range(len(index))} for index in (made.training_index(), made.validation_index())]
    assert len(names[0]) == 5
    assert len(names[1]) == 2
    assert not names[0] & names[1]
    loader = made.loader(0, None)
    assert rows_of(loader.steps(0, loader.steps_per_epoch)) == list(range(5))
    assert sum(len(batch) for batch in made.validation(None)) == 2
    for number in range(5):
        (tmp_path / f"new{number}.mp4").write_bytes((clips / "0.mp4").read_bytes())
    index = made.validation_index()
    later = {index.name(row) for row in range(len(index))}
    assert {name for name in later if not name.startswith("new")} <= names[1]
    with pytest.raises(ValueError, match=r"leaves nothing to train on.*data\.hold_out"):
        videos(clips, val=None, hold_out=7).training_index()


def test_segments_of_one_file_are_held_out_together(clips, tmp_path):
    lines = [{"path": f"{number % 4}.mp4", "start_s": number // 4 * 0.125} for number in range(12)]
    (tmp_path / "segments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = videos(clips, train=str(tmp_path / "segments.jsonl"), root=str(clips), val=None, hold_out=1)
    kept, held = made.training_index(), made.validation_index()
    assert len(held) == 3
    assert not {row.path for row in kept.rows} & {row.path for row in held.rows}


def test_without_a_validation_set_training_clips_are_looked_at(clips):
    made = videos(clips, val=None)
    assert not made.holds_out
    assert [batch.rows for batch in made.validation(None)] == [(0, 1), (2,)]
    assert len(made.training_index()) == 7


def test_a_mixture_shows_each_set_as_often_as_its_weight_says(clips):
    made = videos(clips, train=[{"path": str(clips / "index.jsonl"), "weight": 2}, {"path": str(clips), "weight": 1}])
    loader = made.loader(0, None)
    list(loader.steps(0, loader.steps_per_epoch))
    assert loader.shown.tolist() == [2] * 7 + [1] * 7


def test_what_cannot_be_cached_names_the_key(clips, tmp_path):
    with pytest.raises(ValueError, match=r"data\.latents=null"):
        videos(clips, latents=str(tmp_path), crop=DetailCrop(16)).loader(0, encoder())
    with pytest.raises(ValueError, match=r"frames=4 cannot be encoded.*\(1 or 5\)"):
        videos(clips, latents=str(tmp_path), shape=Fixed(4, 32, 32, GRID)).loader(0, encoder())
    with pytest.raises(ValueError, match=r"width=28 is off the VAE's grid.*24 or 32"):
        videos(clips, latents=str(tmp_path), shape=Fixed(5, 32, 28, GRID)).loader(0, encoder())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        *[({"val_samples": 0}, "val_samples"), ({"fps": 0}, "fps"), ({"file_budget_s": 0}, "file_budget_s"), ({"hold_out": 2}, "hold_out")],
        ({"stills": -1}, "stills"),
    ],
)
def test_wrong_settings_name_their_key(clips, changes, key):
    with pytest.raises(ValueError, match=rf"[Ss]et .*data\.{key}"):
        videos(clips, **changes)


@pytest.mark.parametrize("reader", ["auto", "decord", "pyav"])
@pytest.mark.parametrize(("group", "crop"), [("world", None), ("videos", None), ("videos", "detail")])
def test_the_configs_build(clips, reader, group, crop):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    from runtime.config import CONFIGS

    overrides = [f"+data={group}", f"data/reader={reader}", f"data.train={clips}/index.jsonl", f"data.val={clips}/index.jsonl", "+run=runs/x"]
    overrides += [f"data/crop={crop}"] if crop else []
    overrides += ["data/shape=fixed", "data.shape.frames=5", "data.shape.height=32", "data.shape.width=32", "data.probes=null"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        node = OmegaConf.to_container(hydra_compose(None, overrides), resolve=True)["data"]
    check(node)
    made = build(node)
    assert (made.crop is None) == (crop is None)
    (batch, *_), *_ = made.loader(0, None).steps(0, 1)
    assert batch.video.shape[2:] == (5, 32, 32)


@pytest.fixture
def mixture(clips, tmp_path):
    """Two folders with three of the clips each, one of them in both."""
    for set_name, numbers in (("a", (0, 1, 2)), ("b", (2, 3, 4))):
        (tmp_path / set_name).mkdir()
        for number in numbers:
            (tmp_path / set_name / f"{set_name}{number}.mp4").write_bytes((clips / f"{number}.mp4").read_bytes())
    (tmp_path / "b" / "a2.mp4").symlink_to(tmp_path / "a" / "a2.mp4")
    (tmp_path / "b.jsonl").write_text("".join(f'{{"path": "b/{path.name}"}}\n' for path in sorted((tmp_path / "b").iterdir())))
    return tmp_path


def held(made):
    return {row.media.path for row in made.validation_index().rows}, {row.media.path for row in made.training_index().rows}


def test_what_is_held_out_of_a_mixture_is_in_none_of_its_sets_and_the_same_however_they_are_named(mixture, monkeypatch):
    monkeypatch.chdir(mixture)
    typed = [["a", "b.jsonl"], [str(mixture / "a"), str(mixture / "b.jsonl")], [str(mixture / "b.jsonl"), {"path": "a"}]]
    for count in (1, 2, 3):
        parts = [held(videos(mixture, train=train, val=None, hold_out=count)) for train in typed]
        assert parts[0][0]
        assert not parts[0][0] & parts[0][1]
        assert parts[0] == parts[1] == parts[2]


def test_latents_of_a_mixture_are_the_same_however_its_sets_are_named(mixture, monkeypatch):
    monkeypatch.chdir(mixture)
    for train in (["a", "b.jsonl"], [str(mixture / "a"), str(mixture / "b.jsonl")]):
        videos(mixture, train=train, val=None, latents="latents").loader(0, encoder())


def test_validation_clips_that_are_trained_on_are_counted(clips, tmp_path):
    (tmp_path / "val.jsonl").write_text('{"path": "1.mp4"}\n{"path": "2.mp4"}\n')
    (tmp_path / "train.jsonl").write_text('{"path": "2.mp4"}\n{"path": "3.mp4"}\n')
    made = videos(clips, train=str(tmp_path / "train.jsonl"), val=str(tmp_path / "val.jsonl"), root=str(clips))
    assert made.shared() == 1
    assert videos(clips, val=None, hold_out=2).shared() == 0
    assert videos(clips, val=None).shared() == 0  # nobody said that they were others


def test_one_bad_file_among_the_validation_clips_is_left_out_and_noted_once(broken_clips):
    (broken_clips / "1.mp4").write_bytes(b"text")
    made = videos(broken_clips, val=None, bad_limit=0.5)
    assert 1 not in {row for batch in made.validation(None) for row in batch.rows}
    made.loader(0, None)
    assert sorted((fault.path, fault.kind) for fault in made.faults) == [("1.mp4", "unreadable"), ("2.mp4", "damaged")]


def test_bad_files_are_known_even_if_they_end_the_run(broken_clips):
    (broken_clips / "1.mp4").write_bytes(b"text")
    made = videos(broken_clips)
    with pytest.raises(RuntimeError, match="1 of 7 clips cannot be used"):
        made.loader(0, None)
    assert [(fault.path, fault.kind) for fault in made.faults] == [("1.mp4", "unreadable")]


def test_a_set_without_a_usable_file_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"1 of 1 clips cannot be used.*\n  a\.mp4: empty"):
        videos(tmp_path, train=str(tmp_path), val=None, bad_limit=1.0).loader(0, None)
