"""Pictures of a clip that the VAE encodes alone: which ones follows from the row and from the clip's length, so that a cache can hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from runtime.seeding import Stream, generator

AT_ONCE_PX = 2**21  # of pictures that are encoded together: no setting, since a latent's last bits depend on what it is encoded with


@dataclass(frozen=True, slots=True)
class StillFrames:
    """Which frames of a clip are encoded alone: the last one of every latent frame but the first, and others drawn by the row.

    Args:
        stride_t: of the VAE, pixel frames of a latent frame.
        drawn: how many others; a clip that has fewer gives all. 0: none of either.
    """

    stride_t: int
    drawn: int

    def __str__(self) -> str:
        return f"the last of every {self.stride_t} frames and {self.drawn} drawn"

    def of(self, row: int, frames: int) -> np.ndarray:
        """Pixel frame numbers of one clip, (m,) int64, each once and never 0: first those that end a latent frame, in order, then the drawn.

        With f latent frames m = f - 1 + drawn, at most frames - 1: a function of the length alone, so that clips of a shape stack.
        """
        numbers = np.arange(1, frames)
        ends, others = numbers[numbers % self.stride_t == 0], numbers[numbers % self.stride_t > 0]
        chosen = generator(0, Stream.STILLS, row).permutation(len(others))[: self.drawn]  # no seed: runs of any seed share a cache
        return np.concatenate([ends, others[chosen]])

    def table(self, rows: Sequence[int], frames: int) -> Tensor | None:
        """Of clips of one length, (b, m) int64; None where there are none, as of single frames."""
        return torch.from_numpy(np.stack([self.of(row, frames) for row in rows])) if self.drawn and frames > 1 else None


NO_STILLS = StillFrames(1, 0)


def encode_stills(encode: Callable[[Tensor], Tensor], video: Tensor, frames: Tensor) -> Tensor:
    """Pictures out of clips, each encoded as a video of one frame.

    Args:
        encode: b c 1 h w -> b c 1 h w latents; called with at most AT_ONCE_PX, or with a single picture.
        video: b c t h w.
        frames: (b, m) int64, which of its frames.
    Returns: b c m h w latents, where `encode` leaves them.
    """
    _, c, _, h, w = video.shape
    pictures = video.gather(2, frames[:, None, :, None, None].expand(-1, c, -1, h, w))  # b c m h w
    pictures = rearrange(pictures, "b c m h w -> (b m) c 1 h w")
    latents = torch.cat([encode(part) for part in pictures.split(max(1, AT_ONCE_PX // (h * w)))])
    return rearrange(latents, "(b m) c 1 h w -> b c m h w", m=frames.shape[1])
