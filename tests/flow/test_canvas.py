"""A canvas says of each latent frame where its walk begins and ends, and of what is given that it stays."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.canvas import Canvas, joined
from flow.timesteps import grid
from models.geometry import moments

B, C, F, H, W = 2, 3, 4, 2, 5
KNOWN = torch.tensor([[True, False, False, True], [False, True, False, False]])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blank(b=B):
    return Canvas.blank(C, (F, H, W), moments(F, torch.full((b,), 8.0), 4))


def clip(seed=0, b=B):
    return random(b, C, F, H, W, seed=seed)


def pictures(canvas, count=2, level=0.0):
    return canvas.beside(random(len(canvas), C, count, H, W, seed=9), torch.full((len(canvas), count), 0.7), level)


def mask(seed=0, b=B):
    return random(b, F, H, W, seed=seed) > 0


def in_frames(latents, frames):
    return latents.transpose(1, 2)[frames]


def test_a_blank_canvas_is_walked_from_noise_to_clean_throughout():
    canvas = blank()
    assert (canvas.start == 1).all()
    assert (canvas.stop == 0).all()
    assert not canvas.given.any()
    assert (len(canvas), canvas.shown, canvas.grid) == (B, F, (F, H, W))
    assert canvas.moments.tolist() == [[0.0, 0.5, 1.0, 1.5]] * B


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_a_kept_frame_rests_at_its_level_and_the_others_stay_as_they_were(level):
    before = pictures(blank().begun(clip(1), 0.5))
    after = before.keep(clip(2), KNOWN, level)
    assert torch.equal(after.given[:, :F], KNOWN)
    assert after.given[:, F:].all()
    assert torch.equal(after.start[:, :F], torch.where(KNOWN, level, 0.5))
    assert torch.equal(after.stop[:, :F], torch.where(KNOWN, level, 0.0))
    assert torch.equal(in_frames(after.latents[:, :, :F], KNOWN), in_frames(clip(2), KNOWN))
    assert torch.equal(in_frames(after.latents[:, :, :F], ~KNOWN), in_frames(clip(1), ~KNOWN))
    assert torch.equal(after.latents[:, :, F:], before.latents[:, :, F:])


def test_what_is_kept_later_counts():
    canvas = blank().keep(clip(1), KNOWN, 0.3).keep(clip(2), KNOWN & KNOWN[:1])
    assert torch.equal(canvas.given, KNOWN)
    assert canvas.start[0, 0] == 0
    assert canvas.start[1, 1] == torch.tensor(0.3)
    assert torch.equal(canvas.latents[0, :, 0], clip(2)[0, :, 0])
    assert torch.equal(canvas.latents[1, :, 1], clip(1)[1, :, 1])


def test_pictures_stand_behind_the_clip_at_rest_and_at_moments_of_their_own():
    canvas = pictures(blank().painted(clip(), mask()), level=0.2)
    assert canvas.latents.shape == (B, C, F + 2, H, W)
    assert (canvas.shown, canvas.grid) == (F, (F, H, W))
    assert torch.equal(canvas.given, torch.tensor([[False] * F + [True] * 2] * B))
    assert (canvas.start[:, F:] == torch.tensor(0.2)).all()
    assert torch.equal(canvas.moments[:, F:], torch.full((B, 2), 0.7))
    assert not canvas.mask[:, F:].any()
    assert torch.equal(canvas.mask[:, :F], mask())


def test_a_clip_is_begun_where_nothing_is_given():
    frames = pictures(blank().keep(clip(1), KNOWN, 0.1).painted(clip(2), mask()))
    canvas = frames.begun(clip(3), 0.6)
    free = ~KNOWN[:, None, :, None, None] & ~mask()[:, None]
    assert torch.equal(canvas.latents[:, :, :F], torch.where(free, clip(3), frames.latents[:, :, :F]))
    assert torch.equal(canvas.latents[:, :, F:], frames.latents[:, :, F:])
    assert torch.equal(canvas.start[:, :F], torch.where(KNOWN, 0.1, 0.6))
    assert torch.equal(canvas.given, frames.given)
    assert torch.equal(canvas.stop, frames.stop)


def test_a_strength_of_zero_gives_all_and_of_one_nothing():
    assert blank().begun(clip(), 0.0).given.all()
    assert (blank().begun(clip(), 1.0).start == 1).all()


def test_the_order_in_which_pictures_and_positions_are_given_does_not_matter():
    one, other = pictures(blank().painted(clip(), mask())), pictures(blank()).painted(clip(), mask())
    for field in ("latents", "start", "stop", "moments", "mask"):
        assert torch.equal(getattr(one, field), getattr(other, field))


def full(b=B, seed=0):
    return pictures(blank(b).begun(clip(seed, b), 0.5).keep(clip(seed + 1, b), KNOWN[:b], 0.1).painted(clip(seed + 2, b), mask(seed, b)))


def same(one, other):
    fields = ("latents", "start", "stop", "moments", "mask")
    assert (one.shown, one.cyclic) == (other.shown, other.cyclic)
    for a, b in ((getattr(one, field), getattr(other, field)) for field in fields):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


def test_parts_of_a_canvas_joined_are_the_canvas():
    canvas = full()
    same(joined([canvas.take([0]), canvas.take(slice(1, 2))]), canvas)
    same(joined([canvas.take([1]), canvas.take([0])]), canvas.take([1, 0]))
    plain, painted = pictures(blank(1)), full(1)
    assert torch.equal(joined([plain, painted]).mask, torch.cat([torch.zeros_like(painted.mask), painted.mask]))
    assert joined([plain, plain]).mask is None


def test_one_clip_many_times_takes_no_memory():
    canvas = full(1)
    many = canvas.take([0] * 1000)
    assert many.latents.untyped_storage().nbytes() == canvas.latents.untyped_storage().nbytes()
    same(many.take([7]), canvas)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 12),
    shift=st.floats(0.3, 8),
    strength=st.sampled_from([0.0, 0.01, 0.5, 0.9999, 1.0]),
    level=st.sampled_from([0.0, 0.25, 0.99]),
)
def test_frames_walk_from_their_start_to_their_stop_and_given_ones_rest(steps, shift, strength, level):
    canvas = pictures(blank().begun(clip(), strength).keep(clip(), KNOWN, level), level=level)
    times = canvas.times(torch.stack([grid(steps, shift, strength)] * B, dim=1))
    assert times.shape == (steps + 1, B, F + 2)
    assert torch.equal(times[0], canvas.start.double())
    assert torch.equal(times[-1], canvas.stop.double())
    assert (times.diff(dim=0) <= 0).all()
    rests = canvas.given
    assert torch.equal(times[:, rests], canvas.start.double()[rests].expand(steps + 1, -1))
    if strength:
        assert (times[1:, ~rests] < times[:-1, ~rests]).all()  # no step is spent on a stretch that is not walked


def test_a_frame_that_begins_later_waits_for_the_others():
    canvas = blank(1)
    canvas = replace(canvas, start=torch.tensor([[1.0, 0.5, 0.25, 1.0]]), stop=torch.tensor([[0.0, 0.0, 0.25, 0.5]]))
    times = canvas.times(grid(4, 1.0)[:, None])
    assert times[:, 0].T.tolist() == [[1, 0.75, 0.5, 0.25, 0], [0.5, 0.5, 0.5, 0.25, 0], [0.25] * 5, [1, 0.75, 0.5, 0.5, 0.5]]


LOOP = replace(blank(), cyclic=True)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: replace(blank(), latents=clip()[0]), "wants latents b c f h w"),
        (lambda: replace(blank(), start=torch.ones(B, F + 1)), r"wants start \(2, 4\), got \(2, 5\)"),
        (lambda: replace(blank(), moments=torch.ones(B)), "wants moments"),
        (lambda: replace(blank(), stop=torch.full((B, F), 1.5)), "from start down to stop"),
        (lambda: replace(blank(), start=torch.full((B, F), torch.nan)), "from start down to stop"),
        (lambda: replace(blank(), start=torch.zeros(B, F), stop=torch.ones(B, F)), "from start down to stop"),
        (lambda: replace(blank(), shown=0), "shown=0 of 4"),
        (lambda: replace(blank(), shown=5), "shown=5 of 4"),
        (lambda: replace(blank(), mask=torch.zeros(B, F, H, W)), "wants a bool mask"),
        (lambda: pictures(LOOP), "a loop has no pictures"),
        (lambda: blank().keep(clip()[:, :, :2], KNOWN), "known frames want latents"),
        (lambda: blank().keep(clip(), KNOWN[:, :2]), "known frames want a bool mask"),
        (lambda: blank().keep(clip(), KNOWN.float()), "got torch.float32"),
        (lambda: pictures(blank()).keep(torch.zeros(B, C, F + 2, H, W), KNOWN), "known frames want latents"),
        (lambda: blank().begun(clip(), 1.1), r"strength=1.1.*Set task\.strength"),
        (lambda: blank().begun(clip(), -0.1), r"Set task\.strength"),
        (lambda: blank().begun(clip()[..., :3], 0.5), "to begin from want latents"),
        (lambda: blank().painted(clip(), mask()[..., :3]), "given positions want a bool mask"),
        (lambda: blank().painted(clip()[..., :3], mask()), "given positions want latents"),
        (lambda: joined([blank(), pictures(blank())]), "unlike shape"),
        (lambda: joined([blank(), LOOP]), "unlike shape"),
    ],
)
def test_what_fits_no_clip_is_refused(call, names):
    with pytest.raises(ValueError, match=names):
        call()
