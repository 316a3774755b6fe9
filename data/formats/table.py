"""Comma- and tab-separated indexes: a line break, quote or mark within a quoted cell is content, and a row of another length is refused."""

import csv
from collections.abc import Iterator

from data.formats.fields import Fields
from data.formats.jsonl import MAX_LINE_BYTES, lines
from data.formats.rows import Row

MAX_ROW_BYTES = 4 * MAX_LINE_BYTES  # a row may span lines; a quote that is never closed would swallow the file


def read_csv(source: str, fields: Fields) -> Iterator[Row]:
    """Cells are parted by commas. Raises: ValueError naming the file, the row from 1 after the header, and the line that it begins on."""
    return _read(source, fields, ",")


def read_tsv(source: str, fields: Fields) -> Iterator[Row]:
    """Like `read_csv`, parted by tabs; quotes mean the same."""
    return _read(source, fields, "\t")


def _read(source: str, fields: Fields, delimiter: str) -> Iterator[Row]:
    records = _records(source, delimiter)
    header = next(records, None)
    if header is None:
        return
    _, _, names = header
    try:
        roles = fields.roles(names, f"{source}, header")
    except ValueError as error:
        other = next((mark for mark in ("\t", ";", ",") if mark != delimiter and len(names) == 1 and mark in names[0]), None)
        if other is None:
            raise
        wanted = "a .tsv file" if other == "\t" else "a .csv file" if other == "," else "commas in a .csv file"
        raise ValueError(f"{source}, header: its cells seem to be parted by {other!r}, which belongs in {wanted}. ({error})") from error
    places = {role: names.index(name) for role, name in roles.items()}
    for number, line, cells in records:
        where = f"{source}, row {number} (line {line})"
        if len(cells) != len(names):
            raise ValueError(f"{where}: {len(cells)} cells, the header has {len(names)}. Quote cells that hold {delimiter!r} or a line break.")
        yield fields.of_cells({role: cells[place] or None for role, place in places.items()}, roles, where)


class _Feed:
    """Lines for the csv module, with their number, and a bound on what one row may swallow."""

    def __init__(self, source: str) -> None:
        self.lines = lines(source)
        self.number, self.held = 0, 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self.lines:
            self.number = number
            self.held += len(line)
            if self.held > MAX_ROW_BYTES:
                raise csv.Error(f"longer than {MAX_ROW_BYTES >> 20} Mi characters; is a quote never closed?")
            yield line


def _records(source: str, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """(row, the line that it begins on, cells), the header being row 0; empty lines are no rows."""
    feed = _Feed(source)
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    number = line = 0
    try:
        records = csv.reader(iter(feed), delimiter=delimiter, strict=True)
        while True:
            line, feed.held = feed.number + 1, 0
            cells = next(records, None)
            if cells is None:
                return
            if cells:
                yield number, line, cells
                number += 1
    except csv.Error as error:
        said = str(error).split(" - ")[0]
        raise ValueError(f"{source}, row {number} (line {line}): {said}. A quote within a quoted cell is written twice.") from error
    finally:
        csv.field_size_limit(limit)
