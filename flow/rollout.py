"""Video longer than a network sees at once: overlapping windows of one canvas, latents handed on, in memory that does not grow with the video."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flow.canvas import Canvas
from flow.generate import Generator, Prompt, Timed
from flow.script import Script

Progress = Callable[[int, int], object]
Made = tuple["Piece", Tensor]  # a window and its latents


@dataclass(frozen=True, slots=True)
class Piece:
    """Latent frames [start, stop) of a clip that are made at once, `made` of them for the first time."""

    start: int
    stop: int
    made: range


@dataclass(frozen=True, slots=True)
class Rollout:
    """Walks a canvas window by window; each sees the last latents of the one before as they were made, nothing is encoded again.

    Frames are made outwards from the window that begins with `begin`: forwards to the end of the clip, then backwards to its beginning.

    Args:
        window: latent frames that the network sees at once, >= 2, besides a clip's first frame: one less than the clips that it was trained on.
        overlap: how many of them are handed on, at least 1 and below `window`. More hold the course better and cost more.
        level: flow time of what is handed on: a little noise hides the errors of the window before, so that they do not add up.
    Raises: ValueError if they do not fit each other.
    Source: Chen et al. 2024 (diffusion forcing) for noise on what is handed on.
    """

    window: int
    overlap: int
    level: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.overlap < self.window:
            raise ValueError(
                f"rollout.window={self.window}, rollout.overlap={self.overlap}: each window needs at least one latent frame from the one before "
                "and one to make. Set 1 <= rollout.overlap < rollout.window."
            )
        if not 0 <= self.level < 1:
            raise ValueError(f"rollout.level={self.level} must be a flow time of at least 0 and below 1 (0.1 is a little noise). Set rollout.level.")

    def pieces(self, frames: int, begin: int = 0) -> list[Piece]:
        """The windows of a clip of so many latent frames, in the order in which they are made.

        All are as long as the network sees, those that hold the clip's first frame one longer; the last ones reach back as far as they must.
        """
        window = self.window
        if frames <= window + 1:
            return [Piece(0, frames, range(frames))]
        begin = max(0, min(begin, frames - window))
        stop = begin + window + (begin == 0)
        pieces = [Piece(begin, stop, range(begin, stop))]
        while stop < frames:
            start = min(stop - self.overlap, frames - window)
            pieces.append(Piece(start, start + window, range(stop, start + window)))
            stop = start + window
        while begin > 0:
            start = max(0, begin + self.overlap - window)
            pieces.append(Piece(start, start + window + (start == 0), range(start, begin)))
            begin = start
        return pieces

    def paint(
        self,
        generator: Generator,
        canvas: Canvas,
        prompts: Sequence[Prompt],
        seed: int,
        samples: Sequence[int],
        begin: int = 0,
        negatives: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Iterator[tuple[range, Tensor]]:
        """Clean latents as they are made: (which latent frames, b c k h w), each frame once; in order if `begin` is 0.

        Args:
            canvas: the whole clip; what is not given of it may be an expanded view that takes no memory.
            prompts, seed, samples, negatives, progress: as in `Generator.paint`; a frame's noise hangs on its place in the whole clip.
            begin: latent frame with which the first window begins: where something is given.
        Raises: ValueError for a canvas that is a loop, and for prompts over another time than the clip's.
        """
        if canvas.cyclic:
            raise ValueError("a loop is made at once: its last frame is followed by its first. Set rollout=null, or fewer frames.")
        Script.of(prompts, canvas)  # refuses what is not said of all of the clip, window by window it would not be missed
        pieces = self.pieces(canvas.shown, begin)
        first: Made | None = None
        last: Made | None = None
        for number, piece in enumerate(pieces):
            if first is not None and piece.made.stop == first[0].start:  # the first window backwards
                last = first
            part = _cut(canvas, piece)
            if last is not None:
                part = self._continued(part, piece, *last)
            spoken = [_said(prompt, piece) for prompt in prompts]
            told = None if progress is None else _counted(progress, number, len(pieces))
            if bool(part.given[:, : part.shown].all()):
                latents = part.latents[:, :, : part.shown]
            else:
                latents = generator.paint(part, spoken, seed, samples, piece.start, negatives, told).cpu()
            last = piece, latents
            first = first or last
            yield piece.made, latents[:, :, piece.made.start - piece.start : piece.made.stop - piece.start]

    def _continued(self, part: Canvas, piece: Piece, last: Piece, kept: Tensor) -> Canvas:
        """The window with the frames that an earlier one has made; those that are given stay given."""
        shared = range(max(piece.start, last.start), min(piece.stop, last.stop))
        here, there = (slice(shared.start - one.start, shared.stop - one.start) for one in (piece, last))
        known = torch.zeros(len(part), part.shown, dtype=torch.bool)
        known[:, here] = True
        latents = torch.zeros_like(part.latents[:, :, : part.shown])
        latents[:, :, here] = kept[:, :, there]
        return part.keep(latents, known & ~part.given[:, : part.shown], self.level)


def _cut(canvas: Canvas, piece: Piece) -> Canvas:
    """A window of a canvas, with the pictures whose moments lie in it. Its moments are those of training, of a piece within a longer video, as text
    knows no moments and the network none that are far from what it saw."""
    if piece.start == 0 and piece.stop == canvas.shown:
        return canvas
    first = 0 if piece.start == 0 else 1
    moved = canvas.moments[:, piece.start] - canvas.moments[:, first]  # s
    low = canvas.moments[:, piece.start - 1] if piece.start else canvas.moments[:, 0] - 1
    high = canvas.moments[:, piece.stop - 1]
    behind = canvas.moments[:, canvas.shown :]
    inside = (behind > low[:, None]) & (behind <= high[:, None])  # b m
    if not torch.equal(inside, inside[:1].expand_as(inside)):
        raise ValueError("clips whose pictures stand at unlike moments cannot be rolled out at once. Make them one by one: batch_size=1.")
    places = [canvas.shown + place for place in inside[0].nonzero()[:, 0].tolist()]
    chosen = [*range(piece.start, piece.stop), *places]
    return replace(
        canvas,
        latents=canvas.latents[:, :, chosen],
        start=canvas.start[:, chosen],
        stop=canvas.stop[:, chosen],
        moments=canvas.moments[:, chosen] - moved[:, None],
        shown=piece.stop - piece.start,
        mask=None if canvas.mask is None else canvas.mask[:, chosen],
    )


def _said(prompt: Prompt, piece: Piece) -> Prompt:
    """What is said of a window: the texts that count there."""
    if isinstance(prompt, str):
        return prompt
    weights = prompt.weights[:, piece.start : piece.stop]
    there = [place for place, weight in enumerate(weights) if bool((weight > 0).any())]
    return prompt.texts[there[0]] if len(there) == 1 else Timed(tuple(prompt.texts[place] for place in there), weights[there])


def _counted(progress: Progress, number: int, windows: int) -> Progress:
    return lambda done, total: progress(number * total + done, windows * total)
