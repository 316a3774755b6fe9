"""What an ablation found, in words and tables: all of it computed from the raw results, so no verdict outlives the figures behind it."""

import csv as writer
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import floor, isfinite, log10
from statistics import fmean
from typing import Any

from evaluation.effects import LEVEL, Effect, Verdict, holm, paired_effect, seeds_needed, verdict
from evaluation.markup import listed
from evaluation.statistics import Mean

Results = Mapping[str, Any]  # the content of results.json


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one arm.

    Args:
        mean: over all seeds that the arm has.
        effect: arm - baseline, over the seeds that both have; None where these are fewer than two.
        verdict: None for the baseline itself.
    """

    arm: str
    measure: str
    mean: float | None
    effect: Effect | None
    p_adjusted: float | None
    verdict: Verdict | None


def rows(results: Results) -> list[Row]:
    """Every measure of every arm, arms outermost; Holm's correction is over all comparisons of all measures."""
    baseline, places = results["baseline"], [(arm, measure) for arm in results["arms"] for measure in results["measures"]]
    effects: dict[tuple[str, str], Effect] = {}
    for arm, measure in places:
        pairs = paired(results, arm, measure)
        if arm != baseline and len(pairs) >= 2:
            effects[arm, measure] = paired_effect(*zip(*pairs.values(), strict=True))
    adjusted = dict(zip(effects, holm([effect.p for effect in effects.values()]), strict=True))
    found = []
    for arm, measure in places:
        own, effect, p = list(values(results, arm, measure).values()), effects.get((arm, measure)), adjusted.get((arm, measure))
        node = results["measures"][measure]
        word = None if arm == baseline else verdict(effect, 1.0 if p is None else p, node["better"], node["smallest"])
        found.append(Row(arm, measure, fmean(own) if own else None, effect, p, word))
    return found


def values(results: Results, arm: str, measure: str) -> dict[int, float]:
    """The figure of each seed that has a finite one."""
    found = {run["seed"]: run["values"].get(measure) for run in results["arms"].get(arm, {}).get("runs", ())}
    return {seed: value for seed, value in found.items() if value is not None and isfinite(value)}


def paired(results: Results, arm: str, measure: str) -> dict[int, tuple[float, float]]:
    """(of the arm, of the baseline) for each seed that both have."""
    own, base = values(results, arm, measure), values(results, results["baseline"], measure)
    return {seed: (own[seed], base[seed]) for seed in sorted(own) if seed in base}


@dataclass(frozen=True, slots=True)
class Scale:
    """How the figures of a measure are written: shares as percent, their differences as percentage points."""

    share: bool
    digits: int = 0  # after the point, of a mean

    @classmethod
    def of(cls, results: Results, found: Sequence[Row], measure: str) -> "Scale":
        """Means have the digits that the sharpest difference has, no more than five in all; three where there is no difference."""
        share = results["measures"][measure]["share"]
        own = [row for row in found if row.measure == measure]
        size = max((factor(share) * abs(row.mean) for row in own if row.mean), default=1.0)
        leading = floor(log10(size))
        finest = max((_digits(factor(share), row.effect) for row in own if row.effect is not None), default=2 - leading)
        return cls(share, max(0, min(finest, 4 - leading)))

    def mean(self, value: float | None) -> str:
        return "–" if value is None else f"{factor(self.share) * value:z.{self.digits}f}" + (" %" if self.share else "")

    def figure(self, found: Mean) -> str:
        """'98.8 % [96.6, 99.6]': a difference without its sign."""
        return self.difference(found, " %").removeprefix("+")

    def difference(self, effect: Effect | Mean, unit: str = " pp") -> str:
        """'+0.012 [0.008, 0.016]', to two digits of the interval's width."""
        digits, times = _digits(factor(self.share), effect), factor(self.share)
        ends = ", ".join(f"{times * end:z.{digits}f}" for end in (effect.low, effect.high))
        return f"{times * effect.value:+z.{digits}f}{unit if self.share else ''} [{ends}]"

    def smallest(self, value: float, unit: str = " pp") -> str:
        """A difference without its sign."""
        return f"{factor(self.share) * value:.3g}{unit if self.share else ''}"


def factor(share: bool) -> float:
    """What a figure is multiplied by before it is written."""
    return 100.0 if share else 1.0


def sentences(results: Results) -> list[str]:
    """Every verdict in plain words, measures outermost: the first is what the question is decided by."""
    found = rows(results)
    ordered = [row for measure in results["measures"] for row in found if row.measure == measure and row.verdict is not None]
    return [sentence(results, row, comparisons(found)) for row in ordered]


def sentence(results: Results, row: Row, number: int) -> str:
    """A verdict in plain words.

    Args:
        row: of another arm than the baseline.
        number: of comparisons().
    """
    assert row.verdict is not None, f"{row.arm} is the baseline: verdicts are about the other arms"
    node, baseline, points = results["measures"][row.measure], results["baseline"], " percentage points"
    runs = results["arms"][row.arm]["runs"]
    failed = sum(run["error"] is not None for run in runs)
    lost = f"; {failed} of its {counted(len(runs), 'run')} failed" if failed else ""
    scale, head = Scale(node["share"]), f"{row.arm} against {baseline} is inconclusive"
    if row.effect is None:
        shared = len(paired(results, row.arm, row.measure))
        return f"{head}: {node['label']} was measured under {counted(shared, 'seed')} in common, two are needed{lost}"
    if row.verdict != Verdict.INCONCLUSIVE:
        head = f"{row.arm} is {row.verdict} {'to' if row.verdict == Verdict.EQUIVALENT else 'than'} {baseline}"
    told = f"{head}: {node['label']} {scale.difference(row.effect, points)}, {counted(row.effect.n, 'seed')}{lost}"
    if row.verdict == Verdict.INCONCLUSIVE and row.effect.low * row.effect.high > 0:
        told += f"; p = {row.p_adjusted:.2g} after the correction for {counted(number, 'comparison')}"
    if row.verdict == Verdict.INCONCLUSIVE and row.effect.deviation == 0:
        told += f"; {_alike(results, row)}"
    if node["smallest"] is None or row.effect.value == row.effect.deviation == 0:
        return told
    matters = scale.smallest(node["smallest"], points)
    if row.verdict == Verdict.EQUIVALENT:
        return f"{told}; the smallest difference that matters is {matters}"
    needed = seeds_needed(node["smallest"], row.effect.deviation, number)
    if row.verdict == Verdict.INCONCLUSIVE and (needed is None or needed > row.effect.n):
        return f"{told}; to see a difference of {matters} takes {'more than 1000' if needed is None else f'about {needed}'} seeds"
    return told


def _alike(results: Results, row: Row) -> str:
    """What stands beside an effect that every seed repeats exactly."""
    assert row.effect is not None, "of no effect nothing is repeated"
    if row.effect.value != 0:
        return "so few seeds may agree by chance"
    pairs = [pair for measure in results["measures"] for pair in paired(results, row.arm, measure).values()]
    every = "every figure is the same under every seed: do the overrides do anything?"
    return every if all(arm == base for arm, base in pairs) else "it is the same under every seed"


def comparisons(found: Sequence[Row]) -> int:
    """What Holm corrects for: every arm and measure that could be compared."""
    return sum(row.effect is not None for row in found)


def gaps(results: Results) -> list[str]:
    """Every run that failed, is not there, or lacks a measure: one line for each arm and reason."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for arm, node in results["arms"].items():
        runs = {run["seed"]: run for run in node["runs"]}
        for seed in dict.fromkeys([*results["seeds"], *runs]):
            if seed not in runs:
                seeds.setdefault((arm, "no run yet"), []).append(seed)
            elif runs[seed]["error"] is not None:
                seeds.setdefault((arm, f"failed: {runs[seed]['error']}"), []).append(seed)
            else:
                labels = [measure["label"] for name, measure in results["measures"].items() if seed not in values(results, arm, name)]
                for label in labels:
                    seeds.setdefault((arm, f"no {label}"), []).append(seed)
    return [f"{arm}, {seed_words(own)}: {what}" for (arm, what), own in seeds.items()]


def markdown(results: Results) -> str:
    """The whole of docs/ablations/<name>.md: question, protocol, table, and what the words in it mean."""
    found, arms = rows(results), results["arms"]
    head = ["arm"]
    for node in results["measures"].values():
        head += [f"{node['label']} ({node['better']} is better)", f"against {results['baseline']} [95 %]"]
    head += ["steps", "TFLOP", "seconds", "parameters"]
    lines = [f"| {' | '.join(map(_cell, head))} |", f"|---|{'---|' * 2 * len(results['measures'])}{'---:|' * 4}"]
    for arm in arms:
        cells = [arm]
        for row in (row for row in found if row.arm == arm):
            scale = Scale.of(results, found, row.measure)
            difference = "" if row.effect is None else f"{scale.difference(row.effect)} "
            cells += [scale.mean(row.mean), "baseline" if row.verdict is None else f"{difference}**{row.verdict}**"]
        lines.append(f"| {' | '.join(map(_cell, [*cells, *costs(results, arm)]))} |")
    trained, measured = _trainings(results)
    facts = [f"{budget_words(results)}, {seed_words(results['seeds'])}", *([run_words(results)] * (trained < measured)), *results["machines"]]
    protocol = f"`{results['command']}`: {'; '.join(facts)}."
    parts = [f"# {results['question']}", protocol, "\n".join(lines), meaning(results)]
    missing = gaps(results)
    parts += ["Left out of every comparison:\n\n" + "\n".join(f"- {line}" for line in missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def csv(results: Results) -> str:
    """Every single figure, unrounded: a line for each arm, seed and measure, its value empty where there is none."""
    file = StringIO()
    table = writer.writer(file, lineterminator="\n")
    table.writerow(("arm", "seed", "measure", "value", "flop", "seconds", "error", "run", "measured"))
    for arm, node in results["arms"].items():
        for run in node["runs"]:
            for measure in results["measures"]:
                figures = (run["values"].get(measure), run["flop"], run["seconds"], run["error"])
                table.writerow((arm, run["seed"], measure, *figures, run["run"], run["measured"]))
    return file.getvalue()


def meaning(results: Results) -> str:
    """What the figures and the four words stand for."""
    number, nodes = comparisons(rows(results)), results["measures"].values()
    limits = [f"{Scale(node['share']).smallest(node['smallest'])} of {node['label']}" for node in nodes if node["smallest"] is not None]
    told = [
        f"Differences are arm - {results['baseline']}, paired by seed: their mean and its 95 % interval (Student's t). "
        f"Better and worse: p < {LEVEL:g} in a paired t test, after Holm's correction over all {counted(number, 'comparison')} of this page."
    ]
    told += [f"Equivalent: the whole interval lies within what matters, {listed(limits)} either way."] if limits else []
    return " ".join([*told, "Inconclusive: these seeds do not tell."])


def costs(results: Results, arm: str) -> list[str]:
    """Steps, TFLOP, seconds and parameters of an arm; TFLOP and seconds are means over the runs that ended well."""
    node = results["arms"][arm]
    means = []
    for name, unit in (("flop", 1e12), ("seconds", 1.0)):
        own = [run[name] / unit for run in node["runs"] if run["error"] is None and run[name] is not None]
        means.append("–" if not own else f"{fmean(own):,.0f}" if fmean(own) >= 1000 else f"{fmean(own):.4g}")
    return ["–" if node["steps"] is None else f"{node['steps']:,}", *means, f"{node['parameters']:,}"]


def budget_words(results: Results) -> str:
    """What every run was given."""
    flop, steps, seconds = (results["budget"].get(name) for name in ("flop", "steps", "seconds"))
    parts = [] if flop is None else [f"{flop / 1e12:.4g} TFLOP"]
    parts += [] if steps is None else [f"{steps:,} steps"]
    parts += [] if seconds is None else [f"{seconds:g} seconds"]
    return f"{listed(parts) or 'no stated budget'} of training for each run"


def run_words(results: Results) -> str:
    """'18 runs', or '6 trainings, measured 24 times' where arms share them."""
    trained, measured = _trainings(results)
    return counted(measured, "run") if trained == measured else f"{counted(trained, 'training')}, measured {measured} times"


def _trainings(results: Results) -> tuple[int, int]:
    """How many there are, and how often all of them were measured."""
    runs = [run["run"] for node in results["arms"].values() for run in node["runs"]]
    return len(set(runs)), len(runs)


def seed_words(seeds: Sequence[int]) -> str:
    """'seed 3', 'seeds 1 and 4', 'seeds 0 to 5'."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) != 1)} {listed([str(seed) for seed in seeds])}"


def counted(number: int, word: str) -> str:
    """'1 seed', '6 seeds'."""
    return f"{number} {word}{'s' * (number != 1)}"


def _digits(times: float, effect: Effect | Mean) -> int:
    """Digits after the point that leave two of the interval's width, or of the difference itself where all seeds agree on it."""
    width = times * ((effect.high - effect.low) or abs(effect.value))
    return max(0, min(9, 1 - floor(log10(width)))) if width > 0 else 1


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
