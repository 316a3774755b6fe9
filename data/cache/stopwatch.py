"""Where the time of a long job goes, by name: what says whether a cache waits for its files, its network or its disk."""

import time


class Stopwatch:
    """Books the time since the last call under a name.

    Attributes:
        spent_s: seconds by name, in the order in which the names first came.
    """

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str | None) -> None:
        """What was done since the last lap; None: nothing that counts."""
        now = time.perf_counter()
        if name is not None:
            self.spent_s[name] = self.spent_s.get(name, 0.0) + now - self._since
        self._since = now

    def __str__(self) -> str:
        total = sum(self.spent_s.values())
        return f"{total:.1f} s: " + ", ".join(f"{seconds:.1f} s ({seconds / max(total, 1e-9):.0%}) {name}" for name, seconds in self.spent_s.items())
