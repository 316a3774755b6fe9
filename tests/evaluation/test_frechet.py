"""Laws of the Frechet distance and of the named features it is taken over."""

from dataclasses import fields

import numpy as np
import pytest

from data.world.render import render
from data.world.sampling import draw_scene
from evaluation.frechet import Gaussian, _Clips, compare_sets, frechet, gaussian
from evaluation.video_features import WINDOW, Pixels, RandomConvolutions, Spectrum, distances, windows


def normal(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    return Gaussian(np.asarray(mean, float), np.asarray(covariance, float), 1000)


def covariance(seed: int, size: int = 5, rank: int | None = None) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(size, rank or size))
    return factor @ factor.T


def test_the_distance_of_known_gaussians_has_its_closed_form() -> None:
    # One dimension: (m1 - m2)^2 + (s1 - s2)^2.
    assert frechet(normal([1], [[4]]), normal([3], [[25]])) == pytest.approx(4 + 9, abs=1e-6)
    # Covariances that commute: the same, along each common axis.
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    first, second = np.array([1.0, 4, 9, 0]), np.array([4.0, 1, 0, 25])
    distance = frechet(normal(np.zeros(4), (axes * first) @ axes.T), normal(np.ones(4), (axes * second) @ axes.T))
    assert distance == pytest.approx(4 + np.square(np.sqrt(first) - np.sqrt(second)).sum(), abs=1e-6)
    # Covariances that do not, in two dimensions: the trace of the root of a 2x2 product is sqrt(trace + 2 sqrt(determinant)).
    a, b = np.array([[2.0, 1], [1, 3]]), np.array([[5.0, -2], [-2, 1]])
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    assert frechet(normal([0, 0], a), normal([0, 0], b)) == pytest.approx(np.trace(a + b) - 2 * cross, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_distance_is_symmetric_and_zero_between_a_set_and_itself(rank: int) -> None:
    first, second = normal(np.arange(5), covariance(1, rank=rank)), normal(np.ones(5), covariance(2))
    assert frechet(first, second) == pytest.approx(frechet(second, first), abs=1e-9)
    # Singular covariances too: no root of a rounding error.
    assert frechet(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet(second, second) == pytest.approx(0, abs=1e-9)


def test_a_large_mean_and_tiny_differences_do_not_drown_in_rounding() -> None:
    samples = np.random.default_rng(3).normal(size=(400, 3)) * [1e-3, 1, 10] + 1e5
    assert frechet(gaussian(samples), gaussian(samples + np.array([1e-3, 0, 0]))) == pytest.approx(1e-6, rel=1e-3)
    assert np.allclose(gaussian(samples).covariance, np.cov(samples.T), rtol=1e-6, atol=1e-12)


def test_too_few_samples_are_refused_and_clips_of_unlike_features_too() -> None:
    with pytest.raises(ValueError, match="over 5 features needs more than 5 samples of each set, got 5"):
        gaussian(np.zeros((5, 5)))
    parts = [np.zeros((2, 5))] * 2
    with pytest.raises(ValueError, match="got 4"):
        compare_sets(parts, parts, seed=0)
    with pytest.raises(ValueError, match="1 sources and 2 results"):
        compare_sets(parts[:1], parts, seed=0)
    with pytest.raises(ValueError, match="5 and 4 dimensions"):
        frechet(normal(np.zeros(5), np.eye(5)), normal(np.zeros(4), np.eye(4)))


def test_the_interval_covers_the_true_distance_about_as_often_as_it_says() -> None:
    """Counterparts that are shifted by 0.2 and noisier: the true distance is known, the plain value lies above it."""
    # Results: source * 1.1 + 0.2, per dimension: 0.2^2 + (1.1 - 1)^2.
    truth, covered, rng = 3 * (0.2**2 + 0.1**2), [], np.random.default_rng(4)
    for seed in range(60):
        sources = [rng.normal(size=3) * 0.5 + rng.normal(size=(4, 3)) * np.sqrt(0.75) for _ in range(80)]
        results = [1.1 * part + 0.2 for part in sources]
        found = compare_sets(sources, results, seed, resamples=60)
        assert (found.samples, found.clips, found.dimensions) == (320, 80, 3)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.83  # 95 % nominal, less for 60 resamples; 60 trials put three standard errors at 10 points


def test_the_covariance_of_a_choice_of_clips_is_that_of_their_samples_and_no_clip_takes_memory_of_its_own() -> None:
    """As numpy has it, of clips of unlike length, some drawn twice and some not at all."""
    rng = np.random.default_rng(8)
    parts = [rng.normal(size=(int(n), 4)) * [1, 2, 3, 4] + 50 for n in rng.integers(1, 9, 20)]
    clips = _Clips.of(parts)
    for _ in range(10):
        picks = rng.integers(0, 20, 20)
        chosen = np.concatenate([parts[pick] for pick in picks])
        found = clips.gaussian(np.bincount(picks, minlength=20).astype(float))
        assert found.n == len(chosen)
        assert np.allclose(found.mean, chosen.mean(axis=0), rtol=1e-10, atol=0)
        assert np.allclose(found.covariance, np.cov(chosen.T), rtol=1e-10, atol=1e-10)
    kept = sum(getattr(clips, field.name).nbytes for field in fields(clips))
    assert kept <= 2 * sum(part.nbytes for part in parts)


def test_clips_are_drawn_in_pairs() -> None:
    """Every clip is shifted by the same: however unlike clips are, any choice of pairs is as far apart."""
    rng = np.random.default_rng(6)
    sources = [rng.normal(size=2) * 10 + rng.normal(size=(4, 2)) for _ in range(30)]
    found = compare_sets(sources, [part + 0.5 for part in sources], seed=0, resamples=50)
    assert (found.value, found.low, found.high, found.bias) == pytest.approx((0.5, 0.5, 0.5, 0), abs=1e-9)


def test_two_halves_of_one_set_say_what_chance_alone_makes() -> None:
    rng = np.random.default_rng(5)
    clips = [rng.normal(size=(8, 2)) for _ in range(50)]
    found = compare_sets(clips, clips, seed=0, resamples=10)
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.halves == pytest.approx(frechet(gaussian(np.concatenate(clips[::2])), gaussian(np.concatenate(clips[1::2]))))


def textured(seed: int, frames: int = 16, size: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, (size // 4, size // 4, 3)).repeat(4, 0).repeat(4, 1)
    moving = np.stack([np.roll(ground, number, axis=1) for number in range(frames)])
    return np.clip(moving + rng.integers(-20, 20, moving.shape), 0, 255).astype(np.uint8)


def blurred(video: np.ndarray, times: int) -> np.ndarray:
    x = video.astype(float)
    for _ in range(times):
        for axis in (1, 2):
            x = (np.roll(x, 1, axis) + x + np.roll(x, -1, axis)) / 3
    return x.round().astype(np.uint8)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [textured(seed) for seed in range(36)]


def test_every_distance_is_zero_for_the_clips_themselves_and_grows_with_what_is_wrong(clips: list[np.ndarray]) -> None:
    same, some, more = (
        distances(clips, made, resamples=4)["frechet"] for made in (clips, [blurred(v, 1) for v in clips], [blurred(v, 4) for v in clips])
    )
    for name in ("pixels-4x4x4", "spectrum-23", "random-conv-64"):
        assert same[name]["value"] == pytest.approx(0, abs=1e-8)
        assert 0 < 1.5 * some[name]["value"] < more[name]["value"]
        assert some[name]["samples"] == 72


def test_features_for_which_there_are_too_few_samples_say_so(clips: list[np.ndarray]) -> None:
    found = distances(clips[:20], clips[:20], resamples=4)["frechet"]
    assert found["spectrum-23"]["value"] == pytest.approx(0, abs=1e-8)
    assert found["random-conv-64"]["value"] is None
    assert "more than 64 samples of each set, got 40" in found["random-conv-64"]["why"]


def test_a_name_means_the_same_numbers_for_ever(clips: list[np.ndarray]) -> None:
    """Figures of two runs are compared by the name alone."""
    part = windows(clips[0], WINDOW)
    assert part.shape == (2, 8, 32, 32, 3)
    golden = {
        "pixels-4x4x4": [88.41992, 87.99414, 36.06399],
        "spectrum-23": [9.680286, 8.965895, 14.44225],
        "random-conv-64": [0.1275613, 0.01185122, 0.0299178],
    }
    for features in (Pixels(), Spectrum(), RandomConvolutions()):
        values = features(part)
        assert (values.shape, values.dtype) == ((2, features.dimensions), np.float64)
        assert values[0, 5:8].tolist() == pytest.approx(golden[features.name], rel=1e-4)


def test_motion_and_stillness_are_told_apart(clips: list[np.ndarray]) -> None:
    part = windows(clips[0], WINDOW)
    still = np.repeat(part[:, :1], 8, axis=1)
    assert not Pixels()(still)[:, 3::4].any()
    assert Pixels()(part)[:, 3::4].min() > 5
    moving = np.pad(Spectrum()(still), ((0, 0), (1, 0))).reshape(2, 6, 4)
    assert not moving[:, :, 1:].round(6).any()
    assert moving[:, 2:5, 0].min() > 1


def test_a_flicker_of_the_whole_picture_is_seen(clips: list[np.ndarray]) -> None:
    """Every second frame lighter by 60 levels, nothing else: no frame by itself shows it."""
    dark = [clip // 2 for clip in clips]
    light = [clip + np.where(np.arange(len(clip)) % 2, 60, 0)[:, None, None, None].astype(np.uint8) for clip in dark]
    found = distances(dark, light, resamples=4)["frechet"]["spectrum-23"]
    assert found["value"] > 3 * found["halves"]
    assert found["low"] > 1


def test_every_feature_tells_the_worlds_clips_apart() -> None:
    """A dimension that is the same for all adds nothing but a sample that has to be there."""
    rendered = [render(draw_scene(0, number, "standard"), 8, 64, 64) for number in range(12)]
    parts = np.concatenate([windows(video, WINDOW) for video in rendered])
    for features in (Pixels(), Spectrum(), RandomConvolutions()):
        spread = features(parts).std(axis=0)
        assert spread.min() > 1e-2 * np.median(spread), features.name


def test_clips_that_hold_no_window_are_left_out_and_counted_and_change_no_figure(clips: list[np.ndarray]) -> None:
    made = [blurred(clip, 1) for clip in clips]
    small = [textured(90, frames=1), textured(91, size=16)]
    alone, mixed = distances(clips, made, resamples=4), distances([*clips, *small], [*made, *small], resamples=4)
    for kind, nodes in alone.items():
        for name, found in nodes.items():
            assert found["left_out"] == 0
            assert mixed[kind][name] == found | {"left_out": 2}
    for found in (node for nodes in distances(small, small, resamples=4).values() for node in nodes.values()):
        assert (found["value"], found["left_out"]) == (None, 2)
        assert "no clip is as large as a window of 8x32x32" in found["why"]
