"""Video from words alone: clips, pictures and loops."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from runtime.build import ConfigError
from tasks.task import Files, Plan, Studio


@dataclass(frozen=True, slots=True)
class TextToVideo:
    """A clip of the length, size and rate asked for."""

    name: ClassVar[str] = "t2v"
    uses: ClassVar[Sequence[str]] = ()

    def begin(self, files: Files, studio: Studio) -> Plan:
        frames = studio.frames or studio.usual
        return Plan(studio.blank(frames), frames, windows=True)


@dataclass(frozen=True, slots=True)
class TextToImage:
    """One frame."""

    name: ClassVar[str] = "t2i"
    uses: ClassVar[Sequence[str]] = ()

    def begin(self, files: Files, studio: Studio) -> Plan:
        if studio.frames not in (None, 1):
            raise ConfigError(f"task=t2i makes one frame, got frames={studio.frames}. Set frames=1 or task=t2v.")
        return Plan(studio.blank(1), 1)


@dataclass(frozen=True, slots=True)
class Loop:
    """A clip whose last frame is followed by its first, in place and in speed.

    Its latent frames stand on a circle and are all of one kind: none is a first frame by itself. The network looks at it from another angle at
    each step, so that no seam is ever at the same place, and it is decoded with a warm-up that goes round.
    """

    name: ClassVar[str] = "loop"
    uses: ClassVar[Sequence[str]] = ()

    def begin(self, files: Files, studio: Studio) -> Plan:
        step = studio.stride[0]
        frames = studio.usual - 1 if studio.frames is None else studio.frames
        if frames < 2 * step or frames % step:
            near = max(2 * step, frames - frames % step)
            raise ConfigError(f"frames={frames} is no length of a loop: it must be a multiple of {step}, at least {2 * step}. Set frames={near}.")
        blank = studio.blank(1 + frames)  # its moments are those of a piece within a longer video
        canvas = replace(
            blank,
            latents=blank.latents[:, :, 1:],
            start=blank.start[:, 1:],
            stop=blank.stop[:, 1:],
            moments=blank.moments[:, 1:],
            shown=blank.shown - 1,
            cyclic=True,
        )
        return Plan(canvas, frames)
