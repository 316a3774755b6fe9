"""Walks flow time with a velocity: a frame whose time stands still is untouched bit for bit, whatever the velocity says there."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from flow.path import per_frame, to_noise

# (noisy b c f h w, t (b, f)) -> velocity b c f h w; prompt and guidance are already inside.
Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Span:
    """One step of a walk.

    Args:
        start, stop: flow times (b, f) before and after, in the dtype and on the device of the latents.
        reaches_clean: whether every frame that moves stops at t = 0; known on the host, so that a solver may branch on it.
        noise: draws this step's unit noise b c f h w, for solvers that add some.
    """

    start: Tensor
    stop: Tensor
    reaches_clean: bool
    noise: Callable[[], Tensor]

    def part(self, share: float) -> Tensor:
        """The flow times (b, f) after a share of the step."""
        return self.start + share * (self.stop - self.start)


Step = Callable[[Field, Tensor, Span], Tensor]  # the latents b c f h w at `span.stop`


class Solver(Protocol):
    """How to follow a field."""

    def begin(self) -> Step:
        """The steps of one walk. What they remember of each other belongs to the walk: a solver serves any number of them, one in another too."""
        ...


class SingleStep(ABC):
    """A solver that remembers nothing from step to step."""

    __slots__ = ()

    def begin(self) -> Step:
        return self.step

    @abstractmethod
    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        """The latents at `span.stop`."""


def advance(noisy: Tensor, velocity: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """noisy + (stop - start) * velocity; a frame with stop = start keeps its bits, even where the velocity is not finite."""
    step = per_frame(stop - start)  # b 1 f 1 1
    return torch.where(step == 0, noisy, noisy + step * velocity)


@dataclass(frozen=True, slots=True)
class Euler(SingleStep):
    """First order, one evaluation a step."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        return advance(noisy, field(noisy, span.start), span.start, span.stop)


@dataclass(frozen=True, slots=True)
class Heun(SingleStep):
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
class Midpoint(SingleStep):
    """Second order, two evaluations a step, none at t = 0."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        half = span.part(0.5)
        middle = advance(noisy, field(noisy, span.start), span.start, half)
        return advance(noisy, field(middle, half), span.start, span.stop)


@dataclass(frozen=True, slots=True)
class RK4(SingleStep):
    """The classical fourth order, four evaluations a step, the very last of them at t = 0: a reference for the others."""

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        half = span.part(0.5)
        k1 = field(noisy, span.start)
        k2 = field(advance(noisy, k1, span.start, half), half)
        k3 = field(advance(noisy, k2, span.start, half), half)
        k4 = field(advance(noisy, k3, span.start, span.stop), span.stop)
        return advance(noisy, (k1 + 2 * k2 + 2 * k3 + k4) / 6, span.start, span.stop)


@dataclass(frozen=True, slots=True)
class Multistep:
    """Second order, one evaluation a step: the slope half a step ahead, on the line through the last two (Adams-Bashforth, uneven steps).

    The two are a frame's own, at its last two times. One that did not move in the last step, at the beginning of the walk or after a rest, has
    no second one and takes an Euler step; the order stays two, as one step of first order has a local error of second order. Never asks at
    t = 0. Where the field jumps (guidance sets in), a step or two are of first order.
    Source: Hairer, Norsett and Wanner 1993, section III.5.
    """

    def begin(self) -> Step:
        past: list[tuple[Tensor, Tensor]] = []  # slope b c f h w and length (b, f) of the last step

        def step(field: Field, noisy: Tensor, span: Span) -> Tensor:
            slope, length = field(noisy, span.start), span.stop - span.start
            ahead = slope
            if past:
                before, last = past.pop()
                line = slope + per_frame(length / (2 * last)) * (slope - before)
                ahead = torch.where(per_frame(last) == 0, slope, line)  # chosen, not weighed: a resting frame's slopes may be anything
            past.append((slope, length))
            return advance(noisy, ahead, span.start, span.stop)

        return step


@dataclass(frozen=True, slots=True)
class SDE(SingleStep):
    """First order, one evaluation a step: Euler, but part of the noise is renewed on the way, and with it go errors of the steps before.

    The velocity tells latents and noise apart. Of that noise a share k = (stop / start)^churn is kept and the rest made up with new noise, so
    that its deviation stays what it is. In the limit of short steps this is d noisy = (velocity + churn * noise) dt + sqrt(2 churn t) dW
    run backwards, which has the same marginals for every churn; unlike Euler-Maruyama as it stands it is stable for any churn and step.
    A step to t = 0 or towards noise renews nothing.

    Args:
        churn: >= 0; 0 is Euler bit for bit, 1 (SiT's choice) has renewed 3/4 of the noise's variance from t = 1 to t = 1/2.
    Raises: ValueError if churn is not a finite number >= 0.
    Source: Song et al. 2021 (score SDE), Ma et al. 2024 (SiT), section 2.3; the step is Song et al. 2021 (DDIM), equation 12.
    """

    churn: float

    def __post_init__(self) -> None:
        if not 0 <= self.churn < math.inf:
            raise ValueError(f"churn={self.churn} renews no noise: it must be a finite number >= 0 (0 is Euler, 1 is usual). Set solver.churn.")

    def step(self, field: Field, noisy: Tensor, span: Span) -> Tensor:
        slope = field(noisy, span.start)
        end = advance(noisy, slope, span.start, span.stop)
        if self.churn == 0 or span.reaches_clean:
            return end
        kept = per_frame((span.stop / span.start).clamp(max=1) ** self.churn)  # b 1 f 1 1
        renewed = (kept - 1) * to_noise(noisy, slope, span.start) + (1 - kept.square()).sqrt() * span.noise()
        return torch.where(per_frame(span.stop >= span.start), end, end + per_frame(span.stop) * renewed)


def integrate(
    field: Field,
    noisy: Tensor,
    times: Tensor,
    solver: Solver,
    after_step: Callable[[], None] | None = None,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Walk every frame along its own flow times.

    Args:
        field: the velocity.
        noisy: b c f h w at times[0]; the arithmetic keeps its dtype.
        times: (steps + 1, b, f) on the CPU; in either direction, and a frame may rest while others move.
        solver: how to step.
        after_step: called after every step, for a progress bar.
        noise: number of the step -> unit noise b c f h w, on any device; asked by solvers that add some, as `flow.solver_noise` makes it.
    Returns: the latents at times[-1], b c f h w.
    Raises: ValueError if the shapes disagree, or if the solver adds noise and none is given.
    """
    if noisy.ndim != 5 or times.ndim != 3 or times.shape[1:] != (noisy.shape[0], noisy.shape[2]):
        raise ValueError(f"integrate wants latents b c f h w and times (steps + 1, b, f), got {tuple(noisy.shape)} and {tuple(times.shape)}")

    def drawn(number: int) -> Tensor:
        if noise is None:
            raise ValueError(f"{solver} adds noise, and this walk has none to give. Set solver=euler, or hand integrate() the noise of its steps.")
        return noise(number).to(device=noisy.device, dtype=noisy.dtype)

    # Read on the host and moved to the device once: nothing in the loop waits for the device.
    clean = ((times[1:] == 0) | (times[1:] == times[:-1])).all(dim=2).all(dim=1).tolist()
    levels = times.to(device=noisy.device, dtype=noisy.dtype).unbind(0)
    step = solver.begin()
    for number, ((start, stop), reaches_clean) in enumerate(zip(pairwise(levels), clean, strict=True)):
        noisy = step(field, noisy, Span(start, stop, reaches_clean, partial(drawn, number)))
        if after_step is not None:
            after_step()
    return noisy
