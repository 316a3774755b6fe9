"""How flow time and pooled text steer the blocks; whatever the way, a block's own part is zero at the start."""

from typing import Protocol

import torch
from torch import Tensor, nn

from models.layers import linear


class Modulation(Protocol):
    """How conditions (r d) become the shifts, scales and gates of each block: a part that blocks share and one of their own."""

    def shared(self, width: int, parts: int) -> nn.Module:
        """Applied once a forward to the conditions (r d)."""
        ...

    def own(self, width: int, parts: int) -> nn.Module:
        """Applied in each block to what `shared` made of the same or more parts, the first of which it takes; r (parts d), zero at the start."""
        ...


class PerBlock:
    """adaLN-zero with a linear layer in each block (Peebles and Xie 2023): costs half as many parameters again, hardly any FLOP."""

    def shared(self, width: int, parts: int) -> nn.Module:
        """Nothing is shared."""
        return nn.Identity()

    def own(self, width: int, parts: int) -> nn.Module:
        """A linear layer."""
        return linear(width, parts * width, gain=0)


class Table(nn.Module):
    """Adds a learnt row to the first channels of every row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor) -> Tensor:
        """r k -> r w, as wide as the learnt row."""
        return rows[:, : len(self.row)] + self.row


class Shared:
    """adaLN-single (Chen et al. 2023, PixArt-alpha): one linear layer for all blocks and a learnt row for each; the choice for wide models."""

    def shared(self, width: int, parts: int) -> nn.Module:
        """The linear layer."""
        return linear(width, parts * width, gain=0)

    def own(self, width: int, parts: int) -> nn.Module:
        """The learnt row."""
        return Table(parts * width)


class Beside(nn.Module):
    """Puts what a linear layer makes of a row beside the row itself."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.layer = linear(width, parts * width, gain=0)

    def forward(self, rows: Tensor) -> Tensor:
        """r d -> r (1 + parts) d."""
        return torch.cat([rows, self.layer(rows).to(rows.dtype)], dim=1)


class Update(nn.Module):
    """A block's own update of low rank to what all blocks share."""

    def __init__(self, width: int, parts: int, rank: int) -> None:
        super().__init__()
        self.width, self.parts = width, parts
        self.down, self.up = linear(width, rank, bias=False), linear(rank, parts * width, gain=0)

    def forward(self, rows: Tensor) -> Tensor:
        """r (1 + parts or more) d -> r (parts d)."""
        conditions, shared = rows[:, : self.width], rows[:, self.width : (1 + self.parts) * self.width]
        return shared + self.up(self.down(conditions))


class LowRank:
    """A shared linear layer and an update of low rank in each block (adaLN-LoRA, NVIDIA 2025, Cosmos): between `Shared` and `PerBlock`.

    Args:
        rank: r of the update, which costs a block 7 r + 6 parameters a channel where `PerBlock` costs it 6 times the width.
    """

    def __init__(self, rank: int) -> None:
        if rank < 1:
            raise ValueError(f"rank={rank} leaves no update: at least 1 is needed. Set modulation.rank, or take modulation=shared.")
        self.rank = rank

    def shared(self, width: int, parts: int) -> nn.Module:
        """The linear layer, beside the conditions that each block's update reads."""
        return Beside(width, parts)

    def own(self, width: int, parts: int) -> nn.Module:
        """The update. Raises: ValueError if its rank is no lower than the width."""
        if self.rank >= width:
            raise ValueError(f"rank={self.rank} is not below the width={width} of the DiT. Set modulation.rank, or take modulation=per_block.")
        return Update(width, parts, self.rank)
