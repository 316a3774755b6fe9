import json
import os
import sys

import pytest

from data.formats import parquet, table
from data.index import Box, read_index

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path):
    """(file name, captions) of each row."""
    return [(os.path.basename(row.path), dict(row.captions)) for row in read_index(path).rows]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.CSV", ","), ("a.tsv", "\t")])
def test_quoted_cells_keep_line_breaks_quotes_and_marks(tmp_path, name, mark):
    content = f'path{mark}caption\r\na.mp4{mark}"one\r\ntwo\n""three""{mark}\rfour"\r\n\r\nb.mp4{mark}\r\nc.mp4{mark} x \r\n'
    assert texts(written(tmp_path, name, content)) == [
        ("a.mp4", {"caption": (f'one\r\ntwo\n"three"{mark}\rfour',)}),
        ("b.mp4", {}),
        ("c.mp4", {"caption": (" x ",)}),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert texts(written(tmp_path, "a.csv", b"\xef\xbb\xbfpath, text\na.mp4,\xef\xbb\xbfx\n")) == [("a.mp4", {"caption": ("\ufeffx",)})]


def test_a_caption_of_any_length_below_the_bound_is_whole(tmp_path):
    caption = "й" * 200_000
    assert texts(written(tmp_path, "a.csv", f"path,caption\na.mp4,{caption}\n")) == [("a.mp4", {"caption": (caption,)})]


def test_cells_hold_as_json_what_a_cell_cannot(tmp_path):
    rows = [
        ["a.mp4", '["x", "y"]', "", "1.5"],
        ["b.mp4", '{"short": "z"}', '[{"label": "x", "at_s": 0, "box": [0, 0, 1, 1]}]', ""],
        ["c.mp4", "plain", "", "0"],
    ]
    quoted = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows)
    found = read_index(written(tmp_path, "a.csv", "path,captions,boxes,weight\n" + quoted)).rows
    assert [row.captions for row in found] == [{"caption": ("x", "y")}, {"short": ("z",)}, {"caption": ("plain",)}]
    assert ([row.boxes for row in found], [row.weight for row in found]) == ([(), (Box("x", 0.0, 0.0, 0.0, 1.0, 1.0),), ()], [1.5, 1.0, 0.0])
    assert texts(written(tmp_path, "b.csv", 'path,caption\na.mp4,"[""x""]"\n')) == [("a.mp4", {"caption": ('["x"]',)})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,caption\na.mp4,x\n\nb.mp4\n", r"row 2 \(line 4\): 1 cells, the header has 2"),
        ('path,caption\na.mp4,"x\ny"\nb.mp4,x,y\n', r"row 2 \(line 4\): 3 cells, the header has 2"),
        ('path,caption\na.mp4,x\nb.mp4,"x" y\n', r"row 2 \(line 3\): .*A quote within a quoted cell is written twice"),
        ('path,caption\na.mp4,x\nb.mp4,"x\ny\n', r"row 2 \(line 3\): unexpected end of data"),
        ("path,caption\na.mp4,x\n,y\n", r"row 2 \(line 3\): 'path' must be a text naming the video, got None"),
        ("path,start\na.mp4,nan\n", r"row 1 \(line 2\): 'start' must be a number of seconds"),
        ("path,weight\na.mp4,inf\n", r"row 1 \(line 2\): 'weight' must be"),
        ("path,boxes\na.mp4,[\n", r"row 1 \(line 2\): the column 'boxes' must hold JSON"),
        ("path,captions\na.mp4,[music] x\n", r"row 1 \(line 2\): the column 'captions' must hold JSON.*A column of plain texts is called 'caption'"),
        (b"path,caption\na.mp4,\xff\n", "row 2: not UTF-8"),
        ("path;caption\na.mp4;x\n", "header: its cells seem to be parted by ';', which belongs in commas"),
        ("path\tcaption\na.mp4\tx\n", r"parted by '\\t', which belongs in a .tsv file"),
        (
            "videoID,url,timestamp,caption\nx,y,z,w\n",
            "header: no column has the path. Columns: 'videoID', 'url', 'timestamp', 'caption'.* nearest is 'videoID'",
        ),
        ("video,video\na.mp4,b.mp4\n", "the columns 'video' and 'video' could both be the path"),
        ("path,caption\n", "names no clip"),
        ("", "names no clip"),
    ],
)
def test_a_bad_table_names_the_row_and_the_line(tmp_path, content, says):
    with pytest.raises(ValueError, match=f"(?s)a.csv.*{says}"):
        read_index(written(tmp_path, "a.csv", content))


def test_a_quote_that_is_never_closed_does_not_swallow_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MAX_ROW_BYTES", 1000)
    path = written(tmp_path, "a.csv", "path,caption\na.mp4,x\nb.mp4," + '"\n",' * 1000)
    with pytest.raises(ValueError, match=r"row 2 \(line 3\): longer than .*is a quote never closed"):
        read_index(path)


@pytest.mark.parametrize(
    "content", ['[\n{"path": "a.mp4", "caption": "x"} , {"path": "b.mp4"}\n]\n', '{"path": "a.mp4", "caption": "x"}\n{"path": "b.mp4"}\n']
)
def test_a_json_file_is_a_list_or_lines(tmp_path, content):
    assert texts(written(tmp_path, "a.json", b"\xef\xbb\xbf" + content.encode())) == [("a.mp4", {"caption": ("x",)}), ("b.mp4", {})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"path": "a.mp4"}, {"path": 3}]', "row 2: 'path' must be a text"),
        ('[{"path": "a.mp4"}, {"path": ]', "row 2: not a JSON object"),
        ('[{"path": "a.mp4"}, "b.mp4"]', "row 2: got a str"),
        ('[{"path": "a.mp4"} {"path": "b.mp4"}]', "row 1: .*a comma is missing"),
        ('[{"path": "a.mp4"},]', "row 1: a comma after the last item"),
        ('[{"path": "a.mp4"},', "row 2: not a JSON object"),
        ('[{"path": "a.mp4"}', "row 1: the list breaks off"),
        ('[{"path": "a.mp4"}] []', "more after the list's closing bracket"),
        ("[" + "[" * 100_000, "row 1: "),
        ("[]", "names no clip"),
        (b'[{"path": "\xff"}]', "not UTF-8"),
        ('{\n "data": []}', "row 1: not a JSON object"),
    ],
)
def test_a_bad_json_list_names_the_row(tmp_path, content, says):
    with pytest.raises(ValueError, match=f"a.json.*{says}"):
        read_index(written(tmp_path, "a.json", content))


def parquet_file(folder, columns, **settings):
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path, **settings)
    return path


def test_parquet_columns_of_every_kind_that_can_be_meant(tmp_path):
    kinds = pa.array(
        [{"short": ["x"], "long": None}, None, {"short": [], "long": ["y", "z"]}],
        pa.struct({"short": pa.list_(pa.string()), "long": pa.list_(pa.string())}),
    )
    boxes = pa.array([[{"label": "dog", "at_s": 0.5, "box": [0.0, 0.0, 0.5, 1.0]}], [], None])
    path = parquet_file(
        tmp_path,
        {
            "video": pa.array(["a.mp4", "b.mp4", "c.mp4"]).dictionary_encode(),
            "captions": kinds,
            "boxes": boxes,
            "start": pa.array([None, 1.5, 2], pa.float32()),
            "end": pa.array([1, None, 3], pa.decimal128(5, 2)),
            "weight": pa.array([2, 0, None], pa.int8()),
            "embedding": [[1.0] * 8] * 3,
        },
    )
    rows = read_index(path).rows
    assert [row.captions for row in rows] == [{"short": ("x",)}, {}, {"long": ("y", "z")}]
    assert [(row.start_s, row.end_s, row.weight) for row in rows] == [(0.0, 1.0, 2.0), (1.5, None, 0.0), (2.0, 3.0, 1.0)]
    assert [row.boxes for row in rows] == [(Box("dog", 0.5, 0.0, 0.0, 0.5, 1.0),), (), ()]
    by_kind = pa.array([[("short", ["x"])], None], pa.map_(pa.string(), pa.list_(pa.string())))
    assert [row.captions for row in read_index(parquet_file(tmp_path, {"path": ["a", "b"], "caption": by_kind})).rows] == [{"short": ("x",)}, {}]


def test_parquet_rows_are_counted_over_batches_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_ROWS", 3)
    names = [f"{number}.mp4" for number in range(20)]
    path = parquet_file(tmp_path, {"path": names, "weight": [1.0] * 17 + [float("nan")] + [1.0] * 2}, row_group_size=7)
    with pytest.raises(ValueError, match=r"a.parquet, row 18: 'weight' must be a number from 0, got nan"):
        read_index(path)
    assert [os.path.basename(row.path) for row in read_index(parquet_file(tmp_path, {"path": names}, row_group_size=7)).rows] == names


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"path": [{"bytes": b"x", "path": "a.mp4"}]}, "must hold texts naming the videos, got struct"),
        ({"path": [b"a.mp4"]}, "must hold texts naming the videos, got binary"),
        ({"path": ["a.mp4", None]}, "row 2: 'path' must be a text naming the video, got None"),
        ({"path": ["a.mp4"], "caption": [7]}, "row 1: captions must be a text"),
        ({"path": ["a.mp4"], "caption": [["x", None]]}, "row 1: the captions of kind 'caption'"),
        ({"clips": ["a.mp4"], "score": [1]}, "columns: no column has the path. Columns: 'clips', 'score'.* nearest is 'clips'"),
        ({"path": pa.array(["a.mp4"]), "caption": pa.array([b"\xff"]).view(pa.string())}, "row 1: the column 'caption' is not UTF-8"),
    ],
)
def test_a_bad_parquet_names_the_row_or_the_column(tmp_path, columns, says):
    with pytest.raises(ValueError, match=f"a.parquet.*{says}"):
        read_index(parquet_file(tmp_path, columns))


def test_a_parquet_that_claims_too_many_rows_is_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_ROWS", 10)
    with pytest.raises(ValueError, match=r"claims 11 rows, at most 10"):
        read_index(parquet_file(tmp_path, {"path": ["a.mp4"] * 11}))


def test_a_damaged_parquet_ends_in_its_name(tmp_path):
    whole = parquet_file(tmp_path, {"path": [f"{number}.mp4" for number in range(50)], "caption": ["x" * 40] * 50}).read_bytes()
    for cut in range(4, len(whole) - 1, len(whole) // 20):
        path = written(tmp_path, "cut.parquet", whole[:cut])
        with pytest.raises(ValueError, match=r"cut.parquet: cannot be read as parquet"):
            read_index(path)


def test_every_format_gives_the_same_rows(tmp_path):
    rows = [
        {"path": f"{number}.mp4", "caption": f"clip {number}, “ok”", "start_s": number, "end_s": number + 1.5, "weight": 0.5} for number in range(3)
    ]
    written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    written(tmp_path, "a.json", json.dumps(rows, indent=1))
    for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
        lines = [mark.join(rows[0])] + [mark.join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
        written(tmp_path, name, "\n".join(lines))
    parquet_file(tmp_path, {key: [row[key] for row in rows] for key in rows[0]})
    found = [read_index(tmp_path / f"a.{kind}").rows for kind in ("jsonl", "json", "csv", "tsv", "parquet")]
    assert all(rows == found[0] for rows in found)
    assert len(found[0]) == 3


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = parquet_file(tmp_path, {"path": ["a.mp4"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeError, match=r"a.parquet needs pyarrow: pip install -e '.\[parquet\]'"):
        read_index(path)
