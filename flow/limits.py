"""Where guidance acts and how far it may go: what every guidance can be limited by, frame by frame and sample by sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flow.path import per_frame, to_clean

# (noisy b c f h w, t (b, f), text of b prompts, moments (b, f) in seconds) -> velocity b c f h w
Velocity = Callable[[Tensor, Tensor, Any, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a batch stands on its way.

    Args:
        noisy: b c f h w.
        t: (b, f).
        made: (b, f) bool, the frames that are to be made; None: those at t > 0.
    """

    noisy: Tensor
    t: Tensor
    made: Tensor | None = None

    @property
    def to_be_made(self) -> Tensor:
        """(b, f) bool."""
        return self.t > 0 if self.made is None else self.made & (self.t > 0)


def finite(**scales: float | None) -> None:
    """Raises: ValueError for a scale that is not finite, by its key."""
    for key, value in scales.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{key}={value} is no guidance scale: it must be finite (1 is none, 2 to 7 are usual). Set guidance.{key}.")


def share(**shares: float | None) -> None:
    """Raises: ValueError for a share outside [0, 1], by its key."""
    for key, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{key}={value} must lie in [0, 1], or be null: off. Set guidance.{key}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of guidance, each off at null.

    Args:
        interval: flow times [low, high] between which a frame is guided; outside, it has the network's own velocity. Where no frame of the batch
            is inside, nothing but that is computed.
        rescale: share of the way on which the guided clean latents are brought back to the deviation that those without guidance have, by one
            factor per sample. Large scales raise it, which burns out colours. It is done to the clean latents: a velocity holds the noise with
            factor 1, and scaled down it would leave some of it behind.
        zero_init: flow time from which on, up to 1, a frame stands still; 1 is the very first step alone. An early velocity of a network that
            is not trained enough may be worse than none.
    Raises: ValueError if a value is out of range.
    Source: Kynkaanniemi et al. 2024 (interval); Lin et al. 2024, section 3.4 (rescale); Fan et al. 2025, CFG-Zero* (zero_init).
    """

    interval: tuple[float, float] | None = None
    rescale: float | None = None
    zero_init: float | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise ValueError(
                f"interval={list(self.interval)} is no stretch of flow time: it must be [low, high] with 0 <= low < high <= 1, "
                "or null: always. Set guidance.interval."
            )
        share(rescale=self.rescale)
        if self.zero_init is not None and not 0 < self.zero_init <= 1:
            raise ValueError(
                f"zero_init={self.zero_init} is no flow time to wait for: it must be above 0 and at most 1, or null: off. Set guidance.zero_init."
            )

    def limited(self, point: Point, plain: Callable[[], Tensor], both: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
        """The velocity within the limits; what it does not need is not computed.

        With an interval or zero_init, asks the device where the frames stand, once each.

        Args:
            plain: gives the network's own velocity b c f h w.
            both: gives that and the guided one.
        """
        if self.interval is None and self.rescale is None and self.zero_init is None:
            return both()[1]
        made = point.to_be_made
        waiting = None if self.zero_init is None else made & (point.t >= self.zero_init)  # b f
        if waiting is not None and bool(waiting.any() & (waiting == made).all()):
            return torch.zeros_like(point.noisy)
        found = self._guided(point, made, plain, both)
        return found if waiting is None else torch.where(per_frame(waiting), 0.0, found)

    def _guided(self, point: Point, made: Tensor, plain: Callable[[], Tensor], both: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
        inside = made
        if self.interval is not None:
            low, high = self.interval
            inside = made & (point.t >= low) & (point.t <= high)
            if not bool(inside.any()):
                return plain()
        own, guided = both()
        if self.rescale is not None:
            guided = rescaled(point, own, guided, inside, self.rescale)
        return guided if self.interval is None else torch.where(per_frame(inside), guided, own)


def rescaled(point: Point, own: Tensor, guided: Tensor, frames: Tensor, by: float) -> Tensor:
    """The guided velocity b c f h w with its clean latents' deviation a share of the way back to the network's own.

    Args:
        frames: (b, f) bool, those that are looked at and changed; t > 0 there.
        by: 0 changes nothing, 1 makes the two deviations one.
    """
    clean = to_clean(point.noisy, guided, point.t)
    deviations = deviation(to_clean(point.noisy, own, point.t), frames), deviation(clean, frames)
    factor = 1 + by * (ratio(*deviations) - 1)  # b
    # from_clean(noisy, factor * clean, t), without the difference of two near numbers
    changed = guided + (1 - factor)[:, None, None, None, None] * clean / per_frame(point.t)
    return torch.where(per_frame(frames), changed, guided)


def projection(onto: Tensor, velocity: Tensor, frames: Tensor) -> Tensor:
    """The factor (b,) that brings a velocity b c f h w nearest to another one, over the frames (b, f)."""
    dot, square = (torch.where(per_frame(frames), other * velocity, 0.0).sum(dim=(1, 2, 3, 4)) for other in (onto, velocity))
    return ratio(dot, square)


def deviation(latents: Tensor, frames: Tensor) -> Tensor:
    """Standard deviation (b,) of latents b c f h w over the frames (b, f); 0 where there is none."""
    chosen = per_frame(frames).expand_as(latents)
    count = chosen.sum(dim=(1, 2, 3, 4)).clamp(min=1)
    mean = torch.where(chosen, latents, 0.0).sum(dim=(1, 2, 3, 4)) / count
    centred = torch.where(chosen, latents - mean[:, None, None, None, None], 0.0)
    return (centred.square().sum(dim=(1, 2, 3, 4)) / count).sqrt()


def ratio(one: Tensor, other: Tensor) -> Tensor:
    """one / other; 1 where that is no number."""
    return torch.where(other > 0, one / other, 1.0)
