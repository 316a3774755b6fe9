"""Every arm of every shipped ablation runs: it trains at the planned cost and comes to figures of its own."""

import hashlib
import io
import json
import runpy
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

import ablation.jobs
from ablation.jobs import Job, run
from ablation.plan import measures, plan, prepared
from ablation.results import gathered, newest_step
from runtime.config import CONFIGS, Config, compose, load_run_config
from train import with_vae

SHIPPED = sorted(path.stem for path in (CONFIGS / "ablation").glob("[!_]*.yaml"))
STEPS = 3  # in the first the zero head of a network hides all that is before it, in the second zero gates what is in the blocks
SMALL = ["data.batch_size=2", "data.micro_batch=2", "data.val_samples=2", "data.workers=0"]
FEW = ["prompts=2", "seen=2", "clips=2", "animated=2", "neighbours=0", "steps=1"]
SHARED = {  # what a part that all arms share is made with, by the script that makes it
    "scripts/make_world.py": ["clips=8", "val=2", "heldout=2", "processes=1"],
    "scripts/cache_latents.py": ["data.workers=0"],
    "train.py": ["trainer.max_steps=1", "trainer.precision=float32", *SMALL],
}


class Here:
    """What jobs need of subprocess.Popen, in this process: Python starts for longer than a tiny run takes."""

    def __init__(self, called: Sequence[str], stdout: BinaryIO, **_: object) -> None:
        said, self.code = io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            patch.setattr(sys, "argv", [*called[1:]])
            try:
                runpy.run_path(called[1], run_name="__main__")
            except SystemExit as ended:
                self.code = int(ended.code or 0)
            except Exception:  # as the interpreter does with whatever a script lets through
                traceback.print_exc()
                self.code = 1
        stdout.write(said.getvalue().encode())

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None: ...

    def wait(self) -> int:
        return self.code

    def poll(self) -> int:
        return self.code


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.jobs, "subprocess", SimpleNamespace(Popen=Here))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What one ablation has made and run, the next ones find there."""
    folder = tmp_path_factory.mktemp("ablations")
    yield folder
    shutil.rmtree(folder)  # 2 GB of checkpoints, which pytest would keep for its last three starts


def tiny(name: str, root: Path) -> Config:
    """An ablation as shipped but for its size."""
    config = compose("ablate", [f"ablation={name}", f"base={root / 'base'}", f"out={root / 'out'}", f"budget.steps={STEPS}", "seeds=1"])
    config["ablation"]["common"] += SMALL
    config["ablation"]["evaluate"] += FEW
    return config


def small(job: Job) -> Job:
    return replace(job, commands=tuple((*command, *SHARED[command[0]]) for command in job.commands))


def learnt(folder: Path) -> tuple[float, str]:
    """The loss that a run ends with, and its weights' sha256.

    After so little, weights alone may agree (two clips that drew the same captions), and so may losses (differences round away).
    """
    (weights,) = folder.glob("checkpoints/*/ema.safetensors")
    loss = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    return loss, hashlib.sha256(weights.read_bytes()).hexdigest()


def videos(folder: Path) -> tuple[str, ...]:
    """The sha256 of every sample that an evaluation shows."""
    found = sorted((folder / "evaluation").glob("prompts-*.mp4"))
    assert found, f"{folder} shows no samples"
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in found)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_arm_trains_at_the_planned_cost_and_comes_to_figures_of_its_own(name: str, root: Path) -> None:
    config = tiny(name, root)
    for job in prepared(config):
        run(small(job))
    runs = plan(config, with_vae)
    own: dict[tuple[float, str], Config] = {}
    for one in runs:
        run(one.job.needs[0] if one.job.needs else one.job)
        assert newest_step(one.folder) == one.steps == STEPS, one.arm
        assert json.loads((one.folder / "cost.json").read_text())["flop"] == STEPS * one.flop_per_step, one.arm
        saved = load_run_config(one.folder)
        told = {key: saved[key] for key in saved if key not in ("run", "trainer")}  # how long weights are averaged shows after more steps
        assert own.setdefault(learnt(one.folder), told) == told, f"{one.arm} learns what another arm does: its overrides have no effect"
    sharing = [one for one in runs if sum(other.folder == one.folder for other in runs) > 1]
    measured = [one for one in runs if one is runs[-1] or one in sharing]  # it takes three times as long as training
    for one in measured:
        run(one.job)
    drawn: dict[tuple[str, ...], str] = {}
    for one in sharing:
        other = drawn.setdefault(videos(one.job.folder), one.arm)
        assert other == one.arm, f"{one.arm} is measured as {other} is: its overrides of the evaluation have no effect"
    for arm, found in gathered(config, measured, {}, "", 0.0)["arms"].items():
        assert set(found["runs"][0]["values"]) == set(measures(config)), f"{arm}: a measure has no finite value"
