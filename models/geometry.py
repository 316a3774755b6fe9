"""Arithmetic from pixel frames to latent frames, their moments and tokens; it knows no network, so every floor may use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

Grid = tuple[int, int, int]  # (t, h, w) counts or strides


def latent_frames(frames: int, stride_t: int) -> int:
    """Latent frames of a clip: 1 + (frames - 1) / stride_t; the first frame has a latent of its own.

    Raises: ValueError naming the nearest legal counts if frames is not 1 + k * stride_t.
    """
    if frames < 1 or (frames - 1) % stride_t:
        below = max(1, frames - (frames - 1) % stride_t)
        nearest = f"{below} or {below + stride_t}" if frames >= 1 else "1"
        raise ValueError(
            f"frames={frames} cannot be encoded: the VAE's temporal stride is {stride_t}, so frames must be 1 + {stride_t}k ({nearest}). Set frames."
        )
    return 1 + (frames - 1) // stride_t


def pixel_frames(latents: int, stride_t: int) -> int:
    """Pixel frames of `latents` latent frames: 1 + (latents - 1) * stride_t."""
    return 1 + (latents - 1) * stride_t


def moments(frames: int, fps: Tensor, stride_t: int) -> Tensor:
    """Seconds at which each latent frame ends: its last pixel frame / fps, so the first frame stands at 0.

    Args:
        frames: latent frames of each clip.
        fps: (b,) pixel frames per second.
    Returns: (b, frames) in float32.
    Raises: ValueError if an fps on the CPU is not positive; elsewhere looking at values would wait for the device.
    """
    if fps.ndim != 1:
        raise ValueError(f"fps has shape {tuple(fps.shape)}, wanted (b,): one frame rate per clip.")
    if fps.device.type == "cpu" and not bool((fps > 0).all()):
        raise ValueError(f"fps must be positive, got {float(fps.min()):g}. Set fps.")
    return torch.arange(frames, device=fps.device) * stride_t / fps.float()[:, None]


def latent_grid(frames: int, height: int, width: int, stride: Grid) -> Grid:
    """The latent grid (f, h, w) of a clip.

    Raises: ValueError naming the nearest legal sizes if the clip is off the grid.
    """
    for name, size, step in (("height", height, stride[1]), ("width", width, stride[2])):
        if size < step or size % step:
            below = max(step, size - size % step)
            raise ValueError(f"{name}={size} is off the VAE's grid: it must be a multiple of {step} ({below} or {below + step}). Set {name}.")
    return latent_frames(frames, stride[0]), height // stride[1], width // stride[2]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which token belongs to which latent frame of which sample.

    Samples stand one after another, each frame-major: tokens of frame 0, of frame 1... `grids` counts tokens (after the DiT's patch),
    `text` counts the text tokens of each sample. Integers only: a layout is hashable and can key a cache.
    """

    grids: tuple[Grid, ...]
    text: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.grids) == len(self.text) > 0, "a layout needs one grid and one text length per sample"

    @classmethod
    def batch(cls, samples: int, grid: Grid, text: int) -> "Layout":
        """The layout of `samples` videos of one shape."""
        return cls((grid,) * samples, (text,) * samples)

    @property
    def uniform(self) -> bool:
        """Whether every sample has the same grid and text length, so that the sequence is a batch."""
        return len(set(self.grids)) == 1 and len(set(self.text)) == 1

    @property
    def frames(self) -> tuple[int, ...]:
        """Latent frames per sample; their sum is F."""
        return tuple(f for f, _, _ in self.grids)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Video tokens per sample."""
        return tuple(f * h * w for f, h, w in self.grids)

    @property
    def joint(self) -> tuple[int, ...]:
        """Video and text tokens per sample."""
        return tuple(video + text for video, text in zip(self.tokens, self.text, strict=True))

    @property
    def tokens_per_frame(self) -> tuple[int, ...]:
        """Tokens of each of the F frames, all samples in order."""
        return tuple(h * w for f, h, w in self.grids for _ in range(f))


def bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(start, stop) of consecutive segments of the given lengths."""
    stops = list(accumulate(lengths))
    return list(zip([0, *stops], stops, strict=False))


def token_grid(latents: Grid, patch: Grid) -> Grid:
    """Tokens (f, h, w) of a latent grid; a patch that sticks out at the lower or right edge is a token too."""
    f, h, w = (-(-size // step) for size, step in zip(latents, patch, strict=True))
    return f, h, w
