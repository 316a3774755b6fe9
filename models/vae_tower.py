"""The stack of blocks between patches and latents: what it sees in time and space, and what it costs, follow from its layers alone."""

from collections.abc import Sequence
from math import ceil

from torch import Tensor, nn

from models.vae_blocks import CausalBlock, Merge, Mixing, Split

# What each block that looks back must remember between two chunks of a stream.
State = list[Tensor | None]


class Tower(nn.Module):
    """Blocks and the changes of resolution between them; runs on a whole clip or on a chunk with the state of the chunk before."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    @property
    def look_back(self) -> int:
        """How many frames before a frame can change it."""
        return sum(layer.look_back for layer in self.layers if isinstance(layer, CausalBlock))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        handed = []
        for number, layer in enumerate(self.layers):
            past = None
            if isinstance(layer, CausalBlock):
                x, past = layer(x, state[number] if state is not None else None)
            else:
                x = layer(x)
            handed.append(past)
        return x, handed

    def flops(self, positions: int) -> int:
        """FLOP of matrix products and convolutions over so many positions at its entrance, two per multiply-add."""
        total = 0
        for layer in self.layers:
            if isinstance(layer, Merge):
                positions //= 4
                total += linear_flop(layer, positions)
            elif isinstance(layer, Split):
                total += linear_flop(layer.paint, positions)
                positions *= 4
                total += 2 * 9 * positions * layer.paint.out_features // 4  # the window
            elif isinstance(layer, CausalBlock):
                total += linear_flop(layer.mix, positions) + linear_flop(layer.out, positions)
        return total


def encoder(widths: Sequence[int], depths: Sequence[int], look_back: int, expand: int, mixing: Mixing) -> Tower:
    """Fine to coarse; the last `look_back` blocks look back one frame each."""
    layers: list[nn.Module] = []
    after = sum(depths)
    for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if level:
            layers.append(Merge(widths[level - 1], width))
        for _ in range(depth):
            layers.append(CausalBlock(width, expand * width, int(after <= look_back), mixing))
            after -= 1
    return Tower(layers)


def decoder(widths: Sequence[int], depths: Sequence[int], look_back: int, expand: int, mixing: Mixing) -> Tower:
    """Coarse to fine; the first `look_back` blocks look back one frame each. Widths and depths are given fine to coarse."""
    layers: list[nn.Module] = []
    before = 0
    for level in reversed(range(len(widths))):
        for _ in range(depths[level]):
            layers.append(CausalBlock(widths[level], expand * widths[level], int(before < look_back), mixing))
            before += 1
        if level:
            layers.append(Split(widths[level], widths[level - 1]))
    return Tower(layers)


def reach(depths: Sequence[int], window: int, head: int = 0) -> int:
    """Coarsest positions around one that it depends on, through blocks that see one position farther each.

    Args:
        depths: blocks of each level, fine to coarse.
        window: positions that a change of resolution sees beyond its own, on the finer side: 1 for Split, 0 for Merge.
        head: finest positions that the last layer sees beyond its own.
    """
    seen = head + depths[0]
    for depth in depths[1:]:
        seen = ceil((seen + window) / 2) + depth  # half as many positions of twice the size
    return seen


def linear_flop(layer: nn.Linear, positions: int) -> int:
    """FLOP of a linear layer, or of the convolution whose kernel it holds, two per multiply-add."""
    return 2 * positions * layer.in_features * layer.out_features
