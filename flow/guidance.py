"""Guidance turns a network's velocity into a guided one; the network and the solver know nothing of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# (noisy b c f h w, t (b, f), text of b prompts, fps (b,)) -> velocity b c f h w
Velocity = Callable[[Tensor, Tensor, Any, Tensor], Tensor]


class Guidance(Protocol):
    """Says which texts it wants encoded and makes one velocity of what the network says to them."""

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        """The texts to encode, once per sampling call, for a batch of b prompts."""
        ...

    def velocity(self, network: Velocity, noisy: Tensor, t: Tensor, text: Any, fps: Tensor) -> Tensor:
        """The guided velocity of b samples.

        Args:
            network: the raw velocity.
            noisy, t, fps: of b samples.
            text: the encoding of `self.prompts(prompts)`.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoGuidance:
    """The network's own velocity."""

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        return list(prompts)

    def velocity(self, network: Velocity, noisy: Tensor, t: Tensor, text: Any, fps: Tensor) -> Tensor:
        return network(noisy, t, text, fps)


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Away from what the empty prompt would give: without + scale * (with - without), both in one batch of 2 b.

    Args:
        scale: 1 is the network's own velocity (and costs one half), 0 ignores the prompt, 2 to 7 are usual.
    Raises: ValueError if scale is not finite.
    Source: Ho and Salimans 2022.
    """

    scale: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"scale={self.scale} is no guidance scale: it must be finite (1 is none, 2 to 7 are usual). Set guidance.scale.")

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        return list(prompts) if self.scale == 1 else [*prompts, *[""] * len(prompts)]

    def velocity(self, network: Velocity, noisy: Tensor, t: Tensor, text: Any, fps: Tensor) -> Tensor:
        if self.scale == 1:
            return network(noisy, t, text, fps)
        both = network(torch.cat([noisy, noisy]), torch.cat([t, t]), text, torch.cat([fps, fps]))  # 2b c f h w
        conditional, unconditional = both.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)
