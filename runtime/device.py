"""Where a run computes and in which precision; what is faster is measured, not assumed."""

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from runtime.seeding import Stream, generator

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str, key: str = "trainer.device") -> str:
    """The device that `auto` means here, or the named one.

    Args:
        key: the config key that named it, for the message.
    Raises: ValueError if it does not exist.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        raise ValueError(f"{key}={name} is not here. Set {key}=cpu, or auto.") from None
    return name


def pick_precision(name: str, device: str) -> str:
    """float32 or bfloat16; `auto` takes bfloat16 only where a linear layer, forward and backward, runs at least 1.2 times faster in it.

    The choice depends on the machine and its load, so a run must remember it.

    Raises: ValueError if the name is unknown.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise ValueError(f"trainer.precision={name} is unknown. Set trainer.precision=auto, float32 or bfloat16.")
    times = {precision: linear_s(precision, device) for precision in PRECISIONS}
    return "bfloat16" if times["float32"] > 1.2 * times["bfloat16"] else "float32"


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Run matrix products in bfloat16, or change nothing; weights stay float32 in both."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=PRECISIONS[precision])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Networks made inside get their initial weights from (seed, Stream.INIT); torch's global generator is as before afterwards."""
    with torch.random.fork_rng():
        # 32 bits are all that torch's CPU generator keeps of a seed.
        torch.manual_seed(int(generator(seed, Stream.INIT).integers(2**32)))
        yield


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed instead of handing it back to the kernel; elsewhere nothing happens.

    A small step frees and takes the same tens of megabytes each time: 18,000 page faults, 13 % of its time on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # another C library has no such option
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        set_option(trim_threshold, 2**30)
        set_option(mmap_threshold, 2**30)


def linear_s(precision: str, device: str, rows: int = 2048, width: int = 512, repeats: int = 4) -> float:
    """Seconds of one linear layer, forward and backward; the best of a few, as neighbours only ever slow it down."""
    layer = torch.nn.Linear(width, width, device=device)
    x = torch.ones(rows, width, device=device, requires_grad=True)
    best = float("inf")
    for _ in range(repeats + 1):  # the first pass warms up
        start = time.perf_counter()
        with autocast(precision, device):
            y = layer(x)
        y.float().sum().backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def describe(device: str) -> str:
    """The device in words, for people."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
