"""Arithmetic of frames, latents, moments and tokens."""

import pytest
import torch

from models.geometry import Layout, bounds, latent_frames, latent_grid, moments, pixel_frames, token_grid


def test_frames_and_latents_are_inverse():
    for stride in (1, 4, 6, 8):
        for latents in range(1, 20):
            assert latent_frames(pixel_frames(latents, stride), stride) == latents


@pytest.mark.parametrize(("frames", "nearest"), [(16, "13 or 17"), (2, "1 or 5"), (0, "1")])
def test_frames_off_the_grid_are_refused_with_the_nearest(frames, nearest):
    with pytest.raises(ValueError, match=rf"frames={frames}.*\({nearest}\)"):
        latent_frames(frames, 4)


def test_a_latent_frame_ends_with_its_last_pixel_frame():
    fps = torch.tensor([8.0, 24.0, 12.5])
    for stride in (1, 4, 8):
        found = moments(5, fps, stride)
        assert found.dtype == torch.float32
        last = torch.tensor([pixel_frames(latents, stride) - 1 for latents in range(1, 6)])
        assert torch.equal(found, torch.stack([last / rate for rate in fps]))
    assert moments(1, fps, 4).tolist() == [[0.0]] * 3, "a picture is a moment"
    assert moments(3, fps.double(), 4).dtype == moments(3, torch.tensor([8]), 4).dtype == torch.float32


@pytest.mark.parametrize(
    ("fps", "match"),
    [([8.0, 0.0], "fps must be positive, got 0.*Set fps"), ([float("nan")], "got nan"), ([[8.0]], r"fps has shape \(1, 1\), wanted \(b,\)")],
)
def test_a_frame_rate_that_gives_no_moments_is_refused(fps, match):
    with pytest.raises(ValueError, match=match):
        moments(3, torch.tensor(fps), 4)


def test_sizes_off_the_grid_are_refused_by_name():
    assert latent_grid(17, 64, 80, (4, 8, 8)) == (5, 8, 10)
    with pytest.raises(ValueError, match=r"width=60.*56 or 64.*Set width"):
        latent_grid(17, 64, 60, (4, 8, 8))


def test_a_patch_that_sticks_out_is_a_token():
    assert token_grid((5, 8, 8), (1, 2, 2)) == (5, 4, 4)
    assert token_grid((5, 5, 9), (1, 2, 2)) == (5, 3, 5)


def test_layout_counts_every_token_once():
    layout = Layout(((2, 3, 4), (1, 2, 2)), (5, 5))
    assert layout.tokens == (24, 4)
    assert layout.joint == (29, 9)
    assert layout.tokens_per_frame == (12, 12, 4)
    assert sum(layout.tokens_per_frame) == sum(layout.tokens)
    assert not layout.uniform
    assert Layout.batch(3, (2, 3, 4), 5).uniform
    assert bounds(layout.joint) == [(0, 29), (29, 38)]
