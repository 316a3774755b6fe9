"""Which tokens may look at which, as segments and never as a mask on the hot path; `allowed` is the definition, `segments` what runs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from models.geometry import Grid, Layout, bounds
from models.segments import SHAPES, Part, Segments, plain

# Text keys of one video: at a width of 1,024 a GiB of keys and as much of values in bf16, in every such block. Against too many videos at once,
# which fill the memory with all else as well, there are smaller batches.
MOST_COPIES = 1 << 19
ALTERNATING = 2  # kept for each shape: even and odd blocks differ

# Text tokens are not in the attention / are part of the sequence / are further keys of the video's queries. A sample's text follows its video.
Where = Literal["none", "tokens", "keys"]


class Pattern(Protocol):
    """Which tokens may look at which.

    Attributes:
        whole: whether every frame hears of every other, so that pictures which stand behind a clip reach all of it.
    """

    whole: ClassVar[bool]

    def at(self, block: int) -> "Pattern":
        """The pattern of block number `block`."""
        ...

    def segments(self, layout: Layout, text: Where) -> Segments:
        """What runs; remembered, so the same layout gets the same object."""
        ...

    def allowed(self, layout: Layout, text: Where) -> Tensor:
        """The definition: dense bool (queries, keys)."""
        ...


@dataclass(frozen=True, slots=True)
class Full:
    """Every token of a sample looks at every token of that sample."""

    whole: ClassVar[bool] = True

    def at(self, block: int) -> "Full":
        """The same everywhere."""
        return self

    def segments(self, layout: Layout, text: Where) -> Segments:
        """One segment per sample."""
        return _full(layout, text)

    def allowed(self, layout: Layout, text: Where) -> Tensor:
        """Same sample."""
        queries, keys = _places(layout, text)
        return queries[:, None, 0] == keys[None, :, 0]


@dataclass(frozen=True, slots=True)
class Causal:
    """A frame looks at its own and earlier frames and at the text; text looks at text alone, so no later frame reaches an earlier one through it."""

    whole: ClassVar[bool] = False

    def at(self, block: int) -> "Causal":
        """The same everywhere."""
        return self

    def segments(self, layout: Layout, text: Where) -> Segments:
        """One segment per frame, whose keys are a prefix of its sample once text stands first."""
        return _causal(layout, text)

    def allowed(self, layout: Layout, text: Where) -> Tensor:
        """Same sample, and the key is text or of no later frame."""
        queries, keys = (part[None] for part in _places(layout, text))
        queries = queries.transpose(0, 1)  # q 1 4
        same, words = queries[..., 0] == keys[..., 0], keys[..., 1] < 0
        return same & (words | (keys[..., 1] <= queries[..., 1]))


@dataclass(frozen=True, slots=True)
class Tiled:
    """A video token looks at the tile of space-time that it stands in and at the text, text at text; every other block's tiles are shifted.

    Tiles at the edges are smaller where the window does not divide the video or is shifted; along an axis no longer than the window there is
    one tile.

    Args:
        window: tokens (t, h, w) of a tile.
        offset: size of the first tile along each axis; 0 for a whole one. `at` sets it to half a window in odd blocks.
    """

    whole: ClassVar[bool] = False
    window: Grid
    offset: Grid = (0, 0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", tuple(self.window))
        object.__setattr__(self, "offset", tuple(self.offset))
        if len(self.window) != 3 or min(self.window) < 1:
            raise ValueError(f"window={self.window} is no tile: three counts of tokens (t, h, w) of at least 1 are needed. Set pattern.window.")

    def at(self, block: int) -> "Tiled":
        """Shifted by half a window in odd blocks."""
        half = (self.window[0] // 2, self.window[1] // 2, self.window[2] // 2)
        return replace(self, offset=half if block % 2 else (0, 0, 0))

    def segments(self, layout: Layout, text: Where) -> Segments:
        """One segment per tile, tiles of one size together."""
        return _tiled(layout, text, self.window, self.offset)

    def allowed(self, layout: Layout, text: Where) -> Tensor:
        """Same sample, and the key is text or both stand in one tile."""
        queries, keys = _places(layout, text)
        same, words = queries[:, None, 0] == keys[None, :, 0], keys[:, 1] < 0
        near = (queries[:, 1] >= 0)[:, None] & ~words[None]
        for axis, (window, offset) in enumerate(zip(self.window, self.offset, strict=True), 1):
            sizes = torch.tensor([grid[axis - 1] for grid in layout.grids])
            tiles = [(part[:, axis] - offset).div(window, rounding_mode="floor") * (sizes[part[:, 0]] > window) for part in (queries, keys)]
            near &= tiles[0][:, None] == tiles[1][None]
        return same & (near | words[None])


@dataclass(frozen=True, slots=True)
class Factorised:
    """Even blocks look within a frame, odd blocks at one place through time (Ma et al. 2024, Latte); text as in `Tiled`.

    Args:
        along: set by `at`.
    """

    whole: ClassVar[bool] = True
    along: Literal["space", "time"] = "space"

    def at(self, block: int) -> "Factorised":
        """Space in even blocks, time in odd ones."""
        return Factorised("time" if block % 2 else "space")

    def segments(self, layout: Layout, text: Where) -> Segments:
        """One segment per frame, or per place."""
        return _tiled(layout, text, *self._tiles())

    def allowed(self, layout: Layout, text: Where) -> Tensor:
        """Same sample, and the key is text or of the same frame or place."""
        queries, keys = (part[None] for part in _places(layout, text))
        queries = queries.transpose(0, 1)  # q 1 4
        same, words = queries[..., 0] == keys[..., 0], keys[..., 1] < 0
        axes = slice(1, 2) if self.along == "space" else slice(2, 4)
        near = (queries[..., axes] == keys[..., axes]).all(dim=-1) & (queries[..., 1] >= 0)
        return same & (words | (near & ~words))

    def _tiles(self) -> tuple[Grid, Grid]:
        whole = 1 << 30
        return ((1, whole, whole) if self.along == "space" else (whole, 1, 1)), (0, 0, 0)


def _places(layout: Layout, text: Where) -> tuple[Tensor, Tensor]:
    """(sample, t, y, x) of every query and every key; t is -1 for text."""
    video, both = [], []
    for sample, (grid, words) in enumerate(zip(layout.grids, layout.text, strict=True)):
        places = torch.tensor([(sample, *place) for place in product(*map(range, grid))])
        video.append(places)
        both += [places, torch.tensor([[sample, -1, -1, -1]]).expand(words, -1)]
    queries = torch.cat(both if text == "tokens" else video)
    return queries, torch.cat(video if text == "none" else both)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Where a sample's queries and keys begin, and how many there are of video and text."""

    grid: Grid
    query: int
    key: int
    video: int
    words: int

    def text_part(self, start: int, keys: Tensor | None) -> Part:
        """Text that looks at text."""
        return Part(torch.arange(self.words) + self.query + self.video, self.words, start, keys)


def _samples(layout: Layout, text: Where) -> Iterator[_Sample]:
    queries = bounds(layout.joint if text == "tokens" else layout.tokens)
    keys = bounds(layout.tokens if text == "none" else layout.joint)
    for grid, (query, _), (key, _), video, words in zip(layout.grids, queries, keys, layout.tokens, layout.text, strict=True):
        yield _Sample(grid, query, key, video, 0 if text == "none" else words)


@lru_cache(maxsize=64)
def _full(layout: Layout, text: Where) -> Segments:
    return Segments(layout.joint if text == "tokens" else layout.tokens, layout.tokens if text == "none" else layout.joint)


@lru_cache(maxsize=SHAPES)
@plain
def _causal(layout: Layout, text: Where) -> Segments:
    parts, order, total = [], [], 0
    for sample in _samples(layout, text):
        frames, area = sample.grid[0], sample.video // sample.grid[0]
        # keys: the text first, then frame by frame, so that what a frame looks at is one span
        order += [torch.arange(sample.words) + sample.key + sample.video, torch.arange(sample.video) + sample.key]
        for frame in range(frames):
            parts.append(Part(torch.arange(area) + sample.query + frame * area, sample.words + (frame + 1) * area, sample.key))
        if text == "tokens" and sample.words:
            parts.append(sample.text_part(sample.key, None))
        total = sample.key + sample.words + sample.video
    return Segments.of(parts, total, torch.cat(order))


@lru_cache(maxsize=ALTERNATING * SHAPES)
@plain
def _tiled(layout: Layout, text: Where, window: Grid, offset: Grid) -> Segments:
    parts, total = [], 0
    _check_copies(layout, text, window, offset)
    for sample in _samples(layout, text):
        words = torch.arange(sample.words) + sample.key + sample.video
        for tile in _tiles(sample.grid, window, offset):
            parts.append(Part(tile + sample.query, len(tile) + sample.words, 0, torch.cat([tile + sample.key, words])))
        if text == "tokens" and sample.words:
            parts.append(sample.text_part(0, words))
        total = sample.key + sample.words + sample.video
    return Segments.of(parts, total)


def _check_copies(layout: Layout, text: Where, window: Grid, offset: Grid) -> None:
    """Every tile gathers the text keys of its sample once more. Raises: ValueError if those of one sample alone would fill the memory."""
    for grid, words in set(zip(layout.grids, layout.text, strict=True)):
        tiles = math.prod(len(_cuts(*axis)) for axis in zip(grid, window, offset, strict=True))
        if text != "none" and tiles * words > MOST_COPIES:
            raise ValueError(
                f"the pattern cuts a video of {'x'.join(map(str, grid))} tokens into {tiles} tiles or places, which would gather "
                f"{tiles * words} text keys, at most {MOST_COPIES} are made. Set a smaller height and width (in training data.shape), "
                "or train a network with objective/dit/mixing=cross, whose text is not gathered, or objective/dit/pattern=full."
            )


@lru_cache(maxsize=ALTERNATING * SHAPES)
@plain
def _tiles(grid: Grid, window: Grid, offset: Grid) -> list[Tensor]:
    """Token numbers within a sample, tile by tile."""
    tokens = torch.arange(grid[0] * grid[1] * grid[2]).unflatten(0, grid)
    cuts = [_cuts(*axis) for axis in zip(grid, window, offset, strict=True)]
    return [tokens[t0:t1, y0:y1, x0:x1].flatten() for (t0, t1), (y0, y1), (x0, x1) in product(*cuts)]


def _cuts(size: int, window: int, offset: int) -> list[tuple[int, int]]:
    if size <= window:
        return [(0, size)]
    starts = [0, *range(offset or window, size, window)]
    return list(zip(starts, [*starts[1:], size], strict=True))
