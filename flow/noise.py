"""Unit noise for latents from counters: a sample's noise depends on its seed and number, never on the batch it stands in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange, reduce
from torch import Tensor

from models.geometry import Grid
from runtime.seeding import Rng, Stream


def unit_noise(rng: Rng, samples: Sequence[int], channels: int, grid: Grid, first_frame: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
    """Unit normal noise, float32, on the CPU; a longer video begins with the noise of a shorter one.

    Args:
        samples: the number of each sample.
        grid: latent frames, height, width.
        first_frame: the latent frame of the sample at which this piece begins; below 0 before a video's beginning.
        stream: NOISE in training, SAMPLING in sampling.
    Returns: b c f h w.
    """
    f, h, w = grid
    drawn = rng.normal(stream, samples, f, (channels, h, w), first_frame)
    return rearrange(torch.from_numpy(drawn), "b f c h w -> b c f h w").contiguous()


class Noise(Protocol):
    """Where a sampling call's noise comes from."""

    def draw(self, seed: int, samples: Sequence[int], channels: int, grid: Grid, first_frame: int, stream: Stream = Stream.SAMPLING) -> Tensor:
        """Unit normal noise b c f h w, as `unit_noise`; of frames that are given from a stream of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Own:
    """Each sample's own."""

    def draw(self, seed: int, samples: Sequence[int], channels: int, grid: Grid, first_frame: int, stream: Stream = Stream.SAMPLING) -> Tensor:
        return unit_noise(Rng(seed), samples, channels, grid, first_frame, stream)


@dataclass(frozen=True, slots=True)
class Towards:
    """On the arc from a sample's own noise to that of another seed: clips between two clips.

    Args:
        seed: the other one; 0 <= seed < 2**64.
        share: of the way, 0 to 1.
    Raises: ValueError if share is out of range.
    Source: Shoemake 1985 (slerp); frame by frame, so that a longer video begins with the noise of a shorter one.
    """

    seed: int
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share} of the way between two seeds must lie in [0, 1]. Set noise.share.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed={self.seed!r} of the other noise must be a whole number >= 0 and below 2**64. Set noise.seed.")

    def draw(self, seed: int, samples: Sequence[int], channels: int, grid: Grid, first_frame: int, stream: Stream = Stream.SAMPLING) -> Tensor:
        one, other = (Own().draw(each, samples, channels, grid, first_frame, stream) for each in (seed, self.seed))
        return slerp(one, other, self.share)


def slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """The point a share of the way along the great arc between two noises b c f h w, each latent frame by itself; 0 and 1 are the ends."""
    if share in (0, 1):
        return other if share else one
    a, b = (rearrange(noise.double(), "b c f h w -> b f (c h w)") for noise in (one, other))
    cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=1e-12)
    angle = torch.arccos(cosine.clamp(-1, 1))[..., None]  # b f 1
    near = angle < 1e-6  # the same noise twice: any mixture is that noise
    safe = torch.where(near, torch.ones_like(angle), angle)
    weights = [torch.where(near, torch.full_like(angle, mine), torch.sin(mine * safe) / torch.sin(safe)) for mine in (1 - share, share)]
    c, h, w = one.shape[1], one.shape[3], one.shape[4]
    return rearrange((weights[0] * a + weights[1] * b).float(), "b f (c h w) -> b c f h w", c=c, h=h, w=w).contiguous()


@dataclass(frozen=True, slots=True)
class Coarse:
    """The noise of a picture `factor` times as large, averaged over squares and brought back to unit deviation: a draft and its full size begin
    with the same layout.

    Args:
        factor: >= 1, whole; 1 changes nothing.
        of: the noise of the full size.
    Raises: ValueError if factor is not a whole number >= 1.
    Source: the integral noise of Chang et al. 2024 ("How I warped your noise"), at whole factors.
    """

    factor: int
    of: Noise = Own()

    def __post_init__(self) -> None:
        if type(self.factor) is not int or self.factor < 1:
            raise ValueError(f"factor={self.factor!r} of a draft is not how many times as large a picture is: a whole number >= 1. Set noise.factor.")

    def draw(self, seed: int, samples: Sequence[int], channels: int, grid: Grid, first_frame: int, stream: Stream = Stream.SAMPLING) -> Tensor:
        k, (f, h, w) = self.factor, grid
        fine = self.of.draw(seed, samples, channels, (f, k * h, k * w), first_frame, stream)
        # The mean of k * k unit normals has a deviation of 1 / k.
        return reduce(fine, "b c f (h i) (w j) -> b c f h w", "mean", i=k, j=k).mul_(k) if k > 1 else fine
