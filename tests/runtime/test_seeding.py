import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.seeding import Rng, Stream, generator

numbers = st.integers(0, 2**64 - 1)


@given(numbers, st.sampled_from(Stream), st.lists(numbers, max_size=3))
def test_same_arguments_give_the_same_numbers(seed, stream, counter):
    assert (generator(seed, stream, *counter).random(4) == generator(seed, stream, *counter).random(4)).all()


@given(numbers, numbers)
def test_every_bit_of_the_seed_counts(seed, other):
    same = (generator(seed, Stream.NOISE).random(4) == generator(other, Stream.NOISE).random(4)).all()
    assert same == (seed == other)


@pytest.mark.parametrize("number", [0, 2**32, 2**53, 2**63, 2**64 - 2])
def test_neighbouring_seeds_and_counters_differ_at_any_size(number):
    assert generator(number, Stream.NOISE).random() != generator(number + 1, Stream.NOISE).random()
    assert generator(0, Stream.NOISE, number).random() != generator(0, Stream.NOISE, number + 1).random()


def test_streams_and_counters_share_no_numbers():
    draws = {}
    for stream in Stream:
        for counter in ((), (1,), (2,), (0, 1), (0, 0, 1)):
            draws[stream, counter] = tuple(generator(0, stream, *counter).integers(2**62, size=4))
    assert len(set(draws.values())) == len(draws)


def test_a_shorter_draw_is_the_beginning_of_a_longer_one():
    assert (generator(3, Stream.TIME, 5).random(7) == generator(3, Stream.TIME, 5).random(20)[:7]).all()


def test_neighbouring_counters_do_not_overlap_in_long_draws():
    long, next_one = generator(0, Stream.NOISE, 0).integers(2**62, size=100_000), generator(0, Stream.NOISE, 1).integers(2**62, size=100)
    assert not np.isin(next_one, long).any()


def test_a_draw_does_not_depend_on_the_batch_it_stands_in():
    rng = Rng(7)
    together = rng.normal(Stream.NOISE, [4, 9, 2], 3, (2, 2))
    alone = np.concatenate([rng.normal(Stream.NOISE, [sample], 3, (2, 2)) for sample in (4, 9, 2)])
    assert (together == alone).all()
    assert together.shape == (3, 3, 2, 2)
    assert together.dtype == np.float32
    assert (rng.uniform(Stream.TIME, [4, 9], 2)[1] == rng.uniform(Stream.TIME, [9], 2)[0]).all()


def test_a_longer_video_begins_with_the_noise_of_a_shorter_one():
    rng = Rng(1)
    long = rng.normal(Stream.NOISE, [5], 6, (3,))
    assert (long[:, :2] == rng.normal(Stream.NOISE, [5], 2, (3,))).all()
    assert (long[:, 4:] == rng.normal(Stream.NOISE, [5], 2, (3,), first_frame=4)).all()


def test_normal_draws_are_unit_normal():
    draws = Rng(0).normal(Stream.NOISE, range(200), 5, (10,)).ravel()
    assert abs(draws.mean()) < 4 / len(draws) ** 0.5  # four standard errors
    assert abs(draws.std() - 1) < 4 / (2 * len(draws)) ** 0.5


@pytest.mark.parametrize(("seed", "counter"), [(-1, ()), (2**64, ()), (0, (-1,)), (0, (2**64,)), (0, (1, 2, 3, 4))])
def test_numbers_out_of_range_are_refused(seed, counter):
    with pytest.raises(ValueError, match=r"64|counters"):
        generator(seed, Stream.ORDER, *counter)


def test_stream_values_are_what_stored_runs_were_drawn_with():
    assert [int(stream) for stream in Stream] == list(range(1, len(Stream) + 1))
    assert generator(0, Stream.NOISE, 1).integers(2**32, size=2).tolist() == [3132555670, 1709566352]
    assert generator(7, Stream.ORDER, 3).permutation(6).tolist() == [2, 0, 3, 1, 4, 5]
