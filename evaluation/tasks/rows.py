"""One table of all tasks: what was measured, against which bar, with what a real clip and a frozen one would score."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Figure = dict[str, Any]  # value, low, high, n


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one task.

    Args:
        figure: value with its 95 % interval and n.
        bar: what it is held against; `least` says whether more is better. None: a figure without a bar.
        unit: "share" in percent, "ratio", "dB", "points" of percent, or "plain".
        ceiling, frozen: the same of real clips through the VAE, and of clips that stand still; None where it means nothing.
    """

    task: str
    measure: str
    figure: Figure
    bar: float | None = None
    least: bool = True
    unit: str = "share"
    ceiling: float | None = None
    frozen: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value reaches its bar."""
        if self.bar is None:
            return None
        return self.figure["value"] >= self.bar if self.least else self.figure["value"] <= self.bar

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def shown(value: float | None, unit: str) -> str:
    """A figure in words; '' for none."""
    if value is None:
        return ""
    if unit in ("share", "points"):
        return f"{100 * value:.1f}{' %' if unit == 'share' else ' pp'}"
    if unit == "plain":
        return f"{value:.3f}"
    return f"{value:.2f}{' dB' if unit == 'dB' else ' x' if unit in ('ratio', 'times') else ''}"


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    head = ["task", "measure", "measured", "95 %", "n", "bar", "", "real clips", "frozen clip"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|---:|---|---:|---|---|---:|---:|"]
    before = None
    for row in rows:
        figure, unit = row.figure, row.unit
        span = f"{shown(figure['low'], unit)} to {shown(figure['high'], unit)}" if "low" in figure else ""
        bar = "" if row.bar is None else f"{'>=' if row.least else '<='} {shown(row.bar, unit)}"
        mark = {None: "", True: "met", False: "**missed**"}[row.met]
        name = row.task if row.task != before else ""
        cells = [name, row.measure, shown(figure["value"], unit), span, str(figure.get("n", "")), bar, mark]
        lines.append("| " + " | ".join([*cells, shown(row.ceiling, unit), shown(row.frozen, unit)]) + " |")
        before = row.task
    return "\n".join(lines)
