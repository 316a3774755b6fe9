"""The mixture of what is given is what its weights say, leaves something to learn, and depends on the sample alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.conditioning import PATTERN_NUMBERS, PATTERNS, KnownFrames, Stage
from flow.given import Rule
from runtime.seeding import Rng

RULE = Rule(4, 1)
STILLS = (4, 8, 12, 16, 3, 10)


def draw(weights, samples=range(400), frames=5, seed=1, stills=STILLS, **settings):
    return KnownFrames(weights, **settings).draw(Rng(seed), samples, frames, RULE, [stills] * len(samples))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(PATTERNS)),
    f=st.integers(2, 12),
    start=st.integers(0, 1),
    edge=st.one_of(st.sampled_from([0.0, 0.5, 1 - 2**-53]), st.none()),
    seed=st.integers(0, 9),
)
def test_every_pattern_leaves_a_frame_to_make_and_gives_pictures_that_there_are(name, f, start, edge, seed):
    numbers = np.random.default_rng(seed).random(PATTERN_NUMBERS) if edge is None else np.full(PATTERN_NUMBERS, edge)
    stills = (*(4 * k for k in range(1, f + start)), 1, 2)
    found = PATTERNS[name](numbers, Stage(range(start, f + start), RULE, stills))
    assert len(found.known) == len(found.window) >= 1
    assert not all(found.known)
    assert set(found.pictures) <= set(stills)
    assert list(found.pictures) == sorted(set(found.pictures))


def test_patterns_come_up_by_their_weights():
    found = draw({"none": 7, "first": 1.5, "first_n": 1.5}, range(4000))
    share = [sum(sum(one.known) == length for one in found) / 4000 for length in range(5)]
    # first_n makes each of the lengths 1 to 4 with probability 0.15 / 4; a standard error is below 0.008.
    assert share == pytest.approx([0.70, 0.15 + 0.0375, 0.0375, 0.0375, 0.0375], abs=0.025)


def test_a_beginning_stands_at_the_beginning_and_an_end_at_the_end():
    for one in draw({"first_n": 1}):
        assert list(one.known) == sorted(one.known, reverse=True)
    seen = {(one.known, one.pictures) for one in draw({"last_n": 1})}
    pixels = {((False,) * 5, (16,)), ((False,) * 5, (12, 16)), ((*[False] * 4, True), (8, 12)), ((*[False] * 3, True, True), (4, 8))}
    latents = {(tuple(k >= start for k in range(5)), ()) for start in range(1, 5)}
    assert seen == pixels | latents


def test_ends_hold_both_and_leave_a_gap():
    for one in draw({"ends": 1}):
        assert one.known[0]
        assert one.known[-1] or 16 in one.pictures
        assert not all(one.known[1:-1])


def test_a_span_may_lie_anywhere_behind_the_first_frame():
    seen = {(one.known.index(True) if any(one.known) else None, bool(one.pictures)) for one in draw({"span": 1}, range(2000))}
    assert {(None, True), (1, False), (2, False), (3, False), (4, False), (3, True), (4, True)} <= seen
    assert not any(first == 0 for first, _ in seen)


def test_keyframes_are_one_two_or_all_at_any_moment():
    counts = Counter(one.pictures for one in draw({"keyframes": 1}, range(4000)))
    assert set(map(len, counts)) == {1, 2, 4}
    assert {frame for pictures in counts for frame in pictures} == set(STILLS)
    assert counts[4, 8, 12, 16] == pytest.approx(1000, abs=100)


def test_windows_show_a_piece_of_a_longer_video_whose_neighbours_are_handed_on():
    weights = {name: 1 for name in PATTERNS if name != "picture"}
    found = draw(weights, range(2000), windows=0.4)
    later = [one for one in found if one.window.start]
    assert len(later) / 2000 == pytest.approx(0.4, abs=0.04)
    assert {one.window for one in found} == {range(5), range(1, 5)}
    assert all(len(one.known) == 4 for one in later)
    assert any(one.known[-1] and not one.known[0] for one in later)
    assert not any(one.window.start for one in draw({"picture": 1}, windows=0.9))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("last_n", {("0000", (16,)), ("0000", (12, 16)), ("0001", (8, 12))}),
        ("ends", {("1000", (16,)), ("1100", (16,)), ("1000", (12, 16))}),
        ("keyframes", {("1000", (8, 12, 16)), ("0000", (8, 12, 16)), ("1000", (3,)), ("0000", (4, 10))}),
    ],
)
def test_pieces_of_longer_videos_show_late_pictures_too(name, wanted):
    """As windows of a rollout do: what is handed on at their beginning are latents, what the user gave at the end may be pictures."""
    found = draw({name: 1}, range(2000), windows=0.9)
    seen = {("".join(str(int(known)) for known in one.known), one.pictures) for one in found if one.window.start and one.pictures}
    assert wanted <= seen


def test_hidden_pictures_stand_beside_a_clip_of_which_nothing_is_given():
    weights = dict.fromkeys(PATTERNS, 1.0)
    plain, some = (draw(weights, range(2000), noise=0.1, hidden=share) for share in (0.0, 0.3))
    for one, other in zip(plain, some, strict=True):
        assert (one.window, one.pictures) == (other.window, other.pictures)
        assert other == one or (other.hidden and other.pictures and not other.anything and not any(other.known) and other.level == 0)
    late = [one for one in some if one.pictures]
    assert sum(one.hidden for one in late) / len(late) == pytest.approx(0.3, abs=0.06)


def test_a_picture_is_the_first_frame_alone_and_all_of_it_is_made():
    assert {(one.window, one.known, one.frames) for one in draw({"picture": 1})} == {(range(1), (False,), 1)}


def test_what_is_given_is_noised_up_to_the_level_asked_for_and_the_rest_has_none():
    levels = [one.level for one in draw({"first": 1}, range(2000), noise=0.2)]
    assert 0 <= min(levels) < 0.01
    assert 0.19 < max(levels) < 0.2
    assert {one.level for one in draw({"none": 1, "independent": 1}, noise=0.2)} == {0.0}
    assert {one.level for one in draw({"first": 1})} == {0.0}


def test_only_the_independent_pattern_parts_the_levels():
    assert all(one.independent for one in draw({"independent": 1}))
    assert not any(one.independent for name in PATTERNS if name != "independent" for one in draw({name: 1}, range(20)))


def test_a_single_image_is_never_given():
    for name in PATTERNS:
        found = draw({name: 1}, range(20), frames=1, windows=0.5)
        assert not any(one.anything or one.independent or one.window.start for one in found)


def test_a_draw_depends_on_the_sample_alone():
    weights = dict.fromkeys(PATTERNS, 1.0)
    whole = draw(weights, range(60), windows=0.3, noise=0.1)
    assert [draw(weights, [sample], windows=0.3, noise=0.1)[0] for sample in range(60)] == whole
    assert draw(weights, range(60), seed=2, windows=0.3, noise=0.1) != whole


def test_adding_windows_and_noise_changes_no_other_choice():
    plain, other = (draw({"first_n": 1, "none": 1}, windows=share, noise=share) for share in (0.0, 1e-12))
    assert [one.known for one in plain] == [one.known for one in other]


def test_a_weight_of_zero_never_comes_up():
    assert not any(one.anything for one in draw({"first": 0, "none": 1, "first_n": 0.0}, range(300), frames=3))


@pytest.mark.parametrize(
    ("weights", "settings", "names"),
    [
        ({"frist": 1}, {}, "did you mean 'first'"),
        ({"none": -1}, {}, "conditioning.weights.none"),
        ({"none": 0}, {}, "no pattern"),
        ({}, {}, "no pattern"),
        ({"none": 1}, {"windows": 1.0}, "Set conditioning.windows"),
        ({"none": 1}, {"noise": -0.1}, "Set conditioning.noise"),
        ({"none": 1}, {"hidden": 1.5}, "Set conditioning.hidden"),
    ],
)
def test_impossible_mixtures_are_refused_by_name(weights, settings, names):
    with pytest.raises(ValueError, match=names):
        KnownFrames(weights, **settings)
