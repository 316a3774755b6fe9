"""Answer a question by paired runs: python scripts/ablate.py ablation=qk_norm [seeds=6 budget.flop=1.2e13 engine=local ...]

Trains every arm of configs/ablation/<name>.yaml under the same seeds at the same budget, a process for each, and measures it. Stopped at any
moment, the same command goes on; runs that are done are not repeated. Writes <out>/<name>/results.json and, from it, table.md, table.csv, page.html.
Other seeds, budgets or a choice of arms have a folder of their own, which says so. Runs of all ablations lie in <out>/runs/.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablation.engines import Engine, Local
from ablation.foresight import foresight
from ablation.page import page
from ablation.plan import asked, check, plan, prepared
from ablation.results import gathered
from ablation.verdicts import csv, markdown, sentences
from ablation.watch import work
from evaluation.report import read_json
from runtime.config import Config, build, entry
from runtime.files import write_text
from runtime.preemption import StopRequest
from training.vae_bundle import vae_config


@entry("ablate")
def main(config: Config) -> None:
    check(config)
    engine: Engine = build(config["engine"])
    folder = Path(config["out"]) / asked(config)
    with StopRequest() as stop:
        for job in prepared(config):
            if not job.done:
                print(f"making {job.name}: python {shlex.join(job.commands[0])}   (log: {job.log})", flush=True)
                if work(Local(processes=1, threads=None), [job], stop):
                    raise RuntimeError(f"{job.name} could not be made, see above. Mend the cause, then run the same command again.")
        runs = plan(config, with_vae)
        if config["plan"]:
            print(foresight(config, runs, gathered(config, runs, {}, "", 0.0)))
            return
        begun = time.monotonic() - read_json(folder / "results.json").get("seconds", 0.0)
        command = shlex.join(["python", "scripts/ablate.py", *sys.argv[1:]])

        def publish(errors: Mapping[str, str]) -> dict[str, Any]:
            results = gathered(config, runs, errors, command, time.monotonic() - begun)
            write(results, folder, config["docs"])
            return results

        print(f"{len(runs)} runs, {sum(run.job.done for run in runs)} of them done before; {folder}", flush=True)
        errors = work(engine, [run.job for run in runs], stop, publish)
    told = [f"  {sentence}" for sentence in sentences(publish(errors))]
    print("\n".join(["", config["ablation"]["question"], *told, str(folder / "page.html")]))
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(runs)} runs failed, see above. Mend the cause, then run the same command again.")


def with_vae(look: Callable[[str], Any]) -> Config:
    """As train.py: a flow objective's VAE is the one that vae_run trained."""
    return {"objective.vae": vae_config(look("vae_run"), look("run"))} if look("objective.dit") is not None else {}


def write(results: Mapping[str, Any], folder: Path, docs: str | None) -> None:
    """Raw figures first, then all that is made of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    table = markdown(results)
    write_text(folder / "table.md", table)
    write_text(folder / "table.csv", csv(results))
    write_text(folder / "page.html", page(results, Path()))
    if docs is not None:
        Path(docs).mkdir(parents=True, exist_ok=True)
        write_text(Path(docs) / f"{folder.name}.md", table)


if __name__ == "__main__":
    main()
