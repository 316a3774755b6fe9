"""Rows of other people's csv files: every cell is a bounded text until it proves to be something else, and nothing in it is run."""

import ast
import csv
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_CELL = 4 * 2**20  # characters; Panda-70M's longest lists, of a video with a thousand clips, take some 100,000


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a csv file by column name, each with its number; the row of names is number 1.

    Raises: ValueError naming the file if a column of `needed` is not there or the file is no csv in UTF-8.
    """
    number = 1
    with open(path, encoding="utf-8-sig", newline="") as file, _long_cells():
        try:
            reader = csv.DictReader(file, restval="")
            names = reader.fieldnames or ()
            if absent := [name for name in needed if name not in names]:
                raise ValueError(f"{path}: no column {' and no column '.join(map(repr, absent))}; there are: {', '.join(names)}.")
            for number, row in enumerate(reader, 2):
                yield number, row
        except csv.Error as error:
            raise ValueError(f"{path}, after row {number}: not a csv file ({error}).") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, after row {number}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error


def number_of(cell: str) -> float:
    """A finite number, or nan."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def list_of(cell: str) -> list[Any]:
    """The list that a cell spells in JSON or as a Python literal.

    Raises: ValueError.
    """
    if len(cell) > MAX_CELL:
        raise ValueError(f"{len(cell)} characters, at most {MAX_CELL} are read")
    for parse in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings(action="ignore"):  # captions hold backslashes
                value = parse(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple):
            return list(value)
    raise ValueError(f"{cell[:60]!r} is not a list")


def seconds_of(stamp: Any) -> float:
    """A time in seconds from a number or from "H:MM:SS.mmm", "MM:SS" or "SS".

    Raises: ValueError.
    """
    parts = [number_of(part) for part in str(stamp).split(":")]
    value = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    if len(parts) > 3 or not value >= 0 or isinstance(stamp, bool):
        raise ValueError(f"{str(stamp)[:60]!r} is not a time")
    return value


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module's limit is one for the whole process."""
    before = csv.field_size_limit(MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
