"""Rendered clips of one object whose truth is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest

from data.world.captions import facts
from data.world.render import render
from data.world.sampling import draw_scene
from data.world.scene import Scene
from data.world.truth import truth
from data.world.vocabulary import Claim
from evaluation.oracle import read
from evaluation.tasks.course import Course, course, true_course


@dataclass(frozen=True)
class Clip:
    """A scene of the world with its pixels, all that is true of it, and the course of its object, as it is and as it is read."""

    scene: Scene
    video: np.ndarray
    claim: Claim
    course: Course

    @cached_property
    def seen(self) -> Course:
        return course(read(self.video))


def clip_of(scene: Scene, frames: int = 17) -> Clip:
    claim = replace(facts(scene), camera=None, light=None, occluder=None)
    return Clip(scene, render(scene, frames, 64, 64), claim, true_course(truth(scene, frames, 64, 64), 64))


def frame_by_frame(scenes: Sequence[Scene]) -> np.ndarray:
    """One video of which frame k is the first of scene k."""
    return np.concatenate([render(scene, 1, 64, 64) for scene in scenes])


@pytest.fixture(scope="package")
def clips() -> list[Clip]:
    return [clip_of(draw_scene(3, number, "easy", "heldout")) for number in range(8)]


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    return clip_of


@pytest.fixture(scope="session")
def make_video() -> Callable[[Sequence[Scene]], np.ndarray]:
    return frame_by_frame
