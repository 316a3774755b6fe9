"""Peak memory of a call in a process of its own: no call before it can have left memory behind that hides or adds to what it takes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from bench.measure import Call, CpuMeter, CudaMeter, pinned, without_tf32

ROOT = Path(__file__).resolve().parents[1]
RETURNED = "65536"  # bytes: what is larger goes back to the system as soon as it is freed


@dataclass(frozen=True, slots=True)
class Job:
    """A call that another process can make.

    Args:
        make: module:function, which makes the call from the device and the arguments.
        arguments: as JSON knows them.
    """

    make: str
    device: str
    arguments: Sequence[Any]

    def call(self) -> Call:
        """Made in this process."""
        module, name = self.make.split(":")
        return getattr(import_module(module), name)(self.device, *self.arguments)


def peaks_mb(job: Job, rounds: int) -> list[float | None]:
    """MB at the call's peak beyond what was held before it, once per process; None where it cannot be known.

    Raises: RuntimeError if a process ends before it has measured.
    """
    order = json.dumps({"threads": torch.get_num_threads(), "job": asdict(job)})
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": RETURNED}
    peaks = []
    for _ in range(rounds):
        ran = subprocess.run(
            [sys.executable, "-m", "bench.fresh"], cwd=ROOT, env=surroundings, input=order, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(
                f"{job.make} of {list(job.arguments)} ended with {ran.returncode} in a process of its own: {last}. Or set memory=false."
            )
        peaks.append(json.loads(ran.stdout.splitlines()[-1]))
    return peaks


def peak_mb(job: Job) -> float | None:
    """Of the second call in this process: what is made once and kept (compiled kernels, tables) is no part of it."""
    meter, call = CudaMeter() if job.device.startswith("cuda") else CpuMeter("process"), job.call()
    call()
    return meter.peak_mb(call)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    with pinned(None, given["threads"]), without_tf32():  # the core is the parent's
        print(json.dumps(peak_mb(Job(**given["job"]))))
