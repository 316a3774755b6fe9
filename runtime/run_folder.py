"""A run's folder: one process at a time, one config, one name for everything in it."""

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from runtime.config import Config, ConfigError, differences, dump, load_run_config
from runtime.files import write_text

Fact = TypeVar("Fact")

# Keys that change what is written down or how fast, never the weights. Not trainer.max_steps: the schedule is a function of step / max_steps,
# so a run with another end was another run from its first decayed step on. Not precision or batch size either: they change the weights.
MAY_CHANGE = (
    "run",  # the folder may be renamed
    "vae_run",  # its VAE was copied into the run, and is compared by its hash
    "allow_drift",
    "tracking",
    "data.workers",
    "data.memory_mb",
    "data.bad_limit",
    "data.probes",
    "data.file_budget_s",
    "trainer.log_every",
    "trainer.validate_every",
    "trainer.preview_every",
    "trainer.checkpoint_every",
    "trainer.keep_last",
    "trainer.bad_steps",
)


def read_facts(run: Path) -> dict[str, Any]:
    """What `RunFolder.remember` wrote down; empty if nothing."""
    path = run / "state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class RunFolder:
    """<run>/: config.yaml, state.json, metrics.jsonl, cost.json, checkpoints/, samples/, run.lock.

    Use as a context: it holds the lock, which dies with the process.

    Args:
        path: the folder; made if it is not there.
        config: the config of this start.
    Raises: ConfigError if another process works here, or the saved config differs in a key that may not change.
    """

    def __init__(self, path: str | Path, config: Config, allow_drift: Sequence[str] = ()) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_file = open(self.path / "run.lock", "a+", encoding="utf-8")  # noqa: SIM115, held as long as the folder is
        except OSError as error:
            raise ConfigError(f"run={path} cannot be a run folder: {error}. Give a folder that can be written.") from None
        self._lock()
        try:
            self._keep_config(config, allow_drift)
        except BaseException:
            self._lock_file.close()
            raise

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock_file.close()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are published."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """Pictures made during training."""
        return self.path / "samples"

    @property
    def cost(self) -> Path:
        """What the run has cost so far."""
        return self.path / "cost.json"

    @property
    def config_hash(self) -> str:
        """sha256 of config.yaml."""
        return hashlib.sha256((self.path / "config.yaml").read_bytes()).hexdigest()

    def fact(self, name: str) -> Any:
        """A choice that an earlier start of this run made (precision, max_steps of a budget), or None."""
        return read_facts(self.path).get(name)

    def remember(self, name: str, value: Fact) -> Fact:
        """Write a choice down, so that a resume makes the same one; returns it."""
        write_text(self.path / "state.json", json.dumps({**read_facts(self.path), name: value}, indent=1) + "\n")
        return value

    def _lock(self) -> None:
        try:
            # A POSIX record lock, not flock: data workers inherit the latter, and would hold it for seconds after a killed trainer.
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.seek(0)
            holder = self._lock_file.read().strip() or "another process"
            self._lock_file.close()
            raise ConfigError(f"run={self.path} is in use by {holder}. Wait for it, stop it, or use a new name.") from None
        self._lock_file.truncate(0)
        self._lock_file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        self._lock_file.flush()

    def _keep_config(self, config: Config, allow_drift: Sequence[str]) -> None:
        path = self.path / "config.yaml"
        begun = any(self.checkpoints.glob("step-*/manifest.json"))
        if begun and not path.exists():
            raise ConfigError(f"{self.path} has checkpoints but no config.yaml, so nobody can tell whose they are. Use a new name (run=...).")
        lines = []
        if path.exists():
            saved = load_run_config(self.path)
            lines = differences(_moved(saved, str(saved.get("run")), str(config["run"])), config, (*MAY_CHANGE, *allow_drift))
        if lines and begun:
            shown = "".join(f"\n  {line}" for line in lines[:20]) + (f"\n  ... and {len(lines) - 20} more" if len(lines) > 20 else "")
            raise ConfigError(
                f"{self.path} was made with another config:{shown}\n"
                f"Use a new name (run=...), start from the saved config, or name what may differ: allow_drift=[{lines[0].partition('=')[0]}]."
            )
        if lines:  # a start that came to nothing binds nobody, nor do its choices
            (self.path / "state.json").unlink(missing_ok=True)
        text = dump(config)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def _moved(node: Any, before: str, now: str) -> Any:
    """A config whose paths inside one run folder (`${run}/latents`) are the same paths inside another."""
    if isinstance(node, dict):
        return {key: _moved(value, before, now) for key, value in node.items()}
    return f"{now}{node[len(before) :]}" if isinstance(node, str) and node.startswith(f"{before}/") else node
