"""Video from words alone: lengths, and a circle without a first frame."""

import pytest
import torch

from runtime.build import ConfigError
from tasks.task import Files
from tasks.text import Loop, TextToImage, TextToVideo


def test_words_give_nothing(desk):
    for task, asked, frames in ((TextToVideo(), None, 9), (TextToVideo(), 17, 17), (TextToImage(), None, 1)):
        plan = task.begin(Files(), desk(asked))
        assert (plan.frames, plan.canvas.shown) == (frames, 1 + (frames - 1) // 4)
        assert not plan.canvas.given.any()
        assert not plan.given.any()


def test_a_loop_is_a_circle_of_whole_latent_frames(desk):
    plan = Loop().begin(Files(), desk(16))
    assert (plan.frames, plan.canvas.shown, plan.canvas.cyclic) == (16, 4, True)
    assert plan.canvas.moments[0].diff().tolist() == pytest.approx([0.5] * 3)
    assert Loop().begin(Files(), desk()).frames == 8


def test_a_loop_decodes_each_latent_frame_in_full_with_its_neighbours_round_the_circle(desk, generator):
    latents = torch.randn(1, 4, 4, 2, 3, generator=torch.Generator().manual_seed(1))
    frames = torch.cat(list(generator.frames(latents, cyclic=True)), dim=1)
    turned = torch.cat(list(generator.frames(latents.roll(1, dims=2), cyclic=True)), dim=1)
    assert frames.shape == (1, 16, 16, 24, 3)
    assert (frames.roll(4, dims=1).int() - turned.int()).abs().max() <= 1  # the last bits may tip a rounding


@pytest.mark.parametrize(("frames", "near"), [(9, 8), (4, 8), (1, 8), (18, 16)])
def test_a_loop_of_another_length_is_refused_with_the_nearest(desk, frames, near):
    with pytest.raises(ConfigError, match=rf"frames={frames} is no length of a loop.*multiple of 4, at least 8\. Set frames={near}\."):
        Loop().begin(Files(), desk(frames))


def test_a_picture_has_one_frame(desk):
    with pytest.raises(ConfigError, match="task=t2i makes one frame, got frames=9"):
        TextToImage().begin(Files(), desk(9))
