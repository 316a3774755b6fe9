"""Cells of other people's tables are texts, whatever they look like."""

import csv
import math

import pytest

from data.public.tables import MAX_CELL, list_of, number_of, read_table, seconds_of


def test_lists_are_read_as_json_or_python_spells_them():
    assert list_of("[['0:01:20.880', '0:01:23.983'], ('0:02', 3.5)]") == [["0:01:20.880", "0:01:23.983"], ("0:02", 3.5)]
    assert list_of(' ["it\\u2019s", "a \\"b\\""] ') == ["it’s", 'a "b"']
    assert list_of("['it\\'s', \"a 'b'\"]") == ["it's", "a 'b'"]
    assert list_of("[]") == []


@pytest.mark.parametrize(
    "cell",
    [
        "__import__('os').system('true')",
        "[open('x').read()]",
        "[x for x in (1,)]",
        "{'a': 1}",
        "7",
        "",
        "[",
        "['a'",
        "[" * 100_000,
        "(" * 1000 + ")" * 1000,
        "-" * 200_000 + "1",
        "1" + "+1" * 50_000,
        "['\0']" * 2,
        "[" + "1," * (MAX_CELL // 2) + "]",
    ],
    ids=range(14),
)
def test_what_is_no_list_is_refused_and_nothing_is_run(cell):
    with pytest.raises(ValueError):
        list_of(cell)


def test_times_are_seconds():
    assert [seconds_of(stamp) for stamp in ("0:01:20.880", "1:00:00", "02:31.5", "7", 3, 2.5)] == pytest.approx([80.88, 3600, 151.5, 7, 3, 2.5])
    for stamp in ("", "1:2:3:4", "a", "1:b", "-3", "nan", None, True, ["0:01"], "1:-70"):
        with pytest.raises(ValueError, match="not a time"):
            seconds_of(stamp)


def test_numbers_that_are_none_are_nan():
    assert number_of(" 4.25 ") == 4.25
    assert all(math.isnan(number_of(cell)) for cell in ("", "nan", "inf", "-inf", "1,5", "x"))


def test_tables_keep_their_texts_and_their_row_numbers(tmp_path):
    path = tmp_path / "t.csv"
    text = 'one,\nline "quoted" é圆'
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["video", "caption"], ["a.mp4", text], ["b.mp4"], ["c.mp4", "x" * 200_000]])
    limit = csv.field_size_limit()
    rows = list(read_table(path, ("video", "caption")))
    assert [(number, row["video"], len(row["caption"])) for number, row in rows] == [(2, "a.mp4", len(text)), (3, "b.mp4", 0), (4, "c.mp4", 200_000)]
    assert rows[0][1]["caption"] == text
    assert csv.field_size_limit() == limit


def test_bad_tables_are_refused_by_name(tmp_path):
    path = tmp_path / "t.csv"
    for content, match in (
        (b"video,text\na,b\n", r"t\.csv: no column 'caption'; there are: video, text"),
        (b"", r"t\.csv: no column 'video' and no column 'caption'"),
        (b"video,caption\na,b\nc,\xff\n", r"t\.csv, after row \d: not UTF-8"),
        (b"video,caption\na," + b"x" * (MAX_CELL + 1) + b"\n", r"t\.csv, after row 1: not a csv file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            list(read_table(path, ("video", "caption")))
