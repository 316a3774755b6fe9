"""Laws of flow time for training and grids of flow time for sampling, joined by the one `shift` that both must use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from runtime.seeding import Rng, Stream


class Law(Protocol):
    """Draws flow times for training, before the shift."""

    def draw(self, rng: Rng, samples: Sequence[int], frames: int) -> Tensor:
        """Flow times (b, f), float32 in [0, 1], a function of the seed and each sample's number alone."""
        ...


class Curve(Protocol):
    """A law of one flow time, given by its quantile function."""

    def quantile(self, u: Tensor) -> Tensor:
        """The flow time below which a share u of all draws lies: increasing, float64 to float64, (0, 1) to [0, 1]."""
        ...


def shift(t: Tensor, a: float) -> Tensor:
    """Move flow times towards noise: a t / (1 + (a - 1) t).

    A long video hides less under the same noise, so `a` grows with its token count.

    Args:
        t: any shape, in [0, 1].
        a: > 0; 1 changes nothing.
    Returns: like `t`; 0 and 1 stay fixed.
    Raises: ValueError if a is not a finite number > 0.
    Source: Esser et al. 2024 (SD3), section 5.3.2.
    """
    if not 0 < a < math.inf:
        raise ValueError(f"shift={a} is no shift of flow time: it must be a finite number > 0 (1 changes nothing, 3 is usual for video). Set shift.")
    # The same fraction with its denominator written as a t + (1 - t): at t = 1 it is a / a, exactly 1 for every a in every precision.
    return a * t / (a * t + (1 - t))


def grid(steps: int, shift_by: float, start: float = 1.0) -> Tensor:
    """The flow times of a sampling call: from exactly `start` to exactly 0, evenly spaced before the shift.

    Args:
        steps: solver steps, >= 1.
        shift_by: the `a` of `shift`, the one the model was trained with.
        start: flow time in [0, 1] at which the walk begins; below 1 where it begins from a clip under some noise.
    Returns: (steps + 1,) float64, falling.
    Raises: ValueError if steps < 1, the shift is not > 0 or start is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} walks nowhere: sampling needs at least 1 solver step (12 to 50 are usual). Set steps.")
    if not 0 <= start <= 1:
        raise ValueError(f"start={start} is no flow time: it must lie in [0, 1].")
    if start == 1:
        return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift_by)
    begin = shift(torch.tensor(start, dtype=torch.float64), 1 / shift_by)  # the inverse of the shift by a is the shift by 1 / a
    times = shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64) * begin, shift_by)
    times[0] = start
    return times


def _numbers(rng: Rng, samples: Sequence[int], width: int) -> Tensor:
    # The draw is in [0, 1): zero is moved inside, because a quantile there may be infinite.
    return torch.from_numpy(rng.uniform(Stream.TIME, samples, width)).clamp_(min=2.0**-54)


def _one_level(curve: Curve, rng: Rng, samples: Sequence[int], frames: int) -> Tensor:
    t = curve.quantile(_numbers(rng, samples, 1)).float()  # b 1
    return t.expand(len(samples), frames).contiguous()  # b f


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every flow time equally often; one level for all frames of a sample."""

    def quantile(self, u: Tensor) -> Tensor:
        return u

    def draw(self, rng: Rng, samples: Sequence[int], frames: int) -> Tensor:
        return _one_level(self, rng, samples, frames)


@dataclass(frozen=True, slots=True)
class LogitNormal:
    """logit(t) is normal: the middle of the path, where velocity is hardest to guess, comes up most; one level for all frames of a sample.

    Args:
        mean: of logit(t); 0 centres on t = 0.5, more is noisier.
        std: of logit(t), > 0; 1 is usual, more reaches further to both ends.
    Raises: ValueError if std is not > 0 or mean is not finite.
    Source: Esser et al. 2024 (SD3), section 3.1.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (0 < self.std < math.inf and math.isfinite(self.mean)):
            raise ValueError(
                f"mean={self.mean}, std={self.std} make no law of flow time: std must be > 0, both finite. Set timesteps.mean, timesteps.std."
            )

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def draw(self, rng: Rng, samples: Sequence[int], frames: int) -> Tensor:
        return _one_level(self, rng, samples, frames)


@dataclass(frozen=True, slots=True)
class Mode:
    """Leans to the middle (scale > 0) or to both ends (scale < 0) while every flow time stays possible; one level for all frames of a sample.

    Args:
        scale: -1 to 2 / (pi - 2) = 1.75, where the law stays monotone; 0 is uniform.
    Raises: ValueError if scale is outside.
    Source: Esser et al. 2024 (SD3), equation 20, whose u is 1 - u here.
    """

    scale: float

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise ValueError(f"scale={self.scale} folds the law of flow time back on itself: it must be in [-1, 1.75]. Set timesteps.scale.")

    def quantile(self, u: Tensor) -> Tensor:
        return u + self.scale * (u - torch.sin(math.pi / 2 * u) ** 2)

    def draw(self, rng: Rng, samples: Sequence[int], frames: int) -> Tensor:
        return _one_level(self, rng, samples, frames)


@dataclass(frozen=True, slots=True)
class PerFrame:
    """Every latent frame of a sample at its own level.

    Args:
        law: the law of one frame.
    Source: Chen et al. 2024 (Diffusion Forcing).
    """

    law: Curve

    def draw(self, rng: Rng, samples: Sequence[int], frames: int) -> Tensor:
        return self.law.quantile(_numbers(rng, samples, frames)).float()  # b f
