import gzip
import io
import os
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest

from data.formats import sources
from data.index import read_index


def tar(path, *members, form=tarfile.USTAR_FORMAT):
    """A tar file of (name, bytes) or of TarInfo, in this order."""
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(size=0, kind=tarfile.REGTYPE, name="a.mp4"):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def with_checksum(raw):
    """The header with its checksum made right."""
    return bytes(raw[:148]) + b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 8 * 32) + bytes(raw[156:])


def sparse(name):
    """A file of 8 GiB without any content."""
    raw = bytearray(header(0, tarfile.GNUTYPE_SPARSE, name))
    raw[483:495] = b"77777777777\0"
    return with_checksum(raw)


def content(row):
    with open(row.path, "rb") as file:
        file.seek(row.media.start)
        return file.read(row.media.size)


def counts(index):
    return {item.what: item.count for item in index.ignored}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_clips_are_the_very_bytes_of_their_members(tmp_path, form):
    long = "sub/" + "x" * 90 + "/" + "y" * 60
    members = [
        ("0.mp4", b"first"),
        ("0.txt", b"one\n"),
        (f"{long}.webm", bytes(range(256)) * 5),
        (f"{long}.json", b'{"captions": {"short": ["two"]}}'),
        ("ü.jpg", b"p"),
    ]
    index = read_index(tar(tmp_path / "set.tar", *members, form=form))
    assert [content(row) for row in index.rows] == [members[0][1], members[2][1], b"p"]
    assert [row.captions for row in index.rows] == [{"caption": ("one",)}, {"short": ("two",)}, {}]
    assert [row.media.member for row in index.rows] == ["0.mp4", f"{long}.webm", "ü.jpg"]
    assert (index.name(0), index.root) == ("set.tar:0.mp4", os.path.realpath(tmp_path))
    assert index.ignored == ()


def test_a_key_ends_at_the_first_dot_and_belongs_to_its_folder(tmp_path):
    members = [
        ("v1.0/a.left.mp4", b"1"),
        ("v1.0/a.txt", b"a"),
        ("v2.0/a.mp4", b"2"),
        ("b.MP4", b"3"),
        ("b.Txt", b"b"),
        ("./c.mp4", b"4"),
        ("./c.txt", b"c"),
    ]
    rows = read_index(tar(tmp_path / "set.tar", *members)).rows
    assert [(content(row), row.captions.get("caption")) for row in rows] == [(b"1", ("a",)), (b"2", None), (b"3", ("b",)), (b"4", ("c",))]


def test_members_in_any_order_find_their_sample_and_joined_shards_keep_theirs(tmp_path):
    members = [("b.txt", b"bb"), ("a.mp4", b"1"), ("b.mp4", b"2"), ("a.txt", b"aa"), ("a.mp4", b"3"), ("a.txt", b"other")]
    rows = read_index(tar(tmp_path / "set.tar", *members)).rows
    assert [(content(row), row.captions["caption"]) for row in rows] == [(b"2", ("bb",)), (b"1", ("aa",)), (b"3", ("other",))]


def test_a_sample_is_its_video_else_its_picture(tmp_path):
    members = [("a.jpg", b"p"), ("a.mp4", b"v"), ("a.caption", b"x"), ("a.json", b"{"), ("b.png", b"q"), ("c.txt", b"alone")]
    index = read_index(tar(tmp_path / "set.tar", *members))
    assert [(content(row), row.captions) for row in index.rows] == [(b"v", {"caption": ("x",)}), (b"q", {})]
    assert counts(index) == {"pictures of a sample that has a video": 1, "captions without a video of the same key": 1}


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled_extracted_or_followed(tmp_path, monkeypatch):
    canary = str(tmp_path / "canary")
    arrays = io.BytesIO()
    np.save(arrays, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    folder, work = tmp_path / "set", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    tar(
        folder / "set.tar",
        *[("a.mp4", b"v"), ("a.pyd", pickle.dumps(Canary(canary))), ("a.pkl", pickle.dumps(Canary(canary))), ("a.npy", arrays.getvalue())],
        *[("../up.mp4", b"u"), ("/abs.mp4", b"w"), ("__meta__.cls", b"1")],
        special("link.mp4", tarfile.SYMTYPE, "../secret.mp4"),
        special("hard.mp4", tarfile.LNKTYPE, "/etc/passwd"),
        special("device.mp4", tarfile.CHRTYPE),
        special("pipe.mp4", tarfile.FIFOTYPE),
        special("folder.mp4", tarfile.DIRTYPE),
        form=tarfile.GNU_FORMAT,
    )
    (folder / "set.tar").write_bytes(sparse("hole.mp4") + (folder / "set.tar").read_bytes())
    index = read_index(folder)
    assert [(row.path, row.media.member, content(row)) for row in index.rows] == [
        (os.path.realpath(folder / "set.tar"), name, data) for name, data in (("a.mp4", b"v"), ("../up.mp4", b"u"), ("/abs.mp4", b"w"))
    ]
    other = "members that are neither videos nor pictures nor captions"
    assert counts(index) == {
        f"{other} (.pyd)": 1,
        f"{other} (.pkl)": 1,
        f"{other} (.npy)": 1,
        f"{other} (.cls)": 1,
        "members that are links, devices or sparse": 5,
    }
    assert sorted(os.listdir(tmp_path)) == ["secret.mp4", "set", "work"]
    assert (os.listdir(folder), os.listdir(work)) == (["set.tar"], [])


def test_shards_of_a_pattern_come_in_order(tmp_path, monkeypatch):
    for number in range(12):
        tar(tmp_path / f"set-{number}.tar", ("a.mp4", b"%d" % number))
    for pattern in (f"{tmp_path}/set-{{0..11}}.tar", f"{tmp_path}/set-*.tar", tmp_path):
        assert [content(row) for row in read_index(pattern).rows] == [b"%d" % number for number in range(12)]
    assert [content(row) for row in read_index(f"{tmp_path}/set-{{7,2}}.tar").rows] == [b"7", b"2"]
    assert sources._braces("{00..02}/{a,b}-{9..10}") == [f"0{i}/{c}-{n}" for i in range(3) for c in "ab" for n in (9, 10)]
    monkeypatch.chdir(tmp_path)
    assert len(read_index("set-1?.tar")) == 2


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("set-{0..3}.tar", r"set-1.tar: there is no such file"),
        ("other-*.tar", "no file fits this pattern"),
        ("set-{3..0}.tar", "must count upwards"),
        ("set-{0..99999999999}.tar", "at most 1000000 shards"),
        ("{0..9999}{0..9999}.tar", "names more than 1000000 shards"),
        ("set-*.jsonl", "a pattern names .tar files"),
    ],
)
def test_a_pattern_that_names_no_shards_is_told(tmp_path, pattern, says):
    tar(tmp_path / "set-0.tar", ("a.mp4", b"v"))
    (tmp_path / "set-0.jsonl").write_text("")
    with pytest.raises(ValueError, match=says):
        read_index(f"{tmp_path}/{pattern}")


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.tar"])
@pytest.mark.parametrize("folder", [True, False])
def test_a_compressed_shard_is_refused_with_a_remedy(tmp_path, name, folder):
    (tmp_path / name).write_bytes(gzip.compress(tar(tmp_path / "x", ("a.mp4", b"v")).read_bytes()))
    (tmp_path / "x").unlink()
    with pytest.raises(ValueError, match=f"{name}: a compressed tar file.*Decompress it"):
        read_index(tmp_path if folder else tmp_path / name)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = tar(tmp_path / "set.tar", *[(f"{number}.mp4", b"v" * 700) for number in range(5)])
    whole = path.read_bytes()
    assert len(read_index(path)) == 5
    for member in range(5):
        start = member * 1536  # a header of 512 bytes, two blocks of content
        path.write_bytes(whole[: start + 100] + b"\xff" + whole[start + 101 :])
        with pytest.raises(ValueError, match=r"set.tar: damaged, cut or no tar file"):
            read_index(path)


def test_a_cut_shard_is_refused_wherever_a_member_is_lost(tmp_path):
    path = tar(tmp_path / "set.tar", *[(f"{number}.mp4", b"v" * 700) for number in range(3)])
    whole = path.read_bytes()
    for cut in range(1, 3 * 1536 - 324, 97):
        path.write_bytes(whole[:cut])
        if cut % 1536 == 0:
            continue
        with pytest.raises(ValueError, match=r"set.tar: damaged, cut or no tar file"):
            read_index(path)
    path.write_bytes(whole[: 3 * 1536])  # only the zeros at the end are missing, which some writers leave out
    assert len(read_index(path)) == 3


def pax(**fields):
    body = b""
    for key, value in fields.items():
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        body += f"{length} {key}={value}\n".encode()
    return header(len(body), tarfile.XHDTYPE, "pax") + body.ljust(-(-len(body) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "raw",
    [
        header(2**40) + b"x",
        header(2**62) + b"x",
        header(-512) + b"x" * 512,
        pax(size=str(2**40)) + header(3) + b"x" * 512,
        pax(size="-1024") + header(3) + b"x" * 512,
        pax(size="-1") + header(3) + b"x" * 512,
        header(2**40, tarfile.XHDTYPE) + b"x" * 512,
        header(-1, tarfile.XHDTYPE) + b"x" * 512,
        header(2**33, tarfile.GNUTYPE_LONGNAME) + b"x" * 512,
        pax(a="1") * 2000 + header(3) + b"x" * 512,
        b"x" * 2000,
        b"",
        b"\0" * 511,
    ],
    ids=lambda raw: f"{len(raw)}-bytes",
)
def test_a_header_that_lies_ends_in_an_error(tmp_path, raw):
    (tmp_path / "set.tar").write_bytes(raw)
    with pytest.raises(ValueError, match=r"set.tar: (damaged, cut or no tar file|the shards hold no video)"):
        read_index(tmp_path / "set.tar")


def test_member_names_that_are_not_unicode_are_spelt_out(tmp_path):
    path = tar(tmp_path / "set.tar", ("aXb.mp4", b"v"))
    raw = bytearray(path.read_bytes())
    raw[1] = 0xFF
    path.write_bytes(with_checksum(raw))
    assert [row.media.member for row in read_index(path).rows] == ["a\\udcffb.mp4"]


def test_shards_without_clips_say_what_they_hold(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)the shards hold no video and no picture.*1 captions without a video of the same key: .*set.tar:a.txt"):
        read_index(tar(tmp_path / "set.tar", ("a.txt", b"x")))


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [("a.txt", b"\xff", "not UTF-8"), ("a.txt", b"x" * (2**20 + 1), "longer than 1024 KiB"), ("a.json", b"[", "not a JSON object")],
)
def test_a_caption_that_is_no_text_names_the_member(tmp_path, name, raw, says):
    with pytest.raises(ValueError, match=f"set.tar, member '{name}': {says}"):
        read_index(tar(tmp_path / "set.tar", ("a.mp4", b"v"), (name, raw)))


def test_a_shard_that_is_a_link_out_of_its_folder_needs_a_root(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.tar").symlink_to(tar(tmp_path / "real.tar", ("a.mp4", b"v")))
    with pytest.raises(ValueError, match=r"leads out of"):
        read_index(tmp_path / "set" / "a.tar")
    assert len(read_index(tmp_path / "set" / "a.tar", root=tmp_path)) == 1


def test_headers_of_a_shard_do_not_pile_up(tmp_path):
    path = tmp_path / "set.tar"
    path.write_bytes(b"".join(header(name=f"{number}.{'x' * 90}") for number in range(4000)) + header())
    tracemalloc.start()
    try:
        assert len(read_index(path)) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e6  # bytes; 4,000 headers of tarfile's are 5 MB
