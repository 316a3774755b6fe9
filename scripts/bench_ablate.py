"""What scripts/ablate.py costs beside the runs that it starts: python scripts/bench_ablate.py [seeds=3 steps=40 page=docs/ablations.md]

Runs a small ablation twice: `plan=true`, which stops before the first run, and whole. Writes all figures to `raw`, and their table to `page`.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ablation.overhead import spans, table
from evaluation.rate_distortion import between
from runtime.config import ROOT, Config, ConfigError, entry
from runtime.files import write_text
from runtime.machine import provenance

# Processor seconds of a script and of the processes that it waited for, as the script itself sees them at its end.
METERED = """
import json, resource, runpy, sys
path, *sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    each = {"own_s": resource.RUSAGE_SELF, "runs_s": resource.RUSAGE_CHILDREN}
    used = {name: resource.getrusage(who) for name, who in each.items()}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({name: one.ru_utime + one.ru_stime for name, one in used.items()}, file)
"""


@entry("bench_ablate")
def main(config: Config) -> None:
    raw = Path(config["raw"])
    if config["run"]:
        measured = measure(config)
        raw.parent.mkdir(parents=True, exist_ok=True)
        write_text(raw, json.dumps(measured, indent=1) + "\n")
    found = json.loads(raw.read_text(encoding="utf-8"))
    content = f"`{found['command']}`; {found['machine']}; load {found['load']}.\n\n{table(found)}"
    if config["page"] is not None:
        page = Path(config["page"])
        write_text(page, between(page.read_text(encoding="utf-8"), "overhead", content))
    print(f"\n{content}\n\n{raw}{'' if config['page'] is None else f', {page}'}")


def measure(config: Config) -> dict[str, Any]:
    """Raises: ConfigError if runs lie in `out` already: they would not run again."""
    out = Path(config["out"])
    if out.exists():
        raise ConfigError(f"out={out} is there already, and runs that are done are not repeated. Remove it, or set out.")
    slots = config["processes"]
    given = [f"ablation={config['ablation']}", f"out={out}", f"base={config['base']}", f"seeds={config['seeds']}", f"budget.steps={config['steps']}"]
    given += [f"engine.processes={slots}", "engine.threads=1", *config["overrides"]]
    planned = metered(out.with_suffix(".plan.json"), [*given, "plan=true"])
    whole = metered(out.with_suffix(".whole.json"), given)
    return {
        "command": shlex.join(["python", "scripts/bench_ablate.py", *sys.argv[1:]]),
        "machine": provenance(),
        "load": round(os.getloadavg()[1], 1),
        "slots": slots,
        "plan": planned,
        "whole": whole,
        "spans": [[round(begin, 3), round(end, 3)] for begin, end in spans(out)],
        "worked_s": sum(worked(path) for path in out.rglob("*.json")),
    }


def metered(path: Path, arguments: list[str]) -> dict[str, float]:
    """Raises: RuntimeError if the ablation failed."""
    begun = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", METERED, str(path), str(ROOT / "scripts" / "ablate.py"), *arguments], check=False)
    if done.returncode:
        raise RuntimeError(f"scripts/ablate.py ended with exit code {done.returncode}, see above. Mend the cause, and remove what it left.")
    wall = time.monotonic() - begun
    return json.loads(path.read_text(encoding="utf-8")) | {"wall_s": round(wall, 1)}


def worked(path: Path) -> float:
    """Seconds of training steps, or of measuring, that a file of a run tells of."""
    if path.name == "cost.json":
        return json.loads(path.read_text(encoding="utf-8"))["time_s"]
    return json.loads(path.read_text(encoding="utf-8"))["protocol"]["seconds"] if path.name == "evaluation.json" else 0.0


if __name__ == "__main__":
    main()
