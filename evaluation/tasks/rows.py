"""One table of all tasks: what was measured, against which bar, with what a real clip and a frozen one would score."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

Figure = dict[str, Any]  # value, low, high, n
# Of clips, below which a reference proves nothing: whoever is as bad as what is hardly ever right lies nowhere below it.
LEAST_REFERENCE = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one task.

    Args:
        figure: value with its 95 % interval and n.
        bar: what it is held against; `least` says whether more is better. None: a figure without a bar.
        unit: "share" in percent, "ratio", "dB", "points" of percent, or "plain".
        ceiling, frozen: the same of real clips through the VAE, and of clips that stand still; None where it means nothing.
        reference: of a difference to something else, the share that this reaches; one below LEAST_REFERENCE misses the bar.
        sure: whether the whole interval must lie beyond the bar, the bar itself left out: so that two that are alike do not meet "better".
    """

    task: str
    measure: str
    figure: Figure
    bar: float | None = None
    least: bool = True
    unit: str = "share"
    ceiling: float | None = None
    frozen: float | None = None
    reference: float | None = None
    sure: bool = False

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Row":
        """The row that `as_dict` was made of."""
        return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})

    @property
    def met(self) -> bool | None:
        """Whether the value reaches its bar, and what it is compared with deserves that."""
        if self.bar is None:
            return None
        if self.too_low:
            return False
        if self.sure:
            return self.figure["low"] > self.bar if self.least else self.figure["high"] < self.bar
        return self.figure["value"] >= self.bar if self.least else self.figure["value"] <= self.bar

    @property
    def too_low(self) -> bool:
        return self.reference is not None and self.reference < LEAST_REFERENCE

    @property
    def verdict(self) -> str:
        """In words; '' where nothing is asked."""
        return {None: "", True: "met", False: "missed"}[self.met] + (", reference too low" if self.met is False and self.too_low else "")

    @property
    def asked(self) -> str:
        """The bar in words; '' for none."""
        sign = {(True, False): ">=", (True, True): ">", (False, False): "<=", (False, True): "<"}[self.least, self.sure]
        return "" if self.bar is None else f"{sign} {shown(self.bar, self.unit)}"

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
        name = row.task if row.task != before else ""
        mark = row.verdict.replace("missed", "**missed**")
        cells = [name, row.measure, shown(figure["value"], unit), span, str(figure.get("n", "")), row.asked, mark]
        lines.append("| " + " | ".join([*cells, shown(row.ceiling, unit), shown(row.frozen, unit)]) + " |")
        before = row.task
    return "\n".join(lines)
