"""What an ablation will cost and whether its seeds can see the effect looked for: said before anything is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.plan import Run, budget, measures, overrides
from evaluation.effects import detectable, paired_effect, seeds_needed
from runtime.config import Config

Results = Mapping[str, Any]
POWER = 0.8


def foresight(config: Config, runs: Sequence[Run], earlier: Results) -> str:
    """Arms and what they cost, then for each measure the smallest effect that so many seeds find, and how many the declared one needs.

    Args:
        earlier: what those of them that are done have measured: see ablation.results.gathered.
    """
    ablation = config["ablation"]
    count, arms = len({run.seed for run in runs}), list(dict.fromkeys(run.arm for run in runs))
    lines = [ablation["question"], f"{len(runs)} runs: {len(arms)} arms x {count} seeds, {sum(run.job.done for run in runs)} of them done", ""]
    for name in arms:
        run = next(run for run in runs if run.arm == name)
        steps = f"{run.steps} steps" if run.steps else f"{budget(config)['seconds']:g} s of steps"
        changes = " ".join(override for part in overrides(config, name) for override in part) or "as it is"
        baseline = " (baseline)" if name == ablation["baseline"] else ""
        lines.append(f"  {name}{baseline}: {steps} of {run.flop_per_step / 1e9:.3g} GFLOP, {run.parameters / 1e6:.3g} M weights; {changes}")
    lines += [f"  {_total(runs, budget(config)['seconds'], _seconds(earlier))}", ""]
    compared = measures(config)
    lines += [_power(name, node, earlier, count, (len(arms) - 1) * len(compared)) for name, node in compared.items()]
    return "\n".join(lines)


def _power(name: str, node: Mapping[str, Any], earlier: Results, count: int, comparisons: int) -> str:
    """One measure in a line."""
    deviation, source = node["deviation"], "as the ablation's YAML says"
    if deviation is None:
        deviation, source = _deviation(name, earlier)
    if deviation is None:
        return f"{node['label']}: how far seeds differ is not known yet. Run two seeds first (seeds=2), or set measures.{name}.deviation."
    if count < 2:
        return f"{node['label']}: one seed sees nothing, as there is no interval. Set seeds."
    words = f"{node['label']}: paired differences deviate by {deviation:.2g} ({source}); {count} seeds find an effect of "
    words += f"{detectable(deviation, count, comparisons, POWER):.2g} in {POWER:.0%} of ablations, corrected for {comparisons} comparisons"
    if node["smallest"] is None:
        return f"{words}."
    needed = seeds_needed(node["smallest"], deviation, comparisons, POWER)
    enough = "too few" if needed is None or needed > count else "enough"
    return f"{words}; the smallest that matters, {node['smallest']:g}, needs {'over 1000' if needed is None else needed} seeds: {count} are {enough}."


def _deviation(name: str, earlier: Results) -> tuple[float | None, str]:
    """The largest deviation of an arm's differences to the baseline in runs that are done."""
    found = []
    values = {arm: {run["seed"]: run["values"][name] for run in node["runs"] if name in run["values"]} for arm, node in earlier["arms"].items()}
    base = values[earlier["baseline"]]
    for arm, own in values.items():
        shared = sorted(set(own) & set(base))
        if arm != earlier["baseline"] and len(shared) >= 2:
            effect = paired_effect([own[seed] for seed in shared], [base[seed] for seed in shared])
            found.append((effect.deviation, f"of {effect.n} seeds of {arm}"))
    return max(found, default=(None, ""))


def _total(runs: Sequence[Run], budget_s: float | None, took_s: float | None) -> str:
    """What all runs cost, in a line."""
    trained = {run.folder: run for run in runs}.values()  # some arms are one training, evaluated otherwise
    if budget_s is not None:
        return f"in all {budget_s * len(trained) / 60:.0f} process minutes of training steps"
    flop = sum(run.flop_per_step * run.steps for run in trained if run.steps is not None)
    minutes = f"; {took_s * len(trained) / 60:.0f} process minutes of training steps, at the {took_s:.0f} s that runs took so far" if took_s else ""
    return f"in all {flop / 1e12:.3g} TFLOP{minutes}"


def _seconds(earlier: Results) -> float | None:
    took = [run["seconds"] for node in earlier["arms"].values() for run in node["runs"] if run["seconds"]]
    return sum(took) / len(took) if took else None
