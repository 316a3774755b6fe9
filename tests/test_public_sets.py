"""Public sets, from a folder in their own layout to an index that training reads: what a user of such a set types first."""

import csv
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
from data.index import Row, read_index
from models.labels import ClassLabels
from runtime.config import ROOT, build, compose

Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def make_index(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Script:
    """The script as from a command line: exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["make_index.py", *arguments])
        try:
            runpy.run_path(str(ROOT / "scripts" / "make_index.py"), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def write_film(path: Path, frames: int = 4) -> None:
    """A tiny MPEG-4 film, which is what UCF-101 holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 8 * number, np.uint8), format="rgb24")))
        container.mux(stream.encode())


def write_csv(path: Path, *lines: list) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def rows(path: Path, root: Path | None = None) -> dict[str, Row]:
    """What training reads, by path."""
    index = read_index(path, root)
    return {index.name(number): row for number, row in enumerate(index.rows)}


UCF = [f"{label}/v_{label}_g0{group}_c01.avi" for label in ("ApplyEyeMakeup", "YoYo") for group in (1, 2)]


def test_ucf101_becomes_an_index_beside_its_videos(tmp_path, make_index):
    root = tmp_path / "UCF 101"
    for name in UCF:
        write_film(root / name)
    code, out, err = make_index("set=ucf101", f"root={root}")
    assert code == 0, err
    assert f"next      python train.py experiment=ucf101/vae videos='{root}' run=" in out
    train, val = rows(root / "train.jsonl"), rows(root / "val.jsonl")
    assert sorted([*train, *val]) == UCF
    assert len(val) == 1
    assert all(row.captions["label"] == (name.split("/")[0],) for name, row in (train | val).items())
    assert {row.captions["caption"][0] for row in (train | val).values()} == {"apply eye makeup", "yo yo"}
    labels = ClassLabels((root / "classes.txt").read_text().split(), 8, 1)
    assert labels([row.captions["label"][0] for row in train.values()]).pooled.shape == (3, 8)
    assert f"then      python train.py experiment=ucf101/labels videos='{root}' vae_run=" in out
    assert "objective.text.labels" not in out
    assert make_index("set=ucf101", f"root={root}")[:2] == (0, out), "the same folder gives the same index"


def test_classes_that_no_config_knows_are_handed_on(tmp_path, make_index):
    for label in ("my class", "other"):
        write_film(tmp_path / label / "0.mp4")
    (then,) = (line for line in make_index("set=ucf101", f"root={tmp_path}")[1].splitlines() if line.startswith("then"))
    shell = then.removeprefix("then").replace("python train.py", "printf '%s\\n'")
    words = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    config = compose("train", ["tracking=none", *words], lambda look: {"objective.vae": {"latent_channels": 4, "stride_t": 4}})
    assert build(config["objective"]["text"]).labels == ("my class", "other")


TINY = [
    "data.shape.frames=5",
    "data.shape.height=32",
    "data.shape.width=32",
    "data.fps=25",
    "data.batch_size=3",
    "data.micro_batch=3",
    "data.workers=0",
]
TINY += ["data.probes=null", "trainer.max_steps=2", "trainer.precision=float32", "trainer.device=cpu", "tracking=none"]
TINY_VAE = ["objective.vae.widths=[8,16,16]", "objective.vae.encoder_depths=[0,0,1]", "objective.vae.decoder_depths=[0,0,2]", "data.crop.size=16"]
TINY_DIT = ["objective.dit.width=32", "objective.dit.depth=2", "objective.dit.heads=2", "objective.text.width=16", "objective.text.tokens=4"]


@pytest.mark.parametrize(("experiment", "prompt"), [("labels", "yoyo"), ("unconditional", "")])
def test_the_recipes_of_ucf101_train_and_sample(tmp_path, make_index, monkeypatch, capsys, experiment, prompt):
    for name in UCF:
        write_film(tmp_path / "set" / name, frames=8)
    assert make_index("set=ucf101", f"root={tmp_path}/set")[0] == 0
    torch.set_num_threads(1)
    for stage, arguments in (("vae", TINY_VAE), (experiment, [f"vae_run={tmp_path}/vae", *TINY_DIT])):
        command = ["train.py", f"experiment=ucf101/{stage}", f"videos={tmp_path}/set", f"run={tmp_path}/{stage}", *TINY, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        train.main()
    command = [f"run={tmp_path}/{experiment}", f"out={tmp_path}/clips", "steps=1", "device=cpu"]
    sample.main([*command, "--prompt", prompt, *(["guidance=none"] if not prompt else [])])
    (sidecar,) = (tmp_path / "clips").glob("*.json")
    assert json.loads(sidecar.read_text())["prompt"] == prompt
    capsys.readouterr()
    with pytest.raises(SystemExit):
        sample.main([*command, "--prompt", "ApplyEyeMakup"])
    assert "'ApplyEyeMakup' is none of the" in capsys.readouterr().err


def test_an_index_with_other_rows_is_not_replaced_unasked(tmp_path, make_index):
    for name in UCF:
        write_film(tmp_path / name)
    (tmp_path / "train.jsonl").write_text('{"path": "mine.mp4"}\n')
    code, _, err = make_index("set=ucf101", f"root={tmp_path}")
    assert code == 1
    assert "train.jsonl holds other rows" in err
    assert (tmp_path / "train.jsonl").read_text() == '{"path": "mine.mp4"}\n'
    assert not (tmp_path / "val.jsonl").exists()
    assert make_index("set=ucf101", f"root={tmp_path}", "overwrite=true")[0] == 0
    assert "mine.mp4" not in rows(tmp_path / "train.jsonl")


def test_sky_timelapse_becomes_an_index_in_a_folder_of_its_own(tmp_path, make_index):
    root, out = tmp_path / "sky_timelapse", tmp_path / "index"
    for clip, count in (("sky_train/aa/aa_1", 3), ("sky_train/aa/aa_2", 2), ("sky_test/bb/bb_1", 4)):
        (root / clip).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (16, 16)).save(root / clip / f"{clip[-4:]}_frames_{number:08d}.jpg")
    before = sorted(root.rglob("*"))
    code, shown, err = make_index("set=sky_timelapse", f"root={root}", f"out={out}", "sky_timelapse.min_frames=3")
    assert code == 0, err
    assert sorted(root.rglob("*")) == before, "nothing is written into a set's own folder"
    assert f"videos={root} index={out} " in shown
    (train,), (val,) = rows(out / "train.jsonl", root).items(), rows(out / "val.jsonl", root).items()
    assert (train[0], val[0]) == ("sky_train/aa/aa_1", "sky_test/bb/bb_1")
    assert (train[1].fps, dict(train[1].captions)) == (25, {})
    assert (out / "left_out.txt").read_text() == "fewer than 3 pictures\tsky_train/aa/aa_2 (2)\n"


def test_files_that_are_not_there_are_listed_and_more_than_the_limit_ends_with_1(tmp_path, make_index):
    for name in ("a_0", "b_0", "c_0"):
        write_film(tmp_path / f"video/{name}.mp4")
    header = ["video", "caption", "aesthetic score", "motion score", "temporal consistency score", "camera motion", "frame", "fps", "seconds"]
    scores = [5, 5, 1, "static", 4, 25, 0.16]
    names = ("a_0", "b_0", "c_0", "gone_1", "gone_2")
    write_csv(tmp_path / "OpenVid-1M.csv", header, *([f"{name}.mp4", f"caption of {name}", *scores] for name in names))
    command = ["set=openvid", f"root={tmp_path}", "hold_out=0.3"]
    code, out, err = make_index(*command)
    assert code == 1
    assert "40.0% of the files" in err
    assert "missing_limit" in err
    assert "no such file: gone_1.mp4" in out
    assert (tmp_path / "left_out.txt").read_text() == "no such file\tgone_1.mp4\nno such file\tgone_2.mp4\n"
    found = rows(tmp_path / "train.jsonl") | rows(tmp_path / "val.jsonl")
    assert {name: row.captions["caption"] for name, row in found.items()} == {f"video/{name}.mp4": (f"caption of {name}",) for name in names[:3]}
    assert make_index(*command, "missing_limit=0.4")[0] == 0


def test_parts_of_whole_videos_become_rows_with_times(tmp_path, make_index):
    for name in ("abc", "def"):
        write_film(tmp_path / f"{name}.mp4", frames=30)
    lists = ["[['0:00:00.000', '0:00:00.400'], ['0:00:00.400', '0:00:01.200']]", "['one', 'two']", "[0.5, 0.6]"]
    write_csv(tmp_path / "panda.csv", ["videoID", "timestamp", "caption", "matching_score"], ["abc", *lists], ["def", *lists])
    code, _, err = make_index("set=panda70m", f"root={tmp_path}", f"panda70m.csv={tmp_path}/panda.csv")
    assert code == 0, err
    for split in ("train", "val"):
        parts = read_index(tmp_path / f"{split}.jsonl").rows
        assert [(row.captions["caption"], row.start_s, row.end_s) for row in sorted(parts, key=lambda row: row.start_s)] == [
            (("one",), 0.0, 0.4),
            (("two",), 0.4, 1.2),
        ], "both parts of a video are on one side"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "choose one of ucf101"),
        (["set=ucf"], "choose one of ucf101"),
        (["set=ucf101"], "root=None is no name of a folder"),
        (["set=ucf101", "root=/no/such/folder"], "is no folder"),
        (["set=ucf101", "root={}"], "no clip of ucf101 in"),
        (["set=ucf101", "root={}", "hold_out=0.9"], "hold_out=0.9"),
        (["set=ucf101", "root={}", "ucf101.spilt=1"], "spilt"),
        (["set=ucf101", "root={}", "ucf101.split=4"], "split=4"),
        (["set=openvid", "root={}"], "no table of captions"),
    ],
)
def test_wrong_commands_end_in_a_sentence(tmp_path, make_index, arguments, match):
    code, out, err = make_index(*(argument.format(tmp_path) for argument in arguments))
    assert (code, out) == (1, "")
    assert match in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
