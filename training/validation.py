"""Validation: fixed clips, fixed noise and fixed times, so that two figures of a curve differ by the weights alone."""

from collections.abc import Sequence

import torch

from data.batch import Batch
from runtime.device import autocast
from runtime.seeding import Rng
from training.figures import Tally
from training.objective import Objective

# The same in every run, whatever its seed: runs can be compared.
VALIDATION_RNG = Rng(20_240_215)


@torch.no_grad()
def validate(objective: Objective, batches: Sequence[Batch], precision: str, device: str) -> dict[str, float]:
    """The objective's validation figures over all batches; the weights in place are those that are judged."""
    tally = Tally()
    for batch in batches:
        with autocast(precision, device):
            tally.add(objective.validate(batch.to(device), VALIDATION_RNG))
    return tally.means()
