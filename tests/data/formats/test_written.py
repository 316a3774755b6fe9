import csv
import json
import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.index import read_index

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CAPTION = TEXT | st.sampled_from(["", "\ufeffx", "a\r\nb\rc\n", 'say "so"', "شخص\u202e", "e\u0301", "[x", "x\0y", "=1+1", "nan", " x\t,;"])
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0:~"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
PATH = st.lists(NAME, min_size=1, max_size=2).map("/".join)
BAD_PATH = st.sampled_from(["../a.mp4", "/a.mp4", "a/../../b.mp4", "C:\\a.mp4", "~/a.mp4", "a\\b.mp4", "a\0.mp4", "http://x/a.mp4", ".."])
TIME = st.floats(0, 1e6, allow_nan=False)
BAD_NUMBER = st.sampled_from([float("nan"), float("inf"), -1.0, -1e-300])
GOOD = st.fixed_dictionaries(
    {"path": PATH, "caption": CAPTION, "start_s": st.just(0.0) | TIME, "length": st.none() | st.floats(1e-3, 1e6), "weight": st.just(0.0) | TIME}
)
BAD = st.builds(
    lambda row, wrong: {**row, **wrong},
    GOOD,
    BAD_PATH.map(lambda path: {"path": path})
    | BAD_NUMBER.map(lambda number: {"start_s": number})
    | BAD_NUMBER.map(lambda number: {"weight": number})
    | st.just({"start_s": 5.0, "length": -5.0})
    | st.just({"path": ""}),
)
SETS = st.lists(GOOD.map(lambda row: (row, True)) | BAD.map(lambda row: (row, False)), min_size=1, max_size=4)


def fields(row):
    end_s = None if row["length"] is None else row["start_s"] + row["length"]
    return {"path": row["path"], "caption": row["caption"], "start_s": row["start_s"], "end_s": end_s, "weight": row["weight"]}


def write(path, rows):
    kind = path.suffix[1:]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=len(row["caption"]) % 2 == 0) + "\n" for row in rows), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=len(rows), ensure_ascii=False), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(
            pa.Table.from_pylist(
                rows, pa.schema({"path": pa.string(), "caption": pa.string(), "start_s": pa.float64(), "end_s": pa.float64(), "weight": pa.float64()})
            ),
            path,
        )
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)


@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
@given(given_rows=SETS)
@example(given_rows=[({"path": "\ufeff", "caption": "\r", "start_s": 0.0, "length": None, "weight": 1.0}, True)])
def test_what_was_written_is_read_or_its_first_bad_row_is_named(tmp_path_factory, kind, given_rows):
    folder = tmp_path_factory.mktemp("written")
    rows = [fields(row) for row, _ in given_rows]
    write(folder / f"set.{kind}", rows)
    first_bad = next((number for number, (_, good) in enumerate(given_rows, 1) if not good), None)
    if first_bad is not None:
        with pytest.raises(ValueError, match=f"{re.escape(f'set.{kind}')}, row {first_bad}\\b"):
            read_index(folder / f"set.{kind}")
        return
    found = read_index(folder / f"set.{kind}")
    root = os.path.realpath(folder)
    empty_is_absent = kind in ("csv", "tsv")
    assert [
        {"path": row.path, "caption": row.captions.get("caption", ("",))[0], "start_s": row.start_s, "end_s": row.end_s, "weight": row.weight}
        for row in found.rows
    ] == [{**row, "path": f"{root}/{row['path']}"} for row in rows]
    assert [bool(row.captions) for row in found.rows] == [not empty_is_absent or bool(row["caption"]) for row in rows]
