"""What the loader hands to an objective: videos or their latents, captions, and the sample numbers that all randomness hangs on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# A clip's texts by kind: {"short": (...), "long": (...), "motion": (...)} in the world, {"caption": (...)} for plain folders.
Captions = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Shot:
    """What is said of a part of a clip.

    Args:
        start, stop: pixel frames of the clip as delivered, half open.
        captions: by kind.
    """

    start: int
    stop: int
    captions: Captions

    def __post_init__(self) -> None:
        assert 0 <= self.start < self.stop, f"a shot of the frames {self.start} to {self.stop} has none"


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one shape. Exactly one of `video` and `latents` is given.

    Args:
        samples: the number of each sample in the run, counted from its first step: the counter of all its random draws.
        rows: the index row each sample was read from (after replacement of unreadable ones).
        captions: the texts of each sample, by kind.
        fps: (b,) float32, frames per second of the clip as delivered.
        video: b c frames h w, float32 in [-1, 1].
        latents: b c f h w, float32, whitened.
        stills: b c m h w, float32: latents of pictures of the clips, each encoded alone; only beside `latents`.
        still_frames: (b, m) int64, which pixel frame of the clip as delivered each of these pictures is, see data.stills.StillFrames. Beside
            `video` they are not encoded yet.
        shots: timed captions of each sample, in order and without overlap; empty if no sample has any.
    """

    samples: tuple[int, ...]
    rows: tuple[int, ...]
    captions: tuple[Captions, ...]
    fps: Tensor
    video: Tensor | None = None
    latents: Tensor | None = None
    stills: Tensor | None = None
    still_frames: Tensor | None = None
    shots: tuple[tuple[Shot, ...], ...] = ()

    def __post_init__(self) -> None:
        assert (self.video is None) != (self.latents is None), "a Batch holds either video or latents"
        content = self.content
        assert content.ndim == 5, f"a Batch holds b c t h w, got shape {tuple(content.shape)}"
        sizes = {len(self.samples), len(self.rows), len(self.captions), len(self.fps), len(content)}
        sizes |= {len(self.shots)} if self.shots else set()
        assert len(sizes) == 1, f"the parts of a Batch disagree on its length: {sorted(sizes)}"
        self._check_stills()

    def _check_stills(self) -> None:
        frames = self.still_frames
        if frames is None:
            assert self.stills is None, "stills need the numbers of their frames"
            return
        assert (frames.dtype, frames.ndim) == (torch.int64, 2), f"still_frames must be int64 (b, m), got {frames.dtype} {tuple(frames.shape)}"
        assert len(frames) == len(self), f"still_frames of {len(frames)} clips in a Batch of {len(self)}"
        assert (self.stills is None) == (self.latents is None), "stills stand beside latents, and only there"
        if self.stills is not None:
            b, c, _, h, w = self.content.shape
            wanted = (b, c, frames.shape[1], h, w)
            assert self.stills.shape == wanted, f"stills must be {wanted} beside these latents and frames, got {tuple(self.stills.shape)}"

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def parts(self) -> "tuple[Batch]":
        """Itself: a Batch is a pass of one part, see `Packed`."""
        return (self,)

    @property
    def content(self) -> Tensor:
        """The video or the latents, whichever this batch holds."""
        content = self.video if self.video is not None else self.latents
        assert content is not None
        return content

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`; `still_frames` stays, as it is read on the host."""
        return replace(
            self,
            fps=self.fps.to(device),
            video=None if self.video is None else self.video.to(device, non_blocking=True),
            latents=None if self.latents is None else self.latents.to(device, non_blocking=True),
            stills=None if self.stills is None else self.stills.to(device, non_blocking=True),
        )


@dataclass(frozen=True, slots=True)
class Packed:
    """Batches of unlike shape that pass through the network at once, as one sequence."""

    parts: tuple[Batch, ...]

    def __post_init__(self) -> None:
        assert len(self.parts) > 1, f"a pack of {len(self.parts)} parts: one part is a Batch, none is nothing"

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def samples(self) -> tuple[int, ...]:
        """See `Batch`."""
        return tuple(sample for part in self.parts for sample in part.samples)

    @property
    def rows(self) -> tuple[int, ...]:
        """See `Batch`."""
        return tuple(row for part in self.parts for row in part.rows)

    def to(self, device: torch.device | str) -> "Packed":
        """The same pack with its tensors on `device`."""
        return Packed(tuple(part.to(device) for part in self.parts))
