"""Between pixels and one vector of values per spacetime patch: orthonormal and undone exactly; patches meet without a step."""

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import FunctionCtx

from models.geometry import Grid


def patches(video: Tensor, patch: Grid) -> Tensor:
    """Space to depth: b 3 (f p) (h q) (w r) -> b f h w (p q r c).

    In two moves: the first keeps positions neighbours in memory, and both together take a third of the time of one.
    """
    p, q, r = patch
    height = video.shape[3] // q
    values = rearrange(video, "b c (f p) (h q) (w r) -> b f (p q r c) (h w)", p=p, q=q, r=r)
    return rearrange(values, "b f v (h w) -> b f h w v", h=height)


def frames(pixels: Tensor, patch: Grid) -> Tensor:
    """Undoes `patches`."""
    p, q, r = patch
    height = pixels.shape[2]
    pixels = rearrange(pixels, "b f h w v -> b f v (h w)").contiguous()
    return rearrange(pixels, "b f (p q r c) (h w) -> b c (f p) (h q) (w r)", p=p, q=q, r=r, h=height)


def blend(pixels: Tensor, patch: Grid) -> Tensor:
    """Let the mean colour of patches pass smoothly from one to the next instead of in steps; what a patch shows beside its mean stays as it is.

    A patch whose mean alone is known is flat, and flat patches show their borders: after 300 steps on textured clips the gradient across
    them was 1.5 times that inside, with blended means 1.0. Each pixel is drawn towards the means around it, with the weights of bilinear
    interpolation between the middles of patches; what would lie outside the frame draws nothing.

    Args:
        pixels: b f h w (p q r c).
    """
    p, q, r = patch
    if q == r == 1:
        return pixels
    down, right = _ramp(q, pixels), _ramp(r, pixels)
    window = (down[:, None, :, None] * right[:, None, :]).expand(p, 3, q, r, 3, 3)  # of each pixel, over 3x3 patches
    inside = _inside(down, pixels.shape[2])[:, None, :, None] * _inside(right, pixels.shape[3])[:, None, :]  # h w q r
    inside = inside.expand(p, 3, *inside.shape)
    blended = _Blend.apply(
        pixels,
        _averaging(patch, pixels),
        rearrange(window, "p c q r y x -> (p q r c) 1 y x"),
        rearrange(inside, "p c h w q r -> h w (p q r c)"),
    )
    assert isinstance(blended, Tensor)
    return blended


class _Blend(torch.autograd.Function):
    """A linear map of pixels. Its gradient is written out because it arrives transposed, and every step on it would be three times slower."""

    @staticmethod
    def forward(ctx: FunctionCtx, pixels: Tensor, averaging: Tensor, window: Tensor, inside: Tensor) -> Tensor:
        """Add what the means around draw: those under the window, less the mean that the patch has itself.

        Args:
            pixels: b f h w v.
            averaging: (v, v), symmetric: the mean in place of each pixel.
            window: v 1 3 3, the pull of the 3x3 means around each pixel.
            inside: h w v, how much of the window lies in the frame.
        """
        ctx.save_for_backward(averaging, window, inside)
        means = F.linear(pixels, averaging)  # bfloat16 under autocast, whatever the pixels are
        return pixels + _under(means, window).addcmul_(means, inside.to(means.dtype), value=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        averaging, window, inside = ctx.saved_tensors
        gradient = gradient.contiguous()
        change = _under(gradient, window.flip(2, 3)).addcmul_(gradient, inside, value=-1)
        return F.linear(change, averaging).add_(gradient), None, None, None


def _under(x: Tensor, window: Tensor) -> Tensor:
    """b f h w v under a window of its own for each of the v; zeros outside the frame."""
    images = F.conv2d(rearrange(x, "b f h w v -> (b f) v h w"), window, padding=1, groups=x.shape[-1])
    return rearrange(images, "(b f) v h w -> b f h w v", b=x.shape[0])


def blend_flop(patch: Grid) -> int:
    """FLOP of `blend` for each patch."""
    values = 3 * patch[0] * patch[1] * patch[2]
    return 2 * values * values + 2 * 9 * values if patch[1:] != (1, 1) else 0


def _averaging(patch: Grid, like: Tensor) -> Tensor:
    """The matrix that puts the mean over height and width in place of each pixel: a product is faster than a sum over strided values."""
    p, q, r = patch
    one = {"device": like.device, "dtype": like.dtype}
    return torch.kron(torch.eye(p, **one), torch.kron(torch.full((q * r, q * r), 1 / (q * r), **one), torch.eye(3, **one)))


def _ramp(size: int, like: Tensor) -> Tensor:
    """Weights of the patch before, its own and the one after for each of its pixels in a row, (size, 3): linear between the middles of patches."""
    off = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size - 0.5
    return torch.stack([(-off).clamp(min=0), 1 - off.abs(), off.clamp(min=0)], dim=1)


def _inside(ramp: Tensor, count: int) -> Tensor:
    """The part of those weights that lies on one of `count` patches in a row, (count, size)."""
    share = torch.ones(count, len(ramp), device=ramp.device, dtype=ramp.dtype)
    share[0] -= ramp[:, 0]
    share[-1] -= ramp[:, 2]
    return share


class Stem(Protocol):
    """What a patch of pixels is to the first and last layer: an orthonormal transform of b f h w (p q r c), which `pixels` undoes."""

    def values(self, pixels: Tensor, patch: Grid) -> Tensor: ...

    def pixels(self, values: Tensor, patch: Grid) -> Tensor: ...


class Patches:
    """The pixels as they are."""

    def values(self, pixels: Tensor, patch: Grid) -> Tensor:
        return pixels

    def pixels(self, values: Tensor, patch: Grid) -> Tensor:
        return values


class Haar:
    """The Haar wavelet coefficients along time, height and width: sums of pairs, halved again until one is left, and their differences.

    Natural clips have most of their energy in the sums, so the first layer finds slow and smooth parts apart from fast and sharp ones.
    Source: Haar 1910; as a video tokenizer's stem, NVIDIA 2025 (Cosmos), section 3.
    """

    def values(self, pixels: Tensor, patch: Grid) -> Tensor:
        """Coefficients, in the order of the pixels that they stand for: the sum of all first."""
        x = pixels.unflatten(-1, (*patch, -1))  # b f h w p q r c
        for axis in (4, 5, 6):
            x = _analyse(x, axis)
        return x.flatten(4)

    def pixels(self, values: Tensor, patch: Grid) -> Tensor:
        """Pixels, at least float32: in bfloat16 the sums would lose the small coefficients."""
        x = values.to(torch.promote_types(values.dtype, torch.float32)).unflatten(-1, (*patch, -1))
        for axis in (4, 5, 6):
            x = _synthesise(x, axis)
        return x.flatten(4)


def _analyse(x: Tensor, axis: int) -> Tensor:
    """The values along an axis become their sum and their differences, coarse to fine."""
    details: list[Tensor] = []
    while x.shape[axis] > 1:
        first, second = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x, detail = (first + second) * math.sqrt(0.5), (first - second) * math.sqrt(0.5)
        details.insert(0, detail)
    return torch.cat([x, *details], dim=axis)


def _synthesise(x: Tensor, axis: int) -> Tensor:
    """Undo `_analyse`."""
    whole = x.narrow(axis, 0, 1)
    while (done := whole.shape[axis]) < x.shape[axis]:
        detail = x.narrow(axis, done, done)
        whole = (torch.stack([whole + detail, whole - detail], dim=axis + 1) * math.sqrt(0.5)).flatten(axis, axis + 1)
    return whole
