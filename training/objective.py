"""What the Trainer asks of a task: a loss as sums, so that batches, micro-batches and ranks add up exactly; the Trainer knows no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from data.batch import Batch, Packed
from runtime.run_folder import RunFolder
from runtime.seeding import Rng

Figures = Mapping[str, tuple[Tensor | float, Tensor | float]]  # name -> (sum, count); the Trainer adds them up and divides once


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss over one micro-batch, not yet divided.

    Args:
        total: scalar with a gradient, the SUM over all counted values.
        count: how many values that sum has.
        logs: further figures for the metrics, as (sum, count).
    """

    total: Tensor
    count: Tensor | float
    logs: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture for the run folder: videos uint8 (t, h, w, 3), each with a line of text."""

    videos: Sequence[np.ndarray]
    captions: Sequence[str]


class Objective(Protocol):
    """A task. All randomness comes from `rng` and the batch's sample numbers, so a resumed run draws what an uninterrupted one draws.

    `networks` are the trained ones, by name; frozen ones (a flow objective's VAE) are not among them.
    """

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The trained networks; their names begin the names of the weights in a checkpoint."""
        ...

    @property
    def sides(self) -> Sequence[Sequence[nn.Module]]:
        """The same networks, by the loss that moves them: those of one side learn together, and their gradient is clipped without looking at
        the other sides'. The first side is the one whose norm is logged.
        """
        ...

    def begin(self, folder: RunFolder, allow_drift: Sequence[str] = ()) -> None:
        """Called at each start of a run, once its networks have their first weights and before any data is read: what only this task can
        refuse, it refuses here.

        Args:
            allow_drift: keys of the config that may differ from the run's first start.
        Raises: ConfigError saying what to change.
        """
        ...

    def to(self, device: str) -> None:
        """Move every network, trained or frozen."""
        ...

    def loss(self, batch: Batch | Packed, rng: Rng) -> Loss:
        """The training loss; of a Packed only if the objective takes batches of unlike shape at once."""
        ...

    def validate(self, batch: Batch, rng: Rng) -> Figures:
        """Figures on fixed clips with fixed noise; must hold "loss". Called without gradients, with EMA weights."""
        ...

    def preview(self, batch: Batch, rng: Rng) -> Preview:
        """A few videos that show how far training is. Called without gradients, with EMA weights."""
        ...

    def refresh(self, batches: Sequence[Batch]) -> None:
        """Recompute buffers that follow from the weights (the VAE's whitening), on fixed batches, with EMA weights in place.

        Called before a validation and before a checkpoint. The buffers stay when the EMA weights go, so `loss` must not read them, or a
        run with another checkpoint cadence would train differently.
        """
        ...

    def flops(self, batch: Batch | Packed) -> int:
        """FLOP of forward and backward on this batch, by formula (2 per multiply-add)."""
        ...
