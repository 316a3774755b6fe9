"""Runs side by side on one page that can be sent to anyone; what cannot be compared is said, with its remedy."""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import inf
from pathlib import Path
from typing import Any

from ablation.compare import Comparison
from ablation.compare_alike import asked
from ablation.compare_words import COSTS, HOW, ONE_SEED, amount, cost_words, decided, difference_words, figure_words, side
from ablation.page_parts import SHOWN, STYLE, UNITS, Curve, beside, chart, mark, named, unbroken
from ablation.verdicts import factor
from evaluation.charts import Span, spans
from evaluation.markup import Media, absent, card, definitions, document, key, listed, number, section, table, verdict
from evaluation.report import LIMIT_BYTES, losses, read_json

FEW = 8  # keys that only some runs have: more of them are folded away
MEANINGS = {
    "paired": "over the same prompts or clips, item by item",
    "apart": "from the two intervals alone, so wider than pairs would be",
    "bare": "the evaluation has none that could be subtracted",
}
LONG = 90  # characters of a setting's value
EXTRA = """<style>
.compared thead th { min-width: 8rem; }
.compared tbody th, .compared thead th:first-child { min-width: 12rem; position: sticky; left: 0; background: var(--paper); }
.compared td { white-space: nowrap; }
.compared td small { display: block; color: var(--soft); font-size: .8125rem; white-space: normal; }
.compared td small.better, .compared td small.worse { color: var(--own); }
.remedy { border: 1px solid var(--second); border-left-width: 5px; border-radius: 6px; padding: .8rem 1.1rem; margin: 1.25rem 0 0; }
.remedy p { max-width: none; margin: 0 0 .35rem; }
.remedy code { display: block; }
.settings td { min-width: 7rem; }
.settings code { overflow-wrap: break-word; }
@media (max-width: 34rem) { .compared tbody th, .compared thead th:first-child { min-width: 8.5rem; } }
details { margin-top: 1.25rem; }
summary { cursor: pointer; color: var(--soft); }
main > section.first { margin-top: 2rem; }
.told { margin-top: 1.5rem; }
</style>"""


def page(comparison: Comparison) -> str:
    """The whole page; media and losses are read from the run folders.

    Raises: ValueError if a file of a run is damaged.
    """
    media = Media()
    aspect, samples = _samples(comparison, media)
    sections = [
        _answers(comparison),
        _figures(comparison),
        samples,
        _losses(comparison),
        _settings(comparison),
        _costs(comparison),
        _protocol(comparison, media),
    ]
    text = document("Runs side by side", _lead(comparison), sections, "Made by <code>scripts/compare.py</code>.", aspect)
    assert len(text.encode("utf-8")) <= LIMIT_BYTES, "the words and charts of a page take less than a megabyte"
    return text


def _marks(comparison: Comparison) -> dict[str, str]:
    return {name: mark(place) for place, name in enumerate(comparison["runs"])}


def _names(comparison: Comparison) -> dict[str, str]:
    """Each run as HTML with the colour of its curves."""
    return {name: named(name, own) for name, own in _marks(comparison).items()}


def _lead(comparison: Comparison) -> str:
    names = [f"<em>{escape(name)}</em>" for name in comparison["runs"]]
    kind = {"flow": "flow models", "vae": "video autoencoders"}[comparison["kind"]]
    words = f"{number(len(names)).capitalize()} {kind}: {listed(names)}. Differences are to {names[0]}."
    return f'{STYLE}{EXTRA}<p class="lead">{words}</p>'


def _answers(comparison: Comparison) -> str:
    items = [f'<li class="{kind}"><b>{word}</b><span>{unbroken(words)}</span></li>' for kind, word, words in decided(comparison)]
    told = (
        f'<ul class="verdicts">{"".join(items)}</ul>'
        if items
        else f'<p class="no told">No other run was measured as {escape(comparison["first"])} was: there are no differences.</p>'
    )
    return f'<section class="first">{_remedies(comparison)}{told}<p class="soft">{ONE_SEED}</p></section>'


def _remedies(comparison: Comparison) -> str:
    faults = [fault for run in comparison["runs"].values() for fault in run["faults"]]
    parts = [
        f'<div class="remedy" role="note"><p>{escape(fault["what"])}. {"No difference is taken from it. " if fault["apart"] else ""}Run:</p>'
        f"<code>{escape(fault['command'])}</code></div>"
        for fault in faults
    ]
    return "".join(parts)


def _figures(comparison: Comparison) -> str:
    names, runs = _names(comparison), comparison["runs"]
    charts = [_spans(comparison, measure) for measure in comparison["measures"].values() if measure["head"]]
    body = []
    for measure in comparison["measures"].values():
        cells = []
        for run in runs.values():
            difference = run["differences"].get(measure["at"])
            kind = "" if difference is None else f' class="{side(difference, measure)[0]}"'
            below = "" if difference is None else f"<small{kind}>{unbroken(difference_words(run, measure))}</small>"
            cells.append(f"{escape(figure_words(run, measure)) or '–'}{below}")
        counts = {figure["n"] for run in runs.values() if (figure := run["figures"].get(measure["at"])) is not None and figure["n"] is not None}
        told = f'<br><span class="soft small">of {listed([str(count) for count in sorted(counts)])}</span>' if counts else ""
        body.append((escape(measure["label"]) + told, *cells))
    if not body:
        return absent("Figures", "None of these runs has been measured.")
    how = {difference["how"] for run in runs.values() for difference in run["differences"].values()}
    below = "; below it, the difference to the first run." if how else "."
    words = "Each run's figure with its own 95&nbsp;% interval, as its evaluation.json has it" + below
    old = [escape(name) for name, run in runs.items() if _unpairable(comparison, run)]
    if old:
        whose = "all of them" if len(old) == len(runs) else listed(old)
        words += f" Measured by code that did not keep the single verdicts, so measure again to pair all that can be: {whose}."
    meanings = {HOW[kind]: meaning for kind, meaning in MEANINGS.items() if kind in how}
    meanings |= {"intervals": "95 % each by itself: of twenty comparisons of equals, about one seems to differ"} if how else {}
    biased = any(measure["biased"] for measure in comparison["measures"].values())
    meanings |= {"Frechet distances": "their intervals are without what chance adds to them, the figures with it"} if biased else {}
    grid = f'<div class="compared">{table(("", *names.values()), body, numbers=range(0))}</div>'
    return section("Figures", "".join(charts) + f'<p class="soft told">{words}</p>' + grid + definitions(meanings.items()))


def _unpairable(comparison: Comparison, run: Mapping[str, Any]) -> bool:
    """Whether a run has a deciding figure without the items it is made of."""
    return any(measure["head"] and at in run["figures"] and at not in run["items"] for at, measure in comparison["measures"].items())


def _spans(comparison: Comparison, measure: Mapping[str, Any]) -> str:
    names, times, rows = _names(comparison), factor(measure["share"]), []
    for name, run in comparison["runs"].items():
        difference = run["differences"].get(measure["at"])
        if difference is not None and difference["low"] is not None:
            extent = (times * difference["low"], times * difference["value"], times * difference["high"])
            note = amount(difference, measure)
            rows.append(Span(names[name], escape(note), f"{name}: {note}", extent, [], side(difference, measure)[0]))
    if not rows:
        return ""
    ends = ("← better", "worse →") if measure["better"] == "lower" else ("← worse", "better →")
    unit = ", in percentage points" if measure["share"] else ""
    return f"<h3>{escape(measure['label'])}: difference to {escape(comparison['first'])}{unit}</h3>{spans(rows, None, ends, far=inf)}"


def _samples(comparison: Comparison, media: Media) -> tuple[str, str]:
    """Videos of all runs for the same prompts, or of the same clips, and their width / height."""
    flow, names, runs = comparison["kind"] == "flow", _names(comparison), comparison["runs"]
    title = "The same prompts, the same noise" if flow else "The same clips"
    found = {name: own for name, run in runs.items() if run["protocol"] is not None and (own := asked(Path(run["measured"])))}
    if not found:
        return "1 / 1", absent(title, "None of these runs has left samples.")
    count = min(SHOWN, *map(len, found.values()))
    wanted = next(iter(found.values()))[:count]
    shown = [name for name in found if found[name][:count] == wanted]
    blocks = []
    for place, words in enumerate(wanted):
        cards = [] if flow else [_source(Path(runs[shown[0]]["measured"]) / "evaluation", place, media)]
        cards += [_card(name, names[name], Path(runs[name]["measured"]) / "evaluation", place, flow, media) for name in shown]
        blocks.append(beside(words, cards))
    what = "prompts of the evaluation, one video each" if flow else "held-out clips of the evaluation"
    told = [f"The first {number(count)} {what}, none picked by hand."]
    odd = _odd_ones(comparison, found, shown)
    told += [f"{words} {listed([escape(name) for name in own])}." for words, own in odd.items() if own]
    title = "The same prompts" if len(odd[_OTHER_NOISE]) == len(shown) - 1 > 0 else title
    height, width = (runs[shown[0]]["protocol"] or {}).get("size", (1, 1))
    return f"{width} / {height}", section(title, f"<p>{' '.join(told)}</p>{''.join(blocks)}")


def _odd_ones(comparison: Comparison, found: Mapping[str, Any], shown: Sequence[str]) -> dict[str, list[str]]:
    """What is to be said of which runs beside their samples, or in their place."""
    runs, first = comparison["runs"], shown[0]

    def unlike(of: Callable[[Mapping[str, Any]], Any]) -> list[str]:
        return [name for name in shown if of(runs[name]) != of(runs[first])]

    noise = unlike(lambda run: (run["latents"], (run["protocol"] or {}).get("seed"))) if comparison["kind"] == "flow" else []
    return {
        _OTHER_NOISE: noise,
        "Measured in another way, see above:": [name for name in shown if any(fault["apart"] for fault in runs[name]["faults"])],
        "Not shown, as their evaluations asked for something else:": [name for name in found if name not in shown],
        "No samples:": [name for name in runs if name not in found],
    }


_OTHER_NOISE = "Under noise of another shape or seed than the first's, so alike in words alone:"


def _source(folder: Path, place: int, media: Media) -> str:
    item = read_json(folder / "gallery.json")["reconstructions"][place]
    return card(media.video(folder, item, "source", f"Source: {item['caption']}"), "source", "the clip itself")


def _card(name: str, label: str, folder: Path, place: int, flow: bool, media: Media) -> str:
    item = read_json(folder / "gallery.json")["prompts" if flow else "reconstructions"][place]
    video = media.video(folder, item, "video", f"Video of {name}: {item['prompt' if flow else 'caption']}")
    if not flow:
        return card(video, label, f"{item['psnr_db']:.1f} dB")
    return card(video, label, verdict(item["correct"], item["attributes"]), wrong=not item["correct"])


def _losses(comparison: Comparison) -> str:
    runs, marks = comparison["runs"], _marks(comparison)
    journals = {name: losses(Path(run["run"]) / "metrics.jsonl") for name, run in runs.items()}
    each = {name: run["flop"] / run["steps"] for name, run in runs.items() if run["flop"] and run["steps"]}
    charts = []
    for place, title in enumerate(("Training", "Validation, on fixed clips")):
        for across, units, step in (("steps", ((1.0, "steps"),), dict.fromkeys(runs, 1.0)), ("compute", UNITS, each)):
            curves = {name: [Curve(True, [(x * step[name], y) for x, y in journals[name][place] if 0 < y < inf])] for name in runs if name in step}
            if curves:
                charts.append(f"<div><h3>{title}, over {across}</h3>{chart(title, curves, marks, units, dots=place == 1)}</div>")
    legend = key(*((f"flat {own}", "own", escape(name)) for name, own in marks.items()))
    words = "Losses of runs with other latents, loss weights or laws of noise are on scales of their own: compare them by their figures instead."
    bare = [escape(name) for name in runs if name not in each]
    words += f" No cost.json, so not over compute: {listed(bare)}." if bare else ""
    return section("Loss", f'<p class="soft">{words}</p><div class="charts">{"".join(charts)}</div>{legend}')


def _settings(comparison: Comparison) -> str:
    title, runs, changed = "What they were told", list(comparison["runs"]), comparison["config"]
    if not changed:
        return absent(title, "The configs of these runs are the same.")
    shared = {at: row for at, row in changed.items() if None not in row.values()}
    some = {at: row for at, row in changed.items() if at not in shared}

    def grid(part: Mapping[str, Mapping[str, str | None]]) -> str:
        body = [(_code(at), *(_setting(row[name]) for name in runs)) for at, row in part.items()]
        return f'<div class="settings">{table(("key", *_names(comparison).values()), body, numbers=range(0))}</div>'

    words = "Every key of config.yaml in which they differ, but for the folder of the run."
    text = f'<p class="soft">{words}</p>{grid(shared) if shared else ""}'
    if some:
        told = f"{len(some)} more that only some of them have: parts of another kind, or code of another day"
        text += f"<details{' open' if len(some) <= FEW else ''}><summary>{told}</summary>{grid(some)}</details>"
    return section(title, text)


def _setting(value: str | None) -> str:
    if value is None:
        return '<span class="soft">absent</span>'
    return _code(value if len(value) <= LONG else value[: LONG - 1] + "…")


def _code(text: str) -> str:
    """Dotted words that break between their parts."""
    broken = re.sub("([./])", r"\1<wbr>", escape(text))
    return f"<code>{broken}</code>"


def _costs(comparison: Comparison) -> str:
    body = [(label, *map(escape, cost_words(run))) for label, run in zip(_names(comparison).values(), comparison["runs"].values(), strict=True)]
    words = (
        "TFLOP are those of training, forward and backward, computed from the networks' shapes; seconds are of whatever machine each ran on. "
        "Weights: the beginning of the sha256 that was measured."
    )
    return section("What they cost", f'<p class="soft">{words}</p>{table(("run", *COSTS), body, numbers=range(1, 8))}')


def _protocol(comparison: Comparison, media: Media) -> str:
    facts = {"command": comparison["command"]}
    for name, run in comparison["runs"].items():
        own = run["protocol"] or {}
        told = [f"{word} {value if not isinstance(value, list) else 'x'.join(map(str, value))}" for word, value in own.items() if word not in _APART]
        told += [", ".join(f"{word} {version}" for word, version in own.get("versions", {}).items())]
        facts[name] = "; ".join(filter(None, told)) or "not measured"
    facts |= {"not shown": "; ".join(media.missing)} if media.missing else {}
    return section("How they were measured", definitions(facts.items()))


_APART = ("versions", "config_sha256", "seconds")
