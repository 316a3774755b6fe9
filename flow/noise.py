"""Unit noise for latents from counters: a sample's noise depends on its seed and number, never on the batch it stands in."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from models.geometry import Grid
from runtime.seeding import Rng, Stream


def unit_noise(rng: Rng, samples: Sequence[int], channels: int, grid: Grid, first_frame: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
    """Unit normal noise, float32, on the CPU; a longer video begins with the noise of a shorter one.

    Args:
        samples: the number of each sample.
        grid: latent frames, height, width.
        first_frame: the latent frame of the sample at which this piece begins.
        stream: NOISE in training, SAMPLING in sampling.
    Returns: b c f h w.
    """
    f, h, w = grid
    drawn = rng.normal(stream, samples, f, (channels, h, w), first_frame)
    return rearrange(torch.from_numpy(drawn), "b f c h w -> b c f h w").contiguous()
