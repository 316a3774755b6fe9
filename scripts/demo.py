"""The demo: world -> VAE -> DiT -> evaluation -> report, each stage an ordinary command of this repository.

Usage: python scripts/demo.py [--fast | --standard] [--out runs/demo]     Started again, it goes on where it stopped.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from runtime.files import write_text

ROOT = Path(__file__).resolve().parents[1]
# What the stages took where the README's figures were measured, how fast a linear layer, forward and backward, was there, and which share
# of a training step is such layers.
REFERENCE_MINUTES = {"easy": 17.0, "standard": 38.0}  # standard: most of it on one core, the other one busy
REFERENCE_GFLOPS = 550.0
LINEAR_SHARE = 0.4
LINEAR = {"rows": 2048, "width": 512}
LINEAR_FLOP = 6 * LINEAR["rows"] * LINEAR["width"] ** 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a form of the demo puts into its stages' commands; `suffix` is of its experiments."""

    suffix: str
    world: tuple[str, ...] = ()
    evaluate_vae: tuple[str, ...] = ()
    evaluate_dit: tuple[str, ...] = ()


RECIPES = {
    # Of 5000 clips a given frame is remembered rather than looked at: its shape was kept on every clip of training, on 90 % of fresh ones.
    "easy": Recipe("", ("clips=12000",)),
    "fast": Recipe("_fast", ("clips=400", "val=32", "heldout=32"), ("clips=24",), ("prompts=24", "seen=12", "animated=8", "clips=24")),
    "standard": Recipe("_standard", ("difficulty=standard", "clips=12000"), (), ("prompts=512",)),
}


def stages(out: Path, recipe: Recipe) -> list[tuple[str, list[str]]]:
    """(name, command) of each stage; `out` is relative to the checkout, so that the commands can be copied."""
    world = f"world={out}/world"
    commands = [
        ("world", ["scripts/make_world.py", f"out={out}/world", *recipe.world]),
        ("vae", ["train.py", f"experiment=demo/vae{recipe.suffix}", f"run={out}/vae", world]),
        ("dit", ["train.py", f"experiment=demo/dit{recipe.suffix}", f"run={out}/dit", f"vae_run={out}/vae", world]),
        ("evaluate vae", ["scripts/evaluate.py", f"run={out}/vae", *recipe.evaluate_vae]),
        ("evaluate dit", ["scripts/evaluate.py", f"run={out}/dit", *recipe.evaluate_dit]),
        ("report", ["scripts/report.py", f"root={out}"]),
    ]
    return [(name, ["python", *command]) for name, command in commands]


def announce(recipe: str) -> None:
    """Say how long it will take here, from a measured rate, before anything starts."""
    from runtime.device import PRECISIONS, linear_s

    rates = {name: LINEAR_FLOP / linear_s(name, "cpu", **LINEAR) / 1e9 for name in PRECISIONS}
    measured = ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in rates.items())
    print(f"this machine: {os.cpu_count()} {platform.machine()} cores; a linear layer, forward and backward: {measured}")
    if recipe == "fast":
        print("--fast: every stage in about three minutes; its samples are not meant to be good")
        return
    there = REFERENCE_MINUTES[recipe]
    slower = max(1.0, REFERENCE_GFLOPS / max(rates.values()))
    minutes = there * (1 - LINEAR_SHARE + LINEAR_SHARE * slower)
    print(f"expect about {minutes:.0f} minutes (reckoned from that rate; {there:.0f} where the README's figures were measured)")
    if rates["bfloat16"] < 1.2 * rates["float32"]:
        print("bfloat16 is not faster here, so training runs in float32 and takes longer; --fast shows every stage in a few minutes")


def run_stage(name: str, command: list[str], record: dict) -> int:
    """Run one stage, its output on the terminal, and return its exit code.

    Its seconds are added to what unfinished starts have spent on it; a finished stage that is started again keeps its own.
    """
    print(f"\n== {name}: {shlex.join(command)}", flush=True)
    start = time.monotonic()
    code = run_command([sys.executable, *command[1:]])
    seconds = time.monotonic() - start
    entry = next((stage for stage in record["stages"] if stage["stage"] == name), None)
    if entry is None:
        entry = {"stage": name, "seconds": 0.0, "command": shlex.join(command)}
        record["stages"].append(entry)
    if not entry.get("done"):
        entry |= {"seconds": round(entry["seconds"] + seconds, 1), "done": code == 0}
    return code


def run_command(command: list[str]) -> int:
    """Its exit code, below 0 for a signal. Ctrl-C reaches the command by itself and SIGTERM is passed on: it saves, and is not killed at once."""
    with subprocess.Popen(command, cwd=ROOT) as process:
        handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: lambda *_: process.terminate()}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--fast", action="store_true", help="go through every stage in about three minutes; the samples are not meant to be good")
    forms.add_argument("--standard", action="store_true", help="the longer recipe: up to two objects, textured grounds, cameras, night")
    parser.add_argument("--out", type=Path, default=None, help="where to work (runs/demo, with -fast or -standard behind it)")
    arguments = parser.parse_args()
    recipe = "fast" if arguments.fast else "standard" if arguments.standard else "easy"
    out = arguments.out or Path("runs/demo" if recipe == "easy" else f"runs/demo-{recipe}")
    folder = ROOT / out
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "stages.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"recipe": recipe, "stages": []}
    if record.get("recipe") != recipe:
        made = record.get("recipe", "an older")
        sys.exit(f"{out} was made by the recipe '{made}', not by '{recipe}'. Remove it, or choose another folder: --out runs/other")

    announce(recipe)
    for name, command in stages(out, RECIPES[recipe]):
        code = run_stage(name, command, record)
        # ru_maxrss counts kilobytes on Linux, bytes on macOS; it is the largest single process, set-up and tests left out.
        unit = 1 if sys.platform == "darwin" else 1024
        record["peak_memory_bytes"] = max(record.get("peak_memory_bytes", 0), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
        write_text(file, json.dumps(record, indent=1) + "\n")
        if code:
            print(
                f"\nthe stage '{name}' ended with exit code {code}; its message stands above.\n"
                "  What is done is kept: mend the cause, then run the same command again, or this stage alone:\n"
                f"  source .venv/bin/activate; {shlex.join(command)}",
                file=sys.stderr,
            )
            sys.exit(code if code > 0 else 128 - code)

    total = sum(stage["seconds"] for stage in record["stages"])
    print(f"\nall stages: {total / 60:.1f} minutes, largest process {record['peak_memory_bytes'] / 2**30:.1f} GiB")
    share = json.loads((folder / "dit" / "evaluation.json").read_text(encoding="utf-8"))["prompt_following"]["all"]
    print(f"held-out prompts with everything right: {share['value']:.1%} of {share['n']} [{share['low']:.1%}, {share['high']:.1%}]")
    print(f"the page: {folder / 'report.html'}")
    print(f'next: source .venv/bin/activate; python sample.py run={out}/dit --prompt "a red circle moves up on a grey background" out=samples')


if __name__ == "__main__":
    main()
