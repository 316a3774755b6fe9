"""The page's tables, filled from raw figures: between two markers stands what the figures give, around them the author's words."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from bench import tables, vae_tables
from bench.tables import Raw
from bench.targets import targets
from runtime.files import write_text

MARKED = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
VAE_TABLES = {"flop": vae_tables.flop, "seconds": vae_tables.seconds, "memory": vae_tables.memory, "tiles": vae_tables.tiles}
DTYPES, RUNS, DEVICES = ("float32", "bfloat16"), ("forward", "train"), ("cpu", "cuda")

TABLES: dict[str, Callable[[Raw], str]] = {"targets": targets, "roofline": lambda raw: tables.roofline()}
for _device in DEVICES:
    for _part in ("dit", "vae", "train"):
        TABLES[f"conditions-{_part}-{_device}"] = lambda raw, stem=f"{_part}-{_device}": tables.conditions(raw, stem)
    TABLES[f"apart-dit-{_device}"] = lambda raw, stem=f"dit-{_device}": tables.dit_apart(raw, stem)
    TABLES[f"apart-vae-{_device}"] = lambda raw, stem=f"vae-{_device}": vae_tables.vae_apart(raw, stem)
    TABLES[f"ladder-{_device}"] = lambda raw, stem=f"ladder-{_device}": tables.ladder(raw, stem)
    TABLES[f"ceilings-{_device}"] = lambda raw, stem=f"dit-{_device}": tables.ceilings(raw, stem)
    TABLES[f"train-{_device}"] = lambda raw, stem=f"train-{_device}": tables.training(raw, stem)
    for _name, _make in VAE_TABLES.items():
        TABLES[f"vae-{_name}-{_device}"] = lambda raw, make=_make, stem=f"vae-{_device}": make(raw, stem)
    for _dtype in DTYPES:
        for _run in RUNS:
            TABLES[f"dit-{_device}-{_dtype}-{_run}"] = lambda raw, case=(f"dit-{_device}", _dtype, _run): tables.dit(raw, *case)


def read(folder: Path) -> Raw:
    """Every raw file of a folder, by name. Raises: ValueError if one is no JSON."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no JSON ({error}). Measure that part again.") from error
    return found


def filled(text: str, raw: Raw) -> str:
    """A page with every marked table made anew. Raises: ValueError if a marker names no table or is not closed."""

    def fresh(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise ValueError(f"the page asks for a table {name}, which there is not; known are {', '.join(sorted(TABLES))}.")
        return f"<!-- table: {name} -->\n{TABLES[name](raw)}\n<!-- end -->"

    if text.count("<!-- table:") != len(MARKED.findall(text)) or text.count("<!-- end -->") != len(MARKED.findall(text)):
        raise ValueError("the page has a table marker that is not closed: '<!-- table: NAME -->' ... '<!-- end -->', each on a line of its own.")
    return MARKED.sub(fresh, text)


def write(page: Path, folder: Path) -> None:
    """Fill a page from a folder of raw figures."""
    write_text(page, filled(page.read_text(encoding="utf-8"), read(folder)))


def summary(raw_part: Raw) -> str:
    """The tables of one part, for the screen."""
    stem = f"{raw_part['part']}-{'cuda' if raw_part['device'].startswith('cuda') else 'cpu'}"
    found = {stem: raw_part}
    if raw_part["part"] == "dit":
        cases = raw_part["arguments"]["dit"]["cases"]
        return "\n\n".join(f"{dtype}, {run}\n{tables.dit(found, stem, dtype, run)}" for dtype, run in cases)
    if raw_part["part"] == "vae":
        return "\n\n".join(make(found, stem) for make in VAE_TABLES.values())
    return (tables.ladder if raw_part["part"] == "ladder" else tables.training)(found, stem)
