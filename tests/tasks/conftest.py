"""A desk that tasks plan at, over a VAE with random weights, and clips and pictures to give them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.writer import write_mp4
from training.inference import Shape, load_networks, make_generator, studio

SAMPLING = {"solver": {"_target_": "flow.solvers.Euler"}, "guidance": {"_target_": "flow.guidance.ClassifierFree", "scale": 2.0}}


@pytest.fixture(scope="session")
def networks(flow_runs):
    return load_networks(flow_runs.root / "every")


@pytest.fixture(scope="session")
def desk(networks):
    """A studio for clips of 16x24 px, 8 frames a second, 9 frames unless others are asked for."""

    def make(frames=None, height=16, width=24, level=0.0, fps=8.0):
        return studio(networks, Shape(9, height, width, fps), frames, level)

    return make


@pytest.fixture(scope="session")
def generator(networks):
    return make_generator(networks, SAMPLING | {"steps": 3, "batch_size": 4})


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """clip.mp4 and other.mp4 (17 and 9 frames at 8 a second, 16x24 px), wide.mp4 (9 frames, 64x64), a.png and b.png."""
    folder, random = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    for name, shape in (("clip", (17, 16, 24)), ("other", (9, 16, 24)), ("wide", (9, 64, 64))):
        coarse = random.integers(0, 256, (shape[0], shape[1] // 8, shape[2] // 8, 3), dtype=np.uint8)
        write_mp4(folder / f"{name}.mp4", coarse.repeat(8, axis=1).repeat(8, axis=2), 8)
    for name in "ab":
        Image.fromarray(random.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def cut():
    """Frames [start, stop) of a clip at random, 16x24 px."""
    random = np.random.default_rng(1)
    clip = random.integers(0, 256, (33, 16, 24, 3), dtype=np.uint8)
    return lambda start, stop: clip[start:stop]
