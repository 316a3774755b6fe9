"""Small files that claim to be large, and large ones that hold nothing: all read in one child whose memory is bounded."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from data.formats import jsonl

ROOT = Path(__file__).resolve().parents[3]
HEADROOM_BYTES = 400 * 2**20  # what a child may take beyond its imports; each sparse file claims a gigabyte
SPARSE_BYTES = 2**30
CHILD = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import pyarrow.parquet
from data.index import read_index

held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]),) * 2)
for source in sys.argv[3:]:
    try:
        said = f"{len(read_index(source))} rows"
    except ValueError as error:
        said = f"ValueError: {error}"
    print(json.dumps([source, said]), flush=True)
"""


def sparse(path, start=b""):
    path.write_bytes(start)
    os.truncate(path, SPARSE_BYTES)


def folder(path, **files):
    path.mkdir()
    (path / "a.mp4").write_bytes(b"")
    for name, start in files.items():
        sparse(path / name.replace("__", "."), start)
    return path


def tar(path, members, then=b""):
    with path.open("wb") as file:
        for name, size, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = size, kind
            file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(then)
    return path


def make(where):
    """(source, what its error must say) by name."""
    made = {}
    for kind in ("jsonl", "json", "csv", "tsv", "parquet"):
        sparse(where / f"sparse.{kind}", {"json": b"[", "csv": b"path,caption\na.mp4,", "parquet": b"PAR1"}.get(kind, b""))
        says = {"json": "a JSON list of 1024 MiB", "parquet": "cannot be read as parquet"}.get(kind, "longer than 16 MiB")
        made[f"sparse {kind}"] = (where / f"sparse.{kind}", says)
    (where / "deep.jsonl").write_text('{"path": ' + "[" * 10_000_000)
    made["deep lines"] = (where / "deep.jsonl", "row 1: (JSON nested too deeply|not a JSON object)")
    (where / "deep.json").write_text("[" * 10_000_000)
    made["deep list"] = (where / "deep.json", "row 1: (JSON nested too deeply|not a JSON object)")
    (where / "quote.csv").write_text('path,caption\na.mp4,"' + "\n" * 20_000_000)
    made["open quote"] = (where / "quote.csv", r"row 1 \(line 2\): field larger than field limit")
    made["caption file"] = (folder(where / "text", a__txt=b"x"), "a.txt: longer than 1024 KiB")
    made["caption json"] = (folder(where / "json", a__json=b'{"caption": "'), "a.json: longer than 1024 KiB")
    made["caption member"] = (tar(where / "caption.tar", [("a.mp4", 0, b"0"), ("a.txt", SPARSE_BYTES, b"0")]), "member 'a.txt': longer than 1024 KiB")
    os.truncate(where / "caption.tar", SPARSE_BYTES + 4096)
    made["member beyond the end"] = (tar(where / "claims.tar", [("a.mp4", 2**40, b"0")], b"x"), "damaged, cut or no tar file")
    for name, kind in (("pax", tarfile.XHDTYPE), ("longname", tarfile.GNUTYPE_LONGNAME), ("global", tarfile.XGLTYPE)):
        made[f"{name} header"] = (tar(where / f"{name}.tar", [("x", SPARSE_BYTES, kind)]), "a header longer than 16 KiB")
        os.truncate(where / f"{name}.tar", SPARSE_BYTES + 4096)
    for name, tail in (
        ("footer", b"\xff\xff\xff\x7fPAR1"),
        ("negative", b"\xff\xff\xff\xffPAR1"),
        ("thrift", b"\x15\x04\x19\xfc\xff\xff\xff\xff\x07" + b"\x09\0\0\0PAR1"),
    ):
        (where / f"{name}.parquet").write_bytes(b"PAR1" + b"\0" * 100 + tail)
        made[f"parquet {name}"] = (where / f"{name}.parquet", "cannot be read as parquet")
    return made


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("bombs"))
    sources = [str(source) for source, _ in made.values()]
    command = [sys.executable, "-c", CHILD, str(ROOT), str(HEADROOM_BYTES), *sources]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = dict(json.loads(line) for line in ran.stdout.splitlines())
    for source, _ in made.values():  # gigabytes, if only sparse ones
        if source.is_file():
            source.unlink()
    return made, said, ran.stderr


NAMES = [
    *("sparse jsonl", "sparse json", "sparse csv", "sparse tsv", "sparse parquet", "deep lines", "deep list", "open quote"),
    *("caption file", "caption json", "caption member", "member beyond the end", "pax header", "longname header", "global header"),
    *("parquet footer", "parquet negative", "parquet thrift"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_ends_in_an_error_within_bounded_memory(outcomes, name):
    made, said, stderr = outcomes
    assert list(made) == NAMES
    source, wanted = made[name]
    assert str(source) in said, stderr[-2000:]
    assert re.search(wanted, said[str(source)]), said[str(source)]


def test_the_bound_is_below_what_the_files_claim():
    assert jsonl.MAX_LINE_BYTES * 10 < HEADROOM_BYTES < SPARSE_BYTES
