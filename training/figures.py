"""Sums and counts of logged figures over an interval; a mean is taken once, at the end, so parts of unlike size weigh right."""

from collections.abc import Mapping

from training.objective import Figures


class Tally:
    """Adds up figures. Its state is plain numbers, so a resumed run goes on in the middle of an interval."""

    def __init__(self, saved: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.sums: dict[str, tuple[float, float]] = {name: (float(pair[0]), float(pair[1])) for name, pair in (saved or {}).items()}

    def add(self, figures: Figures) -> None:
        """Add (sum, count) pairs by name."""
        for name, (total, count) in figures.items():
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (before[0] + float(total), before[1] + float(count))

    def means(self) -> dict[str, float]:
        """The mean of each figure that was counted at all."""
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def clear(self) -> None:
        """Begin the next interval."""
        self.sums = {}
