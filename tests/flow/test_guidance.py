"""Classifier-free guidance is the network itself at 1, the unconditional network at 0, and blind where the two agree; frames as prompts."""

import math

import pytest
import torch

from flow.guidance import ClassifierFree, NoGuidance, Point

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


def concealed():
    """The case with its first frame under noise."""
    noisy, t, _, _ = case()
    noisy, t = noisy.clone(), t.clone()
    noisy[:, :, 0] += 1
    t[:, 0] = 1
    return Point(noisy, t)


def guided(guidance, prompts=None, hidden=None):
    noisy, t, fps, default = case()
    text = encode(guidance.prompts(prompts or default, hidden is not None))
    return guidance.velocity(network, Point(noisy, t), hidden, text, fps)


def raw(prompts=None, hidden=None):
    noisy, t, fps, default = case()
    point = hidden or Point(noisy, t)
    return network(point.noisy, point.t, encode(prompts or default), fps)


def test_scale_one_is_the_conditional_velocity_bit_for_bit_and_costs_one_half():
    assert torch.equal(guided(ClassifierFree(1.0)), raw())
    assert ClassifierFree(1.0).prompts(["a", "b"], False) == ["a", "b"]


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


@pytest.mark.parametrize(
    ("scale", "frames", "hide", "answers"), [(2, None, False, 2), (2, 3, False, 2), (2, 3, True, 3), (3, 3, True, 2), (1, 1, True, 1)]
)
def test_the_network_is_called_once_a_step_for_no_more_answers_than_it_takes(scale, frames, hide, answers):
    calls = []
    noisy, t, fps, prompts = case()
    guidance = ClassifierFree(scale, frames)
    text = encode(guidance.prompts(prompts, hide))
    guidance.velocity(lambda *a: calls.append(len(a[0])) or network(*a), Point(noisy, t), concealed() if hide else None, text, fps)
    assert calls == [answers * B]


@pytest.mark.parametrize(("scale", "frames"), [(4.0, 2.0), (2.0, 2.0), (1.0, 3.0), (0.0, 2.0), (3.0, 0.0)])
def test_given_frames_have_a_scale_of_their_own(scale, frames):
    told, shown, blind = raw(), raw(["", "", ""]), raw(["", "", ""], concealed())
    expected = blind + frames * (shown - blind) + scale * (told - shown)
    assert torch.allclose(guided(ClassifierFree(scale, frames), hidden=concealed()), expected, atol=1e-5)
    assert not torch.allclose(blind, shown, atol=1e-2)


def test_a_scale_of_frames_changes_nothing_where_none_is_given_and_null_is_one():
    assert torch.equal(guided(ClassifierFree(4.0, 2.0)), guided(ClassifierFree(4.0)))
    assert torch.equal(guided(ClassifierFree(4.0), hidden=concealed()), guided(ClassifierFree(4.0)))


@pytest.mark.parametrize("key", ["scale", "frames"])
def test_a_scale_that_is_no_number_is_refused(key):
    with pytest.raises(ValueError, match=rf"guidance\.{key}"):
        ClassifierFree(**{"scale": 1.0, key: math.nan})


@pytest.mark.parametrize(("scale", "answers"), [(3.0, 2), (1.0, 1)])
def test_a_network_sees_one_and_the_same_fps_at_each_step_until_it_changes(scale, answers):
    noisy, t, fps, prompts = case()
    seen, guidance = [], ClassifierFree(scale)
    text = encode(guidance.prompts(prompts, False))

    def watched(noisy, t, text, fps):
        seen.append(fps)
        return network(noisy, t, text, fps)

    for _ in range(2):
        guidance.velocity(watched, Point(noisy, t), None, text, fps)
    assert seen[1] is seen[0]
    fps.mul_(2)
    guidance.velocity(watched, Point(noisy, t), None, text, fps)
    assert torch.equal(seen[2], fps.repeat(answers))
