"""Classifier-free guidance is the network itself at 1, the unconditional network at 0, and blind where the two agree."""

import math

import pytest
import torch

from flow.guidance import ClassifierFree, NoGuidance

B = 3


def network(noisy, t, text, fps):
    """Depends on all four; each sample on its own row alone."""
    push = torch.tanh(text).sum(dim=1) + fps.sqrt()
    return torch.sin(noisy + t[:, None, :, None, None] * push[:, None, None, None, None])


def encode(prompts):
    return torch.stack([torch.tensor([len(prompt), sum(map(ord, prompt)) % 17, 1.0]) for prompt in prompts]) / 7


def case(prompts=("a red circle", "a blue square moves", "")):
    random = torch.Generator().manual_seed(0)
    return torch.randn(B, 2, 4, 3, 3, generator=random), torch.rand(B, 4, generator=random), torch.tensor([8.0, 8.0, 24.0]), list(prompts)


def guided(guidance, prompts=None):
    noisy, t, fps, default = case()
    return guidance.velocity(network, noisy, t, encode(guidance.prompts(prompts or default)), fps)


def raw(prompts=None):
    noisy, t, fps, default = case()
    return network(noisy, t, encode(prompts or default), fps)


def test_scale_one_is_the_conditional_velocity_bit_for_bit_and_costs_one_half():
    assert torch.equal(guided(ClassifierFree(1.0)), raw())
    assert ClassifierFree(1.0).prompts(["a", "b"]) == ["a", "b"]


def test_no_guidance_is_the_network():
    assert torch.equal(guided(NoGuidance()), raw())


def test_scale_zero_is_the_unconditional_velocity():
    assert torch.allclose(guided(ClassifierFree(0.0)), raw(["", "", ""]), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 2.5, 7.0, -3.0])
def test_an_empty_prompt_is_not_moved_by_any_scale(scale):
    assert torch.allclose(guided(ClassifierFree(scale), ["", "", ""]), raw(["", "", ""]), atol=1e-6)
    assert not torch.allclose(guided(ClassifierFree(scale)), raw(), atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 2.5, 7.0])
def test_one_batch_equals_two_passes(scale):
    conditional, unconditional = raw(), raw(["", "", ""])
    assert torch.allclose(guided(ClassifierFree(scale)), unconditional + scale * (conditional - unconditional), atol=1e-6)
    assert torch.allclose(guided(ClassifierFree(scale)), conditional + (scale - 1) * (conditional - unconditional), atol=1e-5)


def test_the_network_is_called_once_a_step():
    calls = []
    noisy, t, fps, prompts = case()
    guidance = ClassifierFree(2.0)
    text = encode(guidance.prompts(prompts))
    guidance.velocity(lambda *a: calls.append(len(a[0])) or network(*a), noisy, t, text, fps)
    assert calls == [2 * B]


def test_a_scale_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"guidance\.scale"):
        ClassifierFree(math.nan)
