"""Parts of the picture made anew, inside a given video or around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from data.transforms import fit
from runtime.build import ConfigError
from tasks import sources
from tasks.task import Files, Plan, Studio, Video


def kept_positions(kept: np.ndarray, stride: int, halo: int) -> np.ndarray:
    """Which latent positions a kept region gives: those that the encoder makes of kept pixels alone, (h / stride, w / stride) bool.

    Args:
        kept: (h, w) bool.
        stride: pixels per latent position.
        halo: latent positions around one that the encoder sees; beyond the picture's edge nothing is missing.
    """
    h, w = kept.shape
    whole = kept.reshape(h // stride, stride, w // stride, stride).all(axis=(1, 3))
    padded = np.pad(whole, halo, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * halo + 1, 2 * halo + 1))
    return np.asarray(windows.all(axis=(2, 3)))


def masked(studio: Studio, source: Video, kept: np.ndarray, margin: int | None, told: str, remedy: str) -> Plan:
    """A plan in which a region of every frame is given.

    Args:
        kept: (h, w) bool.
        margin: latent positions around what is made that are made too; None: all that see something of it.
        told, remedy: what gives the region, and how it would keep more, for errors.
    Raises: ConfigError if the region gives no latent position, or all of them.
    """
    halo = studio.halo if margin is None else margin
    positions = kept_positions(kept, studio.stride[1], halo)
    if positions.all():
        raise ConfigError(f"{told} keeps everything, so nothing is left to make: it must keep less.")
    if not positions.any():
        side, lower = studio.stride[1] * (1 + 2 * halo), ", or task.margin lower" if halo else ""
        raise ConfigError(
            f"{told} keeps nothing that the VAE makes of kept pixels alone: {kept.mean():.0%} of the {studio.width}x{studio.height} picture is kept, "
            f"and a latent position is kept with {side}x{side} px around it. {remedy}, set height and width higher{lower}."
        )
    canvas = studio.blank(len(source))
    mask = torch.from_numpy(positions)[None, None].expand(1, canvas.shown, -1, -1)
    return Plan(canvas.painted(studio.latents(source), mask), len(source), source=source)


def source_frames(files: Files, studio: Studio, task: str) -> Video:
    """The given video, or a picture held still, in its own size and 1 + k * stride frames long.

    Raises: ConfigError if there is not exactly one of them.
    """
    if len(files.videos) + len(files.images) != 1:
        raise ConfigError(f"task={task} wants one video or one picture. Give --video FILE or --image FILE once.")
    step = studio.stride[0]
    if files.images:
        frames = studio.frames or studio.usual
        return np.repeat(sources.still(files.images[0]), frames, axis=0)
    found = sources.clip(files.videos[0], studio.fps)
    frames = studio.frames or 1 + (len(found) - 1) // step * step
    if frames > len(found):
        raise ConfigError(f"frames={frames} is longer than {files.videos[0]}, which has {len(found)} frames at {studio.fps:g} fps. Set frames lower.")
    return found[:frames]


def check_margin(margin: int | None) -> None:
    if margin is not None and margin < 0:
        raise ConfigError(f"task.margin={margin} must be a number of latent positions from 0 on, or null. Set task.margin.")


@dataclass(frozen=True, slots=True)
class Inpaint:
    """What a mask shows white is made anew in every frame, the rest is kept: --mask FILE, of the source's own size.

    Args:
        margin: latent positions around it that are made anew too; None: all in which the encoder sees something of it. Fewer keep more of the
            source, whose kept positions then tell a little of what was there; 1 is what the suite of tasks measures.
    Raises: ValueError if it is below 0.
    """

    margin: int | None = 1
    name: ClassVar[str] = "inpaint"
    uses: ClassVar[Sequence[str]] = ("videos", "images", "mask")

    def __post_init__(self) -> None:
        check_margin(self.margin)

    def begin(self, files: Files, studio: Studio) -> Plan:
        source = source_frames(files, studio, "inpaint")
        if files.mask is None:
            raise ConfigError("task=inpaint wants a mask. Give --mask FILE: a picture of the source's size, white where it is to be made anew.")
        kept = sources.mask(files.mask, *source.shape[1:3])
        drawn = np.repeat(kept[None, :, :, None].astype(np.uint8) * 255, 3, axis=3)
        fitted = fit(drawn, studio.height, studio.width)[0].min(axis=2) == 255
        source = fit(source, studio.height, studio.width)
        return masked(studio, source, fitted, self.margin, f"--mask {files.mask}", "Give a mask with less white")


@dataclass(frozen=True, slots=True)
class Outpaint:
    """A video in the middle of a larger picture, whose surroundings are made.

    Args:
        scale: side of the given picture over that of the larger one, below 1.
        margin: as for `Inpaint`.
    Raises: ValueError if one is out of range.
    """

    scale: float
    margin: int | None = 1
    name: ClassVar[str] = "outpaint"
    uses: ClassVar[Sequence[str]] = ("videos", "images")

    def __post_init__(self) -> None:
        if not 0 < self.scale < 1:
            raise ConfigError(f"task.scale={self.scale} leaves no surroundings: it must be above 0 and below 1. Set task.scale.")
        check_margin(self.margin)

    def begin(self, files: Files, studio: Studio) -> Plan:
        step = studio.stride[1]
        inner = [max(step, round(side * self.scale / step) * step) for side in (studio.height, studio.width)]
        source = fit(source_frames(files, studio, "outpaint"), inner[0], inner[1])
        room = [side - own for side, own in zip((studio.height, studio.width), inner, strict=True)]
        edges = [(each // 2 // step * step, each - each // 2 // step * step) for each in room]
        # The edge is repeated outwards: what no kept position sees, but the encoder wants something there.
        wide = np.pad(source, ((0, 0), *edges, (0, 0)), mode="edge")
        kept = np.pad(np.ones(inner, bool), edges)
        told = f"task.scale={self.scale:g}, an inner picture of {inner[1]}x{inner[0]} px (multiples of the VAE's stride {step}),"
        return masked(studio, wide, kept, self.margin, told, "Set task.scale higher")
