"""Laws of the intervals."""

import numpy as np
import pytest

from evaluation.statistics import bootstrap, paired_bootstrap, wilson


def test_wilson_agrees_with_the_published_worked_example() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263 and 15 of 148.
    for yes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        share = wilson([True] * yes + [False] * (n - yes))
        assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)
        assert share.n == n
        assert share.value == yes / n


def test_wilson_never_claims_certainty_and_stays_inside_zero_and_one() -> None:
    none, every = wilson([False] * 20), wilson([True] * 20)
    assert none.low == pytest.approx(0, abs=1e-12)
    assert every.high == pytest.approx(1, abs=1e-12)
    # The closed forms at the ends: z^2 / (n + z^2), z = 1.959964.
    assert none.high == pytest.approx(3.841459 / 23.841459, abs=1e-6)
    assert every.low == pytest.approx(1 - none.high, abs=1e-12)


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).random((600, 60)) < 0.9
    covered = [share.low <= 0.9 <= share.high for share in (wilson(list(row)) for row in draws)]
    # 95 % nominal; 600 draws put three standard errors at 2.7 points.
    assert 0.92 <= np.mean(covered) <= 0.98


def test_an_empty_proportion_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one outcome"):
        wilson([])


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    mean = bootstrap(values.tolist(), seed=0)
    half = 1.96 * values.std() / 20
    assert mean.value == pytest.approx(values.mean())
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.1)
    assert mean == bootstrap(values.tolist(), seed=0)


def test_bootstrap_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap([1.0, float("inf")], seed=0)


def test_pairs_are_resampled_whole() -> None:
    difficulty = np.random.default_rng(2).normal(0, 100, 50)
    difference = paired_bootstrap((difficulty + 1).tolist(), difficulty.tolist(), seed=0)
    # Each pair differs by exactly one, however unlike the clips are.
    assert (difference.low, difference.value, difference.high) == pytest.approx((1, 1, 1), abs=1e-9)
