import json
import os

import pytest

from data.formats.folder import PICTURES, VIDEOS, natural
from data.index import read_index


def fill(folder, **files):
    """Files by name, "__" standing for a dot and "/" for a folder."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def names(index):
    return [index.name(row) for row in range(len(index))]


def counts(index):
    return {item.what: (item.count, item.names) for item in index.ignored}


def test_a_folder_gives_its_videos_and_pictures_with_the_captions_beside_them(tmp_path):
    fill(
        tmp_path,
        **{
            "clip10.mp4": "",
            "clip10.txt": "ten",
            "Clip2.MOV": "",
            "Clip2.TXT": "two",
            "a.b.webm": "",
            "a.b.txt": "dots",
            "deep/er/x.png": "",
            "deep/er/x.json": json.dumps({"caption": "from json", "duration": 3}),
            "deep/y.gif": "",
            "deep/y.caption": "y",
            "deep/y.json": "not even read",
            "no-caption.mkv": "",
            ".hidden/z.mp4": "",
            ".z.mp4": "",
        },
    )
    index = read_index(tmp_path)
    assert names(index) == ["a.b.webm", "Clip2.MOV", "clip10.mp4", "deep/er/x.png", "deep/y.gif", "no-caption.mkv"]
    assert [row.captions.get("caption") for row in index.rows] == [("dots",), ("two",), ("ten",), ("from json",), ("y",), None]
    assert index.root == os.path.realpath(tmp_path)
    assert counts(index) == {".json files beside a .caption file of the same name, which has the caption": (1, ("deep/y.json",))}


def test_order_is_natural_and_does_not_hang_on_the_file_system(tmp_path):
    wanted = ["1.mp4", "2.mp4", "02b.mp4", "10.mp4", "a/1.mp4", "a/10.mp4", "A.mp4", "b.mp4", "a-2.mp4"]
    for name in reversed(wanted):
        fill(tmp_path, **{name: ""})
    assert names(read_index(tmp_path)) == sorted(wanted, key=natural)
    assert sorted(["x²", "x1", "x١"], key=natural) == ["x1", "x²", "x١"]  # digits of other scripts are letters here
    assert sorted(["x10", "x9", "X9", "x1"], key=natural) == ["x1", "X9", "x9", "x10"]


@pytest.mark.parametrize(
    ("raw", "caption"),
    [
        (b"x", "x"),
        (b"\xef\xbb\xbfx\n", "x"),
        (b"x\r\n", "x"),
        (b" x \n\n", " x \n"),
        (b"one\r\ntwo\n", "one\r\ntwo"),
        (b"", ""),
        ("شخص يمشي e\u0301 👩‍👩‍👧\u2028\0\n".encode(), "شخص يمشي e\u0301 👩‍👩‍👧\u2028\0"),
        (b"y" * 100_000, "y" * 100_000),
    ],
)
def test_a_text_file_is_one_caption_as_it_was_written(tmp_path, raw, caption):
    (row,) = read_index(fill(tmp_path, a__mp4="", a__txt=raw)).rows
    assert row.captions == {"caption": (caption,)}


@pytest.mark.parametrize(
    ("fields", "columns", "wanted"),
    [
        ({"captions": {"short": ["x"]}}, None, {"short": ("x",)}),
        ({"text": ["x", "y"]}, None, {"caption": ("x", "y")}),
        ({"title": "t"}, None, {}),
        ({"caption": "x", "title": "t"}, {"caption": "title"}, {"caption": ("t",)}),
    ],
)
def test_a_json_file_gives_the_captions_it_has(tmp_path, fields, columns, wanted):
    (row,) = read_index(fill(tmp_path, a__mp4="", a__json=json.dumps(fields)), columns=columns).rows
    assert row.captions == wanted


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"\xff", "a.txt: not UTF-8"),
        ("a.json", b"[" * 10_000, "a.json: not a JSON object"),
        ("a.json", b'["x"]', "a.json: got a list"),
        ("a.json", b'{"caption": 3}', "a.json: captions must be"),
        ("a.json", b'{"caption": "\\ud800"}', "a.json: a caption holds half a character"),
    ],
)
def test_a_caption_that_is_no_text_is_named(tmp_path, name, content, says):
    with pytest.raises(ValueError, match=says):
        read_index(fill(tmp_path, **{"a.mp4": "", name: content}))


def test_what_is_not_used_is_counted_and_named(tmp_path):
    fill(
        tmp_path,
        **{
            "a.mp4": "",
            "orphan.txt": "x",
            "b.npy": "",
            "c.npy": "",
            "LICENSE": "",
            "captions.csv": "",
            "info.json": "{}",
            "shard.tar": "",
            "clip.mp4/readme.md": "",
        },
    )
    (tmp_path / "door").symlink_to(tmp_path / "clip.mp4")
    assert counts(read_index(tmp_path)) == {
        "captions without a video of the same name": (1, ("orphan.txt",)),
        "files that are neither videos nor pictures (.json)": (1, ("info.json",)),
        "files that are neither videos nor pictures (.npy)": (2, ("b.npy", "c.npy")),
        "files that are neither videos nor pictures (.md)": (1, ("clip.mp4/readme.md",)),
        "index files that are not called index or metadata (to use one, name it as the set)": (1, ("captions.csv",)),
        "files without a suffix": (1, ("LICENSE",)),
        "tar files beside videos (a pattern such as 'folder/*.tar' is a set of its own)": (1, ("shard.tar",)),
        "links to folders, which are not followed": (1, ("door",)),
        "folders named like a video": (1, ("clip.mp4",)),
    }
    assert "1 captions without a video of the same name: orphan.txt" in map(str, read_index(tmp_path).ignored)


def test_names_of_what_is_not_used_do_not_pile_up(tmp_path):
    fill(tmp_path, **{"a.mp4": "", **{f"{number}.x{number}": "" for number in range(100)}, **{f"{number}.dat": "" for number in range(20)}})
    ignored = read_index(tmp_path).ignored
    assert sum(item.count for item in ignored) == 120
    assert len(ignored) <= 41
    assert max(len(item.names) for item in ignored) == 5


def test_what_cannot_be_opened_is_still_a_row_so_that_its_probe_can_say_why(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert len(read_index(tmp_path)) == 3


@pytest.mark.parametrize("name", ["a.mp4", "a.txt"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    folder = fill(tmp_path / "set", **{"a.mp4": ""})
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=f"{name}' leads out of"):
        read_index(folder)
    assert len(read_index(folder, root=tmp_path)) == 1


def test_a_folder_that_is_a_link_is_its_target(tmp_path):
    fill(tmp_path / "real", a__mp4="", a__txt="x")
    (tmp_path / "door").symlink_to(tmp_path / "real")
    assert read_index(tmp_path / "door").rows == read_index(tmp_path / "real").rows


def test_a_caption_that_is_a_pipe_is_not_waited_for(tmp_path):
    fill(tmp_path, a__mp4="")
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"a.txt: not a file"):
        read_index(tmp_path)


def test_names_with_backslashes_and_tildes_are_only_names(tmp_path):
    fill(tmp_path, **{"~": "", "a\\b.mp4": "", "~dir/C:c.mp4": ""})
    assert names(read_index(tmp_path)) == ["a\\b.mp4", "~dir/C:c.mp4"]


def test_a_name_that_is_not_unicode_is_told(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.mp4"), "wb"):
        pass
    with pytest.raises(ValueError, match=r"the name '\\udcff.mp4' holds half a character"):
        read_index(tmp_path)


@pytest.mark.parametrize(("name", "text"), [("index.jsonl", '{"path": "a.mp4"}'), ("metadata.csv", "file_name,text\na.mp4,x\n")])
def test_an_index_in_the_folder_decides_and_what_it_leaves_out_is_told(tmp_path, name, text):
    fill(tmp_path, **{"a.mp4": "", "a.txt": "not this", "sub/b.mp4": "", "truth.jsonl": "", "c.tar": "", name: text})
    index = read_index(tmp_path)
    assert names(index) == ["a.mp4"]
    assert index.rows == read_index(tmp_path / name).rows
    assert counts(index) == {f"videos or pictures that {name} does not name": (1, ("sub/b.mp4",)), f"tar files beside {name}": (1, ("c.tar",))}


def test_pictures_of_a_folder_that_the_index_names_are_not_left_out(tmp_path):
    index = read_index(
        fill(tmp_path, **{"index.jsonl": '{"path": "frames/1", "fps": 24}', "frames/1/0.png": "", "frames/1/1.png": "", "frames/2/0.png": ""})
    )
    assert (index.rows[0].path, index.rows[0].fps) == (os.path.realpath(tmp_path / "frames" / "1"), 24.0)
    assert [item.names for item in index.ignored] == [("frames/2/0.png",)]


def test_two_indexes_in_a_folder_are_not_guessed_between(tmp_path):
    with pytest.raises(ValueError, match=r"holds index.jsonl and metadata.csv. Name one of them"):
        read_index(fill(tmp_path, **{"index.jsonl": "", "metadata.csv": ""}))


def test_a_folder_without_videos_says_what_it_holds(tmp_path):
    with pytest.raises(
        ValueError, match=r"(?s)holds no video and no picture. A set is a folder.*2 captions without a video of the same name: a.txt, b.txt"
    ):
        read_index(fill(tmp_path, a__txt="", b__txt=""))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no video and no picture"):
        read_index(tmp_path / "empty")


def test_deep_folders_are_walked(tmp_path):
    deep = tmp_path
    for _ in range(500):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "a.mp4").write_bytes(b"")
    assert len(read_index(tmp_path)) == 1


def test_no_suffix_is_both_a_video_and_a_picture():
    assert not VIDEOS & PICTURES
