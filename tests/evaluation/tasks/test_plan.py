"""What the suite of tasks is asked to measure: wrong sizes of it, and what a world has nothing for."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from evaluation.tasks.scenes import World
from evaluation.tasks.stage import Stage
from evaluation.tasks.suite import Plan, measured


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"clips": 1}, "tasks.clips=1 measures nothing: a whole number of at least 4. Set tasks.clips."),
        ({"clips": "many"}, "Set tasks.clips."),
        ({"rollouts": 0}, "Set tasks.rollouts."),
        ({"times": 0}, "Set tasks.times."),
        ({"times": 1.5}, "Set tasks.times."),
        ({"sizes": [64]}, "must be a list of pairs of height and width in px, 16 or more"),
        ({"sizes": [[8, 8]]}, "16 or more, the least that the oracle can read. Set tasks.sizes."),
        ({"parts": None}, "tasks.parts=None must be a list of some of around, posts,"),
        ({"parts": "loop"}, "Set tasks.parts."),
        ({"parts": 3}, "Set tasks.parts."),
        ({"parts": [["loop"]]}, "tasks.parts has ['loop'], which is none of around, posts,"),
        ({"lengths": [[17]]}, "counts of frames. Set tasks.lengths."),
        ({"lengths": 17}, "Set tasks.lengths."),
        ({"parts": ["loop", "lop"]}, "tasks.parts has 'lop', which is none of around, posts,"),
    ],
)
def test_a_plan_that_measures_nothing_names_its_key(changed: dict, told: str) -> None:
    with pytest.raises(ValueError, match="tasks") as error:
        Plan(**{"clips": 4, "rollouts": 4, "times": 1, "sizes": [], "lengths": [], "seed": 0} | changed)
    assert told in str(error.value)


class Untouched:
    """A generator that is asked for nothing."""

    frames, height, width, stride_t = 17, 64, 64, 4

    def seen(self, kept: np.ndarray) -> np.ndarray:
        return kept & (kept.size >= 48 * 48)


def test_what_a_world_cannot_ask_for_is_told_before_anything_is_made() -> None:
    plan, world = Plan(4, 4, 1, [], [], 0), World("sora", 0, 17, 64, 64)
    for other, told in (
        (replace(world, difficulty="easy"), "loop asks for what goes round, rollout asks for what goes round, storyboard asks for stories"),
        (replace(world, difficulty="standard"), "posts asks for posts, storyboard asks for stories. Set tasks.parts=[around,connect,inpaint,loop,"),
        (replace(world, height=32, width=32), "inpaint asks for larger clips than 32x32 px. Set tasks.parts=[around,posts,connect,loop,"),
        (replace(world, frames=9), "clips of 9 frames are too short for suite=tasks, which gives and makes parts of 17 or more"),
    ):
        with pytest.raises(ValueError, match=r"clips of|has not all") as error:
            next(measured(cast(Stage, Untouched()), other, plan))
        assert told in str(error.value)
    with pytest.raises(AttributeError):  # what is left can be asked for, and is
        next(measured(cast(Stage, Untouched()), replace(world, difficulty="easy"), replace(plan, parts=["connect"])))
