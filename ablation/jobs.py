"""One piece of work as the commands that do it: stopped at any moment, it goes on; done once, it is not done again."""

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runtime.config import ROOT
from runtime.files import write_text
from runtime.machine import provenance

SHOWN_LINES = 8  # of a failed command's log
WAIT_S = 0.5  # between two looks at a lock
FAILED = " failed: "  # between a job's name and what went wrong
Process = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Job:
    """Python scripts of this checkout, one after the other, that fill one folder. Relative paths are so to where the user stands.

    Args:
        name: in words, for whoever waits.
        folder: what the commands fill.
        result: file in the folder that the last command writes; without it nothing is done, whatever done.json says.
        commands: each a script and its arguments.
        notes: folder for done.json, job.lock and log.txt; None: the same folder. Not every command takes one that is not empty.
        work: what the commands come to, where several ways to write them come to the same; None: they are as they are written.
        needs: jobs that must be done first; several jobs may need the same one.
    """

    name: str
    folder: Path
    result: str
    commands: tuple[tuple[str, ...], ...]
    notes: Path | None = None
    work: str | None = None
    needs: tuple["Job", ...] = ()

    @property
    def log(self) -> Path:
        """What the commands printed."""
        return (self.notes or self.folder) / "log.txt"

    @property
    def note(self) -> Path:
        """That the commands have run to their end, and where."""
        return (self.notes or self.folder) / "done.json"

    @property
    def lock(self) -> Path:
        """Held by whoever runs the job and by its commands: also by one that outlived whoever started it."""
        return (self.notes or self.folder) / "job.lock"

    @property
    def done(self) -> bool:
        """Whether these very commands, and all that they need, have run to their end before."""
        if not all(need.done for need in self.needs):
            return False
        try:
            return self._facts().items() <= json.loads(self.note.read_text(encoding="utf-8")).items()
        except (OSError, ValueError, AttributeError):
            return False

    def _facts(self) -> dict[str, Any]:
        """What done.json has to hold: a result that somebody else has written since is not these commands'."""
        of = [job.folder / job.result for job in (self, *self.needs)]  # what was trained again has to be measured again
        return {"work": self.work or [list(command) for command in self.commands], "sha256": [_sha256(path) for path in of]}

    @property
    def running(self) -> bool:
        """Whether anybody is at it, or at what it needs."""
        if any(need.running for need in self.needs):
            return True
        try:
            with open(self.lock, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False


class JobError(RuntimeError):
    """A command failed; the message holds the end of what it said.

    Args:
        lock: of the job whose command it is: of one that another needs, say.
    """

    def __init__(self, message: str, lock: Path | None = None) -> None:
        super().__init__(message)
        self.lock = lock


def run(
    job: Job,
    threads: int | None = None,
    started: Callable[[Process], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run a job's commands, after what it needs, unless they are done; whoever else is at them is waited for.

    What they print goes to the job's log; Ctrl-C at the terminal does not reach them.

    Args:
        threads: of one operation on a CPU; None: PyTorch's choice.
        started: is shown each process, to be able to end it.
        stopped: whether to give up waiting.
    Raises: JobError if one fails.
    """
    for need in job.needs:
        run(need, threads, started, stopped)
    if job.done or stopped():
        return
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.lock, "ab") as lock:
        while not _taken(lock):
            if stopped():
                return
            time.sleep(WAIT_S)
        if not job.done:  # by the one that was waited for
            _work(job, threads, started, lock)


def _taken(lock: BinaryIO) -> bool:
    """flock, not a record lock: the commands inherit it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _work(job: Job, threads: int | None, started: Callable[[Process], None], lock: BinaryIO) -> None:
    job.note.unlink(missing_ok=True)
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    for command in job.commands:
        with open(job.log, "ab") as log:
            log.write(f"$ python {shlex.join(command)}\n".encode())
            log.flush()
            called = [sys.executable, str(ROOT / command[0]), *command[1:]]
            held = (lock.fileno(),)
            with subprocess.Popen(called, stdout=log, stderr=log, env=environment, start_new_session=True, pass_fds=held) as process:
                started(process)
                try:
                    code = process.wait()
                finally:  # whoever runs this was stopped: the run saves and ends too
                    if process.poll() is None:
                        process.terminate()
                        process.wait()
        if code:
            said = _tail(job.log)
            cause = said[-1].strip() if said else f"exit code {code}"
            ended = f"  python {shlex.join(command)} ended with exit code {code}"
            raise JobError("\n".join([f"{job.name}{FAILED}{cause}", ended, *said, f"  the whole log: {job.log}"]), job.lock)
    if not (job.folder / job.result).exists():
        raise JobError(f"{job.name}{FAILED}its commands ended well and left no {job.folder / job.result}\n  the whole log: {job.log}", job.lock)
    write_text(job.note, json.dumps(job._facts() | {"on": provenance()}, indent=1) + "\n")


def _tail(log: Path) -> list[str]:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return [f"    {line}" for line in lines[-SHOWN_LINES:]]
