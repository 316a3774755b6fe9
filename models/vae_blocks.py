"""The parts of the video VAE, channels last; every part sees a bounded neighbourhood, and no norm looks beyond its own position."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

# The eight neighbours of a position in its own frame, as (rows down, columns right).
NEIGHBOURS: tuple[tuple[int, int], ...] = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def norm(x: Tensor) -> Tensor:
    """Root-mean-square norm of each position over its own channels: what lies elsewhere cannot change it."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    return x * scale


def neighbours(x: Tensor) -> Tensor:
    """One eighth of the channels from each of the eight neighbours; zeros outside the frame.

    Shifting channels instead of gathering all of them makes a 3x3 mix cost one more linear input width, not eight.

    Args:
        x: b f h w d, d divisible by 8.
    """
    shares = x.split(x.shape[-1] // len(NEIGHBOURS), dim=-1)
    shifted = [F.pad(share, (0, 0, -right, right, -down, down)) for share, (down, right) in zip(shares, NEIGHBOURS, strict=True)]
    return torch.cat(shifted, dim=-1)  # b f h w d


class CausalBlock(nn.Module):
    """A residual mix of each position with its eight neighbours and, if it looks back, with its place in the frame before.

    Args:
        width: channels, divisible by 8.
        hidden: channels between its two linear layers.
        look_back: 0 or 1 latent frames.
    """

    def __init__(self, width: int, hidden: int, look_back: int) -> None:
        super().__init__()
        self.look_back = look_back
        self.mix = nn.Linear((2 + look_back) * width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Mix; hand on what the frame after these will look back at.

        Args:
            x: b f h w d.
            past: b 1 h w d, what the last call handed on; None at the beginning of a clip, before which all is zero.
        Returns: like x, and the new `past` (None if the block does not look back).
        """
        here = norm(x)
        seen = [here, neighbours(here)]
        if self.look_back:
            past = torch.zeros_like(here[:, :1]) if past is None else past
            seen.append(torch.cat([past, here[:, :-1]], dim=1))
            past = here[:, -1:].clone()  # a view would keep the whole chunk in memory
        x = x + self.out(F.gelu(self.mix(torch.cat(seen, dim=-1))))
        return x, past


class Merge(nn.Linear):
    """2x2 positions become one."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__(4 * width, wider)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(rearrange(x, "b f (h p) (w q) d -> b f h w (p q d)", p=2, q=2))


class Split(nn.Linear):
    """One position becomes 2x2."""

    def __init__(self, width: int, narrower: int) -> None:
        super().__init__(width, 4 * narrower)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(super().forward(x), "b f h w (p q d) -> b f (h p) (w q) d", p=2, q=2)
