"""What a figure was computed on and with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> str:
    """This machine in words: processor, cores, memory."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError, AttributeError):
        memory = ""
    return f"{name}, {os.cpu_count()} cores{memory}, {platform.system()}"


def versions() -> dict[str, str]:
    """What computed the figures."""
    found = {"python": platform.python_version()}
    for name in ("kinora", "torch", "numpy", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance() -> str:
    """Machine and versions in a line."""
    return ", ".join([machine(), *(f"{name} {number}" for name, number in versions().items())])
