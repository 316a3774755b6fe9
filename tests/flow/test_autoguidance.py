"""Autoguidance leads away from a weaker network under the same prompt: that network at 0, the own one at 1, and blind where the two agree."""

import pytest
import torch

from flow.autoguidance import Autoguidance, Weak
from flow.limits import Point

B, F = 2, 3
PROMPTS = ["a red circle", "a blue square moves"]


def own(noisy, t, text, moments):
    return torch.sin(noisy * text[:, None, None, None, None] + (t + moments)[:, None, :, None, None])


def weak(noisy, t, text, moments):
    return torch.tanh(noisy + text[:, None, None, None, None]) * t[:, None, :, None, None]


def own_encode(prompts):
    return torch.tensor([len(prompt) / 10 for prompt in prompts])


def weak_encode(prompts):
    return torch.tensor([prompt.count("e") - 1.0 for prompt in prompts])


def case():
    random = torch.Generator().manual_seed(0)
    return torch.randn(B, 2, F, 2, 2, generator=random), torch.tensor([[0.0, 0.5, 0.9], [0.2, 0.6, 1.0]]), torch.arange(B * F).reshape(B, F) / 8


def guided(guidance, network=own):
    noisy, t, moments = case()
    return guidance.velocity(network, Point(noisy, t), None, guidance.encode(own_encode, PROMPTS, False), moments)


def answers():
    noisy, t, moments = case()
    return own(noisy, t, own_encode(PROMPTS), moments), weak(noisy, t, weak_encode(PROMPTS), moments)


def auto(scale, velocity=weak, encode=weak_encode, **limits):
    return Autoguidance(scale, "runs/weak", weak=Weak(velocity, encode), **limits)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 5.0])
def test_it_leads_away_from_the_weak_network_which_has_a_text_encoder_of_its_own(scale):
    strong, bad = answers()
    assert torch.allclose(guided(auto(scale)), bad + scale * (strong - bad), atol=1e-5)
    assert not torch.allclose(strong, bad, atol=0.1)


def test_a_network_that_is_no_weaker_leads_nowhere():
    assert torch.equal(guided(auto(7.0, own, own_encode)), answers()[0])


def test_scale_one_is_the_network_itself_and_asks_no_other():
    assert torch.equal(guided(Autoguidance(1.0, "runs/weak")), answers()[0])


def test_each_text_is_encoded_once_and_each_network_asked_once_a_step():
    calls = []

    def noted(name, function):
        return lambda *arguments: calls.append(name) or function(*arguments)

    guidance = auto(2.0, noted("weak", weak), noted("weak text", weak_encode))
    noisy, t, moments = case()
    text = guidance.encode(noted("text", own_encode), PROMPTS, False)
    for _ in range(2):
        guidance.velocity(noted("own", own), Point(noisy, t), None, text, moments)
    assert calls == ["text", "weak text", *["own", "weak"] * 2]


def test_outside_the_interval_frames_have_the_own_velocity_and_the_weak_network_is_not_asked():
    _, t, _ = case()
    inside = ((t >= 0.4) & (t <= 0.6))[:, None, :, None, None]
    strong, _ = answers()
    found = guided(auto(3.0, interval=(0.4, 0.6)))
    assert torch.equal(found, torch.where(inside, guided(auto(3.0)), strong))
    assert torch.equal(guided(auto(3.0, None, weak_encode, interval=(0.3, 0.4))), strong)


def test_without_a_run_the_key_is_named():
    with pytest.raises(ValueError, match=r"Set guidance\.run"):
        Autoguidance(2.0, None)


def test_a_negative_prompt_is_refused():
    with pytest.raises(ValueError, match="negative prompt"):
        auto(2.0).encode(own_encode, PROMPTS, False, ["blurred", ""])


@pytest.mark.parametrize(("key", "value"), [("scale", float("nan")), ("rescale", 2.0), ("interval", (0.5, 0.1))])
def test_bad_values_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"Set guidance\.{key}"):
        Autoguidance(**{"scale": 2.0, "run": "runs/weak", key: value})
