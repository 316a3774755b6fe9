"""A given video as the beginning of another: noised so far that a new prompt can change it, and no farther."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from runtime.build import ConfigError
from tasks import sources
from tasks.given import one
from tasks.task import Files, Plan, Studio


@dataclass(frozen=True, slots=True)
class Remix:
    """A video changed by a prompt.

    Args:
        strength: flow time that the source is noised to: 0 gives it back as the VAE has it, 1 forgets it.
    Raises: ValueError if it is out of range.
    Source: Meng et al. 2022 (SDEdit).
    """

    strength: float
    name: ClassVar[str] = "remix"
    uses: ClassVar[Sequence[str]] = ("videos",)

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"task.strength={self.strength} must lie in [0, 1]: 0 changes nothing, 1 keeps nothing. Set task.strength.")

    def begin(self, files: Files, studio: Studio) -> Plan:
        source = sources.clip(one(files.videos, "--video", "remix"), studio.fps, studio.height, studio.width)
        step = studio.stride[0]
        frames = studio.frames or 1 + (len(source) - 1) // step * step
        if frames > len(source):
            raise ConfigError(
                f"frames={frames} is longer than {files.videos[0]}, which has {len(source)} frames at {studio.fps:g} fps. Set frames lower."
            )
        source = source[:frames]
        return Plan(studio.blank(frames).begun(studio.latents(source), self.strength), frames, source=source)
