"""Which latent frames of a training sample are given: a mixture of patterns, the same choices that sampling makes."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.seeding import Rng, Stream

# (uniform numbers of each sample (b, PATTERN_NUMBERS), latent frames f) -> known (b, f). With f = 1 nothing may be known.
Pattern = Callable[[np.ndarray, int], np.ndarray]
# Uniform numbers a pattern may use. A shorter draw is the beginning of a longer one, so raising this changes no existing pattern.
PATTERN_NUMBERS = 3


def none(numbers: np.ndarray, f: int) -> np.ndarray:
    """Nothing is known: text to video."""
    return np.zeros((len(numbers), f), dtype=bool)


def first(numbers: np.ndarray, f: int) -> np.ndarray:
    """The first latent frame, which is one picture: image to video."""
    return np.repeat(np.arange(f)[None] < min(1, f - 1), len(numbers), axis=0)


def first_n(numbers: np.ndarray, f: int) -> np.ndarray:
    """A beginning of 1 to f - 1 latent frames, each length equally often: extension forwards."""
    length = 1 + np.floor(numbers[:, :1] * (f - 1)) if f > 1 else np.zeros((len(numbers), 1))
    return np.arange(f)[None] < length


PATTERNS: dict[str, Pattern] = {"none": none, "first": first, "first_n": first_n}


@dataclass(frozen=True, slots=True)
class KnownFrames:
    """Draws each sample's pattern of known frames.

    Args:
        weights: how often each pattern comes up, relative to the others; names from PATTERNS.
    Raises: ValueError for an unknown name, a negative weight or weights that are all 0.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in PATTERNS:
                near = difflib.get_close_matches(name, PATTERNS, n=1, cutoff=0.0)[0]
                raise ValueError(f"'{name}' is no pattern of known frames ({', '.join(PATTERNS)}; did you mean '{near}'?). Set conditioning.weights.")
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of pattern '{name}' is {weight}, it must be a finite number >= 0. Set conditioning.weights.{name}.")
        if not sum(self.weights.values()) > 0:
            raise ValueError("no pattern of known frames has a weight > 0. Set conditioning.weights, for example {none: 1}.")

    def draw(self, rng: Rng, samples: Sequence[int], latent_frames: int) -> Tensor:
        """Which frames are known, (b, f) bool; at least one frame of each sample is unknown."""
        numbers = rng.uniform(Stream.KNOWN, samples, 1 + PATTERN_NUMBERS)
        names = [name for name, weight in self.weights.items() if weight > 0]
        shares = np.cumsum([self.weights[name] for name in names])
        chosen = np.searchsorted(shares / shares[-1], numbers[:, 0], side="right")
        known = np.zeros((len(samples), latent_frames), dtype=bool)
        for number, name in enumerate(names):
            rows = chosen == number
            known[rows] = PATTERNS[name](numbers[rows, 1:], latent_frames)
        assert not known.all(axis=1).any(), "a pattern left no frame to learn from"
        return torch.from_numpy(known)
