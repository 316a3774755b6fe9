"""Pieces of a page that needs nothing beside it: media as data URIs up to a limit, tables, sections, shares in words."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

# Media stop here, so that words, charts and framing always fit into 10 MB.
MEDIA_BYTES = 9_000_000
TYPES = {".mp4": "video/mp4", ".png": "image/png"}


class Media:
    """Files as data URIs, up to the page's limit; `missing` says what could not be shown and why."""

    def __init__(self, limit_bytes: int = MEDIA_BYTES) -> None:
        self.left_bytes = limit_bytes
        self.missing: list[str] = []

    def uri(self, path: Path) -> str | None:
        """The file as a data URI, or None if it is not there or the page is full."""
        try:
            encoded = b64encode(path.read_bytes()).decode("ascii")
        except OSError:
            self.missing.append(f"{path.name} (not there)")
            return None
        if len(encoded) > self.left_bytes:
            self.missing.append(f"{path.name} (the page is full)")
            return None
        self.left_bytes -= len(encoded)
        return f"data:{TYPES[path.suffix]};base64,{encoded}"

    def video(self, folder: Path, item: Mapping[str, Any], name: str, words: str) -> str:
        """A looping video, with a still for where it does not play."""
        still = self.image(folder / item[f"{name}_still"], words)
        source = self.uri(folder / item[name])
        if source is None:
            return still
        poster = f' poster="{still.split(chr(34))[3]}"' if still.startswith("<img") else ""
        self.left_bytes -= len(poster)  # the still stands in the page twice
        return f'<video src="{source}"{poster} autoplay loop muted playsinline aria-label="{escape(words)}">{still}</video>'

    def image(self, path: Path, words: str) -> str:
        """A picture, or its words."""
        source = self.uri(path)
        return f'<img class="pixels" src="{source}" alt="{escape(words)}">' if source else f"<span>{escape(words)}</span>"


def percent(value: float) -> str:
    """A share in words: more digits only near the ends, where they say something."""
    digits = 0 if value in (0.0, 1.0) or 0.01 <= value <= 0.99 else 1 if value > 0.99 else 2
    return f"{100 * value:.{digits}f}\u202f%"


def interval(share: Mapping[str, float]) -> str:
    """'87 to 97 %'."""
    return f"{percent(share['low']).split(chr(0x202F))[0]} to {percent(share['high'])}"


def listed(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def number(count: int) -> str:
    """A small count as a word."""
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[count] if count < len(words) else str(count)


def document(title: str, lead: str, sections: Iterable[str], footer: str, aspect: str = "1 / 1") -> str:
    """A whole page in report.html's frame; every part is HTML, and empty sections are left out.

    Args:
        aspect: of the videos and pictures, width / height.
    """
    template = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    foot = f"{footer} Everything on this page is inside this one file."
    return template.substitute(title=title, lead=lead, aspect=aspect, sections="\n".join(part for part in sections if part), footer=foot)


def section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def absent(title: str, why: str) -> str:
    """A section for what is not there."""
    return section(title, f'<p class="soft">{why}</p>')


def verdict(correct: bool, attributes: Mapping[str, bool]) -> str:
    """What is wrong with a sample, or that nothing is."""
    wrong = [name for name, right in attributes.items() if not right]
    if correct and not wrong:
        return '<span class="yes">✓ all right</span>'
    return f'<span class="no">✗ wrong{": " if wrong else ""}{escape(listed(wrong))}</span>'


def card(media: str, caption: str, below: str, wrong: bool = False) -> str:
    """One figure of a grid."""
    mark = ' class="wrong"' if wrong else ""
    return f'<li><figure{mark}>{media}<figcaption>{caption}<span class="marks">{below}</span></figcaption></figure></li>'


def pair(left: str, left_name: str, right: str, right_name: str) -> str:
    """Two pictures side by side with their names on them."""
    return f'<div class="pair"><div>{left}<b>{left_name}</b></div><div>{right}<b>{right_name}</b></div></div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: range, foot: Sequence[str] = ()) -> str:
    """A table whose first column names its rows.

    Args:
        numbers: the columns that hold numbers and stand to the right.
    """

    def line(cells: Sequence[str], scope: str) -> str:
        parts = []
        for place, cell in enumerate(cells):
            kind = ' class="number"' if place in numbers else ""
            named = scope == "col" or place == 0
            parts.append(f'<th scope="{scope}"{kind}>{cell}</th>' if named else f"<td{kind}>{cell}</td>")
        return f"<tr>{''.join(parts)}</tr>"

    body = "\n".join(line(row, "row") for row in rows)
    end = f"<tfoot>{line(foot, 'row')}</tfoot>" if foot else ""
    return f'<div class="scroll"><table><thead>{line(head, "col")}</thead><tbody>{body}</tbody>{end}</table></div>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what stands for them, as plain text."""
    return f'<dl class="facts">{"".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)}</dl>'


def key(*marks: tuple[str, str, str]) -> str:
    """The legend of a chart: (CSS class, CSS colour, words)."""
    items = "".join(f'<li><i class="{kind}" style="background:var(--{colour})"></i>{words}</li>' for kind, colour, words in marks)
    return f'<ul class="key">{items}</ul>'
