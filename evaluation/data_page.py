"""The doctor's page of a set: what was found, drawn; it needs nothing beside it, and no name or caption of a set becomes markup."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from data.clips import Clips
from data.doctor import Findings, Validation
from data.files.faults import Fault
from evaluation import data_words as words
from evaluation.data_words import plain
from evaluation.histograms import each_value, histogram, sizes
from evaluation.markup import definitions, document, key, section, table

FAULTS = 200  # bad files that are named on the page; report.json has all
MOVES = 150  # the most common changes of size that are drawn
STYLE = """<style>
svg .goal { fill: var(--paper); stroke: var(--second); stroke-width: 2; }
svg .mark { stroke: var(--second); stroke-width: 2; stroke-dasharray: 5 4; }
td svg.shape, th svg.shape { display: inline-block; width: 1.6rem; height: 1.6rem; margin: 0 .6rem 0 0; vertical-align: middle; }
.room { display: block; width: 12rem; }
td .fill { display: block; height: .55rem; min-width: 2px; background: var(--accent); border-radius: 2px; margin-top: .5rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--track); border-radius: 6px; padding: .9rem 1.1rem; }
pre { font: .875rem/1.5 var(--mono); }
</style>"""


def page(findings: Findings, validation: Validation, settings: Mapping[str, Any], ending: str) -> str:
    """The whole page.

    Args:
        settings: see `evaluation.data_words.epoch`.
        ending: what to do next.
    """
    name = escape(plain(findings.clips.index.source))
    sections = [
        _headline(findings, validation),
        section("Next", f"<pre>{escape(plain(ending))}</pre>"),
        _kinds("Bad files", findings.clips.faults),
        _kinds("Bad files of the validation set", validation.faults),
        section("What was found", definitions(words.found(findings)) + _charts(findings)),
        _shapes(findings),
        _done(findings),
        section("An epoch", definitions(words.epoch(findings, validation, settings))),
        *(_faults(clips) for clips in (findings.clips, validation.clips) if clips is not None),
    ]
    return document(f"Data check: {name}", STYLE, sections, "Made by <code>scripts/check_data.py</code>.")


def _headline(findings: Findings, validation: Validation) -> str:
    ledger, usable, rows = findings.ledger, len(findings.facts), len(findings.clips)
    samples = int(ledger.step_samples.sum()) if ledger else 0
    cells = [
        f'<div class="main"><dt>of {words.count(rows, "clip")} can be used</dt><dd>{usable}</dd></div>',
        f"<div><dt>samples an epoch</dt><dd>{samples}</dd></div>",
        f"<div><dt>steps an epoch</dt><dd>{len(ledger.step_samples) if ledger else 0}</dd></div>",
        f"<div><dt>of video</dt><dd>{words.lasting(float(findings.facts.seconds.sum()))}</dd></div>",
    ]
    lost = words.lost(findings, validation)
    verdict = f'<span class="no">✗ would be lost: {escape(lost)}</span>' if lost else '<span class="yes">✓ nothing would be lost</span>'
    return f'<section class="first"><dl class="headline">{"".join(cells)}</dl>\n<p>{verdict}</p></section>'


def _kinds(title: str, faults: Sequence[Fault]) -> str:
    rows = [(escape(kind), str(number), escape(advice)) for number, kind, advice in words.faults_by_kind(faults)]
    return section(title, table(("kind", "files", "what to do"), rows, range(1, 2))) if rows else ""


def _faults(clips: Clips) -> str:
    rows = [(escape(words.bad_file(clips, fault)), escape(fault.kind), escape(plain(fault.detail))) for fault in clips.faults[:FAULTS]]
    more = f'<p class="soft">And {len(clips.faults) - FAULTS} more, see report.json.</p>' if len(clips.faults) > FAULTS else ""
    title = f"Bad files in {escape(plain(clips.index.source))}, by name"
    return section(title, table(("file", "kind", "reason"), rows, range(0)) + more) if rows else ""


def _charts(findings: Findings) -> str:
    facts, clips = findings.facts, findings.clips
    if not len(facts):
        return ""
    moving = facts.seconds > 0
    longest = max(shape.bucket.frames for shape in findings.shapes)
    charts = [("Sizes, and the shapes they are delivered in", _sizes(findings))]
    if moving.any():
        unit, lasts = f"seconds; dashed: a clip of {longest} frames", (longest - 1) / clips.fps
        charts.append(("Clips by duration of their files", histogram(facts.seconds[moving], unit, "Durations", lasts or None, logarithmic=True)))
        rates = np.array([float(f"{value:.4g}") for value in facts.rates[moving].tolist()])
        charts.append(("Clips by frame rate of their files", each_value(rates, f"frames per second; data.fps={clips.fps:g}", "Frame rates")))
    charts.append(("Clips by what stays of the picture", histogram(100 * facts.kept, "% of the picture", "Share of the picture that stays")))
    if len(findings.texts.words):
        charts.append(("Captions by length", histogram(findings.texts.words, "words", "Words in a caption")))
    if findings.ledger is not None:
        charts.append(("Steps of an epoch by size", histogram(findings.ledger.step_tokens, "tokens", "Tokens of a step")))
    return f'<div class="charts">{"".join(f"<div><h3>{title}</h3>{chart}</div>" for title, chart in charts)}</div>'


def _sizes(findings: Findings) -> str:
    facts = findings.facts
    goals = np.array([(shape.bucket.width, shape.bucket.height) for shape in findings.shapes])[facts.shapes]
    distinct, counts = np.unique(np.column_stack([facts.widths, facts.heights, goals]), axis=0, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:MOVES]
    moves = Counter({(int(w), int(h), int(x), int(y)): int(number) for (w, h, x, y), number in zip(distinct[common], counts[common], strict=True)})
    legend = key(("flat", "accent", "files"), ("up", "second", "shapes; off the diagonal, edges are cut"))
    return sizes(moves, "Sizes of the files and of the shapes that they are delivered in") + legend


def _shapes(findings: Findings) -> str:
    if not findings.shapes:
        return ""
    most, largest = max(shape.clips for shape in findings.shapes), max(max(shape.bucket.height, shape.bucket.width) for shape in findings.shapes)
    rows = [
        (
            _outline(shape.bucket.width / largest, shape.bucket.height / largest) + cells[0],
            *cells[1:],
            f'<span class="fill" style="width:{100 * shape.clips / most:.1f}%"></span>',
        )
        for shape, cells in zip(findings.shapes, words.shapes(findings), strict=True)
    ]
    head = ("frames x height x width", "clips", "samples", "tokens", "at once", '<span class="room"></span>')
    return section("Shapes", table(head, rows, range(1, 5)))


def _outline(width: float, height: float) -> str:
    box = f'<rect class="goal" x="1" y="{23 - 22 * height:.1f}" width="{22 * width:.1f}" height="{22 * height:.1f}"/>'
    return f'<svg class="shape" viewBox="0 0 24 24" aria-hidden="true">{box}</svg>'


def _done(findings: Findings) -> str:
    rows = [(escape(name), str(number), escape(text)) for name, number, text in words.done(findings)]
    return section("What is done to clips", table(("", "clips", ""), rows, range(1, 2))) if rows else ""
