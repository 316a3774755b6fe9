"""A remix begins with its source under noise; strength 0 is the source as the VAE has it."""

import pytest
import torch

from runtime.build import ConfigError
from tasks.make import Job, latents
from tasks.remix import Remix
from tasks.sources import clip
from tasks.task import Files


def made(generator, plan, seed=0):
    (found,) = latents(generator, [plan], Job(["x"], [0], seed))
    return found


def test_strength_0_is_the_vaes_own_clip_bit_for_bit(desk, generator, media):
    plan = Remix(0.0).begin(Files(videos=(f"{media}/clip.mp4",)), desk())
    own = desk().latents(clip(f"{media}/clip.mp4", 8.0, 16, 24))
    assert torch.equal(made(generator, plan), own)


def test_strength_1_forgets_the_source(desk, generator, media):
    one, other = (Remix(1.0).begin(Files(videos=(f"{media}/{name}.mp4",)), desk(9)) for name in ("clip", "other"))
    assert torch.equal(made(generator, one), made(generator, other))


def test_a_little_strength_keeps_more_than_much(desk, generator, media):
    files = Files(videos=(f"{media}/clip.mp4",))
    own = Remix(0.0).begin(files, desk()).canvas.latents
    far = [(made(generator, Remix(strength).begin(files, desk())) - own).norm().item() for strength in (0.0, 0.2, 0.5, 0.9)]
    assert far == sorted(far)
    assert far[0] < far[1] < far[3]


def test_frames_beyond_the_source_and_strengths_out_of_range_are_refused(desk, media):
    with pytest.raises(ConfigError, match=r"frames=33 is longer than .*17 frames at 8 fps"):
        Remix(0.5).begin(Files(videos=(f"{media}/clip.mp4",)), desk(33))
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"task\.strength=.*\[0, 1\]"):
            Remix(strength)
