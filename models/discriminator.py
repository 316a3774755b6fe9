"""A patch discriminator over clips and pictures: each of its logits sees a bounded part of one sample, and nothing mixes samples."""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.geometry import Grid

KERNEL = 3  # in time, height and width
LEAK = 0.2  # slope of the activation below zero
GAIN = (2 / (1 + LEAK**2)) ** 0.5  # keeps the deviation of what passes through such an activation
STORED = 0.1  # deviation of the weights as they are stored: a step of AdamW at 2e-3 changes them by 2 %


class ScaledConv(nn.Module):
    """A 3x3x3 convolution whose weights are stored with one deviation whatever their number, and scaled where they are used.

    A step of AdamW then changes every layer by the same share whatever its fan-in, so that the rate which moves the vectors of a VAE
    (2e-3, say) is also right here; unscaled weights of deviation 0.03 would be overrun by it.
    Source: Karras et al. 2018 (progressive growing of GANs), section 4.1.
    """

    def __init__(self, inputs: int, outputs: int, stride: Grid, gain: float) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(STORED * torch.randn(outputs, inputs, KERNEL, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / STORED / (inputs * KERNEL**3) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self.weight * self.scale, self.bias, self.stride, padding=KERNEL // 2)


class PatchDiscriminator(nn.Module):
    """Convolutions over b 3 t h w of any size, t = 1 included; one logit for each place that they end on.

    It has no norms: one over space, time or samples would let a logit see what lies elsewhere. R1 (`training.adversary`) keeps it in bounds.

    Args:
        widths: channels of each level.
        strides: (t, h, w) of each level. [1, 2, 2], [2, 2, 2], [2, 2, 2] gives logits at 4x8x8, each seeing 17 frames of 31 x 31 px.
    Raises: ValueError if the two differ in length.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        if not widths or len(widths) != len(strides) or min(widths) < 1 or min(map(min, strides)) < 1:
            raise ValueError(
                f"widths={list(widths)} and strides={[list(stride) for stride in strides]} must give a positive width and three positive strides "
                "for each level. Set objective.adversary.discriminator.widths and .strides."
            )
        self.levels = nn.ModuleList(
            ScaledConv(inputs, width, (t, h, w), GAIN) for inputs, width, (t, h, w) in zip((3, *widths[:-1]), widths, strides, strict=True)
        )
        self.head = ScaledConv(widths[-1], 1, (1, 1, 1), 1.0)

    def forward(self, video: Tensor) -> Tensor:
        """Logits b 1 t' h' w' float32 of clips b 3 t h w in [-1, 1]; above 0: looks real."""
        x = video
        for level in self.levels:
            x = F.leaky_relu(level(x), LEAK)
        return self.head(x).float()

    def shard_units(self) -> list[nn.Module]:
        """Parts that are sharded one by one when a model is spread over devices."""
        return [*self.levels, self.head]

    def flops(self, frames: int, height: int, width: int) -> int:
        """FLOP of one forward pass over one clip, two per multiply-add."""
        size, total = (frames, height, width), 0
        for layer in (*self.levels, self.head):
            assert isinstance(layer, ScaledConv)
            size = tuple(-(-length // stride) for length, stride in zip(size, layer.stride, strict=True))
            total += 2 * prod(size) * layer.weight.numel()
        return total
