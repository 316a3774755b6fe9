"""What runs side by side have to say, in words and as Markdown: all of it computed from comparison.json."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.compare import Comparison
from ablation.verdicts import Scale, factor
from evaluation.markup import listed
from evaluation.statistics import Mean

ONE_SEED = (
    "Every interval on this page is over prompts or clips, for these trained weights: it says how sure the figure of this run is. Each run is one "
    "training seed, and nothing here says what another seed would give. Whether a change helps is a question for "
    "<code>scripts/ablate.py</code>, which trains every arm under the same seeds."
)
HOW = {"paired": "paired", "apart": "unpaired", "bare": "no interval"}
COSTS = ("seed", "steps", "samples", "TFLOP", "seconds", "parameters", "last validation loss", "weights")


def sentences(comparison: Comparison) -> list[str]:
    """What a terminal is told: every remedy, then the deciding differences in words."""
    told = [f"{fault['what']}. Run: {fault['command']}" for run in comparison["runs"].values() for fault in run["faults"]]
    return told + [words for _, _, words in decided(comparison)]


def markdown(comparison: Comparison) -> str:
    """Figures, costs and settings as tables."""
    runs, first = comparison["runs"], comparison["first"]
    head = ["", *runs]
    body = [
        [measure["label"], *(" ".join(filter(None, (figure_words(run, measure), difference_words(run, measure)))) or "–" for run in runs.values())]
        for measure in comparison["measures"].values()
    ]
    costs = [[name, *row] for name, row in zip(COSTS, zip(*(cost_words(run) for run in runs.values()), strict=True), strict=True)]
    settings = [[f"`{at}`", *("absent" if row[name] is None else f"`{row[name]}`" for name in runs)] for at, row in comparison["config"].items()]
    remedies = [f"- {fault['what']}: `{fault['command']}`" for run in runs.values() for fault in run["faults"]]
    parts = [f"# {listed(list(runs))}", f"`{comparison['command']}`", *(["\n".join(remedies)] if remedies else []), f"Differences are to {first}."]
    parts += [re.sub("</?code>", "`", ONE_SEED), _markdown(head, body), _markdown(head, costs)]
    return "\n\n".join([*parts, *([_markdown(head, settings)] if settings else [])]) + "\n"


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def decided(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(CSS class, word, sentence) for the deciding differences whose interval is known."""
    found = []
    for measure in comparison["measures"].values():
        for name, run in comparison["runs"].items():
            difference = run["differences"].get(measure["at"])
            if measure["head"] and difference is not None and difference["low"] is not None:
                kind, word = side(difference, measure)
                items = "prompts" if comparison["kind"] == "flow" else "clips"
                told = f"{amount(difference, measure, ' percentage points')}, {difference['n']} {items}, {HOW[difference['how']]}"
                found.append((kind, word, f"{name} against {comparison['first']}: {measure['label']}, {told}"))
    return found


def side(difference: Mapping[str, Any], measure: Mapping[str, Any]) -> tuple[str, str]:
    """The CSS class and the word for where an interval lies."""
    if difference["low"] is None or difference["low"] <= 0 <= difference["high"]:
        return "inconclusive", "not told apart"
    higher = difference["value"] > 0
    good = {"higher": higher, "lower": not higher, None: None}[measure["better"]]
    return {True: "better", False: "worse", None: "inconclusive"}[good], "higher" if higher else "lower"


def figure_words(run: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """'98.8 % [96.6, 99.6]'; empty where there is none."""
    figure = run["figures"].get(measure["at"])
    if figure is None:
        return ""
    if figure["low"] is None:
        return f"{factor(measure['share']) * figure['value']:.4g}{' %' if measure['share'] else ''}"
    return Scale(measure["share"]).figure(_mean(figure))


def difference_words(run: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """'+1.2 pp [0.4, 2.0], paired'; empty where there is none."""
    difference = run["differences"].get(measure["at"])
    return "" if difference is None else f"{amount(difference, measure)}, {HOW[difference['how']]}"


def amount(difference: Mapping[str, Any], measure: Mapping[str, Any], unit: str = " pp") -> str:
    """'+1.2 pp [0.4, 2.0]', or the difference alone where it has no interval."""
    if difference["low"] is None:
        value = factor(measure["share"]) * difference["value"]
        return f"{value:{'+,.0f' if abs(value) >= 1000 else '+.3g'}}{unit if measure['share'] else ''}"
    return Scale(measure["share"]).difference(_mean(difference), unit)


def _mean(node: Mapping[str, Any]) -> Mean:
    return Mean(node["value"], node["low"], node["high"], node["n"])


def cost_words(run: Mapping[str, Any]) -> list[str]:
    """A run's row under COSTS."""
    counts = ["–" if run[name] is None else f"{run[name]:,}" for name in ("steps", "samples")]
    spent = (None if run["flop"] is None else run["flop"] / 1e12, run["seconds"])
    flop, seconds = ("–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" for value in spent)
    parameters = "–" if run["parameters"] is None else f"{run['parameters']:,}"
    loss = "–" if run["validation_loss"] is None else f"{run['validation_loss']:.4g}"
    return [str(run["seed"]), *counts, flop, seconds, parameters, loss, (run["weights_sha256"] or "–")[:12]]
