"""One walk fills any canvas: what is given is looked at, stays, and comes back as it was, whatever batch the clip is made in."""

import math
from dataclasses import replace

import pytest
import torch

from flow.canvas import joined
from flow.generate import Generator, Timed
from flow.guidance import ClassifierFree, NoGuidance
from flow.noise import unit_noise
from flow.path import interpolate, per_frame
from flow.solvers import RK4, SDE, Euler, Heun, Multistep
from flow.timesteps import grid
from runtime.seeding import Rng, Stream

GRID = (4, 3, 5)
CHANNELS = 2
KNOWN = torch.tensor([[True, False, False, False], [False, False, True, False]])
SOLVERS = [Euler(), Heun(), Multistep(), RK4(), SDE(1.0)]


def encode(prompts):
    return torch.stack([torch.tensor([float(len(p)), float(sum(map(ord, p)) % 23)]) for p in prompts]) / 20


class Network:
    """Every frame hears of every other, of the moments of all, and of the text; notes what it was shown."""

    def __init__(self):
        self.calls = []

    def __call__(self, noisy, t, text, moments):
        self.calls.append((noisy.clone(), t.clone(), moments.clone()))
        heard = (noisy * torch.cos(per_frame(moments))).mean(dim=(2, 3, 4), keepdim=True)
        mixed = noisy + 0.5 * heard + 0.2 * noisy.roll(1, dims=2) + text.sum(dim=1)[:, None, None, None, None]
        return torch.tanh(mixed) * (1 + per_frame(t)) - 0.3 * noisy


def make(network=None, **changes):
    settings = {"solver": Euler(), "guidance": NoGuidance(), "steps": 4, "shift": 2.0, "batch_size": 8} | changes
    return Generator(network or Network(), encode, lambda chunks: chunks, CHANNELS, **settings)


def blank(b=2):
    return make().blank(b, GRID, 8.0)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip(seed=0, b=2):
    return random(b, CHANNELS, *GRID, seed=seed)


def mask(seed=0, b=2):
    return random(b, *GRID, seed=seed) > 0


def drawn(samples, frames=GRID[0], stream=Stream.SAMPLING):
    return unit_noise(Rng(0), samples, CHANNELS, (frames, *GRID[1:]), stream=stream)


def paint(canvas, generator=None, prompts=None, samples=None, **rest):
    count = range(len(canvas))
    return (generator or make()).paint(canvas, prompts or [f"clip {n}" for n in count], 0, samples or list(count), **rest)


def with_picture(canvas, value=3.0, moment=0.7, level=0.0):
    b = len(canvas)
    return canvas.beside(torch.full((b, CHANNELS, 1, *GRID[1:]), value), torch.full((b, 1), moment), level)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_pictures_behind_the_clip_are_looked_at_at_rest_and_never_come_back(level):
    network = Network()
    made = paint(with_picture(blank(), level=level), make(network))
    assert made.shape == (2, CHANNELS, *GRID)
    picture = (1 - level) * 3.0 + level * drawn([0, 1], 5, Stream.GIVEN)[:, :, 4]
    for noisy, t, moments in network.calls:
        assert torch.equal(noisy[:, :, 4], picture)
        assert (t[:, 4] == level).all()
        assert moments[0].tolist() == [0.0, 0.5, 1.0, 1.5, pytest.approx(0.7)]
    for other in (blank(), with_picture(blank(), 1.0, level=level), with_picture(blank(), moment=1.4, level=level)):
        assert not torch.allclose(paint(other), made, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_given_frames_come_back_bit_for_bit_and_are_seen_at_their_level(solver, level):
    network = Network()
    made = paint(blank().keep(clip(), KNOWN, level), make(network, solver=solver))
    assert torch.equal(made.transpose(1, 2)[KNOWN], clip().transpose(1, 2)[KNOWN])
    seen = interpolate(clip(), drawn([0, 1], stream=Stream.GIVEN), torch.full((2, 4), level))
    for noisy, t, _ in network.calls:
        assert torch.equal(noisy.transpose(1, 2)[KNOWN], seen.transpose(1, 2)[KNOWN])
        assert (t[KNOWN] == torch.tensor(level)).all()


@pytest.mark.parametrize("level", [0.0, 0.3])
@pytest.mark.parametrize(("solver", "looks"), [(Euler(), 4), (Heun(), 7), (Multistep(), 4), (SDE(1.0), 4)], ids=repr)
def test_nobody_asks_about_a_frame_that_is_made_already(solver, looks, level):
    network = Network()
    paint(with_picture(blank(), level=level).keep(clip(), KNOWN, level), make(network, solver=solver))
    assert len(network.calls) == looks
    assert all((t[:, :4][~KNOWN] > 0).all() for _, t, _ in network.calls)


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_guidance_hides_given_frames_under_as_much_noise_as_it_says(level):
    network = Network()
    paint(blank().keep(clip(), KNOWN, level), make(network, guidance=ClassifierFree(3.0, frames=2.0)))
    for noisy, t, _ in network.calls:
        blind, times = noisy.chunk(3)[2], t.chunk(3)[2]
        assert torch.equal(times, times.amax(dim=1, keepdim=True).expand(-1, 4))
        wanted = interpolate(clip(), drawn([0, 1], stream=Stream.GIVEN), times)
        assert torch.allclose(blind.transpose(1, 2)[KNOWN], wanted.transpose(1, 2)[KNOWN], atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_given_positions_follow_the_straight_path_and_come_back_bit_for_bit(solver):
    network = Network()
    canvas = blank().painted(clip(), mask())
    made = paint(canvas, make(network, solver=solver))
    where = mask()[:, None].expand_as(made)
    assert torch.equal(made[where], clip()[where])
    assert not torch.allclose(made[~where], paint(blank(), make(solver=solver))[~where], atol=1e-2)
    for noisy, t, _ in network.calls:
        assert torch.allclose(noisy[where], interpolate(clip(), drawn([0, 1]), t)[where], rtol=0, atol=1e-6)


def test_positions_may_be_given_in_a_clip_that_is_begun_from_another():
    network = Network()
    canvas = blank().begun(clip(1), 0.5).painted(clip(), mask())
    made = paint(canvas, make(network, shift=1.0))
    where = mask()[:, None].expand_as(made)
    assert torch.equal(made[where], clip()[where])
    noisy, t, _ = network.calls[0]
    assert (t == 0.5).all()
    assert torch.allclose(noisy, 0.5 * torch.where(where, clip(), clip(1)) + 0.5 * drawn([0, 1]), atol=1e-6)


@pytest.mark.parametrize("guidance", [NoGuidance(), ClassifierFree(3.0, frames=2.0, rescale=0.5)], ids=["plain", "guided"])
def test_what_stands_where_nothing_is_given_is_never_read(guidance):
    def painted(fill):
        spoilt = torch.full_like(clip(), fill)
        canvas = with_picture(blank()).painted(torch.where(mask()[:, None], clip(), spoilt), mask())
        canvas = canvas.keep(torch.where(per_frame(KNOWN), clip(1), spoilt), KNOWN)
        free = ~per_frame(canvas.given) & ~canvas.mask[:, None]
        return paint(replace(canvas, latents=torch.where(free, fill, canvas.latents)), make(guidance=guidance))

    assert torch.equal(painted(torch.nan), painted(0.0))
    assert torch.equal(paint(blank().begun(torch.full_like(clip(), torch.nan), 1.0)), paint(blank()))


TIMED = (
    "a red circle",
    Timed(("up", "then right"), torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])),
    Timed(("one", "two", "three"), torch.tensor([[1.0, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 1]])),
    "",
    Timed(("alone",), torch.ones(1, 4)),
)


def many():
    one = [with_picture(blank(1), value) for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    return joined(
        [
            one[0].painted(clip(0, 1), mask(0, 1)),
            one[1].begun(clip(1, 1), 0.4),
            one[2].keep(clip(2, 1), KNOWN[1:], 0.2),
            one[3].begun(clip(3, 1), 0.9).keep(clip(4, 1), KNOWN[:1]),
            one[4],
        ]
    )


@pytest.mark.parametrize(
    ("solver", "guidance", "negatives"),
    [
        (Heun(), NoGuidance(), []),
        (SDE(1.0), NoGuidance(), []),
        (Multistep(), ClassifierFree(3.0), ["ugly", "", "dark", "a cat", "slow"]),
        (Euler(), ClassifierFree(3.0, frames=2.0, rescale=0.5), ["ugly", "", "dark", "a cat", "slow"]),
    ],
    ids=["heun", "sde", "negatives", "frames"],
)
def test_clips_of_any_sort_are_the_same_in_any_batch(solver, guidance, negatives):
    def painted(size, rows=range(5)):
        generator = make(solver=solver, guidance=guidance, batch_size=size)
        return paint(many().take(list(rows)), generator, [TIMED[k] for k in rows], list(rows), negatives=[negatives[k] for k in rows if negatives])

    whole = painted(8)
    for size in (1, 2, 3):
        assert torch.allclose(painted(size), whole, rtol=0, atol=1e-5)
    assert torch.allclose(painted(8, [3, 1]), whole[[3, 1]], rtol=0, atol=1e-5)
    assert not torch.allclose(paint(many(), make(solver=solver, guidance=guidance), ["other"] * 5), whole, atol=1e-2)


def test_a_negative_prompt_is_led_away_from_under_every_text_of_a_clip():
    generator = make(guidance=ClassifierFree(3.0), steps=1)
    canvas = blank(3)
    plain = paint(canvas, generator, ["up", "then right", TIMED[1]], [0, 0, 0], negatives=["ugly"] * 3)
    assert torch.allclose(plain[2], torch.cat([plain[0, :, :2], plain[1, :, 2:]], dim=1), atol=1e-6)
    assert not torch.allclose(paint(canvas, generator, ["up", "then right", TIMED[1]], [0, 0, 0]), plain, atol=1e-2)


@pytest.mark.parametrize("guidance", [NoGuidance(), ClassifierFree(3.0)], ids=["plain", "guided"])
def test_one_text_for_all_frames_is_the_plain_prompt(guidance):
    generator = make(guidance=guidance)
    plain = paint(with_picture(blank()), generator, ["alone", "alone"])
    assert torch.equal(paint(with_picture(blank()), generator, [TIMED[4], "alone"]), plain)
    # Beside a clip of three texts its others are empty and weigh nothing.
    assert torch.allclose(paint(with_picture(blank()), generator, [TIMED[4], TIMED[2]])[0], plain[0], rtol=0, atol=1e-5)


def test_a_frame_s_velocity_is_that_under_its_own_texts():
    generator = make(steps=1)
    one, two, three, timed = (paint(blank(1), generator, [prompt], [0]) for prompt in (*TIMED[2].texts, TIMED[2]))
    mixed = [one[:, :, 0], (one + two)[:, :, 1] / 2, (two + three)[:, :, 2] / 2, three[:, :, 3]]
    assert torch.allclose(timed, torch.stack(mixed, dim=2), rtol=0, atol=1e-6)


MU, S = 1.5, 0.4


def gaussian(noisy, t, text, moments):
    """The best velocity for latents N(MU, S^2), see test_gaussian.py."""
    t = per_frame(t)
    return -MU + (t - (1 - t) * S**2) / ((1 - t) ** 2 * S**2 + t**2) * (noisy - (1 - t) * MU)


def test_the_distance_to_the_source_grows_with_the_strength_from_nothing_to_that_of_text_to_video():
    generator = Generator(gaussian, encode, lambda chunks: chunks, 1, Heun(), NoGuidance(), 48, 2.0)
    canvas = generator.blank(1, (4, 50, 50), 8.0)
    source = MU + S * random(1, 1, 4, 50, 50)
    strengths = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
    ends = [paint(canvas.begun(source, strength), generator) for strength in strengths]
    assert torch.equal(ends[0], source)
    assert torch.equal(ends[-1], paint(canvas, generator))
    found = [(end - source).square().mean().item() for end in ends]
    # The flow carries (1 - s) source + s noise, of deviation d, to MU + S / d * (that - its mean): 10 000 values, 2 % is 2 standard errors.
    wanted = [2 * S**2 * (1 - (1 - s) * S / math.hypot((1 - s) * S, s)) for s in strengths]
    assert found == pytest.approx(wanted, rel=0.06)
    assert found == sorted(found)


def test_each_clip_spreads_its_steps_over_the_part_that_it_walks():
    generator = make(steps=5, shift=3.0)
    canvas = joined([blank(1).begun(clip(0, 1), strength) for strength in (0.0, 0.3, 1.0)])
    times = generator.times(canvas)
    assert not times[:, 0].any()
    assert torch.equal(times[1:, 1:] < times[:-1, 1:], torch.ones(5, 2, 4, dtype=torch.bool))
    assert torch.equal(times[:, 2, 0], grid(5, 3.0))
    assert torch.allclose(times[:, 1, 0], grid(5, 3.0, 0.3), rtol=0, atol=1e-7)  # a canvas holds float32


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: paint(blank(), prompts=["a"]), "every clip needs one of each"),
        (lambda: paint(blank(), prompts=["a", "b"], samples=[0]), "every clip needs one of each"),
        (lambda: paint(blank(), make(guidance=ClassifierFree(2.0)), negatives=["ugly"]), "1 negatives"),
        (lambda: paint(blank(), negatives=["ugly", "dark"]), "guidance=none"),
        (lambda: paint(blank(), prompts=["a", Timed(("b",), torch.ones(1, 5))]), "of 5 latent frames, the clip has 4"),
        (lambda: Timed(("a", "b"), torch.ones(1, 4)), "2 prompts want weights"),
        (lambda: Timed((), torch.ones(0, 4)), "0 prompts want weights"),
        (lambda: Timed(("a", "b"), torch.ones(2, 4)), "must sum to 1"),
    ],
)
def test_prompts_that_fit_no_canvas_are_refused(call, names):
    with pytest.raises(ValueError, match=names):
        call()
