"""Parquet indexes, read in batches and only the columns that have a role, so that a set's other columns cost nothing."""

from collections.abc import Iterator
from typing import Any

from data.formats.fields import Fields
from data.formats.rows import Row

BATCH_ROWS = 1024
BUFFER_BYTES = 2**20  # a column is read through this, not whole
MAX_ROWS = 50_000_000  # a few bytes of a parquet file can claim any number of equal rows


def read_parquet(source: str, fields: Fields) -> Iterator[Row]:
    """Raises: ValueError naming the file and the row from 1, or what is wrong with the file; RuntimeError if pyarrow is missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise RuntimeError(f"{source} needs pyarrow: pip install -e '.[parquet]'") from error
    try:
        with pq.ParquetFile(source, buffer_size=BUFFER_BYTES) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise ValueError(f"{source}: claims {file.metadata.num_rows} rows, at most {MAX_ROWS} can be read. Split it, or mend it.")
            yield from _rows(file, source, fields)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError(f"{source}: cannot be read as parquet, it is damaged or not parquet at all ({error!s:.300})") from error


def _rows(file: Any, source: str, fields: Fields) -> Iterator[Row]:
    roles = fields.roles(file.schema_arrow.names, f"{source}, columns")
    kind = str(file.schema_arrow.field(roles["path"]).type).removeprefix("dictionary<values=")
    if not kind.startswith(("string", "large_string")):  # a set may have its videos in the file: do not read them to find out
        raise ValueError(f"{source}: the column {roles['path']!r} must hold texts naming the videos, got {kind:.80}. Write videos to files.")
    number = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=list(roles.values()), use_threads=False):
        cells = [_cells(batch.column(name), source, name, number) for name in roles.values()]
        for values in zip(*cells, strict=True):
            number += 1
            yield fields.of_cells(dict(zip(roles, values, strict=True)), roles, f"{source}, row {number}")


def _cells(column: Any, source: str, name: str, before: int) -> list[Any]:
    """The column's values as Python's own, a map as a dict."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = []
        for number, item in enumerate(column, before + 1):
            try:
                values.append(item.as_py())
            except UnicodeDecodeError as error:
                raise ValueError(f"{source}, row {number}: the column {name!r} is not UTF-8 ({error.reason} at byte {error.start})") from error
    if str(column.type).startswith("map<"):
        values = [None if value is None else dict(value) for value in values]
    return values
