"""What a network's output stands for: whichever it is, losses and walks see one velocity."""

import pytest
import torch

from flow.generate import Generator
from flow.guidance import ClassifierFree
from flow.path import interpolate, per_frame, velocity
from flow.prediction import Clean, Velocity, velocity_field
from flow.solvers import Euler, Heun, integrate
from flow.timesteps import grid

LEAST = 0.05


def case(least=LEAST):
    """Latents, noise and flow times between `least` and 1, both ends among them; float64."""
    random = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 3, 4, 2, 2, generator=random, dtype=torch.float64) for _ in range(2))
    t = least + (1 - least) * torch.rand(2, 4, generator=random, dtype=torch.float64)
    t[0, 0], t[1, 3] = least, 1.0
    return latents, noise, t


def test_clean_latents_say_the_velocity_exactly():
    latents, noise, t = case()
    found = Clean(LEAST).velocity(latents, interpolate(latents, noise, t), t)
    assert torch.allclose(found, velocity(latents, noise), rtol=0, atol=1e-12)


def test_below_the_bound_the_divisor_stays_frame_by_frame():
    latents, noise, t = case(0.0)
    t[0] = torch.tensor([0.0, 1e-9, 0.02, 0.5])
    noisy, exact = interpolate(latents, noise, t), velocity(latents, noise)
    output = noisy - per_frame(torch.where(t < LEAST, LEAST, t)) * exact
    assert torch.allclose(Clean(LEAST).velocity(output, noisy, t), exact, rtol=0, atol=1e-12)


def test_every_time_has_a_finite_velocity_and_gradient():
    latents, noise, _ = (tensor.float() for tensor in case())
    t = torch.tensor([[0.0, 1e-38, 1e-6, 0.01], [0.0, LEAST, 0.5, 1.0]])
    noisy, output = interpolate(latents, noise, t), noise.clone().requires_grad_()
    found = Clean(LEAST).velocity(output, noisy, t)
    found.sum().backward()
    assert found.isfinite().all()
    assert output.grad is not None
    assert float(output.grad.abs().max()) == pytest.approx(1 / LEAST)
    assert not Clean(LEAST).velocity(noisy, noisy, t).any()  # a known frame said right


def test_a_velocity_is_taken_as_it_is():
    latents, noise, t = case()
    assert Velocity().velocity(noise, latents, t) is noise


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=repr)
def test_an_untrained_network_ends_where_it_says(solver):
    _, noise, _ = case()
    times = grid(20, 1.0)[:, None, None].expand(-1, 2, 4)
    for prediction, end in ((Velocity(), noise), (Clean(LEAST), torch.zeros_like(noise))):
        found = integrate(lambda noisy, t, prediction=prediction: prediction.velocity(torch.zeros_like(noisy), noisy, t), noise, times, solver)
        assert torch.allclose(found, end, rtol=0, atol=1e-12)


@pytest.mark.parametrize("least", [LEAST, 0.6], ids=["in steps", "slower at the end"])
def test_guidance_and_given_frames_work_on_the_velocity(least):
    """A network that knows one clip, by both predictions: 0.6 is above several times of the walk."""
    latents, _, _ = (tensor.float() for tensor in case())
    known = torch.tensor([[True, True, False, False], [False] * 4])

    def says(noisy, t, text, moments):
        return (noisy - latents.repeat(len(noisy) // 2, 1, 1, 1, 1)) / per_frame(t.clamp(min=LEAST)) + text[:, None, None, None, None]

    def says_clean(noisy, t, text, moments):
        return noisy - per_frame(t.clamp(min=least)) * says(noisy, t, text, moments)

    def encode(prompts):
        return torch.tensor([0.1 * len(prompt) for prompt in prompts])

    ends = []
    for network in (says, velocity_field(says_clean, Clean(least)), says_clean):
        generator = Generator(network, encode, iter, 3, Heun(), ClassifierFree(3.0, 1.5), 5, 1.0)
        ends.append(generator.latents(["a", "bcd"], (4, 2, 2), 8.0, 0, [0, 1], latents, known))
    assert torch.equal(ends[1][0, :, :2], latents[0, :, :2])
    assert torch.allclose(ends[1], ends[0], rtol=0, atol=1e-4)
    assert not torch.allclose(ends[2], ends[0], rtol=0, atol=0.1)


@pytest.mark.parametrize("least", [0.0, -0.1, 1.5, float("nan")])
def test_a_bound_that_bounds_nothing_is_refused(least):
    with pytest.raises(ValueError, match=r"Set objective\.prediction\.t_least"):
        Clean(least)
