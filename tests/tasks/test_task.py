"""Given frames become known latents where the encoder sees nothing else, and pictures of their own where it would."""

from dataclasses import replace

import pytest
import torch

from runtime.build import ConfigError, build
from tasks.given import ImageToVideo
from tasks.paint import Inpaint
from tasks.task import Files, Segment, refuse_unused
from tasks.text import TextToVideo
from training.inference import Shape, studio


def test_a_beginning_is_what_the_vae_makes_of_the_whole_clip(desk, cut):
    canvas, _ = desk().placed([Segment(0, cut(0, 5))], 9)
    whole = desk().latents(cut(0, 9))
    assert canvas.given.tolist() == [[True, True, False]]
    assert canvas.shown == canvas.latents.shape[2] == 3
    assert torch.allclose(canvas.latents[:, :, :2], whole[:, :, :2], atol=1e-5)  # kernels round by shape


def test_a_later_stretch_is_known_where_its_encoder_looks_back_on_given_frames_alone(desk, cut):
    canvas, _ = desk().placed([Segment(4, cut(4, 17))], 17)
    whole = desk().latents(cut(0, 17))
    # Frames 4 to 16 hold latent frames 2, 3 and 4 whole; the encoder looks back on one, so 3 and 4 are exact.
    assert canvas.given[0, :5].tolist() == [False, False, False, True, True]
    assert torch.allclose(canvas.latents[:, :, 3:5], whole[:, :, 3:5], atol=1e-5)
    # What is seen and not exact stands behind the clip: the last frames of latent frames 1 and 2.
    assert canvas.shown == 5
    assert canvas.moments[0, 5:].tolist() == [4 / 8, 8 / 8]
    assert canvas.given[0, 5:].all()
    for place, frame in ((5, 4), (6, 8)):
        assert torch.equal(canvas.latents[:, :, place], desk().encode(cut(frame, frame + 1))[:, :, 0])


@pytest.mark.parametrize("look_back", [1, 2])
@pytest.mark.parametrize("start", [5, 9, 13])
def test_a_stretch_that_begins_with_a_whole_latent_frame_gives_the_whole_clips_latents(networks, cut, look_back, start):
    vae = build(networks.config["objective"]["vae"] | {"encoder_depths": [2], "look_back": look_back})
    random = torch.Generator().manual_seed(0)
    for parameter in vae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    own = studio(replace(networks, vae=vae.eval()), Shape(33, 16, 24, 8.0), None)
    canvas, _ = own.placed([Segment(start, cut(start, 33))], 33)
    known = canvas.given[0, :9].nonzero()[:, 0].tolist()
    assert known == list(range((start + 3) // 4 + look_back, 9))
    assert torch.allclose(canvas.latents[:, :, known], own.latents(cut(0, 33))[:, :, known], atol=1e-5)  # kernels round by shape


def test_of_segments_that_overlap_the_later_one_in_the_list_counts(desk, cut):
    canvas, _ = desk().placed([Segment(0, cut(0, 1)), Segment(0, cut(7, 8))], 9)
    assert torch.equal(canvas.latents[:, :, 0], desk().encode(cut(7, 8))[:, :, 0])


def test_known_level_is_when_the_network_is_shown_what_is_given(desk, cut):
    canvas, _ = desk(level=0.2).placed([Segment(0, cut(0, 1)), Segment(6, cut(6, 7))], 9)
    assert canvas.start[0].tolist() == pytest.approx([0.2, 1, 1, 0.2])
    assert canvas.stop[0].tolist() == pytest.approx([0.2, 0, 0, 0.2])


def test_a_segment_beyond_the_clip_is_refused(desk, cut):
    with pytest.raises(ValueError, match="given frames 8 to 9 are not within"):
        desk().placed([Segment(8, cut(0, 2))], 9)


@pytest.mark.parametrize(
    ("task", "files", "says"),
    [
        (TextToVideo(), Files(mask="m.png"), "--mask is of no use to task=t2v, which takes words alone. Leave it out, or set task=inpaint."),
        (ImageToVideo(), Files(images=("a",), videos=("v",)), "--video is of no use to task=i2v, which takes --image."),
        (Inpaint(), Files(second="x"), "--then is of no use to task=inpaint, which takes --video, --image, --mask."),
    ],
)
def test_what_a_task_has_no_use_for_is_refused(task, files, says):
    with pytest.raises(ConfigError) as error:
        refuse_unused(task, files)
    assert says in str(error.value)
