"""Being asked to stop: the first signal is a wish, heard after the step in progress; the second is obeyed at once."""

import signal
from types import FrameType, TracebackType


class StopRequest:
    """Listens for SIGTERM and SIGINT while it is entered.

    `code` is the exit code to leave with, 128 + signal (143, 130), or None while nobody asked.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.code: int | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
