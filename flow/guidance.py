"""Guidance turns a network's velocity into a guided one; the network and the solver know nothing of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# (noisy b c f h w, t (b, f), text of b prompts, fps (b,)) -> velocity b c f h w
Velocity = Callable[[Tensor, Tensor, Any, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a batch stands on its way: noisy latents b c f h w and flow times (b, f)."""

    noisy: Tensor
    t: Tensor


class Guidance(Protocol):
    """Says which texts it wants encoded and makes one velocity of what the network says to them."""

    def prompts(self, prompts: Sequence[str], given: bool) -> list[str]:
        """The texts to encode, once per sampling call, for a batch of b prompts.

        Args:
            given: whether some sample of the batch has given frames.
        """
        ...

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Any, fps: Tensor) -> Tensor:
        """The guided velocity of b samples.

        Args:
            network: the raw velocity.
            point: where the samples stand, given frames at t = 0.
            hidden: the same with the given frames under noise like the others; None if no frame is given.
            text: the encoding of `self.prompts(prompts, hidden is not None)`.
            fps: (b,).
        """
        ...


@dataclass(frozen=True, slots=True)
class NoGuidance:
    """The network's own velocity."""

    def prompts(self, prompts: Sequence[str], given: bool) -> list[str]:
        return list(prompts)

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Any, fps: Tensor) -> Tensor:
        return network(point.noisy, point.t, text, fps)


_REPEATED = WeakTensorKeyDictionary()  # fps -> its version and repetitions


def _repeated(fps: Tensor, times: int) -> Tensor:
    """fps (b,) several times over; the same tensor at each step of a walk, by which a network finds again what it made of it.

    Of a tensor made under inference mode a new one each time: nobody could tell whether it has been changed.
    """
    if times == 1:
        return fps
    if fps.is_inference():
        return fps.repeat(times)
    kept: Any = _REPEATED.get(fps)
    if kept is None or kept[0] != fps._version:
        kept = fps._version, {}
        _REPEATED[fps] = kept
    made = kept[1]
    if times not in made:
        with torch.inference_mode(False):
            made[times] = fps.repeat(times)
    return made[times]


@dataclass(frozen=True, slots=True)
class Term:
    """One answer of the network and its weight: with or without the prompt, with the given frames shown or hidden."""

    weight: float
    prompt: bool
    frames: bool


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Away from what the network would do without the prompt, and without the given frames; all answers in one batch.

    blind + frames * (shown - blind) + scale * (told - shown), where `told` has the prompt and the given frames, `shown` the frames alone and
    `blind` neither. Equal scales need no `shown`, and without given frames `shown` is `blind`.

    Args:
        scale: of the prompt; 1 is the network's own velocity (and costs one half), 0 ignores the prompt, 2 to 7 are usual.
        frames: of the given frames, in the same way; null is 1.
    Raises: ValueError if a scale is not finite.
    Source: Ho and Salimans 2022; for frames Song et al. 2025 (history guidance).
    """

    scale: float
    frames: float | None = None

    def __post_init__(self) -> None:
        for key, value in (("scale", self.scale), ("frames", self.frames)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{key}={value} is no guidance scale: it must be finite (1 is none, 2 to 7 are usual). Set guidance.{key}.")

    def terms(self, given: bool) -> list[Term]:
        """What to ask the network; the weights sum to 1."""
        frames = self.frames if given and self.frames is not None else 1.0
        every = [Term(self.scale, True, True), Term(frames - self.scale, False, True), Term(1 - frames, False, False)]
        return [term for term in every if term.weight != 0]

    def prompts(self, prompts: Sequence[str], given: bool) -> list[str]:
        return [prompt if term.prompt else "" for term in self.terms(given) for prompt in prompts]

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Any, fps: Tensor) -> Tensor:
        terms = self.terms(hidden is not None)
        points = [point if term.frames or hidden is None else hidden for term in terms]
        answers = network(
            torch.cat([one.noisy for one in points]), torch.cat([one.t for one in points]), text, _repeated(fps, len(terms))
        )  # (terms b) c f h w
        first, *others = answers.chunk(len(terms))
        # As differences from the first: answers that agree are not moved by any scale.
        return sum((term.weight * (other - first) for term, other in zip(terms[1:], others, strict=True)), start=first)
