"""Guidance by a weaker network: away from the mistakes that it makes more of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flow.guidance import Encode, refuse
from flow.limits import Limits, Point, Velocity, finite


@dataclass(frozen=True, slots=True)
class Weak:
    """A network and the text encoder that was trained with it.

    Args:
        velocity: (noisy, t, text, moments) -> velocity, of the same latents.
        encode_text: prompts -> what it takes as text.
    """

    velocity: Velocity
    encode_text: Encode


@dataclass(frozen=True, slots=True)
class Texts:
    """The same prompts, encoded for both networks."""

    own: Any
    weak: Any


@dataclass(frozen=True, slots=True)
class Autoguidance(Limits):
    """Away from what a weaker network would do with the same prompt and the same given frames: weak + scale * (own - weak).

    An earlier checkpoint, or a smaller network trained for less long, makes the same mistakes and more of them. Unlike classifier-free
    guidance this does not trade variety for the prompt: both networks are told it.

    Args:
        scale: 1 is the network's own velocity, and the weak one is not asked; 1.5 to 3 are usual.
        run: the run folder of the weak network, made with the same VAE; it may be the network's own.
        step: of its checkpoint; null: the newest.
        weak: that network; whoever loads the run puts it here.
    Raises: ValueError if the scale is not finite, a limit is out of range or `run` is missing.
    Source: Karras et al. 2024, "Guiding a diffusion model with a bad version of itself".
    """

    scale: float
    run: str | None
    step: int | None = None
    weak: Weak | None = None

    def __post_init__(self) -> None:
        finite(scale=self.scale)
        Limits.__post_init__(self)
        if self.run is None:
            raise ValueError(
                "guidance=auto has no weaker network to lead away from. Set guidance.run=<a run folder>, "
                "for an earlier checkpoint of the same run that run and guidance.step=<its step>."
            )

    def encode(self, encode_text: Encode, prompts: Sequence[str], given: bool, negatives: Sequence[str] = ()) -> Texts:
        refuse(negatives, "guidance=auto")
        return Texts(encode_text(prompts), None if self.scale == 1 else self._bound().encode_text(prompts))

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Texts, moments: Tensor) -> Tensor:
        def own() -> Tensor:
            return network(point.noisy, point.t, text.own, moments)

        def both() -> tuple[Tensor, Tensor]:
            found = own()
            if self.scale == 1:
                return found, found
            weak = self._bound().velocity(point.noisy, point.t, text.weak, moments)
            return found, found + (1 - self.scale) * (weak - found)

        return self.limited(point, own, both)

    def _bound(self) -> Weak:
        assert self.weak is not None, "autoguidance was built without the network of guidance.run: build(node, weak=...)"
        return self.weak
