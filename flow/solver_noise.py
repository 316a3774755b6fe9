"""The noise that a stochastic solver adds, from counters: a step's noise depends on seed, sample, latent frame and step, on nothing else."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from models.geometry import Grid
from runtime.seeding import Rng, Stream, generator


def solver_noise(rng: Rng, samples: Sequence[int], channels: int, grid: Grid, first_frame: int = 0) -> Callable[[int], Tensor]:
    """What `integrate` asks for the noise of its steps: number of the step -> unit normal b c f h w, float32, on the CPU.

    Args:
        samples: the number of each sample.
        grid: latent frames, height, width.
        first_frame: the latent frame of the sample at which this piece begins; below 0 before a video's beginning.
    """
    f, h, w = grid
    frames = [(first_frame + frame) % 2**64 for frame in range(f)]

    def draw(step: int) -> Tensor:
        random = [generator(rng.seed, Stream.SOLVER, sample, frame, step) for sample in samples for frame in frames]
        drawn = np.stack([each.standard_normal((channels, h, w), dtype=np.float32) for each in random])
        return rearrange(torch.from_numpy(drawn), "(b f) c h w -> b c f h w", f=f).contiguous()

    return draw
