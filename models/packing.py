"""Videos of any shape as one flat, frame-major token sequence, and back; nothing is lost or mixed on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from models.geometry import Grid, Layout, bounds, token_grid


def patchify(latents: Tensor, patch: Grid) -> Tensor:
    """Latents (b c f h w) as tokens (b f' h' w') (c pt ph pw).

    A size that is no multiple of the patch is filled up with zeros at its end; `unpatchify` cuts them off again.
    """
    *_, f, h, w = latents.shape
    fill = [-size % step for size, step in zip((f, h, w), patch, strict=True)]
    if any(fill):
        latents = F.pad(latents, (0, fill[2], 0, fill[1], 0, fill[0]))
    pt, ph, pw = patch
    return rearrange(latents, "b c (f pt) (h ph) (w pw) -> (b f h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def unpatchify(tokens: Tensor, size: Grid, patch: Grid) -> Tensor:
    """The inverse of `patchify`, for videos of latent size (f, h, w): b c f h w."""
    f, h, w = token_grid(size, patch)
    pt, ph, pw = patch
    latents = rearrange(tokens, "(b f h w) (c pt ph pw) -> b c (f pt) (h ph) (w pw)", f=f, h=h, w=w, pt=pt, ph=ph, pw=pw)
    return latents[:, :, : size[0], : size[1], : size[2]]


def interleave(video: Tensor, text: Tensor, layout: Layout) -> Tensor:
    """Video tokens (n ...) and text tokens (m ...) as one sequence: video then text of sample 0, of sample 1..."""
    if layout.uniform:
        samples = len(layout.grids)
        parts = [part.unflatten(0, (samples, -1)) for part in (video, text)]  # b l ...
        return torch.cat(parts, dim=1).flatten(0, 1)
    pairs = zip(video.split(layout.tokens), text.split(layout.text), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def video_part(sequence: Tensor, layout: Layout) -> Tensor:
    """The video tokens (n ...) of an interleaved sequence."""
    if layout.uniform:
        samples = len(layout.grids)
        return sequence.unflatten(0, (samples, -1))[:, : layout.tokens[0]].flatten(0, 1)
    starts = [start for start, _ in bounds(layout.joint)]
    return torch.cat([sequence[start : start + tokens] for start, tokens in zip(starts, layout.tokens, strict=True)])


@dataclass(frozen=True, slots=True)
class Groups:
    """Runs of `size` consecutive tokens that share one row of a table of conditions, so that modulation is a view over tokens.

    With one row per frame and equal frames a group is a frame. Unlike lengths share their greatest common divisor: 16 tokens a frame
    and 24 of text make groups of 8, an eighth of what a row per token would cost.

    Args:
        index: the row of each group; None if group g uses row g.
    """

    size: int
    index: Tensor | None

    @classmethod
    def runs(cls, lengths: Sequence[int], rows: Sequence[int], device: torch.device) -> "Groups":
        """Groups for consecutive runs of tokens of the given lengths, run i under row `rows[i]`."""
        size = gcd(*lengths)
        index = [row for length, row in zip(lengths, rows, strict=True) for _ in range(length // size)]
        same = index == list(range(len(index)))
        return cls(size, None if same else torch.tensor(index, device=device))

    @classmethod
    def video(cls, layout: Layout, device: torch.device) -> "Groups":
        """Video tokens alone: row F per latent frame."""
        lengths = layout.tokens_per_frame
        return cls.runs(lengths, range(len(lengths)), device)

    @classmethod
    def joint(cls, layout: Layout, device: torch.device) -> "Groups":
        """The interleaved sequence: rows 0 to F - 1 are the frames', row F + i is that of sample i's text."""
        total = sum(layout.frames)
        lengths: list[int] = []
        rows: list[int] = []
        for sample, ((f, h, w), (first, stop)) in enumerate(zip(layout.grids, bounds(layout.frames), strict=True)):
            lengths += [*[h * w] * f, layout.text[sample]]
            rows += [*range(first, stop), total + sample]
        return cls.runs(lengths, rows, device)

    def spread(self, rows: Tensor) -> Tensor:
        """Rows (r k) as one per group (g k)."""
        return rows if self.index is None else rows.index_select(0, self.index)
