"""Walks flow time with a velocity: a frame whose time stands still is untouched bit for bit, whatever the velocity says there."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from flow.path import per_frame

# (noisy b c f h w, t (b, f)) -> velocity b c f h w; prompt and guidance are already inside.
Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Span:
    """One step of a walk.

    Args:
        start, stop: flow times (b, f) before and after, in the dtype and on the device of the latents.
        reaches_clean: whether every frame stops at t = 0; known on the host, so that a solver may branch on it.
    """

    start: Tensor
    stop: Tensor
    reaches_clean: bool

    def part(self, share: float) -> Tensor:
        """The flow times (b, f) after a share of the step."""
        return self.start + share * (self.stop - self.start)


class Solver(Protocol):
    """One step along the field."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        """The latents at `span.stop`."""
        ...


def advance(noisy: Tensor, velocity: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """noisy + (stop - start) * velocity; a frame with stop = start keeps its bits, even where the velocity is not finite."""
    step = per_frame(stop - start)  # b 1 f 1 1
    return torch.where(step == 0, noisy, noisy + step * velocity)


@dataclass(frozen=True, slots=True)
class Euler:
    """First order, one evaluation a step."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        return advance(noisy, field(noisy, span.start), span.start, span.stop)


@dataclass(frozen=True, slots=True)
class Heun:
    """Second order, two evaluations a step; a frame's step to t = 0 is an Euler step.

    No network is trained on a frame to be made at t = 0 (that is a known frame, outside the loss), so the second slope is not asked
    for there. The order stays two: one step of first order has a local error of second order.
    Source: Karras et al. 2022 (EDM), algorithm 1.
    """

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        slope = field(noisy, span.start)
        end = advance(noisy, slope, span.start, span.stop)
        if span.reaches_clean:
            return end
        mean = (slope + field(end, span.stop)) / 2
        return torch.where(per_frame(span.stop) == 0, end, advance(noisy, mean, span.start, span.stop))


@dataclass(frozen=True, slots=True)
class Midpoint:
    """Second order, two evaluations a step, none at t = 0."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        half = span.part(0.5)
        middle = advance(noisy, field(noisy, span.start), span.start, half)
        return advance(noisy, field(middle, half), span.start, span.stop)


@dataclass(frozen=True, slots=True)
class RK4:
    """The classical fourth order, four evaluations a step: a reference for the others."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        half = span.part(0.5)
        k1 = field(noisy, span.start)
        k2 = field(advance(noisy, k1, span.start, half), half)
        k3 = field(advance(noisy, k2, span.start, half), half)
        k4 = field(advance(noisy, k3, span.start, span.stop), span.stop)
        return advance(noisy, (k1 + 2 * k2 + 2 * k3 + k4) / 6, span.start, span.stop)


def integrate(field: Field, noisy: Tensor, times: Tensor, solver: Solver, after_step: Callable[[], None] | None = None) -> Tensor:
    """Walk every frame along its own flow times.

    Args:
        field: the velocity.
        noisy: b c f h w at times[0]; the arithmetic keeps its dtype.
        times: (steps + 1, b, f) on the CPU; in either direction, and a frame may rest while others move.
        solver: how to step.
        after_step: called after every step, for a progress bar.
    Returns: the latents at times[-1], b c f h w.
    Raises: ValueError if the shapes disagree.
    """
    if noisy.ndim != 5 or times.ndim != 3 or times.shape[1:] != (noisy.shape[0], noisy.shape[2]):
        raise ValueError(f"integrate wants latents b c f h w and times (steps + 1, b, f), got {tuple(noisy.shape)} and {tuple(times.shape)}")
    # Read on the host and moved to the device once: nothing in the loop waits for the device.
    clean = (times == 0).all(dim=2).all(dim=1).tolist()
    levels = times.to(device=noisy.device, dtype=noisy.dtype).unbind(0)
    for (start, stop), reaches_clean in zip(pairwise(levels), clean[1:], strict=True):
        noisy = solver.step(field, noisy, Span(start, stop, reaches_clean))
        if after_step is not None:
            after_step()
    return noisy
