"""scripts/ablate.py as a user runs it: a question in, runs and a page out; stopped and started again it ends with the same table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.writer import write_mp4

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TINY_VAE = ["objective=vae", "objective.vae.widths=[8,16]", "objective.vae.encoder_depths=[1,1]", "objective.vae.decoder_depths=[1,1]"]
DATA = ["data=videos", "data/shape=fixed", "data.shape.frames=5", "data.shape.height=32", "data.shape.width=32", "data.probes=null"]
DATA += ["data.workers=0", "data.batch_size=4", "data.micro_batch=4", "data.val_samples=3", "trainer=toy", "trainer.threads=1", "tracking=none"]
TINY_FLOW = ["objective=flow", "objective.dit.width=32", "objective.dit.depth=1", "objective.dit.heads=2", "objective.text.width=32"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def quoted(words: Sequence[str]) -> str:
    return "[" + ",".join(f"'{word}'" for word in words) + "]"


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a VAE, and an ablation of two arms on clips of one's own, without the world and its oracle."""
    root = tmp_path_factory.mktemp("question")
    rng = np.random.default_rng(0)
    (root / "clips").mkdir()
    for number in range(9):
        write_mp4(root / "clips" / f"{number}.mp4", rng.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8), 8)
        (root / "clips" / f"{number}.txt").write_text(f"clip {number}\n")
    data = [f"data.train={root}/clips", "data.hold_out=3", *DATA]
    made = run("train.py", f"run={root}/vae", "trainer.max_steps=1", *TINY_VAE, *data)
    assert made.returncode == 0, made.stderr
    common = [*TINY_FLOW, *data, f"vae_run={root}/vae", "trainer.log_every=1", "trainer.checkpoint_every=5"]
    command = ["scripts/ablate.py", "ablation=qk_norm", f"base={root}", "only=[none]", "seeds=2", "budget.steps=30"]
    command += [f"ablation.common={quoted(common)}", "ablation.measures.attributes=null"]
    return root, command + [f"ablation.prepare.{name}=null" for name in ("world", "vae", "latents")]


def page_folder(out: Path) -> Path:
    """Where a start with other arms, seeds and budget than the YAML's leaves its page."""
    (folder,) = (path for path in out.iterdir() if path.name != "runs")
    return folder


def table(folder: Path) -> str:
    """What was measured, without what it took."""
    results = json.loads((folder / "results.json").read_text())
    kept = ("seed", "values", "flop", "error")
    return json.dumps({name: [[run[key] for key in kept] for run in arm["runs"]] for name, arm in results["arms"].items()})


@pytest.fixture(scope="module")
def whole(question: tuple[Path, list[str]]) -> tuple[Path, str]:
    """The folder of the finished ablation, and what was said."""
    root, command = question
    done = run(*command, f"out={root}/whole")
    assert done.returncode == 0, done.stdout + done.stderr
    return page_folder(root / "whole"), done.stdout


def test_a_question_is_answered(whole: tuple[Path, str]) -> None:
    folder, said = whole
    assert folder.name == "qk_norm-only-none-seeds-0-1-budget-30-steps"
    assert "4 of 4 done" in said
    assert "none against per_head" in said or "none is" in said
    assert "Do queries and keys have to be normalised" in (folder / "table.md").read_text()
    assert (folder / "table.csv").read_text().count("\n") == 5
    assert "</html>" in (folder / "page.html").read_text()
    values = json.loads(table(folder))
    assert [seed for seed, *_ in values["none"]] == [0, 1]
    assert values["none"][0][1] != values["none"][1][1] != values["per_head"][1][1]


def test_what_is_done_is_not_done_again(question: tuple[Path, list[str]], whole: tuple[Path, str]) -> None:
    root, command = question
    before = {path: path.read_text() for path in (root / "whole" / "runs").rglob("log.txt")}
    assert len(before) == 4
    again = run(*command, f"out={root}/whole")
    assert again.returncode == 0
    assert "4 runs, 4 of them done before" in again.stdout
    assert {path: path.read_text() for path in before} == before


@pytest.mark.slow
def test_a_killed_one_has_the_same_answer(question: tuple[Path, list[str]], whole: tuple[Path, str]) -> None:
    root, command = question
    cut = [sys.executable, *command, f"out={root}/cut"]
    for stop in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(cut, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=ENVIRONMENT)
        deadline, before = time.monotonic() + 120, done_steps(root / "cut")
        while done_steps(root / "cut") <= before + 3 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it was stopped"
            time.sleep(0.05)
        process.send_signal(stop)
        assert process.wait(timeout=120) == (143 if stop == signal.SIGTERM else -signal.SIGKILL)
    again = run(*command, f"out={root}/cut")
    assert again.returncode == 0, again.stdout + again.stderr
    assert table(page_folder(root / "cut")) == table(whole[0])


def done_steps(folder: Path) -> int:
    return sum(path.read_text().count('"kind": "train"') for path in folder.rglob("metrics.jsonl"))


def test_a_run_that_fails_is_told_at_once_and_the_others_count(question: tuple[Path, list[str]]) -> None:
    root, command = question
    found = run(*command, f"out={root}/missing", "ablation.arms.none=['data.train=/nowhere']", "budget.steps=2", "seeds=1")
    assert found.returncode == 1
    assert "none, seed 0 failed: error: " in found.stdout
    assert "/nowhere" in found.stdout
    assert "1 of 2 runs failed" in found.stderr
    results = json.loads((page_folder(root / "missing") / "results.json").read_text())
    assert results["arms"]["per_head"]["runs"][0]["values"]
    assert "/nowhere" in results["arms"]["none"]["runs"][0]["error"]


def test_a_plan_runs_nothing(question: tuple[Path, list[str]]) -> None:
    root, command = question
    planned = run(*command, f"out={root}/planned", "plan=true")
    assert planned.returncode == 0, planned.stderr
    assert "4 runs: 2 arms x 2 seeds, 0 of them done" in planned.stdout
    assert not (root / "planned").exists()
