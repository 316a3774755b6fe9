"""Index files of JSON: an object a line, or one list of objects; read piece by piece, so that a broken one is named by its row."""

import json
import os
import re
from collections.abc import Iterator

from data.formats.fields import Fields
from data.formats.rows import Row

MAX_LINE_BYTES = 16 * 2**20  # a longer line is no caption but a mistake; also the bound on memory per line
MAX_LIST_BYTES = 512 * 2**20  # a list has to be held whole
SPACE = re.compile(r"[ \t\r\n]*")


def read_lines(source: str, fields: Fields) -> Iterator[Row]:
    """One clip a line. Raises: ValueError naming the file and the row, which is the line's number."""
    for number, line in lines(source):
        if line.strip():
            where = f"{source}, row {number}"
            try:
                found = json.loads(line)
            except ValueError as error:
                said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
                raise ValueError(f"{where}: not a JSON object ({said}). Each line must be one; a list of objects belongs in a .json file.") from error
            except RecursionError as error:
                raise ValueError(f"{where}: JSON nested too deeply. Each line must be one flat object.") from error
            yield fields.of_object(found, where)


def read_list(source: str, fields: Fields) -> Iterator[Row]:
    """A list of objects; the row is the number of the item. A file that does not begin with a bracket is read as JSON lines."""
    size = os.path.getsize(source)
    with open(source, "rb") as file:
        if not file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            yield from read_lines(source, fields)
            return
    if size > MAX_LIST_BYTES:
        raise ValueError(f"{source}: a JSON list of {size >> 20} MiB, wanted at most {MAX_LIST_BYTES >> 20}. Write an object a line, as .jsonl.")
    with open(source, "rb") as file:
        try:
            text = file.read(size).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}: not UTF-8 ({error.reason} at byte {error.start}). Save the index as UTF-8.") from error
    yield from _items(text, source, fields)


def _items(text: str, source: str, fields: Fields) -> Iterator[Row]:
    decode = json.JSONDecoder().raw_decode
    place, number = _after_space(text, _after_space(text, 0) + 1), 0
    while text[place : place + 1] != "]":
        number += 1
        where = f"{source}, row {number}"
        try:
            found, place = decode(text, place)
        except ValueError as error:
            raise ValueError(f"{where}: not a JSON object ({error})") from error
        except RecursionError as error:
            raise ValueError(f"{where}: JSON nested too deeply. Each item must be one flat object.") from error
        yield fields.of_object(found, where)
        place = _after_space(text, place)
        if text[place : place + 1] == ",":
            place = _after_space(text, place + 1)
            if text[place : place + 1] == "]":
                raise ValueError(f"{where}: a comma after the last item")
        elif text[place : place + 1] != "]":
            raise ValueError(f"{where}: the list breaks off, or a comma is missing after this item")
    if text[place + 1 :].strip():
        raise ValueError(f"{source}: there is more after the list's closing bracket, after row {number}")


def _after_space(text: str, place: int) -> int:
    match = SPACE.match(text, place)
    return match.end() if match else place


def lines(source: str) -> Iterator[tuple[int, str]]:
    """Lines of a file with their numbers from 1 and their ends; a line ends at a line feed and nowhere else. A byte order mark is no content."""
    with open(source, "rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(f"{source}, row {number}: longer than {MAX_LINE_BYTES >> 20} MiB. One line is one clip.")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{source}, row {number}: not UTF-8 ({error.reason} at byte {error.start}). Save the index as UTF-8.") from error
