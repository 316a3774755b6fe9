"""A loop has no first frame: neither the walk nor the decoder can tell where it is cut, so its seam is like any other place."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

from flow.generate import Generator, Timed
from flow.guidance import ClassifierFree, NoGuidance
from flow.noise import Own
from flow.path import per_frame
from flow.solvers import Euler, Heun, Multistep
from models.vae import VideoVAE
from runtime.seeding import Stream

F, CHANNELS = 6, 2
GRID = (F, 3, 5)


@dataclass(frozen=True)
class Turned:
    """Noise of a loop that is cut elsewhere."""

    by: int

    def draw(self, seed, samples, channels, grid, first_frame, stream=Stream.SAMPLING):
        return Own().draw(seed, samples, channels, grid, first_frame, stream).roll(self.by, dims=2)


def encode(prompts):
    return torch.tensor([[float(sum(map(ord, prompt)) % 23)] for prompt in prompts]) / 20


def around(noisy, t, text, moments):
    """A network that hears neighbours on the circle and knows no place on it."""
    mixed = noisy + 0.4 * noisy.roll(1, dims=2) - 0.3 * noisy.roll(-2, dims=2) + text[:, :, None, None, None]
    return torch.tanh(mixed) * (1 + per_frame(t))


def make(network=around, **changes):
    settings = {"solver": Euler(), "guidance": NoGuidance(), "steps": 5, "shift": 2.0} | changes
    return Generator(network, encode, lambda chunks: chunks, CHANNELS, **settings)


def loop(b=2, frames=F):
    return replace(make().blank(b, (frames, *GRID[1:]), 8.0), cyclic=True)


def paint(generator, canvas, prompts=("a", "b")):
    return generator.paint(canvas, prompts, 0, range(len(prompts)))


def clip(seed=0):
    return torch.randn(2, CHANNELS, *GRID, generator=torch.Generator().manual_seed(seed))


KNOWN = torch.zeros(2, F, dtype=torch.bool)
KNOWN[0, 0] = KNOWN[1, 2:4] = True
MASK = clip(3)[:, 0] > 0.5


def given(by=0, level=0.2):
    """Frames and positions given, by so many frames later."""
    latents = clip().roll(by, dims=2)
    return loop().keep(latents, KNOWN.roll(by, dims=1), level).painted(latents, MASK.roll(by, dims=1))


@pytest.mark.parametrize("solver", [Euler(), Heun(), Multistep()], ids=repr)
@pytest.mark.parametrize("by", [1, 4])
def test_a_loop_is_the_same_wherever_it_is_cut(solver, by):
    one = paint(make(solver=solver), loop())
    other = paint(make(solver=solver, noise=Turned(by)), loop())
    assert torch.allclose(other, one.roll(by, dims=2), rtol=0, atol=1e-5)
    assert not torch.allclose(one, one.roll(by, dims=2), atol=0.1)


@pytest.mark.parametrize("by", [1, 4])
def test_a_loop_with_given_frames_positions_and_texts_is_the_same_wherever_it_is_cut(by):
    weights = torch.tensor([[1.0, 1, 1, 0.5, 0, 0], [0, 0, 0, 0.5, 1, 1]])
    ends = []
    for turn in (0, by):
        generator = make(noise=Turned(turn), guidance=ClassifierFree(2.0, frames=1.5))
        ends.append(paint(generator, given(turn), [Timed(("up", "then right"), weights.roll(turn, dims=1)), "b"]))
    assert torch.allclose(ends[1], ends[0].roll(by, dims=2), rtol=0, atol=1e-5)


def test_each_frame_of_a_loop_follows_its_own_text_however_it_is_turned():
    weights = torch.tensor([[1.0, 1, 1, 0.5, 0, 0], [0, 0, 0, 0.5, 1, 1]])
    generator = make(lambda noisy, t, text, moments: text[:, :, None, None, None].expand_as(noisy))
    made = paint(generator, loop(1), [Timed(("up", "then right"), weights)])
    wanted = Own().draw(0, [0], CHANNELS, GRID, 0) - per_frame((weights * encode(["up", "then right"])).sum(dim=0)[None])
    assert torch.allclose(made, wanted, rtol=0, atol=1e-5)


def test_what_is_given_of_a_loop_comes_back_bit_for_bit():
    made = paint(make(), given())
    assert torch.equal(made.transpose(1, 2)[KNOWN], clip().transpose(1, 2)[KNOWN])
    where = MASK[:, None].expand_as(made)
    assert torch.equal(made[where], clip()[where])


class Angles:
    """A network that finds the angle by which it sees a loop from a frame of sevens, and notes when everything is seen."""

    def __init__(self):
        self.seen, self.moments = [], []

    def __call__(self, noisy, t, text, moments):
        place = (noisy[0] == 7).all(dim=0).all(dim=-1).all(dim=-1)
        assert torch.equal(place, t[0] == 0)  # a given frame takes its flow time along
        self.seen.append(place.nonzero().item())
        self.moments.append(moments)
        return around(noisy, t, text, moments)


@pytest.mark.parametrize("frames", [*range(2, 14)])
def test_a_loop_is_turned_between_looks_and_every_angle_comes_up(frames):
    network = Angles()
    canvas = loop(1, frames)
    canvas = canvas.keep(torch.full(canvas.latents.shape, 7.0), torch.arange(frames)[None] == 0)
    paint(make(network, steps=2 * frames), canvas, ["a"])
    assert set(network.seen[:frames]) == set(network.seen[frames:]) == set(range(frames))
    assert all(one != other for one, other in pairwise(network.seen))
    assert all(torch.equal(moments, canvas.moments) for moments in network.moments)  # what is turned is the clip, not the places


def test_a_clip_that_is_no_loop_is_not_turned():
    network = Angles()
    canvas = replace(loop(1), cyclic=False)
    paint(make(network), canvas.keep(torch.full(canvas.latents.shape, 7.0), torch.arange(F)[None] == 2), ["a"])
    assert network.seen == [2] * 5


def test_a_network_that_ends_clips_in_its_own_way_leaves_no_mark_at_the_seam():
    """One that pushes its first frame up, as a causal VAE's first latent is unlike the others: each frame of a loop is first as often as any."""

    def pushes(noisy, t, text, moments):
        return (moments == 0).float()[:, None, :, None, None].expand_as(noisy)

    def spread(canvas):
        generator = make(pushes, steps=F, shift=1.0)
        pushed = Own().draw(0, [0, 1], CHANNELS, GRID, 0) - paint(generator, canvas)
        return pushed.mean(dim=(0, 1, 3, 4))

    assert torch.allclose(spread(loop()), torch.full((F,), 1 / F), atol=1e-6)
    assert torch.allclose(spread(replace(loop(), cyclic=False)), torch.tensor([1.0] + [0.0] * (F - 1)), atol=1e-6)


def decoder(look_back):
    torch.manual_seed(0)
    vae = VideoVAE(latent_channels=CHANNELS, widths=(8, 16), encoder_depths=(1, 1), decoder_depths=(1, 2), look_back=1, decoder_look_back=look_back)
    vae.eval().requires_grad_(False)
    return Generator(around, encode, vae.decode_stream, CHANNELS, Euler(), NoGuidance(), 2, 1.0, stride_t=4, warm_up=look_back)


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("look_back", [1, 2])
def test_a_loop_is_decoded_the_same_wherever_it_is_cut(look_back, frames):
    generator, latents = decoder(look_back), 2 * clip()[:1, :, :frames, :2, :2]
    pieces = list(generator.frames(latents, cyclic=True))
    assert [piece.shape[1] for piece in pieces] == [4] * frames
    whole = torch.cat(pieces, dim=1)
    for by in range(1, frames):
        turned = torch.cat(list(generator.frames(latents.roll(by, dims=2), cyclic=True)), dim=1)
        assert torch.equal(turned, whole.roll(4 * by, dims=1))


@pytest.mark.parametrize("look_back", [1, 2])
def test_the_first_frames_of_a_loop_hear_of_its_last_as_far_as_the_decoder_looks_back(look_back):
    generator, latents = decoder(look_back), 2 * clip()[:1, :, :, :2, :2]
    whole = torch.cat(list(generator.frames(latents, cyclic=True)), dim=1)
    for back in (1, 2):
        other = latents.clone()
        other[:, :, -back] += 3
        first = next(iter(generator.frames(other, cyclic=True)))
        assert torch.equal(first, whole[:, :4]) == (back > look_back)
    straight = torch.cat(list(generator.frames(latents)), dim=1)
    assert straight.shape[1] == 1 + 4 * (F - 1)
    assert torch.equal(straight[:, 1 + 4 * (look_back - 1) :], whole[:, 4 * look_back :])  # the same clip but for its beginning
