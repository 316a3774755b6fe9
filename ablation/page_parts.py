"""What the pages of ablations and of runs side by side are drawn with: colours by place, curves over what they cost, samples beside each other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from statistics import fmean

from evaluation.charts import Line, lines, thin
from evaluation.markup import listed

SHOWN, ACROSS = 4, (4, 6)  # prompts, and for how many videos side by side there is room: at least, at most
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1.0, "FLOP"))
FEW, ALL = 120, 24_000  # points of a curve, and of the curves of all single runs
COLOURS = 8  # 20 apart in CIELAB at least, for red-green blind eyes too; then the same again, dashed
STYLE = """<style>
:root {
  --arm-0: #4174e7; --arm-1: #c64e2b; --arm-2: #076b69; --arm-3: #7633a0; --arm-4: #cc8100; --arm-5: #4498d0; --arm-6: #e13b8f; --arm-7: #6b331e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --arm-0: #56a7ff; --arm-1: #eb9d3c; --arm-2: #339171; --arm-3: #9e5dbd; --arm-4: #fee749; --arm-5: #5dddff; --arm-6: #ff78be; --arm-7: #a09255;
  }
}
.arm-base { --own: var(--ink); }
.arm-0 { --own: var(--arm-0); } .arm-1 { --own: var(--arm-1); } .arm-2 { --own: var(--arm-2); } .arm-3 { --own: var(--arm-3); }
.arm-4 { --own: var(--arm-4); } .arm-5 { --own: var(--arm-5); } .arm-6 { --own: var(--arm-6); } .arm-7 { --own: var(--arm-7); }
.verdicts { list-style: none; margin: 2.25rem 0 1.25rem; padding: 0; font-size: 1.0625rem; line-height: 1.45; }
.verdicts li { display: grid; grid-template-columns: 7.5rem 1fr; gap: .2rem 1rem; padding: .6rem 0; border-bottom: 1px solid var(--line); }
.verdicts b { color: var(--own); font-weight: 650; }
.better { --own: var(--good); }
.worse { --own: var(--bad); }
.equivalent { --own: var(--accent); }
.inconclusive { --own: var(--soft); }
.figures td.number, .figures th.number { padding-right: 1rem; }
td .word { color: var(--own); font-weight: 650; }
.named { display: inline-grid; grid-template-columns: auto 1fr; align-items: start; }
.swatch { width: 1.1rem; height: .3rem; border-radius: 2px; margin: calc(.5lh - .1rem) .5rem 0 0; background: var(--own); }
i.dashed { mask: repeating-linear-gradient(90deg, #000 0 .35rem, transparent 0 .5rem); }
svg polyline.mean { stroke: var(--own); stroke-width: 2.5; fill: none; stroke-linejoin: round; }
svg polyline.seed { stroke: var(--own); stroke-width: 1; fill: none; opacity: .3; }
svg polyline.dashed { stroke-dasharray: 7 4; }
svg circle.mean { fill: var(--own); stroke: none; }
.key i.band { width: 1.4rem; height: .9rem; }
.grid.arms { gap: 1rem; margin-top: .5rem; }
.grid.arms { grid-template-columns: repeat(auto-fill, minmax(max(8.5rem, (100% - 6rem) / var(--across)), 1fr)); }
h3 q { quotes: "“" "”"; }
.arms figcaption { padding: .55rem .75rem .65rem; overflow-wrap: anywhere; }
@media (max-width: 34rem) {
  .verdicts li { grid-template-columns: 1fr; }
  .grid.arms { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .75rem; }
}
</style>"""


@dataclass(frozen=True, slots=True)
class Curve:
    """(FLOP, loss) of a run, and whether it ended well."""

    ended: bool
    points: list[tuple[float, float]]


def unbroken(words: str) -> str:
    """As HTML whose intervals and counts stay on one line."""
    return re.sub(r"\[[^]]*\]|\d+ (seed|run|percentage|prompt|clip)s?\b", lambda found: found[0].replace(" ", "&nbsp;"), escape(words))


def chart(title: str, curves: Mapping[str, Sequence[Curve]], marks: Mapping[str, str], units: Sequence[tuple[float, str]], dots: bool) -> str:
    """Losses of several sets of runs in one drawing, and whose there are none of.

    Args:
        curves: of each name its runs; x may be anything that `units` measures.
        marks: of each name the CSS classes of its colour.
        units: (size, name), largest first, the last of size 1: the first that the longest curve holds four of is written.
    """
    every = [x for own in curves.values() for curve in own for x, _ in curve.points]
    bare = [escape(name) for name, own in curves.items() if not any(curve.points for curve in own)]
    told = f'<p class="soft">No such losses in metrics.jsonl of {listed(bare)}.</p>' if bare else ""
    if not every:
        return told
    unit, across = next((unit, name) for unit, name in units if max(every) >= 4 * unit or unit == 1)
    singles, means, ends = [], [], []
    few = min(FEW, max(12, ALL // sum(map(len, curves.values()))))
    for name, own in curves.items():
        scaled = [Curve(curve.ended, [(x / unit, y) for x, y in curve.points]) for curve in own]
        singles += [Line(thin(curve.points, few), f"seed {marks[name]}", scales=curve.ended) for curve in scaled if len(own) > 1 or not curve.ended]
        mean = _mean(scaled)
        means.append(Line(thin(mean, FEW), f"mean {marks[name]}", dots))
        ends += [f"{name} {mean[-1][1]:.3g}"] if mean else []
    return lines([*singles, *means], f"{title}: loss over training {across}, at the end {', '.join(ends)}", across, settled=0.2) + told


def _mean(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Over the runs that ended, where all of them have a value: one that is missing on the way would make a step."""
    ended = [dict(curve.points) for curve in curves if curve.ended and curve.points]
    shared = sorted(set.intersection(*map(set, ended))) if ended else []
    return [(x, fmean(one[x] for one in ended)) for x in shared]


def beside(prompt: str, cards: Sequence[str]) -> str:
    """Figures that belong to one prompt, side by side."""
    across = max(ACROSS[0], ceil(len(cards) / ceil(len(cards) / ACROSS[1])))
    return f'<h3><q>{escape(prompt)}</q></h3><ul class="grid arms" style="--across:{across}">{"".join(cards)}</ul>'


def mark(place: int) -> str:
    """The CSS classes of the colour of the one that stands at this place; the baseline stands first."""
    return "arm-base" if place == 0 else f"arm-{(place - 1) % COLOURS}{' dashed' * (place > COLOURS)}"


def named(name: str, own: str) -> str:
    """A name with the mark of its curves, which `own` gives the colour of."""
    broken = escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>")
    return f'<span class="named"><i class="swatch {own}"></i><span>{broken}</span></span>'
