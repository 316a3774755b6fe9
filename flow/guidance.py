"""Guidance turns a network's velocity into a guided one; the network and the solver know nothing of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from flow.limits import Limits, Point, Velocity, finite, projection, share

Encode = Callable[[Sequence[str]], Any]  # b prompts -> what a network takes as text; a slice of it is that of a part of the prompts


class Guidance(Protocol):
    """Says which texts it wants encoded and makes one velocity of what the network says to them."""

    def encode(self, encode_text: Encode, prompts: Sequence[str], given: bool, negatives: Sequence[str] = ()) -> Any:
        """The texts as `velocity` takes them, once per sampling call, for a batch of b prompts.

        Args:
            encode_text: the text encoder of the network.
            given: whether some sample of the batch has given frames.
            negatives: what each sample is to be led away from; empty: the empty prompt.
        Raises: ValueError if there are negatives, and this guidance leads away from no prompt.
        """
        ...

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Any, moments: Tensor) -> Tensor:
        """The guided velocity of b samples.

        Args:
            network: the raw velocity.
            point: where the samples stand, given frames at t = 0.
            hidden: the same with the given frames under noise like the others; None if no frame is given.
            text: of `self.encode(encode_text, prompts, hidden is not None)`.
            moments: seconds (b, f) at which each latent frame ends.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoGuidance:
    """The network's own velocity."""

    def encode(self, encode_text: Encode, prompts: Sequence[str], given: bool, negatives: Sequence[str] = ()) -> Any:
        refuse(negatives, "guidance=none")
        return encode_text(prompts)

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Any, moments: Tensor) -> Tensor:
        return network(point.noisy, point.t, text, moments)


def refuse(negatives: Sequence[str], setting: str) -> None:
    """Raises: ValueError if there are negative prompts, naming the setting under which they would say nothing."""
    if any(negatives):
        raise ValueError(f"a negative prompt says nothing under {setting}: only guidance=classifier_free leads away from a prompt. Set guidance.")


_REPEATED = WeakTensorKeyDictionary()  # moments -> their version and repetitions


def _repeated(moments: Tensor, times: int) -> Tensor:
    """Moments (b, f) several times over, (times b, f); the same tensor at each step of a walk, by which a network finds again what it made of it.

    Of a tensor made under inference mode a new one each time: nobody could tell whether it has been changed.
    """
    if times == 1:
        return moments
    if moments.is_inference():
        return moments.repeat(times, 1)
    kept: Any = _REPEATED.get(moments)
    if kept is None or kept[0] != moments._version:
        kept = moments._version, {}
        _REPEATED[moments] = kept
    made = kept[1]
    if times not in made:
        with torch.inference_mode(False):
            made[times] = moments.repeat(times, 1)
    return made[times]


@dataclass(frozen=True, slots=True)
class Term:
    """One answer of the network and its weight: with or without the prompt, with the given frames shown or hidden."""

    weight: float
    prompt: bool
    frames: bool


@dataclass(frozen=True, slots=True)
class ClassifierFree(Limits):
    """Away from what the network would do without the prompt, and without the given frames; all answers in one batch.

    blind + frames * (shown - blind) + scale * (told - shown), where `told` has the prompt and the given frames, `shown` the frames alone and
    `blind` neither. Equal scales need no `shown`, and without given frames `shown` is `blind`. The network's own velocity is `told`.

    Args:
        scale: of the prompt; 1 is the network's own velocity (and costs one half), 0 ignores the prompt, 2 to 7 are usual.
        frames: of the given frames, in the same way; null is 1.
        project: share of the way on which `shown` and `blind` are brought to the length that is nearest to `told`, sample by sample, before
            their difference is taken; null is 0, 1 is CFG-Zero*'s "optimized scale".
    Raises: ValueError if a scale is not finite or a limit is out of range.
    Source: Ho and Salimans 2022; for frames Song et al. 2025 (history guidance); for project Fan et al. 2025 (CFG-Zero*), section 4.1.
    """

    scale: float
    frames: float | None = None
    project: float | None = None

    def __post_init__(self) -> None:
        finite(scale=self.scale, frames=self.frames)
        share(project=self.project)
        Limits.__post_init__(self)

    def terms(self, given: bool) -> list[Term]:
        """What to ask the network, `told` first; the weights sum to 1."""
        frames = self.frames if given and self.frames is not None else 1.0
        told, *others = Term(self.scale, True, True), Term(frames - self.scale, False, True), Term(1 - frames, False, False)
        if told.weight == 0 and self.interval is None and self.rescale is None and self.project is None:
            return [term for term in others if term.weight != 0]
        return [told, *(term for term in others if term.weight != 0)]

    def prompts(self, prompts: Sequence[str], given: bool, negatives: Sequence[str] = ()) -> list[str]:
        """The texts of all terms, one term after the other."""
        away = list(negatives) or [""] * len(prompts)
        return [text for term in self.terms(given) for text in (prompts if term.prompt else away)]

    def encode(self, encode_text: Encode, prompts: Sequence[str], given: bool, negatives: Sequence[str] = ()) -> Any:
        if all(term.prompt for term in self.terms(given)):
            refuse(negatives, f"guidance.scale={self.scale:g}")
        return encode_text(self.prompts(prompts, given, negatives))

    def velocity(self, network: Velocity, point: Point, hidden: Point | None, text: Any, moments: Tensor) -> Tensor:
        terms = self.terms(hidden is not None)

        def told() -> Tensor:
            return network(point.noisy, point.t, text[: len(point.noisy)], moments)

        def both() -> tuple[Tensor, Tensor]:
            points = [point if term.frames or hidden is None else hidden for term in terms]
            answers = network(
                torch.cat([one.noisy for one in points]), torch.cat([one.t for one in points]), text, _repeated(moments, len(terms))
            )  # (terms b) c f h w
            first, *others = answers.chunk(len(terms))
            if self.project is not None:
                lengths = [1 + self.project * (projection(first, other, point.to_be_made) - 1) for other in others]
                others = [length[:, None, None, None, None] * other for length, other in zip(lengths, others, strict=True)]
            # As differences from the first: answers that agree are not moved by any scale.
            return first, sum((term.weight * (other - first) for term, other in zip(terms[1:], others, strict=True)), start=first)

        return self.limited(point, told, both)
