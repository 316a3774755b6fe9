"""Rotary positions in real time and relative space; attention scores depend on differences of positions alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.geometry import Grid, Layout
from models.rope_scaling import Plain, RopeScaling

POSITIONS_PER_SECOND = 6  # 24 fps at temporal stride 4 gives the integers
TABLES = 8  # shapes whose tables are kept


def rotate_(x: Tensor, table: Tensor) -> Tensor:
    """Turn the channel pairs of x (n ... d) in place by a table of unit complex numbers (n d/2); norms are kept.

    Complex products are the fastest eager form on a CPU (0.36 ms against 1.7 to 3.1 for real-valued ones, 3,328 x 384).
    """
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # n ... d/2
    pairs.mul_(table.reshape(len(table), *[1] * (pairs.ndim - 2), -1))
    return x


def _same(moments: Tensor, kept: Tensor, version: int) -> bool:
    """Whether moments still holds what `kept` held; elsewhere than on a CPU without looking at values, which would wait for the device."""
    if moments.is_inference() or kept.is_inference() or kept._version != version:
        return False
    return moments is kept or (moments.device.type == "cpu" and torch.equal(moments, kept))


def default_axes(head_width: int) -> Grid:
    """A quarter of the channels for time, the rest shared by height and width."""
    if head_width % 16:
        raise ValueError(f"a head of {head_width} channels has no default split over time, height and width: use a multiple of 16, or set rope_axes.")
    return head_width // 4, 3 * head_width // 8, 3 * head_width // 8


class Rope(nn.Module):
    """Rotary embedding over (time, height, width); it has no parameters.

    Time is the second at which a latent frame ends, times 6, whatever the frame rate and whatever stands before or after it. Height and
    width are patch indices counted from the centre, so the middle of a video stays at 0 at any size.

    Args:
        head_width: channels of a head.
        axes: channels of a head for time, height, width; even, summing to head_width.
        theta: ratio of the slowest wavelength to the fastest; about the longest distance, in positions, that should be told apart.
        scaling: for longer and larger than trained; may be exchanged at any time.
    """

    def __init__(self, head_width: int, axes: Sequence[int], theta: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        if sum(axes) != head_width or len(axes) != 3 or any(size % 2 or size < 0 for size in axes):
            raise ValueError(
                f"rope_axes={tuple(axes)} sum to {sum(axes)}, but a head has {head_width} channels: three even numbers that sum to it are needed. "
                "Set rope_axes, width or heads."
            )
        if theta <= 1:
            raise ValueError(f"rope_theta={theta} must be greater than 1. Set rope_theta (100 for small grids, 10000 for long videos).")
        self.axes = tuple(axes)
        self.theta = theta
        self.scaling: RopeScaling = scaling or Plain()
        self._tables: dict[tuple[Layout, RopeScaling, torch.dtype, torch.device], tuple[Tensor, int, Tensor]] = {}

    def turns(self, positions: Tensor, axis: int) -> Tensor:
        """Positions (k,) along one axis as unit complex numbers (k, axes[axis] / 2), one per channel pair."""
        # float32 at least: bf16 positions collide above 256
        angles = self.scaling.angles(positions, self.axes[axis] // 2, self.theta, axis)
        return torch.polar(torch.ones_like(angles), angles)

    def table(self, layout: Layout, moments: Tensor) -> Tensor:
        """Unit complex numbers (n d/2) for each video token of `layout`.

        The last few are kept (0.4 ms each on a CPU at 1,280 tokens): a sampler asks for the same one at each step.

        Args:
            moments: (F,) seconds, the latent frames of all samples in order; (b, f) for a batch, as a view would be another tensor at each step.
        """
        key = (layout, self.scaling, moments.dtype, moments.device)
        kept = self._tables.pop(key, None)
        if kept is None or not _same(moments, kept[0], kept[1]):
            with torch.inference_mode(False):  # a later pass may need gradients
                kept = moments, -1 if moments.is_inference() else moments._version, self._table(layout, moments.flatten())
        self._tables[key] = kept  # the last in is the last to go
        for old in list(self._tables)[:-TABLES]:  # another thread may be at it too
            self._tables.pop(old, None)
        return kept[2]

    def _table(self, layout: Layout, moments: Tensor) -> Tensor:
        positions = moments.to(torch.promote_types(moments.dtype, torch.float32)) * POSITIONS_PER_SECOND
        time = self.turns(positions, 0)  # F dt/2
        shapes = {grid[1:] for grid in layout.grids}
        spaces = {shape: self._space(*shape, positions) for shape in shapes}  # (h w) (dh + dw)/2 each
        if len(shapes) == 1:
            (space,) = spaces.values()
            pair = time[:, None].expand(-1, len(space), -1), space[None].expand(len(time), -1, -1)  # F s ...
            return torch.cat(pair, dim=2).flatten(0, 1)
        time = time.repeat_interleave(torch.tensor(layout.tokens_per_frame, device=time.device), dim=0, output_size=sum(layout.tokens))
        return torch.cat([time, torch.cat([spaces[grid[1:]].repeat(grid[0], 1) for grid in layout.grids])], dim=1)

    def _space(self, h: int, w: int, like: Tensor) -> Tensor:
        rows, columns = (
            self.turns(torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2, axis) for axis, size in ((1, h), (2, w))
        )
        return torch.cat([rows[:, None].expand(-1, w, -1), columns[None].expand(h, -1, -1)], dim=2).flatten(0, 1)
