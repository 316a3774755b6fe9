"""What a run has cost so far. Each figure says how it is known; what was not measured is null, not zero."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SOURCES = {
    "time_s": "measured, monotonic clock",
    "loader_wait_s": "measured, monotonic clock",
    "samples": "counted",
    "flop": "computed from the networks' shapes, forward and backward of training steps; validation and samples are not in it",
    "energy_j": "not measured",
}


@dataclass(frozen=True, slots=True)
class Rates:
    """Figures of an interval of training."""

    samples_per_s: float
    flop_per_s: float
    loader_wait: float  # share of the time in which training waited for data


class Meter:
    """Adds up training steps over all starts of a run.

    Args:
        saved: `totals()` of the checkpoint that the run goes on from.
        clock: seconds that never jump back.
    """

    def __init__(self, saved: dict[str, Any] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        before = saved or {}
        self.time_s = float(before.get("time_s", 0.0))
        self.loader_wait_s = float(before.get("loader_wait_s", 0.0))
        self.samples = int(before.get("samples", 0))
        self.flop = int(before.get("flop", 0))
        self._clock, self._began = clock, clock()
        self._mark = (self.time_s, self.loader_wait_s, self.samples, self.flop)

    def begin(self) -> None:
        """The next step begins now: what passed since the last one (validation, a checkpoint) is not training time."""
        self._began = self._clock()

    def end(self, samples: int, flop: int, wait_s: float) -> float:
        """A step has ended; returns its seconds.

        Args:
            wait_s: how long it waited for data, a part of its time.
        """
        now = self._clock()
        took, self._began = now - self._began, now
        self.time_s += took
        self.loader_wait_s += min(wait_s, took)
        self.samples += samples
        self.flop += flop
        return took

    def rates(self) -> Rates:
        """Figures since this was last asked."""
        was, self._mark = self._mark, (self.time_s, self.loader_wait_s, self.samples, self.flop)
        time_s, wait_s, samples, flop = (new - old for new, old in zip(self._mark, was, strict=True))
        if time_s <= 0:
            return Rates(0.0, 0.0, 0.0)
        return Rates(samples / time_s, flop / time_s, wait_s / time_s)

    def totals(self) -> dict[str, Any]:
        """Everything so far, as plain numbers, with the source of each."""
        return {
            "time_s": round(self.time_s, 3),
            "loader_wait_s": round(self.loader_wait_s, 3),
            "samples": self.samples,
            "flop": self.flop,
            "energy_j": None,
            "sources": SOURCES,
        }
