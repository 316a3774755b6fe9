"""What a person sees while a run trains: one bar at a terminal, a line every half minute in a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Loss, samples/s, the share of waiting for data and the time left.

    Args:
        step: where the run goes on from.
        max_steps: its end, or None while a budget is being timed.
        every_s: seconds between lines where stderr is no terminal.
    """

    def __init__(self, step: int, max_steps: int | None, every_s: float = 30.0) -> None:
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=max_steps, initial=step, unit="step", dynamic_ncols=True, disable=not self._terminal, file=sys.stderr)
        self._every_s, self._last = every_s, time.monotonic()
        self._step, self._max_steps, self._text = step, max_steps, ""
        self._took: list[float] = []

    def step(self, took_s: float) -> None:
        """A step has ended."""
        self._step += 1
        self._took = [*self._took[-49:], took_s]
        self._bar.update(1)
        now = time.monotonic()
        if not self._terminal and now - self._last >= self._every_s:
            self._last = now
            self.say(f"step {self._step}/{self._max_steps or '?'}  {self._text}  {duration(self.left_s())} left")

    def end_at(self, max_steps: int) -> None:
        """The end of the run is known now."""
        self._max_steps = self._bar.total = max_steps
        self._bar.refresh()

    def left_s(self) -> float:
        """Seconds of training that remain, by the median of the last steps."""
        median = sorted(self._took)[len(self._took) // 2] if self._took else 0.0
        return median * max(0, (self._max_steps or self._step) - self._step)

    def show(self, loss: float, samples_per_s: float, loader_wait: float) -> None:
        """The figures of the last interval."""
        self._text = f"loss {loss:.4g}  {samples_per_s:.1f} samples/s  {loader_wait:.0%} waiting for data"
        self._bar.set_postfix_str(self._text)

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._terminal:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def big(number: float) -> str:
    """A large number with a letter: 1.92 M, 3.1 G."""
    for letter, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {letter}"
    return f"{number:.3g}"
