"""Laws of the memorisation check: a copy is found and called one, what is new is not, and chance is given its due."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.files.faults import VideoError
from data.files.reader import AutoReader
from data.shapes import Fixed
from data.videos import Videos
from data.world.folder import World, make_world
from data.world.render import render
from data.world.sampling import draw_scene
from evaluation.gallery import write
from evaluation.nearest import Near, memorisation, nearest, read_training, repeated, signature
from evaluation.report import page
from evaluation.suite import Plan, evaluate_flow, read_clips

WORLD = World("easy", seed=4, clips=12, val=6, heldout=6, frames=9, fps=8, height=32, width=32, crf=12)
GRID = (4, 8, 8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(WORLD, root, processes=1)
    return root


def trained_on(root: Path) -> Videos:
    index = str(root / "train" / "index.jsonl")
    limits = {"batch_size": 4, "batch_tokens": None, "micro_batch": 2, "micro_tokens": None, "workers": 0, "file_budget_s": 60}
    kept = {"memory_mb": 0, "latents": None, "latent_dtype": "float32", "val_samples": 3, "bad_limit": 0.01, "probes": None}
    return Videos(index, None, 0, None, Fixed(9, 32, 32, GRID), GRID, 8, reader=AutoReader(), crop=None, **limits, **kept)


def new(number: int) -> np.ndarray:
    return render(draw_scene(9, number, "easy", "heldout"), 9, 32, 32)


def test_a_training_clip_as_a_sample_is_found_and_counted(world: Path) -> None:
    training = read_training(trained_on(world), 100)
    assert (training.values.shape, training.total, training.unreadable) == ((12, 1536), 12, 0)
    copied = [training.clip(7), new(0), training.clip(2)]
    figures, pairs = memorisation(training, {"heldout": (copied, [new(number) for number in range(1, 21)])})
    assert figures["heldout"]["value"] >= 2 / 3
    assert figures["heldout"]["value"] > figures["heldout"]["expected_high"] - 1 / 3
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
    assert "FVD" not in re.sub(r"base64,[^\"]*", "", text)
    figures = json.loads((tmp_path / "dit" / "evaluation.json").read_text())
    left_out = evaluate_flow(replace(plan, seen=2), heldout, seen, generate, lambda firsts, *_: [new(0)] * len(firsts), lambda videos: videos)
    assert "memorisation" not in left_out.figures
    assert figures["memorisation"] == found
