"""A small transformer that says in one vector what a stretch of video is like; it learns from whatever objective reads that vector."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.attention import Fastest, Kernel, check_heads
from models.geometry import Grid, token_grid
from models.layers import Norm, linear, linear_flops
from models.packing import patchify
from models.segments import Segments
from models.text import TextBlock

FASTEST, SLOWEST = 1.0, 0.01  # radians per patch in space, per two frames in time, of the waves that say where a token stands
LEAST_SHARE = 1e-6  # of the largest variance: below it a direction carries rounding, and would only be blown up


class VideoEncoder(nn.Module):
    """Spacetime patches of a stretch of frames through transformer blocks (those of the small text transformer), and the mean over them.

    `features` gives that mean in its main directions, each of deviation 1 over real clips, so that no attribute drowns another: what a Frechet
    distance sees of raw activations is mostly the one that varies most. Frames are taken as they come, whatever their rate; any height and width.

    Args:
        frames: of a stretch, a multiple of the patch's.
        patch: pixels per token (frames, height, width).
        width: of the tokens, at least 6.
        depth: number of blocks.
        heads: must divide width.
        dimensions: of `features`, at most width.
        kernel: the attention back end; None: the fastest.
    Raises: ValueError if the sizes do not fit each other.
    """

    centre: Tensor
    directions: Tensor

    def __init__(self, frames: int, patch: Sequence[int], width: int, depth: int, heads: int, dimensions: int, kernel: Kernel | None = None) -> None:
        super().__init__()
        check_heads(width, heads)
        if len(patch) != 3 or min(patch) < 1 or frames < 1 or frames % patch[0]:
            raise ValueError(f"frames={frames}, patch={tuple(patch)}: wanted three sizes, the first dividing frames. Set objective.encoder.")
        if width < 6 or depth < 1 or not 1 <= dimensions <= width:
            wanted = "wanted width >= 6, depth >= 1 and 1 to width dimensions"
            raise ValueError(f"width={width}, depth={depth}, dimensions={dimensions}: {wanted}. Set objective.encoder.")
        self.frames, self.width, self.dimensions = frames, width, dimensions
        self.patch: Grid = (patch[0], patch[1], patch[2])
        self.video_in = linear(3 * math.prod(self.patch), width)
        self.blocks = nn.ModuleList(TextBlock(width, heads, kernel or Fastest()) for _ in range(depth))
        self.norm = Norm(width)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("directions", torch.eye(width, dimensions))

    def forward(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """The mean over tokens (b d) of stretches b 3 frames h w in [-1, 1].

        Args:
            visible: (b, k), numbers of the tokens that are looked at; None: all. Fewer cost less.
        Raises: ValueError if the stretches have another number of frames.
        """
        if video.ndim != 5 or video.shape[1:3] != (3, self.frames):
            raise ValueError(f"video has shape {tuple(video.shape)}, wanted (b, 3, {self.frames}, h, w). Set objective.encoder.frames.")
        b = len(video)
        tokens = patchify(video, self.patch).unflatten(0, (b, -1))  # b l c
        places = self._places(self.tokens(*video.shape[3:]), video.device)  # l d
        if visible is None:
            x = self.video_in(tokens).float() + places
        else:
            x = self.video_in(tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))).float() + places[visible]
        segments = Segments((x.shape[1],) * b, (x.shape[1],) * b)
        x = x.flatten(0, 1)  # n d
        for block in self.blocks:
            x = block(x, segments)
        return self.norm(x).unflatten(0, (b, -1)).mean(dim=1)

    def features(self, video: Tensor) -> Tensor:
        """(b, dimensions) of stretches b 3 frames h w in [-1, 1]: see above."""
        return (self(video) - self.centre) @ self.directions

    @torch.no_grad()
    def set_statistics(self, means: Tensor) -> None:
        """Measure what `features` are given in on `forward`'s results (n, width) for real clips.

        Raises: ValueError if they are not more than `dimensions`: the least of the directions would be chance.
        """
        if len(means) <= self.dimensions:
            what = f"{len(means)} validation clips give no {self.dimensions} directions of features"
            raise ValueError(f"{what}: more are needed than dimensions. Set data.val_samples and data.hold_out, or objective.encoder.dimensions.")
        values = means.double().cpu()  # no eigenvectors in bf16, and the same ones whatever the device
        centre = values.mean(dim=0)
        variances, vectors = torch.linalg.eigh((values - centre).mT @ (values - centre) / (len(values) - 1))  # ascending
        floor = float(variances[-1]) * LEAST_SHARE + 1e-12
        scaled = vectors.flip(1)[:, : self.dimensions] / variances.flip(0)[: self.dimensions].clamp(min=floor).sqrt()
        self.centre.copy_(centre)
        self.directions.copy_(scaled)

    def tokens(self, height: int, width: int) -> Grid:
        """Tokens (t, h, w) of a stretch of this size."""
        return token_grid((self.frames, height, width), self.patch)

    def shard_units(self) -> list[nn.Module]:
        """The modules to shard, compile or checkpoint one by one, in the order in which they run."""
        return list(self.blocks)

    def flops(self, samples: int, tokens: int) -> int:
        """Forward FLOP for stretches of which so many tokens are looked at."""
        segments = Segments((tokens,) * samples, (tokens,) * samples)
        total = linear_flops(self.video_in, samples * tokens)
        for block in self.blocks:
            assert isinstance(block, TextBlock)
            total += block.attention.flops(segments) + block.mlp.flops(samples * tokens)
        return total

    def _places(self, grid: Grid, device: torch.device) -> Tensor:
        """Where each token stands, l d: a third of the channels for time, height and width each, places in space counted from the centre."""
        axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
        axes = [axes[0] * self.patch[0] / 2, *(axis - (len(axis) - 1) / 2 for axis in axes[1:])]
        half = self.width // 6
        rates = FASTEST * (SLOWEST / FASTEST) ** (torch.arange(half, device=device) / half)
        waves = [torch.cat([torch.sin(axis[:, None] * rates), torch.cos(axis[:, None] * rates)], dim=1) for axis in axes]
        t, h, w = grid
        parts = (waves[0][:, None, None].expand(t, h, w, -1), waves[1][None, :, None].expand(t, h, w, -1), waves[2].expand(t, h, w, -1))
        table = torch.cat(parts, dim=-1).flatten(0, 2)
        return nn.functional.pad(table, (0, self.width - table.shape[1]))
