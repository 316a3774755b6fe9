"""Laws of the ratio of medians."""

from math import inf

import numpy as np
import pytest

from evaluation.reconstruction import HIGHEST_RATIO
from evaluation.tasks.ratios import median_ratio


def test_errors_of_one_law_have_a_ratio_of_one_whatever_their_number() -> None:
    draws = np.random.default_rng(0).rayleigh(1, (200, 14))
    ratio = median_ratio(draws[:, :1].tolist(), draws[:, 1:].tolist(), 0)
    assert ratio.low < 1 < ratio.high
    assert ratio.high - ratio.low < 0.4
    assert ratio.n == 200


def test_twice_the_error_is_twice_the_ratio() -> None:
    draws = np.random.default_rng(1).rayleigh(1, (100, 3))
    ratio = median_ratio((2 * draws).tolist(), draws.tolist(), 0)
    assert (ratio.value, ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))


def test_lost_clips_are_counted_not_left_out() -> None:
    few, many = ([[1.0]] * 10 + [[inf]] * lost for lost in (4, 30))
    assert median_ratio(few, [[1.0]] * 14, 0).value == 1
    assert median_ratio(many, [[1.0]] * 40, 0).value == HIGHEST_RATIO


def test_nothing_against_nothing_is_one_and_something_against_nothing_the_highest() -> None:
    assert median_ratio([[0.0]] * 5, [[0.0]] * 5, 0).value == 1
    assert median_ratio([[0.1]] * 5, [[0.0]] * 5, 0).value == HIGHEST_RATIO
    # An object that is lost everywhere has no seam, and no interior to be as good as.
    assert median_ratio([[inf]] * 5, [[inf, inf]] * 5, 0).value == HIGHEST_RATIO


def test_unlike_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="a ratio needs"):
        median_ratio([[1.0]], [[1.0], [2.0]], 0)
