"""The learning rate as a pure function of the step: a resumed run needs no scheduler state."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up, flat, then linear decay to zero at the end of the run.

    Args:
        warmup_steps: steps over which the rate rises linearly.
        decay_share: share of the run over which it falls to zero; half of a small model's quality is won there.
    Raises: ValueError if a number is out of range.
    """

    warmup_steps: int
    decay_share: float

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or not 0 <= self.decay_share <= 1:
            raise ValueError(f"warmup_steps={self.warmup_steps}, decay_share={self.decay_share}: wanted >= 0 and in [0, 1]. Set trainer.schedule.")

    def factor(self, step: int, max_steps: int | None) -> float:
        """What to multiply the base rate with in the update that ends step `step` (the first is 0).

        Args:
            max_steps: updates in all; None while a budget is still being timed, when nothing decays yet.
        """
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if max_steps is None or self.decay_share == 0:
            return rise
        return min(rise, max(0.0, (max_steps - step) / (self.decay_share * max_steps)))
