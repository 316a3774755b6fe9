"""The parts of the video VAE, channels last; every part sees a bounded neighbourhood, and no norm looks beyond its own position."""

from typing import Protocol

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


def neighbours(x: Tensor) -> list[Tensor]:
    """One eighth of the channels from each of the eight neighbours, b f h w d/8 each; zeros outside the frame.

    Shifting channels instead of gathering all of them makes a 3x3 mix cost one more linear input width, not eight.

    Args:
        x: b f h w d, d divisible by 8.
    """
    shares = x.split(x.shape[-1] // len(NEIGHBOURS), dim=-1)
    return [F.pad(share, (0, 0, -right, right, -down, down)) for share, (down, right) in zip(shares, NEIGHBOURS, strict=True)]


def smooth(x: Tensor) -> Tensor:
    """Each channel of each frame, b f h w d, under the window (1 2 1) x (1 2 1) / 16; zeros outside the frame."""
    ramp = 0.5 - 0.25 * torch.arange(-1, 2, device=x.device, dtype=x.dtype).abs()
    window = (ramp[:, None] * ramp).expand(x.shape[-1], 1, 3, 3)
    images = rearrange(x, "b f h w d -> (b f) d h w")  # a view: its strides are those of channels last
    return rearrange(F.conv2d(images, window, padding=1, groups=x.shape[-1]), "(b f) d h w -> b f h w d", b=x.shape[0])


class Mixing(Protocol):
    """Which places a block mixes, and by what operation; its weights are the rows of one matrix, `layer`."""

    def inputs(self, look_back: int) -> int:
        """Input width of `layer` in units of the block's width."""
        ...

    def __call__(self, layer: nn.Linear, here: Tensor, before: Tensor | None) -> Tensor:
        """What `layer` makes of each position, its eight neighbours in `here`, b f h w d, and what it sees of `before`, the frames one earlier."""
        ...


class Shift:
    """All channels of a position, an eighth from each neighbour, and its own place in the frame before: one matrix product, the fastest on a CPU."""

    def inputs(self, look_back: int) -> int:
        return 2 + look_back

    def __call__(self, layer: nn.Linear, here: Tensor, before: Tensor | None) -> Tensor:
        seen = [here, *neighbours(here)]
        return layer(torch.cat(seen if before is None else [*seen, before], dim=-1))


class Convolution:
    """All channels of all nine places, and of the nine in the frame before: a causal convolution over time and space, for GPUs.

    Two frames as channels of one image make it a 2D convolution on channels-last memory. The kernel is kept as a matrix, (rows, columns, channels) in
    one axis, so that an optimiser of matrices moves it too.
    """

    def inputs(self, look_back: int) -> int:
        return 9 * (1 + look_back)

    def __call__(self, layer: nn.Linear, here: Tensor, before: Tensor | None) -> Tensor:
        seen = here if before is None else torch.cat([here, before], dim=-1)
        kernel = rearrange(layer.weight, "o (y x i) -> o i y x", y=3, x=3)  # a view: channels last as well
        images = rearrange(seen, "b f h w d -> (b f) d h w")
        return rearrange(F.conv2d(images, kernel, layer.bias, padding=1), "(b f) d h w -> b f h w d", b=here.shape[0])


class CausalBlock(nn.Module):
    """A residual mix of each position with its eight neighbours and, if it looks back, with the frame before.

    Args:
        width: channels, divisible by 8.
        hidden: channels between its two linear layers.
        look_back: 0 or 1 latent frames.
        mixing: how much of its neighbourhood it sees.
    """

    def __init__(self, width: int, hidden: int, look_back: int, mixing: Mixing) -> None:
        super().__init__()
        self.look_back, self.mixing = look_back, mixing
        self.mix = nn.Linear(mixing.inputs(look_back) * width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Mix; hand on what the frame after these will look back at.

        Args:
            x: b f h w d.
            past: b 1 h w d, what the last call handed on; None at the beginning of a clip, before which all is zero.
        Returns: like x, and the new `past` (None if the block does not look back).
        """
        here = norm(x)
        before = None
        if self.look_back:
            past = torch.zeros_like(here[:, :1]) if past is None else past
            before = torch.cat([past, here[:, :-1]], dim=1)
            past = here[:, -1:].clone()  # a view would keep the whole chunk in memory
        return x + self.out(F.gelu(self.mixing(self.mix, here, before))), past


class Merge(nn.Linear):
    """2x2 positions become one."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__(4 * width, wider)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(rearrange(x, "b f (h p) (w q) d -> b f h w (p q d)", p=2, q=2))


class Split(nn.Module):
    """One position becomes 2x2, smeared over 4x4 by a window, so that what neighbours paint overlaps.

    Without the window each paints its own square, and the squares stay visible: on textured clips the gradient across 8 px borders was 1.5 times
    that inside, with it 1.0.
    """

    def __init__(self, width: int, narrower: int) -> None:
        super().__init__()
        self.paint = nn.Linear(width, 4 * narrower)

    def forward(self, x: Tensor) -> Tensor:
        return smooth(rearrange(self.paint(x), "b f h w (p q d) -> b f (h p) (w q) d", p=2, q=2))
