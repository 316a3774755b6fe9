"""What runs measured, gathered into one JSON from which every table and page is made."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

from ablation.jobs import FAILED
from ablation.plan import Run, budget, measures, overrides, seeds
from evaluation.report import read_json
from runtime.config import Config

Node = Mapping[str, Any]


def gathered(config: Config, runs: Sequence[Run], errors: Mapping[str, str], command: str, seconds: float) -> dict[str, Any]:
    """The content of results.json; runs that are not done yet are left out.

    Args:
        errors: why runs failed, by their job's name.
        seconds: that all starts together took.
    """
    ablation = config["ablation"]
    arms: dict[str, Any] = {}
    for name, own in groupby(sorted(runs, key=lambda run: list(ablation["arms"]).index(run.arm)), key=lambda run: run.arm):
        mine = sorted(own, key=lambda run: run.seed)
        train, evaluate = overrides(config, name)
        entries = [_entry(run, measures(config), errors.get(run.job.name)) for run in mine if run.job.done or run.job.name in errors]
        arms[name] = {
            "overrides": [*train, *(f"evaluate: {override}" for override in evaluate)],
            "steps": mine[0].steps,
            "flop_per_step": mine[0].flop_per_step,
            "parameters": mine[0].parameters,
            "runs": entries,
        }
    described = ("label", "better", "smallest", "share")
    jobs = [job for run in runs if run.job.done for job in (*run.job.needs, run.job) if job.done]  # trained here, measured there
    return {
        "name": ablation["name"],
        "question": ablation["question"],
        "command": command,
        "baseline": ablation["baseline"],
        "seeds": seeds(config),
        "budget": dict(budget(config)),
        "measures": {name: {key: node[key] for key in described} for name, node in measures(config).items()},
        "arms": arms,
        "machines": sorted({read_json(job.note)["on"] for job in jobs}),
        "seconds": round(seconds, 1),
    }


def newest_step(folder: Path) -> int:
    """The newest step that a run has written down; 0 before the first."""
    return max((row["step"] for row in _rows(folder / "metrics.jsonl")), default=0)


def _entry(run: Run, wanted: Node, error: str | None) -> dict[str, Any]:
    """One run of results.json."""
    cost = read_json(run.folder / "cost.json")
    values: dict[str, float] = {}
    if error is None:
        found = {name: _value(run, node) for name, node in wanted.items()}
        values = {name: float(value) for name, value in found.items() if value is not None}
    return {
        "seed": run.seed,
        "run": str(run.folder),
        "measured": str(run.job.folder),
        "values": values,
        "flop": cost.get("flop"),
        "seconds": cost.get("time_s"),
        "error": None if error is None else _cause(error),
    }


def _cause(error: str) -> str:
    """What a JobError says went wrong, also where a cluster put its own words around it; of any other error the first line."""
    lines = error.strip().splitlines()
    return next((line.partition(FAILED)[2] for line in lines if FAILED in line), lines[0])


def _value(run: Run, measure: Node) -> float | None:
    """A finite figure by its dotted key: of the last validation, or of the evaluation; None where there is none."""
    node: Any = read_json(run.job.folder / "evaluation.json")
    if measure["from"] == "validation":
        node = next((row for row in reversed(_rows(run.folder / "metrics.jsonl")) if row.get("kind") == "val"), {})
    for key in measure["key"].split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, int | float) and isfinite(node) else None


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that is still being written is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
