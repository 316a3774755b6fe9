"""The demo: world -> VAE -> DiT -> evaluation -> report, each stage an ordinary command of this repository.

Usage: python scripts/demo.py [--fast] [--out runs/demo]     Started again, it goes on where it stopped.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the stages after set-up took where the README's figures were measured, and the bf16 rate of a linear layer there.
REFERENCE_MINUTES = 18.0
REFERENCE_GFLOPS = 300.0


def stages(out: Path, fast: bool) -> list[tuple[str, list[str]]]:
    """(name, command) of each stage; `out` is relative to the checkout, so that the commands can be copied."""
    suffix = "_fast" if fast else ""
    python = "python"
    return [
        ("world", [python, "scripts/make_world.py", f"out={out}/world", f"clips={400 if fast else 5000}"]),
        ("vae", [python, "train.py", f"experiment=demo/vae{suffix}", f"run={out}/vae", f"data.root={out}/world"]),
        ("dit", [python, "train.py", f"experiment=demo/dit{suffix}", f"run={out}/dit", f"vae_run={out}/vae", f"data.root={out}/world"]),
        ("evaluate vae", [python, "scripts/evaluate.py", f"run={out}/vae"]),
        ("evaluate dit", [python, "scripts/evaluate.py", f"run={out}/dit", *(["prompts=24"] if fast else [])]),
        ("report", [python, "scripts/report.py", f"root={out}"]),
    ]


def announce(fast: bool) -> None:
    """Say how long it will take here, from a measured matrix-product rate, before anything starts."""
    from runtime.device import measured_linear_gflops

    rates = measured_linear_gflops()
    best = max(rates.values())
    print(f"this machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores; linear layers at " +
          ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in rates.items()))
    if fast:
        print("--fast: every stage in about three minutes; the samples are not meant to be good")
        return
    minutes = REFERENCE_MINUTES * max(1.0, REFERENCE_GFLOPS / best)
    print(f"expect about {minutes:.0f} minutes (estimated from that rate; {REFERENCE_MINUTES:.0f} where the README's figures were measured)")
    if rates["bfloat16"] < 1.2 * rates["float32"]:
        print("bfloat16 is not faster here, so training runs in float32 and takes longer; --fast shows every stage in a few minutes")


def run_stage(name: str, command: list[str], record: dict) -> None:
    """Run one stage, its output on the terminal; add its seconds to what earlier starts have spent on it."""
    print(f"\n== {name}: {shlex.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, check=False).returncode
    seconds = time.monotonic() - start
    entry = next((stage for stage in record["stages"] if stage["stage"] == name), None)
    if entry is None:
        entry = {"stage": name, "seconds": 0.0, "command": shlex.join(command)}
        record["stages"].append(entry)
    entry["seconds"] = round(entry["seconds"] + seconds, 1)
    if code:
        print(f"\nthe stage '{name}' ended with exit code {code}; its message stands above.\n"
              f"  what is done is kept: mend the cause, then run the same command again, or this stage alone:\n  {shlex.join(command)}", file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


def write_json(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="go through every stage in about three minutes; the samples are not meant to be good")
    parser.add_argument("--out", type=Path, default=None, help="where to work, relative to the checkout (runs/demo, or runs/demo-fast)")
    arguments = parser.parse_args()
    out = arguments.out or Path("runs/demo-fast" if arguments.fast else "runs/demo")
    folder = ROOT / out
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "stages.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"fast": arguments.fast, "stages": []}
    if record["fast"] != arguments.fast:
        sys.exit(f"{out} was made {'with' if record['fast'] else 'without'} --fast. Remove it, or choose another folder: --out runs/other")

    announce(arguments.fast)
    for name, command in stages(out, arguments.fast):
        run_stage(name, command, record)
        # ru_maxrss counts kilobytes on Linux, bytes on macOS; it is the largest single process, set-up and tests left out.
        unit = 1 if sys.platform == "darwin" else 1024
        record["peak_memory_bytes"] = max(record.get("peak_memory_bytes", 0), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
        write_json(file, record)

    total = sum(stage["seconds"] for stage in record["stages"])
    print(f"\nall stages: {total / 60:.1f} minutes, largest process {record['peak_memory_bytes'] / 2**30:.1f} GiB")
    print(f"the page: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
