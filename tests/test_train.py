"""train.py from its command line, both stages: kill -9, resume, and what a wrong start is told."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.writer import write_mp4
from runtime.checkpoint import read
from runtime.tracking import TIME_FIELDS
from train import main, next_command
from training.inference import Shape, load_networks

ROOT = Path(__file__).resolve().parents[1]
TINY_SHAPE = ["data/shape=fixed", "data.shape.frames=5", "data.shape.height=32", "data.shape.width=32"]
TINY_CLIPS = ["data=videos", *TINY_SHAPE, "data.val_samples=3", "data.probes=null"]
TINY = [*TINY_CLIPS, "data.batch_size=4", "data.micro_batch=2", "data.workers=0", "trainer=toy", "tracking=none"]
TINY_VAE = ["objective=vae", "objective.vae.widths=[8,16]", "objective.vae.encoder_depths=[1,1]", "objective.vae.decoder_depths=[1,1]"]
TINY_DIT = ["objective.dit.width=32", "objective.dit.depth=2", "objective.dit.heads=2"]
TINY_FLOW = ["objective=flow", *TINY_DIT, "objective.text.width=32", "objective.text.depth=1"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(10):
        colour, place = rng.integers(0, 255, 3), rng.integers(0, 20, 2)
        video = np.full((5, 32, 32, 3), 128, np.uint8)
        for frame in range(5):
            video[frame, place[0] : place[0] + 8, place[1] + frame : place[1] + frame + 8] = colour
        write_mp4(folder / f"{number}.mp4", video, 8)
        rows.append(json.dumps({"path": f"{number}.mp4", "caption": f"a square of colour {number}"}))
    (folder / "train.jsonl").write_text("\n".join(rows[:7]) + "\n")
    (folder / "val.jsonl").write_text("\n".join(rows[7:]) + "\n")
    return [f"data.train={folder}/train.jsonl", f"data.val={folder}/val.jsonl"]


def train(*arguments: str) -> None:
    """What `python train.py ...` does, here."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        main()


def killed(step: int, *arguments: str) -> int:
    """The same in a process of its own that kills itself in the middle of a step: after the optimiser, before the averages."""
    code = (
        "import os, sys; sys.path.insert(0, '.'); import training.ema, train; before = training.ema.EMA.update\n"
        f"def update(self, step): os.kill(os.getpid(), 9) if step == {step} else before(self, step)\n"
        "training.ema.EMA.update = update; train.main()"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, check=False, env=environment).returncode


def rows(run: Path) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in found]


def digests(run: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (run / "checkpoints/step-00000010").glob("*.safetensors")}


def drill(folder: Path, *arguments: str) -> None:
    """10 steps = 5 + kill -9 + resume + 5, in everything but time."""
    train(f"run={folder / 'whole'}", *arguments)
    assert killed(7, f"run={folder / 'cut'}", *arguments) == -signal.SIGKILL
    assert len(rows(folder / "cut")) > 6  # steps 6 and 7 were written down, and will be again
    train(f"run={folder / 'cut'}", *arguments)
    assert rows(folder / "cut") == rows(folder / "whole")
    assert digests(folder / "cut") == digests(folder / "whole")
    assert len(digests(folder / "cut")) == 3
    assert not list(folder.glob("cut/**/*.tmp*"))


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory, clips) -> Path:
    run = tmp_path_factory.mktemp("vae") / "run"
    train(f"run={run}", *TINY, *TINY_VAE, *clips, "tracking=wandb", "tracking.patience_s=60")
    return run


def test_a_killed_vae_run_ends_like_an_uninterrupted_one(tmp_path, clips):
    drill(tmp_path, *TINY, *TINY_VAE, *clips)


def test_a_killed_flow_run_ends_like_an_uninterrupted_one_and_needs_its_vae_no_more(tmp_path, clips, vae_run, capsys):
    drill(tmp_path, *TINY, *TINY_FLOW, *clips, f"vae_run={vae_run}")
    assert "resuming from" in capsys.readouterr().err
    assert (tmp_path / "cut/vae/manifest.json").is_file()
    assert {row["kind"] for row in rows(tmp_path / "cut")} == {"train", "val"}
    train(f"run={tmp_path / 'cut'}", *TINY, *TINY_FLOW, *clips)  # without vae_run
    said = capsys.readouterr().err
    assert "all 10 steps are done" in said
    assert f"next: python sample.py run={tmp_path / 'cut'}" in said


def test_a_start_from_another_run_is_its_averages_in_every_part_and_is_never_made_again(tmp_path, clips, vae_run, capsys):
    flow, still = [*TINY, *TINY_FLOW, *clips, "trainer.max_steps=1"], ["optim.lr=0.0", "optim.rest.lr=0.0"]
    pictures = ["data.shape.frames=1"]
    train(f"run={tmp_path / 'pictures'}", *flow, f"vae_run={vae_run}", *pictures)
    second = [f"run={tmp_path / 'clips'}", *flow, f"init_from={tmp_path / 'pictures'}"]
    train(*second, f"vae_run={vae_run}", *still)
    assert f"start       from {tmp_path / 'pictures'} step 1: " in capsys.readouterr().err
    parts = [read(tmp_path / name / "checkpoints/step-00000001").parts for name in ("pictures", "clips")]
    assert all(torch.equal(tensor, parts[1][part][name]) for name, tensor in parts[0]["ema"].items() for part in ("ema", "weights"))
    shutil.rmtree(tmp_path / "pictures")
    train(*second, *still)
    said = capsys.readouterr().err
    assert "all 1 steps are done" in said
    assert "start  " not in said
    with pytest.raises(SystemExit):
        train(f"run={tmp_path / 'clips'}", *flow, *still)
    assert re.search(r"init_from='.*pictures', now None", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        train(f"run={tmp_path / 'y'}", *flow, f"vae_run={vae_run}", f"init_from={vae_run}")
    assert "holds weights of vae, and this run trains dit, text" in capsys.readouterr().err


def test_an_unreadable_clip_is_named_and_the_run_goes_on(tmp_path, clips):
    folder = Path(clips[0].removeprefix("data.train=")).parent
    (folder / "broken.mp4").write_text("not a video")
    index = (folder / "train.jsonl").read_text() + '{"path": "broken.mp4", "caption": "nothing"}\n'
    (folder / "with_broken.jsonl").write_text(index)
    train(f"run={tmp_path / 'x'}", *TINY, *TINY_VAE, f"data.train={folder}/with_broken.jsonl", clips[1], "data.bad_limit=0.5")
    assert "broken.mp4" in (tmp_path / "x/bad_files.txt").read_text()


def test_a_run_knows_what_its_clips_were(tmp_path, clips, vae_run):
    train(f"run={tmp_path / 'x'}", *TINY, "data.shape.frames=9", *TINY_FLOW, *clips, f"vae_run={vae_run}", "trainer.max_steps=1")
    assert load_networks(tmp_path / "x").shape == Shape(5, 32, 32, 8)  # not 9 frames, which no file has


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["data.train=my clips", "data/crop=detail", "data.crop.size=16"], "objective=flow vae_run=runs/v 'data.train=my clips' run="),
        (["seed=3", "trainer.max_steps=5"], "objective=flow vae_run=runs/v data.train=a run="),
        (["init_from=runs/w", "objective/part=decoder", "data.train=a"], "objective=flow vae_run=runs/v data.train=a run="),
        (["experiment=ucf101/vae", "videos=/data/u"], "experiment=ucf101/labels vae_run=runs/v videos=/data/u run="),
        (["experiment=demo/vae_fast"], "experiment=demo/dit_fast vae_run=runs/v"),
        (["experiment=demo/vae"], "experiment=demo/dit vae_run=runs/v"),
    ],
)
def test_the_next_command_has_the_same_data(typed, says, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "objective=vae", "run=runs/v", *typed])
    assert says in next_command({"run": "runs/v", "data": {"train": "a", "val": None}}, flow=False)


def test_wandb_stays_offline_inside_the_run(vae_run):
    assert list(vae_run.glob("wandb/offline-run-*/*.wandb"))


def test_a_wrong_start_is_refused_in_a_line_or_two(tmp_path, clips, vae_run, capsys):
    run = f"run={tmp_path / 'x'}"
    for arguments, message in (
        ([*TINY, *TINY_FLOW, *clips, run], "vae_run is null"),
        ([*TINY, *TINY_FLOW, *clips, run, f"vae_run={tmp_path}"], "is not a run folder"),
        ([*TINY, *TINY_VAE, *clips, run, f"vae_run={vae_run}"], "is for objective=flow: only a flow model takes a VAE. Set vae_run=null"),
        ([*TINY, *TINY_VAE, *clips, run, "data.packing=sequence"], "data.packing=sequence, but only objective=flow packs, wanted bucket. Set"),
        ([*TINY, *TINY_FLOW, *clips, run, f"vae_run={vae_run}", "data.packing=sequence", "trainer.compile=blocks"], "compile=blocks makes a graph"),
        ([*TINY, *TINY_VAE, *clips, f"run={vae_run}", "seed=1"], "seed=0, now 1"),
        ([*TINY, *TINY_VAE, "data.train=nowhere", clips[1], run], "nowhere"),
        ([*TINY, *TINY_VAE, *clips, run, "seed=abc"], "Set seed"),
        ([*TINY, *TINY_VAE, *clips, run, "allow_drift=seed"], "must be a list of keys"),
        ([*TINY, *TINY_VAE, *clips, "run=5"], "run=5 is no name of a folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            train(*arguments)
        assert ended.value.code == 1
        assert message in capsys.readouterr().err
    train(f"run={tmp_path / 'x'}", *TINY, *TINY_VAE, *clips, "trainer.max_steps=1")  # what came to nothing binds nobody
