"""The page of an ablation that can be sent to anyone: verdicts first, then everything they rest on; what is not there is said."""

from collections.abc import Sequence
from html import escape
from math import inf
from pathlib import Path
from typing import Any

from ablation.page_parts import SHOWN, STYLE, UNITS, Curve, beside, chart, mark, named, unbroken
from ablation.verdicts import (
    Results,
    Row,
    Scale,
    budget_words,
    comparisons,
    costs,
    counted,
    factor,
    gaps,
    meaning,
    paired,
    rows,
    run_words,
    seed_words,
    sentence,
)
from evaluation.charts import Span, spans
from evaluation.markup import Media, absent, card, definitions, document, key, listed, number, section, table, verdict
from evaluation.report import LIMIT_BYTES, losses, read_json

SAME_COST = 1.02  # runs whose FLOP differ by more are said to


def page(results: Results, root: Path) -> str:
    """The whole page; runs that are named relative to the checkout are looked for under `root`.

    Raises: ValueError if a file of a run is damaged.
    """
    found, media = rows(results), Media()
    aspect, samples = _samples(results, root, media)
    sections = [
        _verdicts(results, found),
        *(_measure(results, found, measure) for measure in results["measures"]),
        _losses(results, root),
        samples,
        _arms(results),
        _gaps(results),
        _protocol(results, media),
    ]
    made_by = "Made by <code>scripts/ablate.py</code>."
    text = document(escape(results["question"]), _lead(results), sections, made_by, aspect)
    assert len(text.encode("utf-8")) <= LIMIT_BYTES, "the words and charts of a page take less than a megabyte"
    return text


def _ordered(results: Results) -> list[str]:
    """The baseline, then the other arms."""
    return sorted(results["arms"], key=lambda arm: arm != results["baseline"])


def _lead(results: Results) -> str:
    words = f"{counted(len(results['arms']), 'arm')}, {seed_words(results['seeds'])}, {budget_words(results)}: {run_words(results)}"
    told = f"Each arm is set against <em>{escape(results['baseline'])}</em>, seed by seed."
    return f'{STYLE}<p class="lead">{escape(words)}. {told}</p>'


def _verdicts(results: Results, found: Sequence[Row]) -> str:
    many = comparisons(found)
    groups = []
    for measure in results["measures"]:
        own = [row for row in found if row.measure == measure and row.verdict is not None]
        items = [f'<li class="{row.verdict}"><b>{row.verdict}</b><span>{unbroken(sentence(results, row, many))}</span></li>' for row in own]
        groups.append(f'<ul class="verdicts">{"".join(items)}</ul>')
    missing = len(gaps(results))
    note = "" if not missing else '<p class="no">Not every run is in these comparisons: see “Runs that are missing”.</p>'
    return f'<section class="first">{"".join(groups)}{note}</section>'


def _measure(results: Results, found: Sequence[Row], measure: str) -> str:
    node, own = results["measures"][measure], [row for row in found if row.measure == measure]
    scale, times = Scale.of(results, found, measure), factor(node["share"])
    chart = []
    for row in own:
        if row.verdict is None:
            continue
        pairs, effect = paired(results, row.arm, measure), row.effect
        note = str(row.verdict) if effect is None else scale.difference(effect)
        extent = None if effect is None else (times * effect.low, times * effect.value, times * effect.high)
        points = [times * (arm - base) for arm, base in pairs.values()]
        chart.append(Span(_named(results, row.arm), escape(note), f"{row.arm}: {note}, {row.verdict}", extent, points, str(row.verdict)))
    ends = ("← better", "worse →") if node["better"] == "lower" else ("← worse", "better →")
    band = None if node["smallest"] is None else times * node["smallest"]
    marks = [("flat", "ink", "mean difference, 95&nbsp;% interval"), ("up", "soft", "one seed")]
    marks += [] if band is None else [("band", "track", f"too small to matter: {scale.smallest(node['smallest'])} either way")]
    unit = ", in percentage points" if node["share"] else ""
    words = f'<p class="soft">Difference from {escape(results["baseline"])}{unit}; {node["better"]} is better.</p>'
    label = escape(node["label"])
    return section(label[:1].upper() + label[1:], words + spans(chart, band, ends) + key(*marks) + _figures(results, own, scale))


def _figures(results: Results, own: Sequence[Row], scale: Scale) -> str:
    head = ("arm", "mean", "difference [95&nbsp;%]", "seeds", "p", "p, Holm", "p, exchanges", "verdict")
    body = []
    for row in own:
        effect, word = row.effect, "baseline" if row.verdict is None else f'<span class="{row.verdict} word">{row.verdict}</span>'
        cells = ["–"] * 5
        if effect is not None and row.p_adjusted is not None:
            cells = [scale.difference(effect), str(effect.n), _p(effect.p), _p(row.p_adjusted), _p(effect.p_exchange)]
        body.append((_named(results, row.arm), scale.mean(row.mean), *cells, word))
    return f'<div class="figures">{table(head, body, numbers=range(1, 7))}</div>'


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "&lt;&#8239;0.001"


def _losses(results: Results, root: Path) -> str:
    arms, trained = results["arms"], _trainings(results)
    journals = {arm: [(ended, losses(root / run / "metrics.jsonl")) for run, ended in runs.items()] for arm, (_, runs) in trained.items()}
    charts = []
    for place, title in enumerate(("Training", "Validation, on fixed clips, noise and times")):
        curves = {
            arm: [Curve(ended, [(x * arms[arm]["flop_per_step"], y) for x, y in found[place] if 0 < y < inf]) for ended, found in own]
            for arm, own in journals.items()
        }
        drawing = chart(title, curves, {arm: _mark(results, arm) for arm in curves}, UNITS, dots=place == 1)
        charts.append(f"<div><h3>{title}</h3>{drawing}</div>")
    legend = key(*((f"flat {_mark(results, arm)}", "own", escape(listed(sharers))) for arm, (sharers, _) in trained.items()))
    words = (
        "Thick: the mean over seeds that ended; thin: every seed. An arm that weighs the loss or draws noise levels in its own way has a training "
        "loss on a scale of its own: there, only its validation can be set beside the others'."
    )
    words += "".join(f" {listed(sharers)} share their trainings, so one curve." for sharers, _ in trained.values() if len(sharers) > 1)
    return section("Loss against training compute", f'<p class="soft">{escape(words)}</p><div class="charts">{"".join(charts)}</div>{legend}')


def _trainings(results: Results) -> dict[str, tuple[list[str], dict[str, bool]]]:
    """Of the first of the arms that share their trainings: all of these arms, and of each run whether it ended well for any of them."""
    found: dict[str, tuple[list[str], dict[str, bool]]] = {}
    for arm in _ordered(results):
        own = {run["run"]: run["error"] is None for run in results["arms"][arm]["runs"]}
        first = next((other for other, (_, runs) in found.items() if own.keys() & runs.keys()), arm)
        sharers, runs = found.setdefault(first, ([], {}))
        sharers.append(arm)
        runs |= {run: ended or runs.get(run, False) for run, ended in own.items()}
    return found


def _samples(results: Results, root: Path, media: Media) -> tuple[str, str]:
    """Videos of all arms for the same prompts under the same noise, and their width / height."""
    title, galleries = "The same prompts, the same noise", _galleries(results, root)
    if not galleries:
        return "1 / 1", absent(title, "No run has left samples of prompts.")
    # The first seed that all arms have; where there is none, the first of those that most have.
    seed = max(galleries, key=lambda seed: len(galleries[seed]))
    own = galleries[seed]
    count = min(SHOWN, *(samples["drawn"] for _, samples in own.values()))
    asked = {arm: [item["prompt"] for item in samples["prompts"][:count]] for arm, (_, samples) in own.items()}
    prompts = next(iter(asked.values()))
    shown = [arm for arm in own if asked[arm] == prompts]
    blocks = []
    for place, prompt in enumerate(prompts):
        cards = []
        for arm in shown:
            folder, item = own[arm][0], own[arm][1]["prompts"][place]
            video = media.video(folder, item, "video", f"Video of {arm}: {prompt}")
            cards.append(card(video, _named(results, arm), verdict(item["correct"], item["attributes"]), wrong=not item["correct"]))
        blocks.append(beside(prompt, cards))
    words = f"Seed {seed}: the first {number(count)} prompts of the evaluation, none picked by hand."
    absentees = [escape(arm) for arm in _ordered(results) if arm not in own]
    words += f" No samples under this seed: {listed(absentees)}." if absentees else ""
    others = [escape(arm) for arm in own if arm not in shown]
    words += f" Not shown, as the evaluation asked for other prompts: {listed(others)}." if others else ""
    height, width = read_json(own[shown[0]][0].parent / "evaluation.json").get("protocol", {}).get("size", (1, 1))
    return f"{width} / {height}", section(title, f"<p>{words}</p>{''.join(blocks)}")


def _galleries(results: Results, root: Path) -> dict[int, dict[str, tuple[Path, dict[str, Any]]]]:
    """Of each seed and arm with samples of prompts: the folder and gallery.json."""
    found: dict[int, dict[str, tuple[Path, dict[str, Any]]]] = {}
    for arm in _ordered(results):
        for run in results["arms"][arm]["runs"]:
            folder = root / run["measured"] / "evaluation"
            samples = read_json(folder / "gallery.json") if run["error"] is None else {}
            if samples.get("prompts"):
                found.setdefault(run["seed"], {})[arm] = (folder, samples)
    return {seed: found[seed] for seed in sorted(found)}


def _arms(results: Results) -> str:
    cells, spent = [], []
    for arm in _ordered(results):
        node = results["arms"][arm]
        changes = "<br>".join(f"<code>{escape(override)}</code>" for override in node["overrides"]) or '<span class="soft">nothing</span>'
        cells.append((_named(results, arm), changes, *costs(results, arm)))
        spent += [run["flop"] for run in node["runs"] if run["error"] is None and run["flop"]]
    most, least = max(spent, default=0), min(spent, default=0)
    words = (
        f"Runs cost from {least / 1e12:.4g} to {most / 1e12:.4g} TFLOP of training, forward and backward." if spent else "No run has told its cost."
    )
    if most > SAME_COST * least:
        words = f'<span class="no">✗ The runs did not cost the same:</span> {words} What differs may be the cost and not the change.'
    head = ("arm", "what it changes", "steps", "TFLOP", "seconds", "parameters")
    return section("What the arms are and cost", f"<p>{words}</p>{table(head, cells, numbers=range(2, 6))}")


def _gaps(results: Results) -> str:
    title, missing = "Runs that are missing", gaps(results)
    if not missing:
        return section(title, '<p><span class="yes">✓ none</span>: every run ended and was measured.</p>')
    words = "They are left out of every mean and comparison, which flatters an arm whose runs fail."
    return section(title, f'<p>{words}</p><ul class="missing">{"".join(f"<li>{escape(line)}</li>" for line in missing)}</ul>')


def _protocol(results: Results, media: Media) -> str:
    facts = {
        "command": results["command"],
        "seeds": ", ".join(map(str, results["seeds"])),
        "budget": budget_words(results),
        "statistics": meaning(results),
        "p, exchanges": "of all exchanges of arm and baseline within seeds: assumes nothing about the noise, but needs six seeds to get under 0.05",
        "made on": "; ".join(results["machines"]),
        "time of these starts": f"{results['seconds'] / 60:.0f} minutes",
    }
    facts |= {"not shown": "; ".join(media.missing)} if media.missing else {}
    return section("How it was done", definitions(facts.items()))


def _mark(results: Results, arm: str) -> str:
    return mark(_ordered(results).index(arm))


def _named(results: Results, arm: str) -> str:
    return named(arm, _mark(results, arm))
