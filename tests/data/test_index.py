import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.files.media import Media
from data.index import Box, Index, Row, duplicates, read_index, read_sources


def index(folder, *lines):
    path = folder / "index.jsonl"
    path.write_bytes(b"".join(line if isinstance(line, bytes) else (line + "\n").encode() for line in lines))
    return path


def only(folder, **fields):
    """The row of an index that holds nothing else."""
    (row,) = read_index(index(folder, json.dumps({"path": "a.mp4", **fields}))).rows
    return row


def test_rows_keep_their_order_paths_and_captions(tmp_path):
    path = index(
        tmp_path,
        '{"path": "b.mp4", "caption": "one", "frames": 17, "fps": 8, "labels": {"shape": "circle"}}',
        "",
        '{"path": "sub/a.mp4", "captions": {"short": ["x", "y"], "long": "z", "none": [], "null": null}}',
        '{"path": "c.mp4", "caption": null}',
        '{"path": "d.mp4", "captions": ["p", "q"]}',
    )
    rows = read_index(path).rows
    root = os.path.realpath(tmp_path)
    assert [row.path for row in rows] == [f"{root}/b.mp4", f"{root}/sub/a.mp4", f"{root}/c.mp4", f"{root}/d.mp4"]
    assert [row.captions for row in rows] == [{"caption": ("one",)}, {"short": ("x", "y"), "long": ("z",)}, {}, {"caption": ("p", "q")}]
    assert rows[0] == Row(Media(f"{root}/b.mp4"), {"caption": ("one",)}, 0.0, None, 1.0, 8.0)
    assert read_index(path).name(1) == "sub/a.mp4"
    assert (read_index(path).root, read_index(path).ignored) == (root, ())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"path": "a.mp4"', "not a JSON object"),
        ('["a.mp4"]', "got a list"),
        ('{"clip_names": "a.mp4"}', "no column has the path. Columns: 'clip_names'"),
        ('{"vidio": "a.mp4"}', "nearest is 'vidio'.*columns={path: vidio}"),
        ('{"path": 3}', "'path' must be a text"),
        ('{"path": ""}', "'path' must be a text"),
        ('{"path": null}', "no column has the path"),
        ('{"path": "a.mp4", "caption": 3}', "captions must be a text"),
        ('{"path": "a.mp4", "caption": 0}', "captions must be a text"),
        ('{"path": "a.mp4", "captions": {"short": [1]}}', "kind 'short'"),
        ('{"path": "a.mp4", "captions": {"short": 0}}', "kind 'short'"),
        ('{"path": "a.mp4", "caption": "x", "captions": {}}', "'caption' and 'captions' could both be"),
        ('{"path": "a.mp4", "caption": "\\ud800"}', "half a character"),
        ('{"path": "\\udc80.mp4"}', "half a character"),
        ('{"path": "a.mp4", "fps": NaN}', "'fps' must be a number"),
        ('{"path": "a.mp4", "fps": Infinity}', "'fps' must be a number"),
        ('{"path": "a.mp4", "fps": 0}', "'fps' must be a number above 0"),
        ('{"path": "a.mp4", "fps": true}', "'fps' must be a number"),
        ('{"path": "a.mp4", "weight": -1}', "'weight' must be a number from 0"),
        ('{"path": "a.mp4", "weight": "often"}', "'weight' must be a number from 0"),
        ('{"path": "a.mp4", "start": -0.1}', "'start' must be a number of seconds from 0 or HH:MM:SS.mmm, got -0.1"),
        ('{"path": "a.mp4", "end": 1e999}', "'end' must be"),
        ('{"path": "a.mp4", "end": 1' + "0" * 400 + "}", "'end' must be"),
        ('{"path": "a.mp4", "end": 1' + "0" * 5000 + "}", "not a JSON object"),
        ('{"path": "a.mp4", "end_s": "0:90:00"}', "'end_s' must be"),
        ('{"path": "a.mp4", "end_s": "1_0"}', "'end_s' must be"),
        ('{"path": "a.mp4", "start_s": 2, "end_s": 2}', "the end, 2 s, must come after the start, 2 s"),
        ('{"path": "a.mp4", "boxes": {}}', "'boxes' must be a list"),
        ('{"path": "a\\u0000.mp4"}', "NUL"),
        (b'{"path": "\xff.mp4"}\n', "not UTF-8"),
        ("[" * 100_000, "nested too deeply|not a JSON object"),
    ],
)
def test_a_bad_line_names_the_file_and_its_row(tmp_path, line, says):
    with pytest.raises(ValueError, match=f"(?s)index.jsonl, row 3: .*(?:{says})"):
        read_index(index(tmp_path, '{"path": "ok.mp4"}', "", line))


@pytest.mark.parametrize("path", ["../x.mp4", "/etc/passwd", "a/../../x.mp4", "link.mp4", "door/x.mp4", "..", "door", "../set2/x.mp4", "/x.mp4"])
def test_a_path_cannot_leave_the_folder(tmp_path, path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "set2").mkdir()
    (tmp_path / "x.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "x.mp4")
    (root / "door").symlink_to(tmp_path / "set2")
    with pytest.raises(ValueError, match=r"row 1: the path .* leads out of"):
        read_index(index(root, json.dumps({"path": path})))


@pytest.mark.parametrize("path", ["C:\\a.mp4", "c:/a.mp4", "\\\\server\\a.mp4", "~", "~/a.mp4", "~me/a.mp4", "https://host/a.mp4", "file:///a.mp4"])
def test_a_path_of_another_system_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match=r"row 1: the path .* is a Windows path, a home folder or an address"):
        read_index(index(tmp_path, json.dumps({"path": path})))


def test_a_backslash_is_refused_with_the_path_that_was_meant(tmp_path):
    with pytest.raises(ValueError, match=r"row 1: .* holds a backslash. Write 'clips/a.mp4'"):
        read_index(index(tmp_path, json.dumps({"path": "clips\\a.mp4"})))
    assert only(tmp_path, path="~a.mp4").path.endswith("/~a.mp4")


def test_a_root_moves_where_paths_start_and_must_stay(tmp_path):
    (tmp_path / "lists").mkdir()
    path = index(tmp_path / "lists", '{"path": "clips/a.mp4"}')
    found = read_index(path, tmp_path)
    assert (found.rows[0].path, found.name(0)) == (f"{os.path.realpath(tmp_path)}/clips/a.mp4", "clips/a.mp4")
    absolute = index(tmp_path / "lists", json.dumps({"path": f"{tmp_path}/clips/a.mp4"}))
    assert read_index(absolute, str(tmp_path)).rows == found.rows
    with pytest.raises(ValueError, match=r"set root to a folder that holds both"):
        read_index(absolute)


def test_links_within_the_folder_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "door").symlink_to(tmp_path / "real")
    (row,) = read_index(index(tmp_path, '{"path": "door/a.mp4"}')).rows
    assert row.path == os.path.realpath(tmp_path / "real" / "a.mp4")


def test_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path):
    path = index(tmp_path, b'\xef\xbb\xbf{"path": "a.mp4", "caption": "x"}\r\n', b'{"path": "b.mp4"}\r\n')
    assert [row.captions for row in read_index(path).rows] == [{"caption": ("x",)}, {}]


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_an_index_without_clips_is_refused(tmp_path, lines):
    with pytest.raises(ValueError, match=r"names no clip"):
        read_index(index(tmp_path, *lines))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.jsonl", None, "there is no such file or folder. A set is a folder of videos"),
        ("s3://bucket/set.tar", None, "there is no such file or folder"),
        ("a.xlsx", b"PK\x03\x04", "a zip file named .xlsx is no set. A set is a folder of videos"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "a video named .mp4 is no set"),
        ("set", b"x", "a file named without a suffix is no set"),
        ("a.csv", b"PAR1....PAR1", "named .csv, but it is a parquet file"),
        ("a.csv", "\ufeffpath,caption\n".encode("utf-16"), "text in UTF-16"),
        ("a.parquet", b'{"path": "a.mp4"}', "named .parquet, but it is no parquet file"),
        ("a.jsonl", b"\x1f\x8b", "a file compressed by gzip"),
        ("a\0.jsonl", None, "NUL"),
    ],
)
def test_what_is_no_set_is_named_with_what_would_be_one(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_index(f"{tmp_path}/{name}")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "index.jsonl")
    with pytest.raises(ValueError, match=r"neither a file nor a folder"):
        read_index(tmp_path / "index.jsonl")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3), st.booleans())
def test_captions_of_any_unicode_survive(tmp_path_factory, texts, ascii_only):
    folder = tmp_path_factory.mktemp("unicode")
    row = json.dumps({"path": "a.mp4", "captions": {"short": texts}}, ensure_ascii=ascii_only)
    assert read_index(index(folder, row)).rows[0].captions == {"short": tuple(texts)}


@pytest.mark.parametrize(
    ("fields", "path", "caption"),
    [
        ({"video": "a.mp4", "caption": "x", "aesthetic score": 5.1, "frame": 9, "seconds": 4.1}, "a.mp4", "x"),  # OpenVid
        ({"file_name": "a.mp4", "text": "x"}, "a.mp4", "x"),  # videofolder
        ({"Video Path": "a.mp4", "Prompt": "x"}, "a.mp4", "x"),
        ({"path": "a.mp4", "video": "id", "caption": "x", "description": "y"}, "a.mp4", "x"),  # our own names before all others
        ({"video": "a.mp4", "Video": "b.mp4"}, "a.mp4", None),  # the exact name before one that differs by case
        ({"video": "a.mp4", "image": None}, "a.mp4", None),
    ],
)
def test_roles_are_found_by_the_names_of_public_sets(tmp_path, fields, path, caption):
    (row,) = read_index(index(tmp_path, json.dumps(fields))).rows
    assert (os.path.basename(row.path), row.captions) == (path, {} if caption is None else {"caption": (caption,)})


@pytest.mark.parametrize("fields", [{"video": "a.mp4", "image": "a.jpg"}, {"Path": "a.mp4", "PATH": "b.mp4"}, {"file": "a.mp4", "clip": "b.mp4"}])
def test_two_columns_for_one_role_are_not_guessed_between(tmp_path, fields):
    first, second = fields
    path = index(tmp_path, json.dumps(fields))
    with pytest.raises(ValueError, match=f"row 1: the columns '{first}' and '{second}' could both be the path. .* columns={{path: {first}}}"):
        read_index(path)
    assert read_index(path, columns={"path": second}).rows[0].path.endswith(fields[second])


def test_columns_choose_and_misspelt_ones_are_told(tmp_path):
    path = index(tmp_path, '{"where": "a.mp4", "caption": "not this", "said": "x", "from": 1, "to": "00:01:02.5", "w": 0}')
    columns = {"path": "where", "caption": "said", "start_s": "from", "end_s": "to", "weight": "w"}
    (row,) = read_index(path, columns=columns).rows
    assert row == Row(Media(f"{os.path.realpath(tmp_path)}/a.mp4"), {"caption": ("x",)}, 1.0, 62.5, 0.0)
    with pytest.raises(ValueError, match=r"columns names a role 'text' that does not exist. Roles: path, caption,"):
        read_index(path, columns={"text": "said"})
    with pytest.raises(ValueError, match=r"there is no column 'wher', which columns.path asks for.*The nearest is 'where'"):
        read_index(path, columns={"path": "wher"})


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(0, 0.0), ("", 0.0), (2.5, 2.5), ("2.5", 2.5), ("0:00:20.320", 20.32), ("01:02:03", 3723.0), (-0.0, 0.0), ("100:00:00", 360000.0)],
)
def test_times_are_seconds_or_clock_times(tmp_path, given, seconds):
    assert only(tmp_path, start_time=given).start_s == pytest.approx(seconds, abs=1e-9)
    assert str(only(tmp_path, start=given).start_s) != "-0.0"


def test_boxes_keep_what_was_written(tmp_path):
    boxes = [{"label": "犬", "at_s": 0, "box": [0, 0.25, 0.5, 1]}, {"label": "cat", "at_s": 1.5, "box": [0.1, 0.1, 0.2, 0.2]}]
    assert only(tmp_path, boxes=boxes).boxes == (Box("犬", 0.0, 0.0, 0.25, 0.5, 1.0), Box("cat", 1.5, 0.1, 0.1, 0.2, 0.2))


@pytest.mark.parametrize(
    "box",
    [
        3,
        {"label": "x", "at_s": 0},
        {"label": 3, "at_s": 0, "box": [0, 0, 1, 1]},
        {"label": "x", "box": [0, 0, 1, 1]},
        {"label": "x", "at_s": -1, "box": [0, 0, 1, 1]},
        {"label": "x", "at_s": 0, "box": [0, 0, 1]},
        {"label": "x", "at_s": 0, "box": [0, 0, 1, 2]},
        {"label": "x", "at_s": 0, "box": [0.5, 0, 0.5, 1]},
        {"label": "x", "at_s": 0, "box": [0, float("nan"), 1, 1]},
        {"label": "x", "at_s": 0, "box": [0, 0, 640, 480]},
        {"label": "\ud800", "at_s": 0, "box": [0, 0, 1, 1]},
    ],
)
def test_a_box_that_cannot_be_meant_names_its_row(tmp_path, box):
    with pytest.raises(ValueError, match=r"row 1, box 2: "):
        only(tmp_path, boxes=[{"label": "x", "at_s": 0, "box": [0, 0, 1, 1]}, box])


def test_rows_of_the_same_stretch_are_duplicates():
    def row(name, **fields):
        return Row(Media(name), **fields)

    rows = (row("a"), row("b"), row("a", start_s=1.0), row("a", captions={"caption": ("other",)}), row("b"), row("a", end_s=2.0), row("a"))
    assert duplicates(Index("x", "/", rows)) == [(0, 3, 6), (1, 4)]
    members = (Row(Media("s.tar", "a.mp4", 512, 9)), Row(Media("s.tar", "a.mp4", 2048, 9)))
    assert duplicates(Index("x", "/", members)) == []


def test_a_mixture_is_its_sets_in_order_with_their_weights_multiplied(tmp_path):
    for name, line in (("one", '{"path": "a.mp4", "weight": 3}\n{"path": "b.mp4"}'), ("two", '{"v": "c.mp4", "weight": 0.5}')):
        (tmp_path / name).mkdir()
        index(tmp_path / name, line)
    second = {"path": tmp_path / "two" / "index.jsonl", "weight": 0.5, "columns": {"path": "v"}}
    found = read_sources([str(tmp_path / "one"), second])
    assert [os.path.basename(row.path) for row in found.rows] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [row.weight for row in found.rows] == [3.0, 1.0, 0.25]
    assert found.root == os.path.realpath(tmp_path)
    assert [found.name(row) for row in range(3)] == [f"{tmp_path}/one: a.mp4", f"{tmp_path}/one: b.mp4", f"{tmp_path}/two/index.jsonl: c.mp4"]
    assert [part.start for part in found.parts] == [0, 2]


def test_a_mixture_of_one_is_that_set(tmp_path):
    path = index(tmp_path, '{"path": "a.mp4"}')
    assert read_sources(path) == read_sources([str(path)]) == read_sources({"path": str(path), "weight": 1}) == read_index(path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "the list is empty"),
        ([{"path": "here", "wieght": 2}], "set 1 must be a path or have the keys path, weight, root, columns"),
        (["here", {"weight": 2}], "set 2 must"),
        (["here", {"path": "here", "weight": float("nan")}], "set 2, here: weight must be a number from 0, got nan"),
        (["here", {"path": "here", "weight": -1}], "set 2, here: weight"),
        (["here", "gone"], "gone: there is no such file"),
        (["here", {"path": "here", "columns": {"path": "x"}}], "here/index.jsonl, row 1: there is no column 'x'"),
    ],
)
def test_a_mistake_in_a_mixture_names_the_set(tmp_path, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    index(tmp_path / "here", '{"path": "a.mp4"}')
    with pytest.raises(ValueError, match=says):
        read_sources(given)
