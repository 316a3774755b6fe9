"""Packing loses nothing and keeps order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.geometry import Layout, token_grid
from models.packing import Groups, interleave, patchify, unpatchify, video_part

CPU = torch.device("cpu")
sizes = st.integers(1, 7)
grids = st.tuples(sizes, sizes, sizes)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 4), grids, st.tuples(st.just(1), st.integers(1, 3), st.integers(1, 3)))
def test_patchify_round_trip_is_bitwise_at_any_size(samples, channels, size, patch):
    latents = torch.randn(samples, channels, *size)
    tokens = patchify(latents, patch)
    f, h, w = token_grid(size, patch)
    assert tokens.shape == (samples * f * h * w, channels * patch[0] * patch[1] * patch[2])
    assert torch.equal(unpatchify(tokens, size, patch), latents)


def test_tokens_are_frame_major():
    latents = torch.arange(2 * 3).view(2, 1, 3, 1, 1) + torch.zeros(2, 1, 3, 4, 4)
    assert patchify(latents, (1, 2, 2))[:, 0].tolist() == [k for k in range(6) for _ in range(4)]


@settings(deadline=None, max_examples=60)
@given(st.lists(grids, min_size=1, max_size=4), st.integers(1, 5))
def test_interleave_puts_each_text_after_its_video(shapes, words):
    layout = Layout(tuple(shapes), (words,) * len(shapes))
    video = torch.cat([torch.full((tokens, 1), float(sample)) for sample, tokens in enumerate(layout.tokens)])
    text = torch.cat([torch.full((words, 1), sample + 0.5) for sample in range(len(shapes))])
    sequence = interleave(video, text, layout)
    wanted = [value for sample, tokens in enumerate(layout.tokens) for value in [float(sample)] * tokens + [sample + 0.5] * words]
    assert sequence[:, 0].tolist() == wanted
    assert torch.equal(video_part(sequence, layout), video)


@settings(deadline=None, max_examples=60)
@given(st.lists(grids, min_size=1, max_size=4), st.integers(1, 30))
def test_groups_give_every_token_the_row_of_its_frame(shapes, words):
    layout = Layout(tuple(shapes), (words,) * len(shapes))
    total = sum(layout.frames)
    frames = torch.arange(total)[:, None]
    video = Groups.video(layout, CPU)
    wanted = frames.repeat_interleave(torch.tensor(layout.tokens_per_frame), dim=0)
    assert torch.equal(video.spread(frames).repeat_interleave(video.size, dim=0), wanted)
    joint = Groups.joint(layout, CPU)
    prompts = torch.arange(len(shapes))[:, None] + total
    rows = joint.spread(torch.cat([frames, prompts])).repeat_interleave(joint.size, dim=0)
    assert torch.equal(rows, interleave(wanted, prompts.repeat_interleave(words, dim=0), layout))


def test_equal_frames_need_no_gather():
    assert Groups.video(Layout.batch(4, (5, 4, 4), 24), CPU) == Groups(16, None)
    assert Groups.joint(Layout.batch(4, (5, 4, 4), 24), CPU).size == 8


def test_a_late_pixel_cannot_reach_an_early_token():
    latents = torch.randn(1, 2, 3, 5, 5, requires_grad=True)
    tokens = patchify(latents, (1, 2, 2))
    (gradient,) = torch.autograd.grad(tokens[: 2 * 9].sum(), latents)
    assert gradient[:, :, 2].abs().max() == 0
    assert gradient[:, :, :2].min() == pytest.approx(1)
