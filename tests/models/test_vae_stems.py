"""Stems: patches of pixels become values and come back, the wavelet is orthonormal, and patches meet without a step."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from models.vae_stems import Haar, Patches, blend, frames, patches

PATCH = pytest.mark.parametrize("patch", [(1, 4, 4), (4, 2, 2), (8, 2, 2), (2, 8, 4)])
STEMS = pytest.mark.parametrize("stem", [Patches(), Haar()], ids=["patches", "haar"])


def clip(patch: tuple[int, int, int]) -> torch.Tensor:
    p, q, r = patch
    return torch.randn(2, 3, 2 * p, 3 * q, 4 * r, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@PATCH
def test_patches_are_pixels_in_order(patch: tuple[int, int, int]):
    p, q, r = patch
    video = clip(patch)
    pixels = rearrange(video, "b c (f p) (h q) (w r) -> b f h w (p q r c)", p=p, q=q, r=r)
    assert torch.equal(patches(video, patch), pixels)
    assert torch.equal(frames(pixels, patch), video)


@STEMS
@PATCH
def test_a_stem_is_undone(stem, patch: tuple[int, int, int]):
    pixels = patches(clip(patch), patch)
    values = stem.values(pixels, patch)
    assert values.shape == pixels.shape
    assert torch.allclose(stem.pixels(values, patch), pixels, atol=1e-12)


@PATCH
def test_wavelet_is_orthonormal(patch: tuple[int, int, int]):
    size = patch[0] * patch[1] * patch[2]
    units = torch.eye(size, dtype=torch.float64)[:, None, None, None]  # each pixel of a patch with one colour
    matrix = Haar().values(units, patch).flatten(1)
    assert torch.allclose(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(matrix[:, 0], torch.full((size,), size**-0.5, dtype=torch.float64))  # the first is the sum of all


def test_wavelet_of_four_frames_is_the_one_in_books():
    line = torch.tensor([1.0, 3.0, 6.0, 2.0]).view(1, 1, 1, 1, 4)
    want = torch.tensor([12 / 2, (4 - 8) / 2, (1 - 3) / 2**0.5, (6 - 2) / 2**0.5])
    assert torch.allclose(Haar().values(line, (4, 1, 1)).flatten(), want)


@STEMS
def test_patches_do_not_see_each_other(stem):
    video, patch = clip((4, 2, 2)), (4, 2, 2)
    changed = video.clone()
    changed[0, :, 4:, :2, 2:4] += 1.0
    moved = (stem.values(patches(video, patch), patch) != stem.values(patches(changed, patch), patch)).any(-1)
    assert moved.nonzero().tolist() == [[0, 1, 0, 1]]


@PATCH
def test_means_are_interpolated_and_the_rest_of_a_patch_stays(patch: tuple[int, int, int]):
    _, q, r = patch
    video = clip(patch).flatten(0, 1)  # images of one colour each
    means = F.avg_pool2d(video, (q, r))
    smooth = F.interpolate(means, scale_factor=(q, r), mode="bilinear", align_corners=False)
    want = video - F.interpolate(means, scale_factor=(q, r)) + smooth
    blended = frames(blend(patches(clip(patch), patch), patch), patch).flatten(0, 1)
    inner = (slice(None), slice(None), slice(q // 2, -q // 2), slice(r // 2, -r // 2))  # nothing lies beyond the outermost middles
    assert torch.allclose(blended[inner], want[inner], atol=1e-12)
    flat = torch.ones(1, 1, 2, 3, 3 * patch[0] * q * r, dtype=torch.float64)
    assert torch.allclose(blend(flat, patch), flat)


def test_flat_patches_on_a_slope_become_the_slope():
    slope = torch.linspace(-1, 1, 12, dtype=torch.float64).view(1, 1, 1, 1, 12).expand(1, 3, 4, 4, 12)
    flat = F.interpolate(F.avg_pool3d(slope, (1, 2, 2)), scale_factor=(1, 2, 2))
    blended = frames(blend(patches(flat, (4, 2, 2)), (4, 2, 2)), (4, 2, 2))
    assert torch.allclose(blended[..., 1:-1, 1:-1], slope[..., 1:-1, 1:-1], atol=1e-12)


def test_gradient_of_the_blend_is_that_of_its_formula():
    pixels = torch.randn(1, 2, 3, 2, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: blend(x, (4, 2, 2)), (pixels,))


def test_patches_of_one_pixel_have_no_borders():
    pixels = patches(clip((4, 1, 1)), (4, 1, 1))
    assert torch.equal(blend(pixels, (4, 1, 1)), pixels)
