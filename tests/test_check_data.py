"""scripts/check_data.py from its command line: what it says, what it writes, and how it ends."""

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.writer import write_mp4

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "check_data.py"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder of clips in two sizes and a picture, with nothing wrong."""
    folder = tmp_path_factory.mktemp("sound")
    for number, (height, width, fps, frames) in enumerate([(32, 64, 8, 17), (64, 32, 24, 60), (32, 64, 8, 9)]):
        video = np.random.default_rng(number).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
        write_mp4(folder / f"{number}.mp4", video, fps)
        (folder / f"{number}.txt").write_text(f"clip number {number}", encoding="utf-8")
    Image.new("RGB", (64, 48), (20, 90, 200)).save(folder / "picture.png")
    return folder


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "clips"))


@pytest.fixture
def check_data(capsys, monkeypatch):
    """What `python scripts/check_data.py ...` does, here: exit status, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["check_data.py", "data.probes=null", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        code = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_sound_folder_ends_well_with_the_command_to_train(check_data, sound):
    code, out, _ = check_data(f"data.train={sound}", "data/shape=fixed", "data.shape.frames=9")
    assert code == 0
    words = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert words[:2] == ["python", "train.py"]
    assert {f"data.train={sound}", "data/shape=fixed", "data.shape.frames=9"} < set(words)
    assert "9x64x64" in out
    assert "4 in 1 step of 4" in out
    assert "each of 4 clips of weight 1 exactly once" in out


def test_the_status_of_the_process_says_whether_something_would_be_lost(folder):
    (folder / "bad.mp4").write_text("no video")
    command = [sys.executable, str(SCRIPT), f"data.train={folder}", "data.probes=null"]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1, done.stderr
    assert "unreadable" in done.stdout
    assert "bad.mp4" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("mend first: 1 bad file")


@pytest.mark.parametrize("loss", ["bad file", "caption without a video", "too short", "missing", "bad file of the validation set"])
def test_whatever_would_be_lost_makes_the_status_1(check_data, folder, loss):
    arguments = [f"data.train={folder}"]
    if loss == "bad file":
        (folder / "1.mp4").write_bytes(b"")
    elif loss == "caption without a video":
        (folder / "2.mp4").unlink()
    elif loss == "too short":
        arguments.append("data.shape.min_frames=5")  # the picture has one
    elif loss == "missing":
        (folder / "index.jsonl").write_text('{"path": "0.mp4"}\n{"path": "9.mp4"}\n')
    else:
        (folder.parent / "val").mkdir()
        (folder.parent / "val" / "v.mp4").write_bytes(b"\0" * 100)
        arguments.append(f"data.val={folder.parent / 'val'}")
    code, out, _ = check_data(*arguments)
    assert code == 1
    assert out.splitlines()[-1].startswith("mend first: 1 ")


def test_files_of_other_kinds_and_rows_that_come_twice_are_no_loss(check_data, folder):
    (folder / "notes.pdf").write_bytes(b"x")
    code, out, _ = check_data(f"data.train=[{folder},{folder}]")
    assert code == 0
    assert "notes.pdf" in out
    assert "duplicates" in out


def test_clips_with_shots_are_counted(check_data, folder, tmp_path):
    shot = {"start_s": 0, "end_s": 1, "caption": "begins"}
    rows = [{"path": "0.mp4", "shots": [shot, {**shot, "start_s": 1, "end_s": 2}]}, {"path": "1.mp4", "shots": [shot]}, {"path": "2.mp4"}]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, out, _ = check_data(f"data.train={folder}", f"out={tmp_path / 'check'}")
    assert code == 0
    assert "no clip has one as a whole" in out
    assert "2 clips with" in next(line for line in out.splitlines() if line.split()[:1] == ["shots"])
    assert [json.loads(line)["shots"] for line in (tmp_path / "check" / "clips.jsonl").read_text(encoding="utf-8").splitlines()] == [2, 1, 0]


def test_a_deep_look_finds_what_headers_hide(check_data, folder):
    content = bytearray((folder / "1.mp4").read_bytes())
    content[-4000:-2000] = b"\x5a" * 2000
    (folder / "1.mp4").write_bytes(content)
    assert check_data(f"data.train={folder}")[0] == 0
    code, out, _ = check_data(f"data.train={folder}", "deep=true")
    assert code == 1
    assert "damaged" in out


def test_what_is_written_names_every_clip_and_loads_nothing(check_data, folder, tmp_path):
    name = "<img src=x onerror=alert(1)>&\x1b[31m.mp4"
    (folder / name).write_text("no video")
    code, out, _ = check_data(f"data.train={folder}", f"out={tmp_path / 'check'}")
    assert code == 1
    assert "\x1b" not in out
    page = (tmp_path / "check" / "check_data.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "\x1b" not in page
    assert "http" not in page
    assert page.count("<svg") > 4
    rows = [json.loads(line) for line in (tmp_path / "check" / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["path"] for row in rows} == {"0.mp4", "1.mp4", "2.mp4", "picture.png", name}
    report = json.loads((tmp_path / "check" / "report.json").read_text(encoding="utf-8"))
    assert [(fault["path"], fault["kind"]) for fault in report["faults"]] == [(name, "unreadable")]


def test_every_line_fits_the_terminal_but_commands(check_data, folder):
    long = folder / "folder of clips from the summer holidays" / "by the lake, where it rained all day long"
    long.mkdir(parents=True)
    (long / "a video with a rather long name that goes on and on.mp4").write_bytes(b"")
    _, out, _ = check_data(f"data.train={folder}", "data.fps=12")
    assert max(len(line) for line in out.splitlines() if "python train.py" not in line) <= 100


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["data.train=/no/such/folder"], "/no/such/folder"),
        ([], "data.train"),
        (["data.train=x", "deep=3"], "deep"),
        (["data.train=x", "out=[1]"], "out"),
        (["data.train=x", "data.shape.framse=3"], "data.shape.frames"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_1(check_data, arguments, named):
    code, out, err = check_data(*arguments)
    assert (code, out) == (1, "")
    assert named in err
    assert len(err.splitlines()) == 1


def test_a_set_of_nothing_but_bad_files_is_told_as_such(check_data, tmp_path):
    (tmp_path / "index.jsonl").write_text('{"path": "a.mp4"}\n{"path": "b.mp4"}\n')
    code, out, _ = check_data(f"data.train={tmp_path / 'index.jsonl'}", f"out={tmp_path / 'check'}")
    assert code == 1
    assert out.splitlines()[-1] == "mend first: 2 bad files (there is nothing to train on)"
    assert (tmp_path / "check" / "check_data.html").exists()


def test_arguments_of_train_py_are_understood(check_data, sound):
    code, _, err = check_data(
        "experiment=demo/dit", f"data.train={sound}", f"data.val={sound}", "run=runs/x", "trainer.max_steps=3", "vae_run=runs/v"
    )
    assert code == 0, err
