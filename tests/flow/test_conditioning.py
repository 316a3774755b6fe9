"""The mixture of known frames is what its weights say, leaves something to learn, and depends on the sample alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.conditioning import PATTERN_NUMBERS, PATTERNS, KnownFrames
from runtime.seeding import Rng


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(PATTERNS)), f=st.integers(1, 12), edge=st.sampled_from([0.0, 0.5, 1 - 2**-53]))
def test_no_pattern_ever_knows_all_frames(name, f, edge):
    numbers = np.concatenate([np.full((1, PATTERN_NUMBERS), edge), np.random.default_rng(0).random((20, PATTERN_NUMBERS))])
    known = PATTERNS[name](numbers, f)
    assert known.shape == (21, f)
    assert known.dtype == bool
    assert not known.all(axis=1).any()


def test_patterns_come_up_by_their_weights():
    known = KnownFrames({"none": 7, "first": 1.5, "first_n": 1.5}).draw(Rng(1), range(4000), 5)
    length = known.sum(dim=1)
    share = torch.bincount(length, minlength=5).double() / 4000
    # first_n makes each of the lengths 1 to 4 with probability 0.15 / 4; a standard error is below 0.008.
    assert torch.allclose(share, torch.tensor([0.70, 0.15 + 0.0375, 0.0375, 0.0375, 0.0375]).double(), atol=0.025)


def test_every_known_frame_stands_at_the_beginning():
    known = KnownFrames({"first_n": 1}).draw(Rng(1), range(200), 6)
    assert (known[:, :-1] >= known[:, 1:]).all()
    assert set(known.sum(dim=1).tolist()) == {1, 2, 3, 4, 5}


def test_first_is_the_first_latent_frame_only():
    known = KnownFrames({"first": 1}).draw(Rng(1), range(3), 4)
    assert known.tolist() == [[True, False, False, False]] * 3


def test_a_single_image_is_never_known():
    for name in PATTERNS:
        assert not KnownFrames({name: 1}).draw(Rng(0), range(20), 1).any()


def test_a_draw_depends_on_the_sample_alone():
    mixture = KnownFrames({"none": 0.4, "first": 0.3, "first_n": 0.3})
    whole = mixture.draw(Rng(5), range(40), 5)
    assert torch.equal(torch.cat([mixture.draw(Rng(5), [sample], 5) for sample in range(40)]), whole)
    assert not torch.equal(mixture.draw(Rng(6), range(40), 5), whole)


def test_a_weight_of_zero_never_comes_up():
    assert not KnownFrames({"first": 0, "none": 1, "first_n": 0.0}).draw(Rng(0), range(300), 3).any()


@pytest.mark.parametrize(
    ("weights", "names"),
    [({"frist": 1}, "did you mean 'first'"), ({"none": -1}, "conditioning.weights.none"), ({"none": 0}, "no pattern"), ({}, "no pattern")],
)
def test_impossible_mixtures_are_refused_by_name(weights, names):
    with pytest.raises(ValueError, match=names):
        KnownFrames(weights)
