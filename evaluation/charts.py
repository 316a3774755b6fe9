"""Charts as inline SVG: no script, no picture file, colours by the page's CSS classes, readable on a phone."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from evaluation.markup import percent

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its interval, and what it lies between."""

    name: str
    value: float
    low: float
    high: float
    chance: float | None
    ceiling: float | None


def bars(rows: Sequence[Bar]) -> str:
    """One bar a row from 0 to 100 %, its interval as a thin line, chance and ceiling as upright marks.

    The words stand in HTML beside stretched drawings, so they keep their size on a phone.
    """
    return f'<div class="bars">{"".join(_bar(row) for row in rows)}</div>'


def _bar(row: Bar) -> str:
    marks = [
        f'<line class="{name}" x1="{100 * at:.2f}" x2="{100 * at:.2f}" y1="0" y2="20"/>'
        for name, at in (("chance", row.chance), ("ceiling", row.ceiling))
        if at is not None
    ]
    words = f"{row.name}: {percent(row.value)}, interval {percent(row.low)} to {percent(row.high)}"
    words += "".join(f", {name} {percent(at)}" for name, at in (("chance", row.chance), ("ceiling", row.ceiling)) if at is not None)
    return (
        f'<span>{escape(row.name)}</span><svg viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label="{escape(words)}">'
        f'<rect class="track" width="100" y="3" height="14"/><rect class="bar" width="{100 * row.value:.2f}" y="3" height="14"/>'
        f'<line class="range" x1="{100 * row.low:.2f}" x2="{100 * row.high:.2f}" y1="10" y2="10"/>{"".join(marks)}</svg>'
        f'<span class="number">{percent(row.value)}</span>'
    )


WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 46


def curves(train: Points, validation: Points, words: str) -> str:
    """Loss over steps on a logarithmic scale: training as a thin line, validation as a thick one.

    Args:
        train, validation: (step, loss); values that are not positive and finite are left out. At least one point in all.
        words: what a reader who does not see the chart is told.
    """
    lines = {name: [(x, y) for x, y in points if 0 < y < float("inf")] for name, points in (("train", train), ("validation", validation))}
    every = [point for points in lines.values() for point in points]
    end = max(x for x, _ in every) or 1
    # The first few steps of training start far above everything else; the scale follows what comes after them.
    settled = [y for x, y in every if x >= 0.01 * end] or [y for _, y in every]
    low, high = log10(min(settled)) - 0.02, log10(max(settled)) + 0.02

    def place(x: float, y: float) -> str:
        share = min(1.0, (log10(y) - low) / (high - low))
        return f"{LEFT + x / end * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">']
    for tick in _log_ticks(low, high):
        x, y = place(0, tick).split(",")
        parts.append(f'<line class="rule" x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 8}" y="{float(y) + 5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(end):
        x = place(tick, 10**low).split(",")[0]
        anchor = "end" if tick > 0.95 * end else "middle"
        parts.append(f'<text class="soft" x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="{anchor}">{tick:.0f}</text>')
    parts.append(f'<text class="soft" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">steps</text>')
    for name, points in lines.items():
        if len(points) > 1:
            parts.append(f'<polyline class="{name}" points="{" ".join(place(x, y) for x, y in points)}"/>')
    for x, y in lines["validation"] if len(lines["validation"]) <= 24 else []:
        across, down = place(x, y).split(",")
        parts.append(f'<circle class="validation" cx="{across}" cy="{down}" r="3.5"/>')
    return "".join([*parts, "</svg>"])


def thin(points: Points, most: int = 160) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of a stretch of equal length."""
    if len(points) <= most:
        return list(points)
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    parts = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten inside the range, or evenly spread round numbers where the range holds fewer than two of them."""
    ticks = [factor * 10.0**power for power in range(floor(low), ceil(high) + 1) for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= log10(tick) <= high]
    if len(inside) >= 2:
        return inside if len(inside) <= 7 else [tick for tick in inside if log10(tick) == round(log10(tick))] or inside[::2]
    return [float(f"{10 ** (low + (high - low) * share):.2g}") for share in (0.1, 0.5, 0.9)]


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, four to eight of them."""
    step = 10.0 ** floor(log10(end / 4)) if end >= 4 else 1.0
    step *= next(factor for factor in (1, 2, 5, 10) if end / (step * factor) <= 5.5)
    return [i * step for i in range(floor(end / step) + 1)]
