"""Noise of every sort is unit normal, counted from the sample's own beginning, and the same in any batch."""

import math
from itertools import pairwise

import pytest
import torch

from flow.noise import Coarse, Own, Towards, slerp, unit_noise
from runtime.seeding import Rng, Stream

SORTS = [Own(), Towards(7, 0.3), Towards(7, 0.5), Coarse(2), Coarse(3, Towards(5, 0.5)), Coarse(2, Coarse(2))]
GRID = (6, 8, 10)


def draw(noise, samples=(0, 1, 2), grid=GRID, seed=0, first_frame=0, channels=4):
    return noise.draw(seed, samples, channels, grid, first_frame)


def kolmogorov_smirnov(draws):
    """The p value of unit normality (Kolmogorov's series, Stephens' n)."""
    ordered, n = draws.flatten().double().sort().values, draws.numel()
    u, ranks = torch.special.ndtr(ordered), torch.arange(n + 1, dtype=torch.float64) / n
    gap = max(float((ranks[1:] - u).max()), float((u - ranks[:-1]).max()))
    x = gap * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))) if x > 0.2 else 1.0


@pytest.mark.parametrize("noise", SORTS, ids=repr)
def test_every_noise_is_unit_normal_without_a_pattern(noise):
    drawn = draw(noise, range(12), (6, 10, 12))
    n = drawn.numel()
    assert kolmogorov_smirnov(drawn) > 1e-3
    assert kolmogorov_smirnov(1.05 * drawn) < 1e-3  # it has power
    for dim in (0, 1, 2, 3, 4):
        neighbours = (drawn * drawn.roll(1, dims=dim)).mean().item()
        assert abs(neighbours) < 4 / math.sqrt(n), dim


@pytest.mark.parametrize("noise", SORTS, ids=repr)
def test_a_longer_clip_begins_with_a_shorter_one_s_noise_and_a_piece_has_its_own_place(noise):
    longer = draw(noise)
    assert torch.equal(draw(noise, grid=(3, 8, 10)), longer[:, :, :3])
    assert torch.equal(draw(noise, grid=(2, 8, 10), first_frame=4), longer[:, :, 4:])


@pytest.mark.parametrize("noise", SORTS, ids=repr)
def test_a_sample_s_noise_is_the_same_in_any_batch_and_new_for_every_seed_and_sample(noise):
    whole = draw(noise)
    assert torch.equal(draw(noise, (2, 0)), whole[[2, 0]])
    assert not torch.equal(draw(noise, seed=1), whole)
    assert len({tuple(sample.flatten()[:3].tolist()) for sample in whole}) == 3


@pytest.mark.parametrize("noise", SORTS, ids=repr)
def test_frames_before_a_clip_s_beginning_have_noise_of_their_own(noise):
    both = draw(noise, grid=(8, 8, 10), first_frame=-4)
    assert torch.equal(both[:, :, 4:], draw(noise, grid=(4, 8, 10)))
    assert torch.equal(both[:, :, 1:3], draw(noise, grid=(2, 8, 10), first_frame=-3))
    frames = both.transpose(1, 2).flatten(0, 1).flatten(1)
    assert len(frames.unique(dim=0)) == 3 * 8


def test_sampling_begins_with_noise_of_its_own_stream():
    assert torch.equal(draw(Own()), unit_noise(Rng(0), range(3), 4, GRID, stream=Stream.SAMPLING))


def test_the_arc_ends_exactly_in_both_noises_and_passes_evenly_between():
    one, other = draw(Own(), seed=0), draw(Own(), seed=7)
    assert torch.equal(draw(Towards(7, 0.0)), one)
    assert torch.equal(draw(Towards(7, 1.0)), other)
    assert torch.allclose(draw(Towards(7, 1e-6)), one, atol=1e-4)
    assert torch.allclose(draw(Towards(7, 1 - 1e-6)), other, atol=1e-4)
    one, other = (noise / noise.square().sum(dim=(1, 3, 4), keepdim=True).sqrt() for noise in (one.double(), other.double()))
    places = [slerp(one, other, k / 8).double().transpose(1, 2).flatten(2) for k in range(9)]  # b f (c h w)
    turns = torch.stack([torch.cosine_similarity(a, b, dim=-1).arccos() for a, b in pairwise(places)])
    whole = torch.cosine_similarity(places[0], places[-1], dim=-1).arccos()
    assert torch.allclose(turns, whole.expand(8, -1, -1) / 8, rtol=0, atol=1e-5)  # a great arc, walked evenly


def test_lengths_on_the_arc_are_lengths_of_noise():
    values = 4 * 8 * 10
    ends = torch.cat([draw(Own(), range(40), seed=seed).transpose(1, 2).flatten(2).norm(dim=-1) for seed in (0, 7)])
    middle = draw(Towards(7, 0.5), range(40)).transpose(1, 2).flatten(2).norm(dim=-1)
    straight = (0.5 * (draw(Own(), range(40)) + draw(Own(), range(40), seed=7))).transpose(1, 2).flatten(2).norm(dim=-1)
    # The length of n unit normals is sqrt(n) with a deviation of 0.71.
    assert middle.mean().item() == pytest.approx(math.sqrt(values - 0.5), abs=4 * 0.71 / math.sqrt(240))
    assert middle.min() > ends.min() - 1e-3
    assert middle.max() < ends.max() + 1e-3
    assert straight.mean() < 0.75 * ends.mean()  # what a mean of two noises would be


def test_the_same_noise_twice_stays_itself():
    assert torch.equal(draw(Towards(3, 0.5), seed=3), draw(Own(), seed=3))


@pytest.mark.parametrize(("inner", "outer"), [(2, 2), (2, 3), (3, 2)])
def test_a_draft_of_a_draft_is_the_draft_of_both(inner, outer):
    twice, once = draw(Coarse(inner, Coarse(outer))), draw(Coarse(inner * outer))
    assert torch.allclose(twice, once, rtol=0, atol=1e-6)


def test_a_draft_sees_the_layout_of_the_full_size():
    fine, coarse = draw(Own(), grid=(6, 24, 30)), draw(Coarse(3))
    squares = fine.unfold(3, 3, 3).unfold(4, 3, 3).sum(dim=(-1, -2)) / 3
    assert torch.allclose(coarse, squares, rtol=0, atol=1e-6)
    assert torch.equal(draw(Coarse(1)), draw(Own()))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Towards(7, 1.01), r"share=1.01.*Set noise\.share"),
        (lambda: Towards(7, -0.1), r"Set noise\.share"),
        (lambda: Towards(-1, 0.5), r"Set noise\.seed"),
        (lambda: Towards(1.0, 0.5), r"Set noise\.seed"),
        (lambda: Coarse(0), r"Set noise\.factor"),
        (lambda: Coarse(1.5), r"Set noise\.factor"),
    ],
)
def test_impossible_noise_is_refused_by_name(make, names):
    with pytest.raises(ValueError, match=names):
        make()
