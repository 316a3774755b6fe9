"""A world that can be made again is the same world: levels that stand keep their scenes, rows, truths, pixels and prompts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data.world.captions import claim, prompt_for
from data.world.folder import World, _chunk
from data.world.render import render
from data.world.sampling import draw_scene

SPLITS, NUMBERS = ("train", "val", "heldout"), range(3)
# Of each level: a digest of what its files and prompts say, and the mean of each clip's pixels, as they were when the level was new.
STAND = {
    "easy": (
        "d75630a65f80faed5341a9fa21dc8075835a63c219eb3d2ceef11cd1ba922e23",
        [72.383, 20.291, 19.976, 129.17, 78.364, 18.461, 24.164, 229.854, 17.136],
    ),
    "standard": (
        "191dd111890fbe8befc66c3f1f7f10b59f02cf662923a1e0082ca4ed04bc3f7f",
        [98.757, 25.925, 130.981, 25.258, 157.777, 11.468, 157.143, 18.013, 38.314],
    ),
    "hard": (
        "390b65cea0353656396533013e15800e0aef766e8efceabf9525d5e5ccc4626e",
        [121.448, 20.832, 86.455, 121.819, 43.127, 135.128, 48.792, 20.86, 58.712],
    ),
}


def rounded(value: Any) -> Any:
    """JSON in which the last digits of a float, where processors differ, do not count."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 8) if isinstance(value, float) else value


def told(difficulty: str, folder: Path) -> tuple[str, list[float]]:
    """What the files of a small world and the prompts of its scenes say, as a digest, and its clips' mean pixels."""
    world = World(difficulty, seed=7, clips=3, val=3, heldout=3, frames=9, fps=8, height=32, width=48, crf=12)
    words, means = hashlib.sha256(), []
    for split in SPLITS:
        (folder / split / "clips").mkdir(parents=True)
        for text in _chunk(world, folder / split, split, NUMBERS):
            for line in text.splitlines():
                words.update(json.dumps(rounded(json.loads(line))).encode())
        for number in NUMBERS:
            scene = draw_scene(7, number, difficulty, split, aspect=48 / 32)
            words.update(prompt_for(claim(scene), 7, number).encode())
            means.append(round(float(render(scene, 9, 32, 48).mean()), 3))
    return words.hexdigest(), means


@pytest.mark.parametrize("difficulty", STAND)
def test_a_level_that_stands_is_the_same_in_words_and_pixels(difficulty: str, tmp_path: Path):
    digest, means = STAND[difficulty]
    found, seen = told(difficulty, tmp_path)
    assert found == digest
    assert seen == pytest.approx(means, abs=0.01)  # of 255 levels
