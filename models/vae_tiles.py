"""Encoding and decoding in spatial tiles, each streamed through time: equal to the untiled stream, in memory that neither length nor size moves."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise, product, takewhile
from typing import Literal

import torch
from torch import Tensor

from models.geometry import latent_grid
from models.vae import Posterior, VideoVAE, check_piece

# Side of a tile in px without its halo; "auto" cuts large pictures alone; None never cuts.
Tile = int | Literal["auto"] | None
MOST_WORK = 1.3  # what "auto" may compute in units of the untiled picture: halos are computed once for each tile that sees them
SIDE_PX = 512  # the memory of a square of this side is little enough: "auto" spends nothing to go below it
PRICE = 3  # what "auto" pays for memory: a tenth more work must save a quarter of it


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in latent positions: it makes start to stop and sees first to last."""

    start: int
    stop: int
    first: int
    last: int

    def seen(self, scale: int) -> slice:
        """Where the tile and its halo lie in a picture of `scale` values per latent position."""
        return slice(self.first * scale, self.last * scale)

    def made(self, scale: int) -> slice:
        """Where the tile itself lies there."""
        return slice(self.start * scale, self.stop * scale)

    def kept(self, scale: int) -> slice:
        """Where the tile itself lies in what was computed for it and its halo."""
        return slice((self.start - self.first) * scale, (self.stop - self.first) * scale)


@dataclass(frozen=True, slots=True)
class Tiling:
    """A picture in tiles, row after row."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def work(self) -> float:
        """What is computed, halos included, in units of the untiled picture: every layer costs the same for each position."""
        return _seen(self.rows) / self.rows[-1].stop * _seen(self.columns) / self.columns[-1].stop

    @property
    def largest(self) -> int:
        """Latent positions of the largest tile with its halo: what memory goes with."""
        return max(row.last - row.first for row in self.rows) * max(column.last - column.first for column in self.columns)


def encode_tiled(vae: VideoVAE, chunks: Iterable[Tensor], tile: Tile = "auto") -> Iterator[Tensor]:
    """`vae.encode_stream`, in tiles: pieces of a clip, b 3 t h w each, to whitened latents b c f h w as soon as their frames are complete.

    Equal to it up to kernel rounding, and bit for bit where one tile is enough.

    Args:
        tile: px, a multiple of the VAE's spatial stride; tiles of a picture are alike in size and at most so large.
    Raises: ValueError if the tile or the clip is off the VAE's grid.
    """
    check_tile(vae, tile)
    return _tiled(vae.encode_stream, chunks, lambda chunk: _encoding(vae, chunk, tile), vae.stride[1], 1)


def posterior_tiled(vae: VideoVAE, chunks: Iterable[Tensor], tile: Tile = "auto") -> Iterator[Posterior]:
    """`vae.posterior_stream`, in tiles; as `encode_tiled`."""
    check_tile(vae, tile)

    def stream(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        return (torch.cat([posterior.mean, posterior.logvar], dim=1) for posterior in vae.posterior_stream(chunks))

    both = _tiled(stream, chunks, lambda chunk: _encoding(vae, chunk, tile), vae.stride[1], 1)
    return (Posterior(*part.chunk(2, dim=1)) for part in both)


def decode_tiled(vae: VideoVAE, chunks: Iterable[Tensor], tile: Tile = "auto") -> Iterator[Tensor]:
    """`vae.decode_stream`, in tiles: pieces of whitened latents, b c f h w each, to the pixels of each piece, b 3 t h w in [-1, 1].

    Equal to it up to kernel rounding, and bit for bit where one tile is enough.

    Args:
        tile: px, a multiple of the VAE's spatial stride; tiles of a picture are alike in size and at most so large.
    Raises: ValueError if the tile is off the VAE's grid.
    """
    check_tile(vae, tile)
    return _tiled(vae.decode_stream, chunks, lambda chunk: _decoding(vae, chunk, tile), 1, vae.stride[1])


def check_tile(vae: VideoVAE, tile: Tile) -> None:
    """Refuse a tile that this VAE cannot work in.

    Raises: ValueError naming the nearest legal sizes.
    """
    stride = vae.stride[1]
    if tile is None or tile == "auto":
        return
    if type(tile) is not int:
        raise ValueError(f"tile={tile!r} must be a multiple of {stride} px, auto, or null for the whole picture at once. Set tile.")
    if tile < stride or tile % stride:
        below = max(stride, tile - tile % stride)
        raise ValueError(f"tile={tile} is off the VAE's grid: it must be a multiple of {stride} px ({below} or {below + stride}). Set tile.")


def tiling(height: int, width: int, stride: int, halo: int, tile: Tile) -> Tiling:
    """How a picture is cut.

    "auto" weighs memory against work, and spends at most MOST_WORK. Its tiles are bounded whatever the picture's size, because tiles of 14.3
    halos cost 1.3 however many there are. A picture that a tile would see all of is not cut.

    Args:
        height, width, halo: latent positions.
        stride: px per latent position.
    """
    if tile is None:
        return Tiling(_cut(height, 1, halo), _cut(width, 1, halo))
    if tile == "auto":
        down, across = (list(takewhile(_affordable, _cuts(size, stride, halo))) for size in (height, width))
        fitting = (cut for cut in (Tiling(*both) for both in product(down, across)) if cut.work <= MOST_WORK)
        return min(fitting, key=lambda cut: max(cut.largest, SIDE_PX**2 // stride**2) * cut.work**PRICE)
    side = tile // stride
    cut = Tiling(_cut(height, -(-height // side), halo), _cut(width, -(-width // side), halo))
    return cut if cut.largest < height * width else tiling(height, width, stride, halo, None)


def _cut(size: int, count: int, halo: int) -> tuple[Span, ...]:
    """`count` tiles along an axis. The halo ends with the picture: only there are the zeros that the untiled VAE sees."""
    edges = [size * number // count for number in range(count + 1)]
    return tuple(Span(start, stop, max(0, start - halo), min(size, stop + halo)) for start, stop in pairwise(edges))


def _cuts(size: int, stride: int, halo: int) -> Iterator[tuple[Span, ...]]:
    return (_cut(size, count + 1, halo) for count in range(-(-2 * size * stride // SIDE_PX)))


def _seen(spans: tuple[Span, ...]) -> int:
    return sum(span.last - span.first for span in spans)


def _affordable(spans: tuple[Span, ...]) -> bool:
    return _seen(spans) <= MOST_WORK * spans[-1].stop


def _encoding(vae: VideoVAE, chunk: Tensor, tile: Tile) -> Tiling:
    _, height, width = latent_grid(1, chunk.shape[-2], chunk.shape[-1], vae.stride)
    return tiling(height, width, vae.stride[1], vae.halo[0], tile)


def _decoding(vae: VideoVAE, chunk: Tensor, tile: Tile) -> Tiling:
    return tiling(chunk.shape[-2], chunk.shape[-1], vae.stride[1], vae.halo[1], tile)


def _chained(front: list[Tensor], rest: Iterator[Tensor]) -> Iterator[Tensor]:
    """itertools.chain, but it lets go of what it has handed on."""
    while front:
        yield front.pop(0)
    yield from rest


def _tiled(
    stream: Callable[[Iterable[Tensor]], Iterator[Tensor]],
    chunks: Iterable[Tensor],
    plan: Callable[[Tensor], Tiling],
    taken: int,
    made: int,
) -> Iterator[Tensor]:
    """One stream per tile, all advanced by a piece in turn; holds one chunk, one piece and what the streams themselves remember.

    Args:
        plan: the tiling, from the first chunk.
        taken, made: values per latent position along an axis in what comes in and in what goes out.
    """
    source = iter(chunks)
    front = list(islice(source, 1))
    if not front:
        yield from stream(())
        return
    first = front[0].shape
    check_piece(first, first)
    cut = plan(front[0])
    source = _chained(front, source)
    tiles = list(product(cut.rows, cut.columns))
    if len(tiles) == 1:
        yield from stream(source)
        return
    waiting: list[deque[Tensor]] = [deque() for _ in tiles]  # what each tile's stream has not asked for yet

    def feed(own: deque[Tensor]) -> Iterator[Tensor]:
        while True:
            if not own:
                chunk = next(source, None)
                if chunk is None:
                    return
                check_piece(chunk.shape, first)  # here, as slices of a larger piece would be of the right size
                for queue, (row, column) in zip(waiting, tiles, strict=True):
                    queue.append(chunk[..., row.seen(taken), column.seen(taken)])
                del chunk
            yield own.popleft()

    streams = [stream(feed(own)) for own in waiting]
    height, width = cut.rows[-1].stop * made, cut.columns[-1].stop * made
    while (part := next(streams[0], None)) is not None:
        whole = part.new_empty(*part.shape[:3], height, width)
        for number, (row, column) in enumerate(tiles):
            part = next(streams[number]) if number else part
            whole[..., row.made(made), column.made(made)] = part[..., row.kept(made), column.kept(made)]
        yield whole
        del whole, part
