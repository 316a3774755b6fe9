"""What a network's output stands for: a prediction makes a velocity of it, for the loss and for sampling alike, and nothing else does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from flow.path import from_clean

# (noisy b c f h w, t (b, f), text of b prompts, moments (b, f) in seconds) -> what a prediction makes a velocity of, b c f h w
Network = Callable[[Tensor, Tensor, Any, Tensor], Tensor]


class Prediction(Protocol):
    """How to read a network's output."""

    def velocity(self, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The velocity that the output stands for; finite at every t, also that of a known frame, t = 0, which nobody uses.

        Args:
            output, noisy: b c f h w.
            t: (b, f) in [0, 1].
        """
        ...


@dataclass(frozen=True, slots=True)
class Velocity:
    """The output is the velocity."""

    def velocity(self, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return output


@dataclass(frozen=True, slots=True)
class Clean:
    """The output is the clean latents: velocity = (noisy - output) / t, with t no less than t_least.

    Loss and target stay the true velocity, which weighs an error of the latents by 1 / t^2; JiT bounds t in its target too, so that its
    loss below t_least is another. Here, below t_least, a network learns noisy - t_least * velocity, the latents and next to no noise with
    the sign turned: losses compare with `Velocity`'s at every t, and the last steps of a walk are as long as they should be.

    Args:
        t_least: flow time below which the divisor stays; 0 < t_least <= 1.
    Raises: ValueError if t_least is out of range.
    Source: Li and He 2025 (JiT), arXiv 2511.13720.
    """

    t_least: float

    def __post_init__(self) -> None:
        if not 0 < self.t_least <= 1:
            raise ValueError(
                f"t_least={self.t_least} bounds no division: it must be above 0 and at most 1 (0.05 is usual). Set objective.prediction.t_least."
            )

    def velocity(self, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return from_clean(noisy, output, t.clamp(min=self.t_least))


def velocity_field(network: Network, prediction: Prediction) -> Network:
    """The network with its output read as a velocity: what guidance and solvers work on."""

    def velocity(noisy: Tensor, t: Tensor, text: Any, moments: Tensor) -> Tensor:
        return prediction.velocity(network(noisy, t, text, moments), noisy, t)

    return velocity
