"""Laws of the kernel distance: what it is, that few samples bias it nowhere, and what its interval covers."""

from itertools import product

import numpy as np
import pytest

from evaluation import kernel_distance as module
from evaluation.kernel_distance import kernel_distance
from evaluation.report_sets import distance_tables
from evaluation.video_features import distances, in_words


def naive(sources: list[np.ndarray], results: list[np.ndarray], unit: float, between: bool = True) -> float:
    """As the paper writes it, one pair of samples after the other; pairs of one clip are left out, of unlike sets too if they belong together."""
    sums, counts = [0.0] * 3, [0] * 3
    for term, (first, second) in enumerate(((sources, sources), (results, results), (sources, results))):
        for (i, a), (j, b) in product(enumerate(first), enumerate(second)):
            if i == j and (term < 2 or between):
                continue
            for x, y in product(a, b):
                sums[term] += (sum(p * q for p, q in zip(x, y, strict=True)) / (len(x) * unit**2) + 1) ** 3
                counts[term] += 1
    return sums[0] / counts[0] + sums[1] / counts[1] - 2 * sums[2] / counts[2]


def clustered(rng: np.random.Generator, clips: int, samples: int = 4, d: int = 3) -> list[np.ndarray]:
    """Unit variance; samples of one clip resemble each other."""
    return [rng.normal(size=d) * np.sqrt(0.5) + rng.normal(size=(samples, d)) * np.sqrt(0.5) for _ in range(clips)]


def test_it_is_the_sum_over_all_pairs_of_unlike_clips() -> None:
    rng = np.random.default_rng(0)
    sources, results = ([rng.normal(size=(n, 3)) + shift for n in sizes] for sizes, shift in (((2, 1, 3, 2, 1), 0), ((1, 2, 2, 3, 1), 0.5)))
    for unit in (1.0, 2.5):
        found = kernel_distance(sources, results, unit, seed=0, resamples=2)
        assert found.value == pytest.approx(naive(sources, results, unit), rel=1e-12)
        assert found.halves == pytest.approx(naive(sources[::2], sources[1::2], unit, between=False), rel=1e-12)
    assert (found.samples, found.clips, found.dimensions) == (9, 5, 3)


def test_it_is_symmetric_and_nothing_between_a_set_and_itself() -> None:
    rng = np.random.default_rng(1)
    first, second = clustered(rng, 12), [part + 0.3 for part in clustered(rng, 12)]
    there, back = kernel_distance(first, second, 1.0, seed=3), kernel_distance(second, first, 1.0, seed=3)
    assert (there.value, there.low, there.high) == pytest.approx((back.value, back.low, back.high), rel=1e-9)
    same = kernel_distance(first, first, 1.0, seed=0)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.mark.parametrize("related", [False, True])
def test_sets_of_one_law_are_nothing_apart_on_average_however_few_the_clips(related: bool) -> None:
    """Eight clips: a biased estimate would lie far above zero, and one that pairs a clip with its counterpart far below."""
    rng, found = np.random.default_rng(2), []
    for _ in range(400):
        sources = clustered(rng, 8)
        results = [(part + rng.normal(size=part.shape) * 0.75) / 1.25 for part in sources] if related else clustered(rng, 8)
        found.append(kernel_distance(sources, results, 1.0, seed=0, resamples=1).value)
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


def test_the_interval_covers_the_true_distance_about_as_often_as_it_says() -> None:
    """One dimension, shifted by m: E k(x, y) for independent x, y is a polynomial of moments."""
    rng, m, unit, covered = np.random.default_rng(3), 1.0, 2.0, []

    def expected(a: float, b: float) -> float:  # E (x y + 1)^3 of x ~ N(a, 1) / unit, y ~ N(b, 1) / unit
        (first, second, third), (also, twice, thrice) = ((u, u * u + 1 / unit**2, u**3 + 3 * u / unit**2) for u in (a / unit, b / unit))
        return third * thrice + 3 * second * twice + 3 * first * also + 1

    truth = expected(0, 0) + expected(m, m) - 2 * expected(0, m)
    for seed in range(100):
        sources = clustered(rng, 80, samples=2, d=1)
        found = kernel_distance(sources, [part + m for part in sources], unit, seed, resamples=60)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.84  # 95 % nominal, less for 60 resamples and 80 clips; 100 trials put three standard errors at 8 points


def test_pairs_of_clips_are_drawn_and_not_clips_of_each_side() -> None:
    """Counterparts that differ by next to nothing stay as near in every resample, however unlike the clips are."""
    rng = np.random.default_rng(6)
    sources = [rng.normal(size=2) * 3 + rng.normal(size=(4, 2)) for _ in range(30)]
    found = kernel_distance(sources, [part + 1e-6 for part in sources], 1.0, seed=0, resamples=50)
    assert found.high - found.low < 1e-3


def test_many_samples_are_thinned_without_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight rows of eight windows, of which eight are taken: every eighth would all be of the first column."""
    monkeypatch.setattr(module, "SAMPLES", 320)
    places = [np.arange(64.0)] * 40
    taken = [module._thinned([part[:, None] for part in side])[clip].ravel() for side in (places, places[:]) for clip in range(40)]
    columns = np.bincount(np.concatenate(taken[:40]).astype(int) % 8, minlength=8)
    assert all(len(set(part)) == 8 for part in taken)
    assert all(np.array_equal(one, other) for one, other in zip(taken[:40], taken[40:], strict=True)), "the same places of clip and counterpart"
    assert len({part.tobytes() for part in taken}) > 30, "other places of other clips"
    assert 15 <= columns.min() <= columns.max() <= 65, "about 40 of each column: four standard deviations are 25"
    rng = np.random.default_rng(7)
    sources, results = ([rng.normal(size=(64, 1)) + shift for _ in range(40)] for shift in (0, 0.5))
    found = kernel_distance(sources, results, 1.0, seed=0, resamples=2)
    assert found.samples == 320
    few = [[side[clip][taken[clip].astype(int)] for clip in range(40)] for side in (sources, results)]
    assert found.value == pytest.approx(naive(few[0], few[1], 1.0), rel=1e-9)
    assert kernel_distance(sources, results, 1.0, seed=5, resamples=2).value == found.value, "no seed changes which"


def test_what_cannot_be_compared_is_refused() -> None:
    parts = [np.zeros((2, 5))] * 2
    for first, second in ((parts[:1], parts[:1]), (parts, parts[:1])):
        with pytest.raises(ValueError, match="at least two, got"):
            kernel_distance(first, second, 1.0, seed=0)
    with pytest.raises(ValueError, match="of one d for every clip"):
        kernel_distance(parts, [np.zeros((2, 4))] * 2, 1.0, seed=0)


def test_few_clips_have_a_kernel_distance_where_they_have_no_frechet_distance_and_both_are_told() -> None:
    rng = np.random.default_rng(4)
    clips = [rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8) for _ in range(6)]
    found = distances(clips, [clip // 2 for clip in clips], resamples=4)
    assert found["frechet"]["pixels-4x4x4"]["value"] is None
    node = found["kernel"]["pixels-4x4x4"]
    assert 0 < node["low"] <= node["value"] <= node["high"]
    told = in_words(found, 6)
    assert any(line.startswith("kernel distance pixels-4x4x4: ") and line.endswith("n=6") for line in told)
    assert any(line.startswith("Frechet pixels-4x4x4: not measured (") for line in told)
    assert not any("FVD" in line or "KVD" in line for line in told)


def test_why_there_is_no_kernel_distance_stands_on_the_page_and_a_common_cause_once() -> None:
    """One clip of two dozen windows has a Frechet distance over 23 features and no kernel distance."""
    clip = np.random.default_rng(9).integers(0, 256, (8 * 26, 32, 32, 3), dtype=np.uint8)
    text = distance_tables(distances([clip], [clip // 2], resamples=4) | {"n": 1})
    assert "None over <code>spectrum-23</code>: a kernel distance needs" in text
    small = distances([clip[:1]], [clip[:1]], resamples=4) | {"n": 1}
    assert distance_tables(small).count("None over <code>spectrum-23</code>") == 1


def test_a_kernel_distance_grows_with_what_is_wrong() -> None:
    rng = np.random.default_rng(5)
    clips = [rng.integers(0, 256, (8, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8) for _ in range(12)]
    some, more = (
        distances(clips, [np.clip(clip + rng.normal(0, level, clip.shape), 0, 255).astype(np.uint8) for clip in clips], resamples=4)["kernel"]
        for level in (30, 90)
    )
    for name in ("spectrum-23", "random-conv-64"):
        assert 0 < 2 * some[name]["value"] < more[name]["value"]
