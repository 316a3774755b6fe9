"""What is held out: as declared, balanced, and leaving enough company."""

from collections import Counter

import numpy as np
import pytest

from data.world.splits import DIFFICULTIES, KINDS, by_kind, combinations, heldout, seen_weights
from data.world.vocabulary import COLOURS, EASY_MOTIONS, SHAPES


def test_easy_holds_out_three_and_five_whole_pairs_and_thirty_percent_of_all_triples():
    rule = heldout("easy")
    assert len(combinations("easy")) == 180
    assert len(rule.pairs_shape_colour) == 3
    assert {len(set(names)) for names in zip(*rule.pairs_shape_colour, strict=True)} == {3}
    assert len(rule.pairs_colour_motion) == 5
    assert {len(set(names)) for names in zip(*rule.pairs_colour_motion, strict=True)} == {5}
    assert len(rule.triples) == 54
    assert all(t[:2] not in rule.pairs_shape_colour and t[1:] not in rule.pairs_colour_motion for t in rule.triples)


def test_single_triples_are_taken_evenly():
    taken = heldout("easy").triples
    for part, names in enumerate((SHAPES, tuple(COLOURS), EASY_MOTIONS)):
        lost = Counter(triple[part] for triple in taken)
        assert max(lost[name] for name in names) - min(lost[name] for name in names) <= 2


def test_every_motion_keeps_company_in_training():
    rule, seen = heldout("easy"), by_kind("easy")[None]
    for motion in EASY_MOTIONS:
        for colour in COLOURS:
            if (colour, motion) not in rule.pairs_colour_motion:
                assert any(t[1:] == (colour, motion) for t in seen)
        for shape in SHAPES:
            assert sum(t[0] == shape and t[2] == motion for t in seen) >= 2


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_kinds_divide_all_combinations(difficulty: str):
    parts = by_kind(difficulty)
    assert sorted(t for part in parts.values() for t in part) == sorted(combinations(difficulty))
    assert all(parts[kind] for kind in (None, *KINDS))


def test_harder_levels_hold_out_all_that_easier_ones_do():
    for easier, harder in (("easy", "standard"), ("standard", "hard"), ("easy", "sora"), ("sora", "standard")):
        a, b = heldout(easier), heldout(harder)
        assert a.triples <= b.triples
        assert a.pairs_shape_colour <= b.pairs_shape_colour
        assert a.pairs_colour_motion <= b.pairs_colour_motion


def test_seen_weights_show_every_word_equally_often():
    weights, seen = seen_weights("easy"), by_kind("easy")[None]
    for part, names in enumerate((SHAPES, tuple(COLOURS), EASY_MOTIONS)):
        shown = [weights[[t[part] == name for t in seen]].sum() for name in names]
        np.testing.assert_allclose(shown, 1 / len(names), rtol=0.01)


def test_orbits_are_shown_as_often_as_four_straight_motions_at_sora():
    weights, seen = seen_weights("sora"), by_kind("sora")[None]
    for part, names in ((0, SHAPES), (1, tuple(COLOURS)), (2, EASY_MOTIONS)):
        shown = [weights[[t[part] == name for t in seen]].sum() for name in names]
        np.testing.assert_allclose(shown, (1 if part < 2 else 10 / 14) / len(names), rtol=0.01)


def test_unknown_difficulty_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="easy, standard, hard"):
        heldout("medium")
