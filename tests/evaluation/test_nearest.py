"""Laws of the memorisation check: a copy is found and called one, what is new is not, and chance is given its due."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.dataset import VideoDataset
from data.files.faults import Fault, VideoError
from data.files.reader import AutoReader
from data.index import read_index
from data.shapes import Fixed
from data.videos import Videos
from data.world.folder import World, make_world
from data.world.render import render
from data.world.sampling import draw_scene
from evaluation.gallery import Result, write
from evaluation.markup import percent
from evaluation.nearest import Near, Training, memorisation, nearest, read_training, repeated, signature
from evaluation.report import page
from evaluation.suite import Plan, evaluate_flow, read_clips

WORLD = World("easy", seed=4, clips=12, val=6, heldout=6, frames=9, fps=8, height=32, width=32, crf=12)
GRID = (4, 8, 8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(WORLD, root, processes=1)
    return root


def trained_on(root: Path, fps: float = 8) -> Videos:
    index = str(root / "train" / "index.jsonl")
    limits = {"batch_size": 4, "batch_tokens": None, "micro_batch": 2, "micro_tokens": None, "workers": 0, "file_budget_s": 60}
    kept = {"memory_mb": 0, "latents": None, "latent_dtype": "float32", "val_samples": 3, "bad_limit": 0.01, "probes": None}
    return Videos(index, None, 0, None, Fixed(9, 32, 32, GRID), GRID, fps, reader=AutoReader(), crop=None, **limits, **kept)


def new(number: int) -> np.ndarray:
    return render(draw_scene(9, number, "easy", "heldout"), 9, 32, 32)


def test_a_training_clip_as_a_sample_is_found_and_counted(world: Path) -> None:
    training = read_training(trained_on(world), 100)
    assert (training.values.shape, training.total, training.unreadable) == ((12, 1536), 12, 0)
    copied = [training.clip(7), new(0), training.clip(2)]
    figures, pairs = memorisation(training, {"heldout": (copied, [new(number) for number in range(1, 21)])})
    assert figures["heldout"]["value"] >= 2 / 3
    assert figures["heldout"]["value"] > figures["heldout"]["expected_high"]
    assert [(pair["place"], pair["distance"]) for pair in pairs[:2]] == [(0, 0), (2, 0)]
    for pair in pairs[:2]:
        assert np.array_equal(pair["sample"], pair["training"])
    assert pairs[2]["distance"] > 1
    assert figures["of"] == figures["training_clips"] == 12


def test_a_copy_that_is_tinted_blurred_or_noisy_is_still_nearest_to_its_clip(world: Path) -> None:
    training = read_training(trained_on(world), 100)
    clip = training.clip(5).astype(float)
    noise = np.random.default_rng(0).normal(0, 12, clip.shape)
    for changed in (clip * 0.8 + [40, 0, 10], (clip + np.roll(clip, 1, 1) + np.roll(clip, 1, 2)) / 3, clip + noise):
        (near,) = nearest(training, [changed.clip(0, 255).astype(np.uint8)])
        assert near.place == 5
    # Played backwards it is another clip.
    assert nearest(training, [training.clip(5)[::-1]])[0].distance > 3


def test_a_tint_changes_no_signature_and_the_time_of_things_does() -> None:
    video = new(3) // 2
    assert signature(video + np.uint8(60)) == pytest.approx(signature(video), abs=1e-4)
    assert signature(video).shape == signature(render(draw_scene(9, 3, "easy", "heldout"), 17, 64, 48)).shape
    assert np.abs(signature(video) - signature(video[::-1])).max() > 3


def test_samples_of_the_law_of_real_clips_are_counted_as_often_as_expected_and_the_range_by_chance_holds() -> None:
    """Distances of any law at all: here squares of normal ones. The chance in the threshold is taken in."""
    rng = np.random.default_rng(1)
    shares, inside = [], []
    for _ in range(400):
        samples, real = ([Near(0, value) for value in rng.normal(size=n) ** 2] for n in (64, 40))
        found = repeated(samples, real)
        shares.append(found["value"])
        inside.append(found["expected_low"] <= found["value"] <= found["expected_high"])
    assert found["expected"] == pytest.approx(2 / 41)
    assert np.mean(shares) == pytest.approx(found["expected"], abs=float(3 * np.std(shares) / 20))
    assert 0.95 - 0.033 <= np.mean(inside) <= 1  # counts are whole: 95 % at least; 400 trials put three standard errors at 3.3 points


def test_few_clips_are_spread_over_the_index_and_broken_ones_counted(world: Path) -> None:
    videos = trained_on(world)
    assert read_training(videos, 4).source.index.rows == tuple(videos.training_index().rows[row] for row in (0, 3, 6, 9))

    class Broken(AutoReader):
        def read(self, media, probe, frames, cover=None):
            if media.path.endswith("000003.mp4"):
                raise VideoError(media.path, "unreadable", "cut short")
            return super().read(media, probe, frames, cover)

    videos.reader = Broken()
    training = read_training(videos, 4)
    assert (len(training.values), training.rows, training.unreadable) == (3, (0, 2, 3), 1)
    whole = read_training(trained_on(world), 4)
    assert np.array_equal(training.clip(1), whole.clip(2))


def test_a_generator_that_copies_is_found_out_and_the_page_shows_its_pairs(world: Path, tmp_path: Path) -> None:
    training = read_training(trained_on(world), 100)
    heldout, seen = read_clips(world / "heldout", 6), read_clips(world / "val", 6)

    def generate(prompts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [training.clip(sample % 12) if sample >= 100_000 else new(sample) for sample in samples]

    plan = Plan(prompts=6, seen=6, animated=2, difficulty="easy", seed=0)
    result = evaluate_flow(
        plan, heldout, seen, generate, lambda firsts, *_: [np.repeat(first, 9, 0) for first in firsts], lambda videos: videos, training=training
    )
    found = result.figures["memorisation"]
    assert found["seen"]["value"] == 1
    assert found["heldout"]["value"] < 0.7
    assert found["seen"]["n"] == found["seen"]["real"] == 6
    assert result.figures["generated"]["n"] == 6
    protocol = {"seed": 0, "size": [32, 32], "machine": "a machine", "versions": {}}
    write(tmp_path / "dit", result, protocol, 8)
    text = page(tmp_path)
    assert text.count('aria-label="The nearest training clip"') == 3
    assert "0.0 levels apart" in text
    assert "the nearest of 12 training clips, of 12" in text
    assert "could not be read" not in text
    assert text.count(f">{percent(1 / 7)}</td>") == 2, "what six real clips let expect, in both rows"
    assert "FVD" not in re.sub(r"base64,[^\"]*", "", text)
    figures = json.loads((tmp_path / "dit" / "evaluation.json").read_text())
    changed = figures | {"memorisation": figures["memorisation"] | {"unreadable": 2}}
    (tmp_path / "dit" / "evaluation.json").write_text(json.dumps(changed))
    assert "2 more were to be looked at and could not be read" in page(tmp_path)
    left_out = evaluate_flow(replace(plan, seen=2), heldout, seen, generate, lambda firsts, *_: [new(0)] * len(firsts), lambda videos: videos)
    assert "memorisation" not in left_out.figures
    assert figures["memorisation"] == found


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that last longer and are wider than what a run sees of them."""
    root = tmp_path_factory.mktemp("longer")
    make_world(replace(WORLD, frames=21, width=48), root, processes=1)
    return root


def asked(folder: Path, made: dict[str, list[np.ndarray]], training: Training | str, fps: float) -> Result:
    """The suite's verdict on a generator whose videos are these, in turn."""
    real = {name: read_clips(folder / name, 6) for name in ("heldout", "val")}

    def generate(prompts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [made["val" if sample >= 100_000 else "heldout"][sample % 6] for sample in samples]

    plan = Plan(prompts=6, seen=6, animated=2, difficulty="easy", seed=0, batch_size=6, fps=fps, clips_fps=8)
    return evaluate_flow(
        plan,
        *(real["heldout"], real["val"], generate),
        lambda firsts, *_: [np.repeat(first, 9, 0) for first in firsts],
        lambda videos: videos,
        training=training,
    )


@pytest.mark.parametrize("fps", [8, 4])
def test_samples_are_held_against_real_clips_as_the_run_sees_them(longer: Path, fps: float) -> None:
    """Real clips themselves, read as training reads them, are as far from training clips as real clips, and nothing from real clips."""
    videos, made = trained_on(longer, fps), {}
    for name in ("heldout", "val"):
        source = VideoDataset(videos.clips(read_index(longer / name / "index.jsonl")), videos.reader, None, None, bad_limit=1.0)
        found = [source.clip(row, 0) for row in range(6)]
        made[name] = [clip for clip in found if not isinstance(clip, Fault)]
    figures = asked(longer, made, read_training(videos, 100), fps).figures
    for name in ("heldout", "seen"):
        node = figures["memorisation"][name]
        assert node["median"] == pytest.approx(node["median_real"], rel=1e-9)
        assert node["value"] == 0
    for name, node in figures["generated"]["kernel"].items():
        assert node["value"] == pytest.approx(0, abs=1e-9), name


def test_what_cannot_be_compared_says_why_on_the_page(longer: Path, tmp_path: Path) -> None:
    """Nine frames at 2 fps last longer than the real clips do; and training clips may be gone."""
    made = {name: [new(number) for number in range(6)] for name in ("heldout", "val")}
    result = asked(longer, made, read_training(trained_on(longer), 100), 2)
    gone = asked(longer, made, "none of <3> training clips can be read", 8)
    for part in ("generated", "memorisation"):
        assert "has 6 frames at 2 fps (21 in the file), 9 are wanted" in result.figures[part]["why"]
    assert gone.figures["memorisation"] == {"why": "none of <3> training clips can be read"}
    protocol = {"seed": 0, "size": [32, 32], "machine": "a machine", "versions": {}}
    write(tmp_path / "dit", result, protocol, 8)
    assert page(tmp_path).count("Not measured: a real clip has 6 frames at 2 fps") == 2
    write(tmp_path / "dit", gone, protocol, 8)
    assert "Not measured: none of &lt;3&gt; training clips can be read" in page(tmp_path)
