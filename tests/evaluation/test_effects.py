"""Laws of effects: what a seed does to both arms cancels, nothing is called better too often, what is promised is found."""

from collections.abc import Callable
from itertools import pairwise
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evaluation.effects import LEVEL, Effect, Verdict, detectable, holm, paired_effect, seeds_needed, verdict

# Darwin's fifteen pairs of maize, cross- less self-fertilised, in eighths of an inch: Fisher 1935, "The Design of Experiments", chapter 3.
MAIZE = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)
REPEATS, ARMS, MEASURES, SEEDS = 400, 3, 2, 5
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(2, shape),  # without a variance
    "skewed": lambda rng, shape: rng.lognormal(0, 1.5, shape),
    "shares": lambda rng, shape: rng.binomial(20, 0.1, shape) / 20,  # of twenty prompts: often the same
}


def effect(value: float, half: float) -> Effect:
    return Effect(value, value - half, value + half, 5, 1.0, 0.5, 0.5)


def ablated(values: np.ndarray, smallest: float | None = None) -> list[list[Verdict]]:
    """What an ablation says of each arm but the first, per repeat; `values`: repeat, arm, measure, seed."""
    told = []
    for repeat in values:
        effects = [paired_effect(arm, baseline) for measures in repeat[1:] for arm, baseline in zip(measures, repeat[0], strict=True)]
        adjusted = holm([one.p for one in effects])
        told.append([verdict(one, p, "higher", smallest) for one, p in zip(effects, adjusted, strict=True)])
    return told


def test_an_effect_agrees_with_fishers_worked_example() -> None:
    found = paired_effect(MAIZE, [0] * 15)
    assert (found.value, found.n) == (pytest.approx(314 / 15), 15)
    assert found.p == pytest.approx(0.0497, abs=5e-5)
    # Fisher counts 863 of the 2**15 patterns whose total is as high as the one observed, and as many as low.
    assert found.p_exchange == 2 * 863 / 2**15


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_an_effect_is_scipys_paired_t_test_and_permutation_test(n: int) -> None:
    arm, baseline = np.random.default_rng(n).normal(1, 2, (2, n))
    found, known = paired_effect(arm.tolist(), baseline.tolist()), stats.ttest_rel(arm, baseline)
    low, high = known.confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx(((arm - baseline).mean(), low, high), rel=1e-9)
    assert found.p == pytest.approx(known.pvalue, rel=1e-9)
    assert found.deviation == pytest.approx((arm - baseline).std(ddof=1))
    # As many resamples as there are patterns make it exact.
    test = stats.permutation_test((arm, baseline), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=2**n)
    assert found.p_exchange == pytest.approx(test.pvalue, abs=1e-12)


def test_what_a_seed_does_to_both_cancels_and_swapping_them_turns_the_sign() -> None:
    rng = np.random.default_rng(0)
    arm, baseline = rng.normal(size=(2, 6)).tolist()
    found, hard = paired_effect(arm, baseline), rng.normal(0, 100, 6)
    shifted, turned = paired_effect((arm + hard).tolist(), (baseline + hard).tolist()), paired_effect(baseline, arm)
    # 100 + 1 - 100 in float64: 1e-14 of what remains.
    assert (shifted.value, shifted.low, shifted.high, shifted.p) == pytest.approx((found.value, found.low, found.high, found.p), rel=1e-9)
    assert (turned.value, turned.low, turned.high) == (-found.value, -found.high, -found.low)
    assert (turned.p, turned.p_exchange, turned.deviation) == (found.p, found.p_exchange, found.deviation)


def test_an_effect_keeps_its_words_in_any_unit_and_order_of_seeds() -> None:
    arm, baseline = np.random.default_rng(1).normal(size=(2, 7))
    found = paired_effect(arm.tolist(), baseline.tolist())
    scaled = paired_effect((1e-3 * arm[::-1]).tolist(), (1e-3 * baseline[::-1]).tolist())
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((1e-3 * found.value, 1e-3 * found.low, 1e-3 * found.high))
    assert (scaled.p, scaled.p_exchange) == pytest.approx((found.p, found.p_exchange))


def test_the_interval_holds_the_truth_as_often_as_it_says_and_leaves_out_zero_where_p_is_small() -> None:
    draws = np.random.default_rng(2).normal(1, 1, (1000, 4))
    effects = [paired_effect(row.tolist(), [0.0] * 4) for row in draws]
    # 95 % nominal; 1000 draws put three standard errors at 2.1 points.
    assert np.mean([one.low <= 1 <= one.high for one in effects]) == pytest.approx(0.95, abs=0.021)
    assert all((one.p < LEVEL) == (one.low > 0 or one.high < 0) for one in effects)
    assert all(one.p_exchange >= 2 / 2**4 for one in effects)


def test_above_sixteen_seeds_patterns_are_drawn_the_same_each_time_and_agree_with_the_exact_share() -> None:
    arm, none = np.random.default_rng(3).normal(0.4, 1, 18).tolist(), [0.0] * 18
    drawn = paired_effect(arm, none).p_exchange
    assert drawn == paired_effect(arm, none).p_exchange
    sums = np.zeros(1)
    for value in arm:
        sums = np.concatenate((sums + value, sums - value))
    exact = (np.abs(sums) >= abs(sum(arm)) - 1e-9).mean()
    # Four standard errors of a share of 2**16 draws.
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 2**16) ** 0.5)
    assert 0 < paired_effect([value + 100 for value in arm], none).p_exchange <= 2 / 2**16


def test_differences_that_are_all_equal_claim_no_more_than_their_number_does() -> None:
    # 0.3 - 0.2 and 0.4 - 0.3 differ in float64 by 3e-17: a t test would be certain after two seeds.
    for n, p in ((2, 0.5), (3, 0.25), (6, 1 / 32)):
        found = paired_effect([0.3, 0.4, 0.7, 0.5, 0.9, 1.0][:n], [0.2, 0.3, 0.6, 0.4, 0.8, 0.9][:n])
        assert (found.value, found.low, found.high, found.deviation) == (pytest.approx(0.1), found.value, found.value, 0)
        assert (found.p, found.p_exchange) == (p, p)
        assert verdict(found, found.p, "higher", None) == (Verdict.BETTER if n == 6 else Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_an_arm_that_is_the_baseline_has_no_effect_at_all(n: int) -> None:
    values = np.random.default_rng(4).normal(size=n).tolist()
    found = paired_effect(values, [value * (1 + 1e-15) for value in values])  # but for rounding
    assert found == Effect(0.0, 0.0, 0.0, n, 0.0, 1.0, 1.0)
    assert verdict(found, 1.0, "lower", 1e-6) == verdict(found, 1.0, "lower", None) == Verdict.INCONCLUSIVE, "nothing was changed, or seen"


@pytest.mark.parametrize(
    ("arm", "baseline", "match"),
    [
        ([1.0], [2.0], r"at least two seeds that arm and baseline share, got 1\. Raise seeds"),
        ([], [], "at least two seeds that arm and baseline share, got 0"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "got 3 of the arm and 2 of the baseline. Keep the seeds that both have"),
        ([1.0, nan], [1.0, 2.0], "finite values, got nan at place 1 of the arm.*leave out failed runs"),
        ([1.0, 2.0], [-inf, 2.0], "finite values, got -inf at place 0 of the baseline"),
        ([[1.0, 2.0]], [1.0, 2.0], r"a list of one value per seed, got shape \(1, 2\) of the arm"),
    ],
)
def test_what_cannot_be_paired_is_refused(arm: list[float], baseline: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        paired_effect(arm, baseline)


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 is not below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.001]) == pytest.approx([1, 1, 0.003])
    assert (holm([]), holm([0.2]), holm([0.02, 0.02])) == ([], [0.2], [0.04, 0.04])


def test_holm_keeps_the_order_of_p_values_and_lies_between_none_and_bonferroni() -> None:
    for ps in np.random.default_rng(5).random((50, 7)) ** 3:
        adjusted = np.array(holm(ps.tolist()))
        assert (adjusted >= ps).all()
        assert (adjusted <= np.minimum(1, 7 * ps)).all()
        assert (np.diff(adjusted[np.argsort(ps)]) >= 0).all()
        order = np.random.default_rng(6).permutation(7)
        assert holm(ps[order].tolist()) == adjusted[order].tolist()


@pytest.mark.parametrize("ps", [[0.2, 1.1], [-0.1], [nan]])
def test_holm_refuses_what_is_no_probability(ps: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got .* Pass the p of paired_effect"):
        holm(ps)


@pytest.mark.parametrize(
    ("value", "half", "p", "better", "smallest", "word"),
    [
        (0.2, 0.1, 0.01, "higher", None, Verdict.BETTER),
        (0.2, 0.1, 0.01, "lower", None, Verdict.WORSE),
        (-0.2, 0.1, 0.01, "lower", None, Verdict.BETTER),
        (-0.2, 0.1, 0.01, "higher", 0.05, Verdict.WORSE),
        (0.2, 0.1, LEVEL, "higher", None, Verdict.INCONCLUSIVE),
        (0.2, 0.1, 0.06, "higher", 0.05, Verdict.INCONCLUSIVE),  # its own interval leaves out 0, but six comparisons had to be paid for
        (0.2, 0.1, 0.01, "higher", 0.31, Verdict.EQUIVALENT),  # certainly there, certainly too small
        (0.2, 0.1, 0.01, "higher", 0.29, Verdict.BETTER),
        (-0.2, 0.1, 0.5, "higher", 0.31, Verdict.EQUIVALENT),
        (0.0, 0.4, 1.0, "higher", 0.31, Verdict.INCONCLUSIVE),  # no effect was seen, one that matters may be there
    ],
)
def test_verdicts(value: float, half: float, p: float, better: Any, smallest: float | None, word: Verdict) -> None:
    assert verdict(effect(value, half), p, better, smallest) == word


def test_one_seed_is_inconclusive_whatever_it_shows() -> None:
    assert verdict(None, nan, "lower", 1e9) == Verdict.INCONCLUSIVE


def test_a_verdict_refuses_what_is_out_of_range() -> None:
    other: Any = "more"
    with pytest.raises(ValueError, match=r"better='more' must be lower or higher\. Set the measure's better"):
        verdict(None, 1.0, other, None)
    for smallest in (0.0, -0.1, nan, inf):
        with pytest.raises(ValueError, match=f"smallest={smallest} must be a number above 0, or None. Set the measure's smallest"):
            verdict(None, 1.0, "lower", smallest)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got nan"):
        verdict(effect(0.0, 1.0), nan, "lower", 10.0)


@pytest.mark.parametrize("noise", NOISES)
def test_an_ablation_in_which_nothing_does_anything_is_rarely_told_otherwise(noise: str) -> None:
    """All arms are the baseline; measures of a run agree in part, and seeds differ by far more than runs of one seed."""
    rng = np.random.default_rng(7)
    runs = NOISES[noise](rng, (REPEATS, 1 + ARMS, MEASURES, SEEDS))
    runs[:, :, 1] = (runs[:, :, 0] + runs[:, :, 1]) / 2
    told = ablated(runs + rng.integers(-50, 50, (REPEATS, 1, 1, SEEDS)))
    wrong = np.mean([any(word in (Verdict.BETTER, Verdict.WORSE) for word in words) for words in told])
    # 5 % of families by Holm, in 400 repeats within three standard errors: 8.3 points. The bound is 8.
    assert wrong <= 0.08


@pytest.mark.parametrize("n", [3, SEEDS])
def test_a_planted_effect_is_found_as_often_as_promised(n: int) -> None:
    rng, deviation = np.random.default_rng(8), 0.03
    # Each run has half of the variance of a difference; the seeds' own is far larger, and cancels.
    runs = rng.normal(0, deviation / 2**0.5, (REPEATS, 1 + ARMS, MEASURES, n)) + rng.normal(0, 10, (REPEATS, 1, 1, n))
    runs[:, 2, 1] += detectable(deviation, n, ARMS * MEASURES)
    found = np.mean([words[MEASURES + 1] == Verdict.BETTER for words in ablated(runs)])
    # Three standard errors of 80 % over 400 repeats: 6 points.
    assert found == pytest.approx(0.8, abs=0.06)


def test_what_is_too_small_to_matter_is_called_equivalent_and_what_just_matters_hardly_ever() -> None:
    rng, smallest = np.random.default_rng(9), 0.1
    runs = rng.normal(0, 0.02, (REPEATS, 3, 1, SEEDS))
    runs[:, 1] += 0.01
    runs[:, 2] += smallest
    told = ablated(runs, smallest)
    # A half interval of about 2.8 x 0.028 / sqrt(5) = 0.035 fits beside 0.01 nearly always.
    assert np.mean([words[0] == Verdict.EQUIVALENT for words in told]) >= 0.95
    # 2.5 %, and three standard errors of it.
    assert np.mean([words[1] == Verdict.EQUIVALENT for words in told]) <= 0.049


@pytest.mark.parametrize(("prompts", "base"), [(20, 0.05), (20, 0.3), (768, 0.05)])
@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_shares_that_agree_by_chance_are_not_called_equivalent_more_often_than_promised(n: int, prompts: int, base: float) -> None:
    """Shares of twenty prompts agree in two seeds every tenth time: of an arm that is off by what just matters, too, if its prompts are few."""
    rng, smallest, repeats = np.random.default_rng(10), 0.05, 2000
    runs = rng.binomial(prompts, [[[base]], [[base + smallest]]], (repeats, 2, 1, n)) / prompts
    told = ablated(runs, smallest)
    # 2.5 %, and three standard errors of it.
    assert np.mean([words[0] == Verdict.EQUIVALENT for words in told]) <= 0.036


def test_few_seeds_that_agree_exactly_promise_nothing() -> None:
    found = [paired_effect([0.51] * n, [0.5] * n) for n in range(2, 9)]
    assert [verdict(one, 1.0, "higher", 0.05) == Verdict.EQUIVALENT for one in found] == [n >= 6 for n in range(2, 9)]


def test_seeds_needed_are_those_of_the_published_tables() -> None:
    # Paired t test, two-sided 5 %, power 80 %: Cohen's d of 0.2, 0.5, 0.8 need 199, 34, 15 pairs (G*Power 3; R's power.t.test: 33.37).
    assert [seeds_needed(d, 1, 1) for d in (0.2, 0.5, -0.8)] == [199, 34, 15]


@pytest.mark.parametrize("comparisons", [1, 6, 100])
@pytest.mark.parametrize("n", [2, 3, 5, 30, 1000])
def test_a_detectable_effect_passes_its_threshold_with_the_asked_power(n: int, comparisons: int) -> None:
    threshold = stats.t.isf(LEVEL / comparisons / 2, n - 1)
    for power in (0.5, 0.8, 0.95):
        shift = detectable(2.0, n, comparisons, power) * n**0.5 / 2.0
        # The other way round, by the distribution's own tail; scipy's inverse is good to 1e-4 under two seeds and 100 comparisons.
        assert stats.nct.sf(threshold, n - 1, shift) == pytest.approx(power, abs=1e-4)


def test_more_seeds_find_less_and_more_comparisons_or_power_ask_for_more() -> None:
    for values in (
        [detectable(1.0, n, 6) for n in range(30, 1, -1)],
        [detectable(1.0, 5, comparisons) for comparisons in range(1, 30)],
        [detectable(1.0, 5, 6, power) for power in (0.1, 0.5, 0.8, 0.9, 0.99)],
    ):
        assert all(0 < one < other for one, other in pairwise(values))
    assert detectable(3.0, 5, 6) == pytest.approx(3 * detectable(1.0, 5, 6))


@pytest.mark.parametrize(("size", "comparisons", "power"), [(1.0, 1, 0.8), (0.4, 6, 0.8), (2.5, 12, 0.95)])
def test_the_seeds_needed_are_the_fewest(size: float, comparisons: int, power: float) -> None:
    n = seeds_needed(size, 1.0, comparisons, power)
    assert n is not None
    assert detectable(1.0, n, comparisons, power) <= size < detectable(1.0, n - 1, comparisons, power)
    assert seeds_needed(size, 1.0, comparisons, power, most=n) == n
    assert seeds_needed(size, 1.0, comparisons, power, most=n - 1) is None


def test_effects_out_of_reach_and_effects_without_noise() -> None:
    assert seeds_needed(1e-3, 1.0, 1) is None
    assert seeds_needed(0.0, 1.0, 1) is None
    assert seeds_needed(0.0, 0.0, 1) is None
    # Without noise the exchanges decide: 2 / 2**n first lies under 0.05 / 6 with eight seeds.
    assert (detectable(0.0, 7, 6), detectable(0.0, 8, 6), seeds_needed(0.1, 0.0, 6)) == (inf, 0.0, 8)
    assert paired_effect([0.1] * 8, [0.0] * 8).p < LEVEL / 6 < paired_effect([0.1] * 7, [0.0] * 7).p


def test_a_plan_refuses_what_is_out_of_range() -> None:
    cases: list[tuple[Any, str]] = [
        ((1.0, 1, 6), "n=1 must be at least 2. Raise n"),
        ((1.0, 5, 0), "comparisons=0 must be at least 1. Raise comparisons"),
        ((-1.0, 5, 6), "deviation=-1.0 must be a number of at least 0. Set the measure's deviation"),
        ((nan, 5, 6), "deviation=nan"),
        ((1.0, 5, 6, 1.0), "power=1.0 must lie above 0.05, which chance alone reaches, and below 1. Set power"),
        ((1.0, 5, 6, 0.05), "power=0.05"),
    ]
    for arguments, match in cases:
        with pytest.raises(ValueError, match=match):
            detectable(*arguments)
    with pytest.raises(ValueError, match="effect=nan must be finite"):
        seeds_needed(nan, 1.0, 6)
