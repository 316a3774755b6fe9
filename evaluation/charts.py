"""Charts as inline SVG: no script, no picture file, colours by the page's CSS classes, readable on a phone."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, inf, log10
from statistics import median_low

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


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Args:
        points: (x, y).
        kind: CSS classes.
        dots: mark each point, where there are few.
        scales: whether the scale has to hold it; what is outside is moved to its edge.
    """

    points: Points
    kind: str
    dots: bool = False
    scales: bool = True


DOTS = 24


def curves(train: Points, validation: Points, words: str) -> str:
    """Loss over steps on a logarithmic scale: training as a thin line, validation as a thick one.

    Args:
        train, validation: (step, loss); values that are not positive and finite are left out. At least one point in all.
        words: what a reader who does not see the chart is told.
    """
    return lines([Line(train, "train"), Line(validation, "validation", dots=True)], words, "steps")


def lines(series: Sequence[Line], words: str, across: str, settled: float = 0.01) -> str:
    """Curves over one scale from 0, on a logarithmic scale upwards; a later one lies above.

    Args:
        series: values that are not positive and finite are left out. At least one point in all.
        words: what a reader who does not see the chart is told.
        across: the unit of x, under the scale.
        settled: the first steps of training start far above everything else; the scale follows what comes after this share of it.
    """
    drawn = [(line, [(x, y) for x, y in line.points if 0 < y < float("inf")]) for line in series]
    every = [point for _, points in drawn for point in points]
    end = max(x for x, _ in every) or 1
    held = [point for line, points in drawn if line.scales for point in points] or every
    heights = [y for x, y in held if x >= settled * end] or [y for _, y in held]
    low, high = log10(min(heights)) - 0.02, log10(max(heights)) + 0.02

    def place(x: float, y: float) -> str:
        share = max(0.0, min(1.0, (log10(y) - low) / (high - low)))
        return f"{LEFT + x / end * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">']
    for tick in _log_ticks(low, high):
        x, y = place(0, tick).split(",")
        parts.append(f'<line class="rule" x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 8}" y="{float(y) + 5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0, end, finest=1):
        x = place(tick, 10**low).split(",")[0]
        anchor = "end" if tick > 0.95 * end else "middle"
        parts.append(f'<text class="soft" x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="{anchor}">{tick:.0f}</text>')
    parts.append(f'<text class="soft" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(across)}</text>')
    for line, points in drawn:
        points = _from_above(points, high)
        if len(points) > 1:
            parts.append(f'<polyline class="{line.kind}" points="{" ".join(place(x, y) for x, y in points)}"/>')
        for x, y in points if line.dots and len(points) <= DOTS else []:
            across_px, down_px = place(x, y).split(",")
            inside = low <= log10(y) <= high
            parts += [f'<circle class="{line.kind}" cx="{across_px}" cy="{down_px}" r="3.5"/>'] if inside else []
    return "".join([*parts, "</svg>"])


def _from_above(points: Points, high: float) -> Points:
    """A curve from where it first comes under the scale's upper end, instead of along it."""
    first = next((number for number, (_, y) in enumerate(points) if log10(y) <= high), 0)
    if first == 0:
        return points
    (x0, y0), (x1, y1) = points[first - 1 : first + 1]
    share = (log10(y0) - high) / (log10(y0) - log10(y1))
    return [(x0 + share * (x1 - x0), 10**high), *points[first:]]


@dataclass(frozen=True, slots=True)
class Span:
    """A difference on one row.

    Args:
        name, note: left and right of the row, as HTML.
        words: what a reader who does not see the row is told.
        extent: low end, value and high end of the interval; None leaves the row empty.
        points: the single differences behind it.
        kind: a CSS class.
    """

    name: str
    note: str
    words: str
    extent: tuple[float, float, float] | None
    points: Sequence[float]
    kind: str


def spans(rows: Sequence[Span], band: float | None, ends: tuple[str, str], far: float = 4) -> str:
    """Differences around zero, one a row: the interval as a line, its value as a disc, single differences as upright marks.

    Args:
        band: the smallest difference that matters; what lies within it on either side is shaded.
        ends: what lies to the left and to the right of zero.
        far: rows that reach so many times as far as the median one are cut off; inf: none is.
    """
    low, high = _reach(rows, band, far)

    def at(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    behind = "" if band is None else f'<rect class="track" x="{at(-band)}" width="{at(band) - at(-band):.2f}" y="0" height="20"/>'
    behind += f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="0" y2="20"/>'
    parts = [f'<span class="name"></span><span class="number"></span><span class="axis"><b>{ends[0]}</b><b>{ends[1]}</b></span>']
    for row in rows:
        drawing = [f'<line class="point" x1="{at(x)}" x2="{at(x)}" y1="5" y2="15"/>' for x in row.points if low <= x <= high]
        if row.extent is not None:
            start, value, stop = row.extent
            drawing.append(f'<line class="range" x1="{at(start)}" x2="{at(stop)}" y1="10" y2="10"/>')
            # A line without length has round ends: a disc that stays round in a stretched drawing.
            drawing += [f'<line class="disc" x1="{at(value)}" x2="{at(value)}" y1="10" y2="10"/>'] if low <= value <= high else []
            drawing += ['<polyline class="range" points="1.5,5 0,10 1.5,15"/>'] if start < low else []
            drawing += ['<polyline class="range" points="98.5,5 100,10 98.5,15"/>'] if stop > high else []
        label = f'role="img" aria-label="{escape(row.words)}"'
        parts.append(f'<span class="name">{row.name}</span><span class="number">{row.note}</span>')
        parts.append(f'<svg class="{row.kind}" viewBox="0 0 100 20" preserveAspectRatio="none" {label}>{behind}{"".join(drawing)}</svg>')
    ticks = "".join(f'<i style="left:{at(tick)}%">{tick:g}</i>' for tick in _ticks(low, high))
    return f'<div class="spans">{"".join(parts)}<span class="axis">{ticks}</span></div>'


def _reach(rows: Sequence[Span], band: float | None, far: float) -> tuple[float, float]:
    """The ends of a scale that holds zero, the band and every row, but for those that reach far beyond the others: they are cut off."""
    ends = [(min(every), max(every)) for row in rows if (every := [*row.points, *(row.extent or ())])]
    usual = inf if far == inf else far * median_low([max(-start, stop) for start, stop in ends] or [0])
    inside = [end for start, stop in ends if max(-start, stop) <= max(usual, 2 * (band or 0)) for end in (start, stop)]
    inside += [-1.5 * band, 1.5 * band] if band else []
    low, high = min([0.0, *inside]), max([0.0, *inside])
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


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


def _ticks(low: float, high: float, finest: float = 0) -> list[float]:
    """Round numbers from `low` to `high`, four to eight of them unless they would lie closer than `finest`."""
    step = max(finest, 10.0 ** floor(log10((high - low) / 4)))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5.5)
    return [i * step for i in range(ceil(low / step), floor(high / step) + 1)]
