"""Classifier-free guidance is the network itself at 1, the unconditional network at 0, and blind where the two agree; frames as prompts; limits."""

import math
from typing import Any

import pytest
import torch

from flow.guidance import ClassifierFree, NoGuidance, Point
from flow.limits import deviation, projection
from flow.path import to_clean

B = 3
MOMENTS = (1 + 4 * torch.arange(4)) / torch.tensor([8.0, 8.0, 24.0])[:, None]  # b f


def network(noisy, t, text, moments):
    """Depends on all four; each sample on its own row alone."""
    push = torch.tanh(text).sum(dim=1, keepdim=True) + moments.sqrt()  # b f
    return torch.sin(noisy + (t * push)[:, None, :, None, None])


def encode(prompts):
    return torch.stack([torch.tensor([len(prompt), sum(map(ord, prompt)) % 17, 1.0]) for prompt in prompts]) / 7


def case(prompts=("a red circle", "a blue square moves", "")):
    random = torch.Generator().manual_seed(0)
    return torch.randn(B, 2, 4, 3, 3, generator=random), torch.rand(B, 4, generator=random), MOMENTS.clone(), list(prompts)


def concealed():
    """The case with its first frame under noise."""
    noisy, t, _, _ = case()
    noisy, t = noisy.clone(), t.clone()
    noisy[:, :, 0] += 1
    t[:, 0] = 1
    return Point(noisy, t)


def guided(guidance, prompts=None, hidden=None):
    noisy, t, moments, default = case()
    text = guidance.encode(encode, prompts or default, hidden is not None)
    return guidance.velocity(network, Point(noisy, t), hidden, text, moments)


def raw(prompts=None, hidden=None):
    noisy, t, moments, default = case()
    point = hidden or Point(noisy, t)
    return network(point.noisy, point.t, encode(prompts or default), moments)


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
    noisy, t, moments, prompts = case()
    guidance = ClassifierFree(scale, frames)
    text = guidance.encode(encode, prompts, hide)
    guidance.velocity(lambda *a: calls.append(len(a[0])) or network(*a), Point(noisy, t), concealed() if hide else None, text, moments)
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
    settings: dict[str, Any] = {"scale": 1.0, key: math.nan}
    with pytest.raises(ValueError, match=rf"guidance\.{key}"):
        ClassifierFree(**settings)


@pytest.mark.parametrize(("scale", "answers"), [(3.0, 2), (1.0, 1)])
def test_a_network_sees_one_and_the_same_moments_at_each_step_until_it_changes(scale, answers):
    noisy, t, moments, prompts = case()
    seen, guidance = [], ClassifierFree(scale)
    text = guidance.encode(encode, prompts, False)

    def watched(noisy, t, text, moments):
        seen.append(moments)
        return network(noisy, t, text, moments)

    for _ in range(2):
        guidance.velocity(watched, Point(noisy, t), None, text, moments)
    assert seen[1] is seen[0]
    moments.mul_(2)
    guidance.velocity(watched, Point(noisy, t), None, text, moments)
    assert torch.equal(seen[2], moments.repeat(answers, 1))


def test_a_negative_prompt_takes_the_place_of_the_empty_one():
    noisy, t, moments, prompts = case()
    negatives = ["blurred", "", "a cat"]
    guidance = ClassifierFree(3.0)
    found = guidance.velocity(network, Point(noisy, t), None, guidance.encode(encode, prompts, False, negatives), moments)
    assert torch.allclose(found, raw(negatives) + 3 * (raw() - raw(negatives)), atol=1e-5)
    assert torch.equal(found[1], guided(guidance)[1])  # led away from "" as ever


@pytest.mark.parametrize("guidance", [NoGuidance(), ClassifierFree(1.0)], ids=["none", "scale 1"])
def test_a_negative_prompt_that_would_say_nothing_is_refused(guidance):
    with pytest.raises(ValueError, match="negative prompt"):
        guidance.encode(encode, ["a"], False, ["blurred"])
    guidance.encode(encode, ["a"], False, [""])


def limited(guidance, t=None, made=None, prompts=None, spy=None):
    """Guided at other flow times, and for how many answers the network was called each time."""
    noisy, usual, moments, default = case()
    calls = []

    def watched(*arguments):
        calls.append(len(arguments[0]))
        return (spy or network)(*arguments)

    text = guidance.encode(encode, prompts or default, False)
    return guidance.velocity(watched, Point(noisy, usual if t is None else t, made), None, text, moments), calls


TIMES = torch.tensor([[0.0, 0.1, 0.4, 0.5], [0.6, 0.7, 0.8, 1.0], [0.0, 0.0, 0.95, 1.0]])  # b f


def frame_by_frame(frames, one, other):
    return torch.where(frames[:, None, :, None, None], one, other)


@pytest.mark.parametrize("scale", [3.0, 0.0])
def test_an_interval_is_kept_frame_by_frame_and_outside_the_prompt_is_told_and_no_more(scale):
    inside = torch.tensor([[False, False, True, True], [True, True, False, False], [False] * 4])
    found, calls = limited(ClassifierFree(scale, interval=(0.4, 0.7)), TIMES)
    everywhere, _ = limited(ClassifierFree(scale), TIMES)
    own, _ = limited(ClassifierFree(1.0), TIMES)
    assert torch.allclose(found, frame_by_frame(inside, everywhere, own), atol=1e-6)
    assert torch.equal(frame_by_frame(inside, own, found), own)
    assert calls == [2 * B]


def test_no_further_answers_are_asked_for_where_no_frame_to_be_made_is_inside_the_interval():
    found, calls = limited(ClassifierFree(3.0, interval=(0.0, 0.05)), TIMES)  # known frames alone
    assert calls == [B]
    assert torch.equal(found, limited(ClassifierFree(1.0), TIMES)[0])
    made = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    assert limited(ClassifierFree(3.0, interval=(0.55, 0.7)), TIMES, made)[1] == [B]  # given, under a little noise
    assert limited(ClassifierFree(3.0, interval=(0.55, 0.7)), TIMES)[1] == [2 * B]


def cleaned(velocity, t=TIMES):
    return to_clean(case()[0], velocity, t)


@pytest.mark.parametrize(("by", "left"), [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)])
def test_rescale_takes_back_the_deviation_of_the_clean_latents_by_one_factor_per_sample(by, left):
    strong, own = limited(ClassifierFree(6.0), TIMES)[0], limited(ClassifierFree(1.0), TIMES)[0]
    found, calls = limited(ClassifierFree(6.0, rescale=by), TIMES)
    made = TIMES > 0
    before, goal, after = (deviation(cleaned(each), made) for each in (strong, own, found))
    assert torch.allclose(after, goal + left * (before - goal), rtol=1e-4)
    assert (before - goal)[:2].min() > 0.05  # the third prompt is empty
    factors = cleaned(found) / cleaned(strong)  # b c f h w
    assert all(torch.allclose(row[:, frames], row[0, frames][0, 0, 0], rtol=1e-3) for row, frames in zip(factors, made, strict=True))
    assert calls == [2 * B]


def test_deviation_is_that_of_the_frames_alone():
    noisy, frames = case()[0].double(), TIMES > 0.5
    expected = [row[:, own].std(correction=0) if own.any() else torch.tensor(0.0) for row, own in zip(noisy, frames, strict=True)]
    assert torch.allclose(deviation(noisy, frames), torch.stack(expected).double())


@pytest.mark.parametrize("setting", [{"rescale": 0.7}, {"project": 1.0}, {"rescale": 0.7, "interval": (0.3, 1.0)}], ids=str)
def test_statistics_do_not_see_given_frames(setting):
    """Those at t = 0, and those that are told to be given; whatever the network says there."""
    made = torch.tensor([[True] * 4, [True, False, True, True], [True] * 4])
    seen = made & (TIMES > 0)

    def shouting(noisy, t, text, moments):
        found = network(noisy, t, text, moments)
        return frame_by_frame(seen.repeat(len(noisy) // B, 1), found, torch.full_like(found, torch.nan))

    found, _ = limited(ClassifierFree(6.0, **setting), TIMES, made, spy=shouting)
    quiet, _ = limited(ClassifierFree(6.0, **setting), TIMES, made)
    assert torch.equal(frame_by_frame(seen, found, torch.zeros(())), frame_by_frame(seen, quiet, torch.zeros(())))
    assert frame_by_frame(seen, found, torch.zeros(())).isfinite().all()


def test_a_projected_answer_is_as_near_as_its_length_can_make_it():
    told, shown, made = raw(), raw(["", "", ""]), case()[1] > 0
    length = projection(told, shown, made)[:, None, None, None, None]
    for other in (0.99, 1.01):
        assert ((told - length * shown).square().sum((1, 2, 3, 4)) < (told - other * length * shown).square().sum((1, 2, 3, 4))).all()
    assert torch.allclose(guided(ClassifierFree(5.0, project=1.0)), length * shown + 5 * (told - length * shown), atol=1e-5)
    half = (1 + length) / 2
    assert torch.allclose(guided(ClassifierFree(5.0, project=0.5)), half * shown + 5 * (told - half * shown), atol=1e-5)
    assert torch.allclose(guided(ClassifierFree(5.0, project=0.0)), guided(ClassifierFree(5.0)), atol=1e-6)
    assert (length - 1).abs().max() > 0.1


def test_early_frames_stand_still_and_the_network_is_not_asked_where_all_do():
    found, calls = limited(ClassifierFree(3.0, zero_init=0.8), TIMES)
    usual, _ = limited(ClassifierFree(3.0), TIMES)
    assert torch.equal(found, frame_by_frame(TIMES >= 0.8, torch.zeros(()), usual))
    assert calls == [2 * B]
    found, calls = limited(ClassifierFree(3.0, zero_init=1.0), (TIMES > 0).float())
    assert calls == []
    assert not found.any()
    assert limited(ClassifierFree(3.0, zero_init=1.0), torch.zeros(B, 4))[1] == [2 * B]  # at the beginning of a walk towards noise


@pytest.mark.parametrize("setting", [{"interval": (0.0, 1.0)}, {"rescale": 0.0}, {"project": 0.0}, {"zero_init": 1.0}], ids=str)
def test_limits_that_limit_nothing_change_nothing(setting):
    found = guided(ClassifierFree(3.0, 2.0, **setting), hidden=concealed())
    assert torch.allclose(found, guided(ClassifierFree(3.0, 2.0), hidden=concealed()), atol=1e-5)


def test_without_limits_guidance_is_the_weighted_sum_bit_for_bit():
    told, shown, blind = raw(), raw(["", "", ""]), raw(["", "", ""], concealed())
    expected = told + (2.0 - 4.0) * (shown - told) + (1 - 2.0) * (blind - told)
    assert torch.equal(guided(ClassifierFree(4.0, 2.0), hidden=concealed()), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("interval", value) for value in ((0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (0.2, 1.1), (math.nan, 0.5))],
        *[("rescale", -0.1), ("rescale", 1.5), ("project", math.nan), ("zero_init", 0.0), ("zero_init", 1.2)],
    ],
)
def test_limits_out_of_range_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"Set guidance\.{key}"):
        ClassifierFree(2.0, **{key: value})
