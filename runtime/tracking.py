"""Where figures go: always a file beside the run; a tracker besides, which can neither stop nor slow a run."""

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from runtime.files import write_text

# The fields of metrics.jsonl that a clock decides. All others are equal, bit for bit, in a run that was killed and resumed.
TIME_FIELDS = ("time_s", "samples_per_s", "loader_wait")


class Journal:
    """metrics.jsonl: one JSON object a line, in the order of steps, never a step twice.

    Args:
        path: the file.
        step: the step that the run goes on from; later rows, of a start that died, are dropped, and so is a line cut by a crash.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= step]
            write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, open as long as the run

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row. Numbers that are not finite are written as text: JSON has no word for them."""
        self._file.write(json.dumps({key: _plain(value) for key, value in row.items()}, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value


class Tracker(Protocol):
    """A place that figures are also sent to. No call may block or raise."""

    def start(self, run: Path, config: Mapping[str, Any]) -> None: ...

    def log(self, row: Mapping[str, Any]) -> None: ...

    def finish(self) -> None: ...


class NoTracker:
    """metrics.jsonl is enough."""

    def start(self, run: Path, config: Mapping[str, Any]) -> None:
        return

    def log(self, row: Mapping[str, Any]) -> None:
        return

    def finish(self) -> None:
        return


class Wandb:
    """Weights & Biases, from a thread of its own: importing it, a server that is away or a full disk cost the run a line of text.

    Args:
        project: the project's name there.
        mode: offline keeps everything in <run>/wandb until `wandb sync`; online sends it at once.
        patience_s: how long the end of a run waits for what is still to be written.
    """

    def __init__(self, project: str, mode: Literal["offline", "online"], patience_s: float) -> None:
        self.project, self.patience_s = project, patience_s
        self.mode: Literal["offline", "online"] = mode
        self._rows: queue.Queue[Mapping[str, Any] | None] = queue.Queue(maxsize=10_000)
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._error: str | None = None

    def start(self, run: Path, config: Mapping[str, Any]) -> None:
        """Begin in the background; returns at once."""
        self._thread = threading.Thread(target=self._work, args=(run, dict(config)), name="wandb", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Hand a row over; if ten thousand wait already, this one is dropped."""
        if self._error is None:
            with contextlib.suppress(queue.Full):
                self._rows.put_nowait(row)

    def finish(self) -> None:
        """Wait a little for the last rows, then leave them."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._rows.put_nowait(None)
        if not self._done.wait(self.patience_s):
            self._error = self._error or f"it did not finish within {self.patience_s:g} s"
            _forget_exit_hooks()
        if self._error is not None:
            print(f"wandb: {self._error}; metrics.jsonl has every figure. tracking=none turns wandb off.", file=sys.stderr)

    def _work(self, run: Path, config: dict[str, Any]) -> None:
        try:
            send, close = self._open(run, config)
            while (row := self._rows.get()) is not None:
                send(row)
            close()
        except BaseException as error:  # whatever a foreign service raises, SystemExit too, ends here
            self._error = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            self._done.set()

    def _open(self, run: Path, config: dict[str, Any]) -> tuple[Callable[[Mapping[str, Any]], None], Callable[[], None]]:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, init_timeout=max(1.0, self.patience_s)
        )
        session = wandb.init(project=self.project, name=run.name, dir=str(run), mode=self.mode, config=config, settings=settings)

        def send(row: Mapping[str, Any]) -> None:
            kind = row.get("kind", "train")
            session.log({f"{kind}/{name}": value for name, value in row.items() if isinstance(value, int | float)}, step=row.get("step"))

        return send, session.finish


def _forget_exit_hooks() -> None:
    """A wandb that hangs would hang again when the interpreter exits; let it go with the process."""
    import atexit

    module = sys.modules.get("wandb.sdk.wandb_setup")
    for name in ("teardown", "_teardown"):
        hook = getattr(module, name, None)
        if hook is not None:
            atexit.unregister(hook)
