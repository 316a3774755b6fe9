"""How often each value occurs, as inline SVG in the classes of report.html: bars over a scale, or sizes in pixels and where they go."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

import numpy as np

from evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

BINS = 24
FEW = 8  # bars that have room for a number each
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def histogram(values: np.ndarray, unit: str, words: str, mark: float | None = None, logarithmic: bool = False) -> str:
    """Bars of a column of numbers, in bins of equal width on the scale.

    Args:
        values: at least one; finite, above 0 where the scale is logarithmic.
        unit: under the scale.
        words: what a reader who does not see the chart is told.
        mark: a value that a dashed line points at.
    """
    scaled = np.log10(values) if logarithmic else values
    counts, edges = np.histogram(scaled, min(BINS, max(6, round(2 * len(values) ** 0.5))))
    low, high = float(edges[0]), float(edges[-1])
    ticks = {log10(tick) if logarithmic else tick: f"{tick:g}" for tick in _ticks(low, high, logarithmic)}
    place = log10(mark) if mark is not None and logarithmic else mark
    return _chart(counts, low, high, ticks, unit, words, place, gap=0.06)


def each_value(values: np.ndarray, unit: str, words: str) -> str:
    """One bar for each value that occurs; of more than `FEW` values, the most common ones."""
    distinct, counts = np.unique(values, return_counts=True)
    common = np.sort(np.argsort(-counts, kind="stable")[:FEW])
    labels = {place + 0.5: f"{value:g}" for place, value in enumerate(distinct[common].tolist())}
    return _chart(counts[common], 0, len(common), labels, unit, words, None, gap=0.25)


def sizes(moves: Mapping[tuple[int, int, int, int], int], words: str) -> str:
    """Sizes of files as discs, the shapes that they are delivered in as squares, and a line for each move, on logarithmic scales.

    A move along the diagonal is a change of scale; off it, something is cut away.

    Args:
        moves: (width, height, delivered width, delivered height) -> clips; at least one.
    """
    numbers = np.array(list(moves))
    low, high = np.log10(numbers.min()) - 0.12, np.log10(numbers.max()) + 0.12
    most = max(moves.values())

    def at(width: int, height: int) -> tuple[float, float]:
        return LEFT + (log10(width) - low) / (high - low) * ACROSS, TOP + DOWN - (log10(height) - low) / (high - low) * DOWN

    parts = [_open(words)]
    for tick in _ticks(low, high, True):
        x, y = at(int(tick), int(tick))
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{tick:g}</text>')
    parts.append(_unit("width x height in pixels"))
    for width, height, to_width, to_height in moves:
        (x1, y1), (x2, y2) = at(width, height), at(to_width, to_height)
        parts.append(f'<line class="train" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for (width, height, _, _), number in moves.items():
        x, y = at(width, height)
        parts.append(f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="{3 + 7 * (number / most) ** 0.5:.1f}" opacity=".75"/>')
    for width, height in sorted({move[2:] for move in moves}):
        x, y = at(width, height)
        parts.append(f'<rect class="goal" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>')
    return "".join([*parts, "</svg>"])


def _chart(
    counts: Sequence[int] | np.ndarray,
    low: float,
    high: float,
    labels: Mapping[float, str],
    unit: str,
    words: str,
    mark: float | None,
    gap: float,
) -> str:
    top = int(max(counts))
    wide = ACROSS / len(counts)
    parts = [_open(words)]
    for tick in {round(tick) for tick in _ticks(0, top, False)}:
        y = TOP + DOWN * (1 - tick / top)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{tick}</text>')
    for place, number in enumerate(counts):
        tall = DOWN * int(number) / top
        left, width = LEFT + wide * (place + gap / 2), wide * (1 - gap)
        parts.append(f'<rect class="bar" x="{left:.1f}" y="{TOP + DOWN - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"/>')
    for value, label in labels.items():
        x = LEFT + (value - low) / (high - low) * ACROSS
        parts.append(f'<text class="soft" x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(label)}</text>')
    if mark is not None and low <= mark <= high:
        x = LEFT + (mark - low) / (high - low) * ACROSS
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + DOWN}"/>')
    return "".join([*parts, _unit(unit), "</svg>"])


def _open(words: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">'


def _unit(words: str) -> str:
    return f'<text class="soft" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(words)}</text>'


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round numbers inside a range; of a logarithmic scale, its ends are given as logarithms."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if not logarithmic:
        return [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    ticks = LogLocator(10, subs=(1, 2, 5), numticks=99).tick_values(10**low, 10**high)
    inside = [float(tick) for tick in ticks if low <= log10(tick) <= high]
    if len(inside) > 7:
        inside = [tick for tick in inside if abs(log10(tick) - round(log10(tick))) < 1e-9]
    return inside or [float(f"{10 ** ((low + high) / 2):.2g}")]
