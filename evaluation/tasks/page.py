"""One page with every way of making video: what each is, what was measured, and clips to look at; nothing beside it is needed."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from evaluation.markup import Media, card, definitions, document, pair, section, table
from evaluation.report import read_json
from evaluation.tasks.outcome import about, slug
from evaluation.tasks.rows import Row, shown

Figures = Mapping[str, Any]


def page(folder: Path) -> str:
    """The page of a run's `tasks.json` and `tasks/`.

    Raises: ValueError if the run was not measured.
    """
    measured = read_json(folder / "tasks.json")
    if not measured:
        raise ValueError(f"{folder} holds no tasks.json. Measure it first: python scripts/evaluate.py run={folder} suite=tasks")
    media, sections = Media(), []
    rows = [row for row in measured["rows"] if row["met"] is not None]
    for name in measured["figures"]:
        own = folder / "tasks" / slug(name)
        sections.append(_part(media, own, read_json(own / "index.json"), measured["figures"][name]))
    told = measured["protocol"]
    facts = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in told.items() if key not in ("tasks", "versions")]
    missing = f'<p class="soft">Left out: {escape(", ".join(media.missing))}.</p>' if media.missing else ""
    sections.append(section("How it was measured", definitions(facts) + missing))
    met = sum(row["met"] for row in rows)
    lead = (
        '<p class="lead">One model, one mechanism: which frames are given, and from when to when each is walked. '
        f"{met} of {len(rows)} bars are met. Every clip is the first of its part, whatever it looks like; given frames carry a bar.</p>"
    )
    return document("Kinora: every way of making video", lead, sections, "Made by <code>scripts/showcase.py</code>.")


def _part(media: Media, folder: Path, part: Figures, figures: Figures) -> str:
    if not part:
        return ""
    name = part["name"]
    cards = "".join(_card(media, folder, example) for example in part["examples"])
    chart = _drift(figures) if name == "rollout" else ""
    content = f"<p>{escape(about(name))}</p>{_table(part['rows'])}{chart}"
    return section(name[0].upper() + name[1:], f'{content}<ul class="grid wide">{cards}</ul>')


def _table(rows: Sequence[Figures]) -> str:
    head = ("measure", "measured", "95&nbsp;%", "n", "bar", "real clips", "frozen clip")
    lines = []
    for row in map(Row.of, rows):
        figure, unit = row.figure, row.unit
        span = f"{shown(figure['low'], unit)} to {shown(figure['high'], unit)}" if "low" in figure else ""
        mark = {None: "", True: '<span class="yes">✓</span>', False: '<span class="no">✗</span>'}[row.met]
        bar = f"{escape(row.asked.replace('>=', '≥').replace('<=', '≤'))} {mark}{' reference too low' if row.too_low else ''}".strip()
        beside = shown(row.ceiling, unit), shown(row.frozen, unit)
        lines.append((escape(row.measure), shown(figure["value"], unit), span, str(figure.get("n", "")), bar, *beside))
    return table(head, lines, range(1, len(head)))


def _card(media: Media, folder: Path, example: Figures) -> str:
    words = example["caption"] or "no caption"
    made = media.video(folder, example, "video", words)
    if "source" in example:
        made = pair(media.video(folder, example, "source", "the source"), "source", made, "made")
    strip = media.uri(folder / example["video_still"])
    frames = f'<img class="strip" src="{strip}" alt="{escape(words)}">' if strip else ""
    caption = f"<q>{escape(example['caption'])}</q>" if example["caption"] else "no caption"
    return card(made + _marks(example.get("given")) + frames, caption, escape(example["note"]))


def _marks(given: Sequence[bool] | None) -> str:
    """A line as long as the clip, thick where frames were given."""
    if not given:
        return ""
    cells = "".join(f'<rect class="bar" x="{k}" y="0" width="1" height="1"/>' for k, one in enumerate(given) if one)
    alone = f'<rect class="track" x="0" y="0" width="{len(given)}" height="1"/>'
    return (
        f'<svg class="marks-line" viewBox="0 0 {len(given)} 1" preserveAspectRatio="none" role="img" aria-label="given frames">{alone}{cells}</svg>'
    )


def _drift(figures: Figures) -> str:
    """The share of clips that hold their attributes and move, over multiples of the trained length: windows and naive chaining."""
    curves = (("rollout", "bar", "in windows"), ("chained", "chance", "by naive chaining"))
    width, height = 600, 160
    drawn = []
    for key, style, _ in curves:
        lasting = [point["value"] for point in figures[key]["lasting"]]
        across = width / max(1, len(lasting) - 1)
        points = " ".join(f"{k * across:.1f},{height * (1 - value):.1f}" for k, value in enumerate(lasting))
        colour = "accent" if style == "bar" else "bad"
        drawn.append(f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="3"/>')
    last = len(figures["rollout"]["lasting"])
    grid = "".join(f'<line class="soft" x1="0" x2="{width}" y1="{height * y}" y2="{height * y}" stroke="var(--line)"/>' for y in (0, 0.5, 1))
    words = f"share of clips that hold their attributes and still move, from 1 to {last} times the trained length"
    labels = (
        f'<text class="soft" x="0" y="{height + 20}">1 x</text><text class="soft" x="{width}" y="{height + 20}" text-anchor="end">{last} x</text>'
        f'<text class="soft" x="{width + 6}" y="6">100 %</text><text class="soft" x="{width + 6}" y="{height}">0 %</text>'
    )
    legend = (
        '<ul class="key"><li><i class="bar" style="background:var(--accent)"></i>in windows</li>'
        '<li><i class="bar" style="background:var(--bad)"></i>by naive chaining</li></ul>'
    )
    chart = f'<svg viewBox="0 -8 {width + 60} {height + 36}" role="img" aria-label="{words}">{grid}{"".join(drawn)}{labels}</svg>'
    return f"<h3>{words[0].upper() + words[1:]}</h3>{chart}{legend}"
