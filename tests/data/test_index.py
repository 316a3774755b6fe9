import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.index import read_index


def index(folder, *lines):
    path = folder / "index.jsonl"
    path.write_bytes(b"".join(line if isinstance(line, bytes) else (line + "\n").encode() for line in lines))
    return path


def test_rows_keep_their_order_paths_and_captions(tmp_path):
    path = index(
        tmp_path,
        '{"path": "b.mp4", "caption": "one", "frames": 17, "fps": 8, "width": 64, "height": 48, "labels": {"shape": "circle"}}',
        "",
        '{"path": "sub/a.mp4", "captions": {"short": ["x", "y"], "long": "z", "none": []}}',
        '{"path": "c.mp4"}',
    )
    rows = read_index(path).rows
    root = os.path.realpath(tmp_path)
    assert [row.path for row in rows] == [f"{root}/b.mp4", f"{root}/sub/a.mp4", f"{root}/c.mp4"]
    assert [row.captions for row in rows] == [{"caption": ("one",)}, {"short": ("x", "y"), "long": ("z",)}, {}]
    assert (rows[0].frames, rows[0].fps, rows[0].width, rows[0].height) == (17, 8.0, 64, 48)
    assert read_index(path).name(1) == "sub/a.mp4"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"path": "a.mp4"', "not a JSON object"),
        ('["a.mp4"]', "got a list"),
        ('{"video": "a.mp4"}', "'path' must be a text.*keys: video"),
        ('{"path": 3}', "'path' must be a text"),
        ('{"path": "a.mp4", "caption": 3}', "kind 'caption' must be a text"),
        ('{"path": "a.mp4", "captions": {"short": [1]}}', "kind 'short'"),
        ('{"path": "a.mp4", "captions": 3}', "texts by kind"),
        ('{"path": "a.mp4", "caption": "x", "captions": {}}', "both"),
        ('{"path": "a.mp4", "caption": "\\ud800"}', "half a character"),
        ('{"path": "a.mp4", "frames": NaN}', "'frames' must be a whole number"),
        ('{"path": "a.mp4", "frames": true}', "'frames' must be a whole number"),
        ('{"path": "a.mp4", "fps": Infinity}', "'fps' must be a number above 0"),
        ('{"path": "a.mp4", "width": 0}', "'width'"),
        ('{"path": "a\\u0000.mp4"}', "NUL"),
        (b'{"path": "\xff.mp4"}\n', "not UTF-8"),
        ("[" * 100_000, "nested too deeply|not a JSON object"),
    ],
)
def test_a_bad_line_names_the_file_and_its_row(tmp_path, line, says):
    with pytest.raises(ValueError, match=f"(?s)index.jsonl, row 3: .*(?:{says})"):
        read_index(index(tmp_path, '{"path": "ok.mp4"}', "", line))


@pytest.mark.parametrize("path", ["../x.mp4", "/etc/passwd", "a/../../x.mp4", "link.mp4", "door/x.mp4", "..", "door"])
def test_a_path_cannot_leave_the_folder(tmp_path, path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "set2").mkdir()
    (tmp_path / "x.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "x.mp4")
    (root / "door").symlink_to(tmp_path / "set2")
    with pytest.raises(ValueError, match=r"row 1: the path .* leads out of"):
        read_index(index(root, json.dumps({"path": path})))


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
    with pytest.raises(ValueError, match="names no clip"):
        read_index(index(tmp_path, *lines))


def test_an_index_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no index file .*missing\.jsonl"):
        read_index(tmp_path / "missing.jsonl")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3), st.booleans())
def test_captions_of_any_unicode_survive(tmp_path_factory, texts, ascii_only):
    folder = tmp_path_factory.mktemp("unicode")
    row = json.dumps({"path": "a.mp4", "captions": {"short": texts}}, ensure_ascii=ascii_only)
    assert read_index(index(folder, row)).rows[0].captions == {"short": tuple(texts)}
