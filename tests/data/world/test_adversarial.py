"""Fakes: each is what it is called, and no true video of its claim."""

from itertools import pairwise

import numpy as np
import pytest

from data.world.adversarial import CELLS, KINDS, LIKENESS, REACH, fakes, likeness
from data.world.render import masks
from data.world.scene import Background, Body, Scene, Straight
from data.world.vocabulary import SHAPES


def stencil_of(shape: str) -> np.ndarray:
    body = Body(shape, "red", "still", None, Straight((0.0, 0.0)), (1 / (2 * REACH),) * 2)
    return masks(Scene((body,), Background("plain", "grey")), 1, CELLS, CELLS)[0, 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("named", SHAPES)
def test_likeness_knows_the_true_shapes(shape: str, named: str):
    value = likeness(stencil_of(shape), named)
    assert value > 0.97 if shape == named else value < 0.93


def test_every_kind_comes_in_turn_and_fakes_depend_on_their_numbers():
    first, again = list(fakes(len(KINDS), 4)), list(fakes(len(KINDS), 4))
    assert [fake.kind for fake in first] == list(KINDS)
    for a, b in zip(first, again, strict=True):
        assert a.claim == b.claim
        np.testing.assert_array_equal(a.video, b.video)
        assert a.video.shape == (17, 64, 64, 3)


def test_bad_shapes_are_below_what_may_be_called_by_their_name():
    found = 0
    for fake in fakes(2 * len(KINDS), 11, frames=2, height=160, width=160):
        if fake.kind not in ("smear", "dent"):
            continue
        picture = fake.video[1].astype(int)
        stencil = np.abs(picture - picture[0, 0]).sum(axis=2) > 120
        # The picture's middle is not the object's: a shift by its centroid is all `likeness` needs.
        assert likeness(stencil, fake.claim.objects[0].shape or "") <= LIKENESS + 0.03
        found += 1
    assert found == 4


def test_frozen_objects_do_not_move_and_flickering_ones_are_gone_at_times():
    for fake in fakes(3 * len(KINDS), 2):
        still = [np.abs(a.astype(int) - b).max() == 0 for a, b in pairwise(fake.video)]
        if fake.kind == "frozen" and fake.claim.count == 1:
            assert all(still)
        if fake.kind in ("flicker", "jumps", "recoloured", "vanishes", "ground", "morph"):
            assert max(np.abs(a.astype(int) - b).max() for a, b in pairwise(fake.video)) > 20
