from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.buckets import Bucket
from data.plan import Draw, EpochPlan, MicroBatches, OnePass, Sequences, share

GRID = (4, 16, 16)


def whole_epochs(plan, epochs):
    """The draws of each step, by epoch."""
    step, result = 0, []
    for number in range(epochs):
        steps = len(plan.epoch(number)[1]) - 1
        result.append([plan.draws(step + place) for place in range(steps)])
        step += steps
    return result


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=60)
def test_every_row_comes_once_an_epoch_and_samples_count_on(rows, batch_size, seed, epoch):
    plan = EpochPlan([1.0] * rows, [7] * rows, batch_size, None, seed)
    steps = [plan.draws(step) for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)]
    draws = [draw for step in steps for draw in step]
    assert sorted(draw.row for draw in draws) == list(range(rows))
    assert [draw.sample for draw in draws] == list(range(epoch * rows, (epoch + 1) * rows))
    assert {len(step) for step in steps[:-1]} <= {batch_size}
    assert len(steps[-1]) == rows - batch_size * (len(steps) - 1) > 0


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.7, 1.0, 1.0, 1.5, 3.0]), st.integers(1, 30)), min_size=1, max_size=25),
    st.none() | st.integers(1, 6),
    st.integers(1, 60),
    st.integers(0, 2**63),
)
@settings(max_examples=80)
def test_a_ledger_of_epochs_holds_every_clip_as_often_as_its_weight_says_and_every_step_within_its_limits(rows, batch_size, batch_tokens, seed):
    weights, tokens = [weight for weight, _ in rows], [cost for _, cost in rows]
    if not any(weights):
        return
    plan, ledger = EpochPlan(weights, tokens, batch_size, batch_tokens, seed), Counter()
    samples = []
    for number, steps in enumerate(whole_epochs(plan, 5), start=1):
        seen = Counter(draw.row for step in steps for draw in step)
        assert all(seen[row] in (np.floor(weight), np.ceil(weight)) for row, weight in enumerate(weights))
        ledger += seen
        assert all(abs(ledger[row] - number * weight) < 1 for row, weight in enumerate(weights))
        for step in steps:
            assert len(step) == 1 or sum(tokens[draw.row] for draw in step) <= batch_tokens
            assert 1 <= len(step) <= (batch_size or len(rows) * 3)
        samples += [draw.sample for step in steps for draw in step]
    assert samples == sorted(set(samples))


def test_sixteen_clips_in_seven_shapes_are_sixteen_samples():
    shapes = [Bucket(1 + 4 * (number % 4), 16 * (1 + number % 2), 16 * (1 + number % 3)) for number in range(16)]
    assert len(set(shapes)) >= 7
    tokens = [shape.tokens(GRID) for shape in shapes]
    for limits in ((4, None), (None, 20), (100, 10_000), (None, 1)):
        plan = EpochPlan([1.0] * 16, tokens, *limits, seed=0)
        assert plan.samples_per_epoch == 16
        (steps,) = whole_epochs(plan, 1)
        micros = [micro for step in steps for micro in MicroBatches(2, 8, GRID).cut(step, shapes)]
        assert sorted(draw.row for micro in micros for draw in micro) == list(range(16))
        assert all(len({shapes[draw.row] for draw in micro}) == 1 for micro in micros)


@pytest.mark.parametrize(("weights", "tokens"), [([1.0] * 100, [3] * 100), ([0.5, 1.0] * 50, [3] * 100), ([1.0] * 100, [2, 7] * 50)])
def test_the_order_is_a_function_of_seed_and_step(weights, tokens):
    plan = EpochPlan(weights, tokens, 8, 40, seed=4)
    forward = [plan.draws(step) for step in range(50)]
    assert [EpochPlan(weights, tokens, 8, 40, seed=4).draws(step) for step in reversed(range(50))] == forward[::-1]
    other = EpochPlan(weights, tokens, 8, 40, seed=5)
    assert other.draws(0) != forward[0]
    first, second = ([draw.row for step in steps for draw in step] for steps in whole_epochs(plan, 2))
    assert first != second


def test_a_step_is_filled_as_long_as_the_next_clip_fits():
    plan = EpochPlan([1.0] * 6, [4] * 6, None, 10, seed=0)
    assert [len(plan.draws(step)) for step in range(3)] == [2, 2, 2]
    huge = EpochPlan([1.0] * 3, [4, 99, 4], None, 10, seed=0)
    assert sum(len(huge.draws(step)) for step in range(huge.steps_per_epoch)) == 3  # too large for any step, and shown


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 5))
def test_ranks_share_a_step_without_loss_and_about_evenly(tokens, ranks):
    draws = [Draw(10 + number, number) for number in range(len(tokens))]
    parts = share(draws, tokens, ranks)
    assert sorted((draw for part in parts for draw in part), key=lambda draw: draw.sample) == draws
    loads = [sum(tokens[draw.row] for draw in part) for part in parts]
    assert max(loads) - min(loads) <= max(tokens, default=0)
    assert share(draws, tokens, 1) == [draws]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.none() | st.integers(1, 4), st.integers(1, 40))
def test_micro_batches_hold_one_shape_within_their_limits_and_lose_nothing(kinds, size, tokens):
    shapes = [Bucket(1 + 4 * kind, 16, 32) for kind in kinds]
    draws = [Draw(number, number) for number in range(len(kinds))]
    micros = MicroBatches(size, tokens, GRID).cut(draws, shapes)
    assert sorted((draw for micro in micros for draw in micro), key=lambda draw: draw.sample) == draws
    for micro in micros:
        assert len({shapes[draw.row] for draw in micro}) == 1
        assert len(micro) <= (size or len(draws))
        assert len(micro) == 1 or len(micro) * shapes[micro[0].row].tokens(GRID) <= tokens


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.none() | st.integers(1, 5), st.integers(1, 40))
def test_a_pass_of_many_shapes_keeps_to_the_limits_and_is_full_before_the_next_begins(kinds, size, tokens):
    shapes = [Bucket(1 + 4 * kind, 16, 32) for kind in kinds]
    draws = [Draw(number, number) for number in range(len(kinds))]
    sequences = Sequences(size, tokens, GRID)
    passes = sequences.passes(draws, shapes)
    flat = [draw for parts in passes for part in parts for draw in part]
    assert flat == [draw for part in sequences.cut(draws, shapes) for draw in part]  # in the order of the micro-batches

    def cost(draws):
        return sum(shapes[draw.row].tokens(GRID) for draw in draws)

    whole = [[draw for part in parts for draw in part] for parts in passes]
    for parts, clips in zip(passes, whole, strict=True):
        assert all(len({shapes[draw.row] for draw in part}) == 1 for part in parts)
        assert len({shapes[part[0].row] for part in parts}) == len(parts)
        assert len(clips) <= (size or len(draws))
        assert len(clips) == 1 or cost(clips) <= tokens
    for clips, after in pairwise(whole):
        assert len(clips) == size or cost([*clips, after[0]]) > tokens
    assert MicroBatches(size, tokens, GRID).passes(draws, shapes) == [[part] for part in sequences.cut(draws, shapes)]


def test_one_pass_takes_its_rows_in_order():
    assert OnePass((0, 2, 5)).draws(0) == [Draw(0, 0), Draw(1, 2), Draw(2, 5)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EpochPlan([1.0] * 8, [1] * 8, 0, None, 0), r"Set data\.batch_size"),
        (lambda: EpochPlan([1.0] * 8, [1] * 8, None, None, 0), r"Set data\.batch_size or data\.batch_tokens"),
        (lambda: EpochPlan([0.0] * 8, [1] * 8, 1, None, 0), "none of the 8 clips"),
        (lambda: EpochPlan([1.0, 1e300], [1] * 2, 1, None, 0), r"weight 1e\+300, it must lie between 0 and 10000"),
        (lambda: EpochPlan([1.0, float("nan")], [1] * 2, 1, None, 0), "weight nan"),
        (lambda: MicroBatches(None, -1, GRID), r"Set data\.micro_tokens"),
        (lambda: MicroBatches(None, None, GRID), r"Set data\.micro_batch or data\.micro_tokens"),
    ],
)
def test_wrong_settings_name_their_key(make, message):
    with pytest.raises(ValueError, match=message):
        make()
