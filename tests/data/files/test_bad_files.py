"""Every bad file ends in its typed reason and every odd one in its right frames: none crashes, hangs, or fills the memory."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

SECONDS = 5  # for one file
MEMORY = 3 * 2**29  # bytes of address space; the 8192x4320 picture is the largest need
# Looks at each file, reads it with the back ends that are trusted with it, and tells what it found; runs in a process of its own.
CHILD = """
import json, resource, sys, time
from dataclasses import replace
import numpy as np
from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.probe import deep_check, probe
from data.files.reader import AutoReader, PyAVReader

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
limits = Limits()
for line in sys.stdin:
    case = json.loads(line)
    media = Media(case["path"], "member" if case["size"] is not None else "", case["start"], case["size"])
    started = time.monotonic()
    try:
        found = probe(media, limits, case["fps"])
        video = PyAVReader(limits).read(media, found, range(found.frames))
        deep_check(media, found, limits)
        twin = AutoReader(limits).read(media, replace(found, sound=True), range(found.frames))
        levels = video[:, ::8, ::8].reshape(found.frames, -1).astype(float)
        numbers = ((levels.mean(1) - 20) / 9).round()
        told = {
            "frames": numbers.astype(int).tolist(), "off": abs(levels - 20 - 9 * numbers[:, None]).max(), "shape": video.shape[1:3],
            "times_ms": (found.times * 1000).round().astype(int).tolist(), "twin": bool(np.array_equal(video, twin)), "odd": found.odd,
        }
    except VideoError as error:
        told = {"kind": error.kind, "detail": error.detail}
    print(json.dumps(told | {"s": time.monotonic() - started}), flush=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, maker):
    folder = tmp_path_factory.mktemp("bad files")
    return folder, maker.make(folder)


@pytest.fixture(scope="module")
def outcomes(made):
    """What the child told of each case, in order."""
    folder, cases = made
    lines = "".join(json.dumps(asdict(case) | {"path": str(folder / case.name)}) + "\n" for case in cases)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CHILD, str(MEMORY)]
    child = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=root, timeout=12 * SECONDS, check=False)
    told = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    where = cases[len(told)].name if len(told) < len(cases) else "the end"
    assert child.returncode == 0, f"the reader ended with {child.returncode} at {where}: {child.stderr[-800:]}"
    return list(zip(cases, told, strict=True))


def test_there_are_enough_of_them(made):
    assert len({case.name for case in made[1] if case.kinds}) >= 40
    assert len({case.name for case in made[1] if not case.kinds}) >= 40


def test_each_bad_file_ends_in_its_typed_reason(outcomes):
    wrong = [(case.name, case.kinds, told) for case, told in outcomes if case.kinds and told.get("kind") not in case.kinds]
    assert not wrong


def test_each_odd_file_gives_its_own_frames_at_their_own_times(outcomes):
    wrong = []
    for case, told in outcomes:
        if not case.kinds:
            right = told.get("frames") == list(case.frames) and told["off"] <= 3 and told["shape"] == list(case.shape)
            if not right or (case.times_ms and told["times_ms"] != list(case.times_ms)):
                wrong.append((case.name, told))
    assert not wrong


def test_the_back_end_that_auto_chooses_gives_the_same_frames(outcomes):
    assert not [case.name for case, told in outcomes if not case.kinds and not told["twin"]]
    assert sum(told.get("odd") == "" for _, told in outcomes) >= 8


def test_no_file_takes_longer_than_its_budget(outcomes):
    assert not [(case.name, told["s"]) for case, told in outcomes if told["s"] > SECONDS]


def test_reasons_name_neither_folders_nor_numbers_of_errors(outcomes):
    details = [told["detail"] for _, told in outcomes if "detail" in told]
    assert not [detail for detail in details if "/" in detail or "Errno" in detail]
