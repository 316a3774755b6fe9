"""What is said of features' sight is so: those that look at a fault see it, those that do not are blind, and labels are read where they stand."""

import numpy as np
import pytest

from evaluation.feature_sight import BLIND, FAULTS, SHARES, Jury, in_main_directions, pools, probe, sight


def samples(count: int, seed: int, shift: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((2, 3)) + np.array([shift, 0, 0]) for _ in range(count)]


def test_the_plainer_a_fault_the_fewer_spoilt_clips_it_takes() -> None:
    jury = Jury(samples(120, 0), clips=40, seed=0, draws=20)
    found = [jury.least_share(samples(60, 1, shift), jury.chance()) for shift in (0.0, 1.0, 8.0)]
    assert found[0] == BLIND
    assert SHARES[0] < found[1] < BLIND
    assert found[2] <= SHARES[1]


def test_honest_clips_are_called_spoilt_no_more_often_than_promised() -> None:
    """However few there are to draw from: of two fixed halves nearly all sets would be."""
    called = 0
    for seed in range(20):
        jury = Jury(samples(20, seed), clips=10, seed=seed, draws=10)
        called += jury.least_share(samples(10, 100 + seed), jury.chance()) < BLIND
    assert called <= 3  # 5 % are promised: more than 3 of 20 in 16 of 1000 such tests


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="60 honest clips make no two sets of 40"):
        Jury(samples(60, 0), clips=40, seed=0, draws=1)
    with pytest.raises(ValueError, match="30 spoilt clips make no set of 40"):
        Jury(samples(80, 0), clips=40, seed=0, draws=1).least_share(samples(30, 1), 0.0)


def test_a_probe_reads_what_stands_in_the_features_and_guesses_the_rest() -> None:
    rng = np.random.default_rng(0)
    shapes, others = rng.integers(0, 3, 400), rng.integers(0, 4, 400)
    truth = [(f"s{shape}", f"c{other}", f"m{other}", f"b{other}") for shape, other in zip(shapes, others, strict=True)]
    found = probe([np.eye(3)[[shape, shape]] + 0.1 * rng.standard_normal((2, 3)) for shape in shapes], truth)
    assert found["shape"] > 0.98
    assert found["colour"] == pytest.approx(1 / 4, abs=0.1)


def test_main_directions_have_deviation_one() -> None:
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((4, 5)) @ np.diag([10.0, 3, 1, 0.1, 0]) + 7 for _ in range(50)]
    turned = np.concatenate([in_main_directions(data, 3)(part) for part in data])
    assert np.cov(turned.T) == pytest.approx(np.eye(3), abs=1e-8)
    assert in_main_directions(data, 5)(data[0]).shape == (4, 4)  # one that does not vary is left out


def test_features_see_the_faults_that_they_look_at() -> None:
    given = pools(honest=32, spoilt=16, scenes=16, seed=0, size=32)
    assert set(given.spoilt) == {kind.__name__ for kinds in FAULTS.values() for kind in kinds}
    assert all(video.shape == (17, 32, 32, 3) for part in given.spoilt.values() for video in part)

    def change(video: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(video.astype(float), axis=0)).mean(axis=(1, 2, 3))[:, None]  # a sample for each step

    def first_frame(video: np.ndarray) -> np.ndarray:
        return np.repeat(video[0].astype(float).mean(axis=(0, 1))[None], 2, axis=0)

    moving, still = (sight(given, sees, clips=16, seed=0, draws=10) for sees in (change, first_frame))
    assert moving["motion"]["shuffled"] < BLIND == still["motion"]["shuffled"]
    assert set(moving) == {"probe", "motion", "look"}
    assert moving["motion"]["mean"] < still["motion"]["mean"]
    again = pools(honest=2, spoilt=1, scenes=2, seed=0, size=32)
    assert np.array_equal(again.honest[1], given.honest[1])
    assert again.truth == given.truth[:2]
