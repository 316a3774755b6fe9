"""Seconds, bytes and FLOP of calls that take turns: a ratio is the median over pairs that ran back to back, never a ratio of medians."""

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], object]
Times = dict[str, list[float]]
MB = 2**20


class Meter(Protocol):
    """Measures calls on one device."""

    def seconds(self, call: Call) -> float:
        """How long one call takes."""
        ...

    def peak_mb(self, call: Call) -> float | None:
        """MB at the call's peak beyond what was held before it; None where it cannot be known."""
        ...


class CpuMeter:
    """Seconds of this process or of the wall; resident memory, where Linux tells its peak.

    The seconds of the process do not count the time in which others had the core: the choice for a machine that is shared.
    """

    def __init__(self, clock: Literal["process", "wall"]) -> None:
        if clock not in ("process", "wall"):
            raise ValueError(f"clock={clock!r} is unknown. Set clock=process or wall.")
        self.clock = time.process_time if clock == "process" else time.perf_counter

    def seconds(self, call: Call) -> float:
        """How long one call takes."""
        begun = self.clock()
        call()
        return self.clock() - begun

    def peak_mb(self, call: Call) -> float | None:
        """MB at the call's peak beyond what was held before it; None outside Linux."""
        reset = Path("/proc/self/clear_refs")
        if not sys.platform.startswith("linux") or not os.access(reset, os.W_OK):
            return None
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # else memory that was freed and kept would hide what the call takes
        if trim is not None:
            trim(0)
        reset.write_text("5", encoding="ascii")  # the peak (VmHWM) begins anew
        before = _status_mb("VmRSS")
        call()
        return _status_mb("VmHWM") - before


class CudaMeter:
    """Seconds between two events around `repeats` calls, per call; memory as torch's allocator counts it."""

    def __init__(self, repeats: int = 1) -> None:
        self.repeats = repeats

    def seconds(self, call: Call) -> float:
        """How long one call takes."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        for _ in range(self.repeats):
            call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / self.repeats

    def peak_mb(self, call: Call) -> float | None:
        """MB at the call's peak beyond what was held before it."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MB


def take_turns(calls: Mapping[str, Call], rounds: int, meter: Meter) -> Times:
    """Seconds of each call in each round; the order turns about, so that neither is always the first. Each runs once before, unmeasured."""
    times: Times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for number in range(rounds):
        order = list(calls) if number % 2 == 0 else list(calls)[::-1]
        for name in order:
            times[name].append(meter.seconds(calls[name]))
    return times


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Ours over theirs, the median over rounds: below 1 is faster. Raises: ValueError if they are not pairs."""
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} times of ours and {len(theirs)} of theirs are no pairs.")
    return median(a / b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Flop:
    """Forward FLOP as counted, two per multiply-add: of attention, and of everything else (linear layers, convolutions)."""

    matmul: int
    attention: int

    @property
    def total(self) -> int:
        """Both."""
        return self.matmul + self.attention


def count_flop(call: Call) -> Flop:
    """Of one forward call. torch's attention runs as two batched products meanwhile, as no kernel of the CPU's is counted."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(number for operation, number in counts.items() if "attention" in str(operation) or str(operation) in ("aten.bmm", "aten.baddbmm"))
    return Flop(counter.get_total_flops() - attention, attention)


def parameters(network: nn.Module) -> int:
    """Weights in all."""
    return sum(weights.numel() for weights in network.parameters())


@contextmanager
def pinned(core: int | None, threads: int) -> Iterator[None]:
    """Run on one core (None: wherever the system likes) with that many threads; both are as before afterwards."""
    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if core is not None and cores is not None:
        if core not in cores:
            raise ValueError(f"core={core} is not there, only {sorted(cores)}. Set core, or core=null.")
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if cores is not None:
            os.sched_setaffinity(0, cores)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Float32 is float32 on a GPU too: by default torch rounds the inputs of convolutions to 10 bits and those of products not."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def tf32() -> dict[str, bool]:
    """Where torch may round float32 to TF32 now."""
    return {"convolutions": bool(torch.backends.cudnn.allow_tf32), "products": bool(torch.backends.cuda.matmul.allow_tf32)}


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    return {"cpu": _cpu_name(), "logical_cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}", "gpu": gpu}


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that are compared; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("torch", "diffusers", "transformers", "accelerate", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}: memory cannot be measured here. Set memory=false.")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
