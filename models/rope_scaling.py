"""Rope for longer and larger than trained: how the angles change when an axis has more positions than training saw; scores stay relative."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

AXES = ("time", "height", "width")


class RopeScaling(Protocol):
    """Angles of an axis; it has no parameters, so a trained network can be given another one before sampling."""

    @property
    def sharpness(self) -> float:
        """Factor on the scores of all queries and keys."""
        ...

    def angles(self, positions: Tensor, pairs: int, theta: float, axis: int) -> Tensor:
        """Radians (k, pairs) at positions (k,) of axis 0, 1 or 2 (time, height, width)."""
        ...


def frequencies(pairs: int, theta: float, like: Tensor) -> Tensor:
    """Radians per position of each channel pair, from 1 down geometrically towards 1 / theta; in the precision of `like`."""
    return theta ** (-torch.arange(pairs, device=like.device, dtype=like.dtype) / max(pairs, 1))


class Plain:
    """As trained."""

    sharpness = 1.0

    def angles(self, positions: Tensor, pairs: int, theta: float, axis: int) -> Tensor:
        """Radians (k, pairs)."""
        return positions[:, None] * frequencies(pairs, theta, positions)


def _checked(factors: Sequence[float]) -> tuple[float, float, float]:
    """Raises: ValueError if a factor could not be meant."""
    if len(factors) != 3:
        raise ValueError(f"rope factors={tuple(factors)} are {len(factors)} numbers, wanted 3: time, height, width. Set rope.factors.")
    for name, factor in zip(AXES, factors, strict=True):
        if not 1 <= factor <= 1000:
            raise ValueError(
                f"rope factor {factor:g} of {name} cannot be used: it is the wanted extent over the trained one and must lie between 1 and 1000 "
                "(1 leaves the axis as trained; shorter clips need no scaling). Set rope.factors."
            )
    return factors[0], factors[1], factors[2]


class Interpolation:
    """Positions divided by the factor (Chen et al. 2023): nothing unseen, but neighbours come closer than they ever were.

    Args:
        factors: wanted extent over trained extent of (time, height, width); at least 1.
    """

    sharpness = 1.0

    def __init__(self, factors: Sequence[float]) -> None:
        self.factors = _checked(factors)

    def angles(self, positions: Tensor, pairs: int, theta: float, axis: int) -> Tensor:
        """Radians (k, pairs)."""
        return positions[:, None] / self.factors[axis] * frequencies(pairs, theta, positions)


class NTK:
    """Frequency k of p divided by factor ** (k / (p - 1)) (bloc97 2023): the fastest keeps telling neighbours apart, the slowest spans the whole.

    That is rope with theta * factor ** (d / (d - 2)) for an axis of d = 2 p channels.

    Args:
        factors: wanted extent over trained extent of (time, height, width); at least 1.
    """

    sharpness = 1.0

    def __init__(self, factors: Sequence[float]) -> None:
        self.factors = _checked(factors)

    def angles(self, positions: Tensor, pairs: int, theta: float, axis: int) -> Tensor:
        """Radians (k, pairs)."""
        steps = torch.arange(pairs, device=positions.device, dtype=positions.dtype) / max(pairs - 1, 1)
        return positions[:, None] * (frequencies(pairs, theta, positions) * self.factors[axis] ** -steps)


class YaRN:
    """Slow frequencies interpolated, fast ones kept, those between mixed; the scores sharper for more tokens (Peng et al. 2023, YaRN).

    A pair that turns fewer than `slow` times over the trained extent is interpolated, one that turns more than `fast` times is kept, with a
    linear ramp between. Scores are multiplied by (0.1 ln s + 1) ** 2, s being how many times more tokens there are than trained: the paper's
    1 / t for its one axis.

    Args:
        factors: wanted extent over trained extent of (time, height, width); at least 1.
        trained: trained extents of (time, height, width) in rope's positions: sixths of a second and patches.
        slow, fast: turns over the trained extent; 1 and 32 in the paper.
        temperature: the 0.1 above; 0 leaves the scores as they are.
    """

    def __init__(self, factors: Sequence[float], trained: Sequence[float], slow: float = 1.0, fast: float = 32.0, temperature: float = 0.1) -> None:
        self.factors = _checked(factors)
        if len(trained) != 3 or not all(0 < extent < math.inf for extent in trained):
            raise ValueError(
                f"rope trained={tuple(trained)} must be 3 extents > 0: time in sixths of a second, height and width in patches. Set rope.trained."
            )
        if not 0 <= slow < fast:
            raise ValueError(f"rope slow={slow:g} and fast={fast:g} leave no ramp: 0 <= slow < fast is needed. Set rope.slow and rope.fast.")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"rope temperature={temperature:g} must be a number >= 0. Set rope.temperature (0.1 in the paper).")
        self.trained, self.slow, self.fast, self.temperature = tuple(trained), slow, fast, temperature

    @property
    def sharpness(self) -> float:
        """(temperature * ln s + 1) ** 2 for s times as many tokens as trained."""
        return (self.temperature * math.log(math.prod(self.factors)) + 1) ** 2

    def angles(self, positions: Tensor, pairs: int, theta: float, axis: int) -> Tensor:
        """Radians (k, pairs)."""
        fastest = frequencies(pairs, theta, positions)
        turns = self.trained[axis] * fastest / (2 * math.pi)
        kept = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
        return positions[:, None] * (fastest * (kept + (1 - kept) / self.factors[axis]))
