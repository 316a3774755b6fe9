"""scripts/rate_distortion.py: equal training FLOP for every arm, nothing done twice, and a page from raw figures."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ablation.jobs import Job
from ablation.plan import step_cost
from runtime.config import Config, ConfigError, compose

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "rate_distortion.py"), run_name="rate_distortion")


def config(*overrides: str) -> Config:
    return compose("rate_distortion", list(overrides)) | {"peers": {}}


def test_every_shipped_arm_spends_the_same_training_flop_to_within_one_step(script: dict) -> None:
    given = config()
    jobs = script["plan"](given)
    assert {job.arm for job in jobs} == set(given["arms"])
    for job in jobs:
        budget = 1e12 * given["budget_tflop"]
        assert budget - job.flop_per_step < job.steps * job.flop_per_step <= budget, job.arm
        assert f"trainer.max_steps={job.steps}" in job.job.commands[0]
    # Arms that cost unlike amounts take unlike numbers of steps.
    assert max(job.steps for job in jobs) > 2 * min(job.steps for job in jobs)


def test_a_step_costs_what_the_trainer_will_bill() -> None:
    """By hand: three forward passes of every crop."""
    from runtime.build import build

    overrides = ["experiment=rate_distortion", "data.batch_size=3", "objective.vae.latent_channels=4"]
    vae = build(compose("train", ["run=x", *overrides])["objective"]["vae"])
    assert step_cost(overrides)[0] == 3 * 3 * sum(vae.flops(17, 32, 32).values())
    assert step_cost([*overrides, "data.crop.size=64"])[0] == 3 * 3 * sum(vae.flops(17, 64, 64).values())


def test_peers_learn_at_the_size_they_are_measured_at_with_as_many_pixels_a_step_under_two_rates() -> None:
    given = compose("rate_distortion", [])
    rates: dict[str, list[str]] = {}
    for name, overrides in given["peers"].items():
        data = compose("train", ["run=x", *given["common"], *overrides[1:]])["data"]
        width = overrides[0].removeprefix("objective.vae.base_dim=")
        assert data["crop"]["size"] == data["shape"]["height"] == data["shape"]["width"], name
        assert data["batch_size"] * data["crop"]["size"] ** 2 == 8 * 32**2, name
        rates.setdefault(width, []).append(overrides[-1])
    assert {width: len(set(own)) for width, own in rates.items()} == {"4": 2}


def test_seeds_are_paired_and_folders_distinct(script: dict) -> None:
    jobs = script["plan"](config("seeds=[3,4]", "only=[world c4,8x8x8 c32]"))
    assert len({job.job.folder for job in jobs}) == len(jobs)
    by_arm = {job.arm: [other for other in jobs if other.arm == job.arm] for job in jobs}
    for own in by_arm.values():
        assert ["seed=3" in job.job.commands[0] for job in own] == [True, False]
        assert own[0].steps == own[1].steps


def test_what_cannot_be_measured_is_refused(script: dict) -> None:
    for changed, words in (
        ({"budget_tflop": 0}, "budget_tflop=0"),
        ({"arms": {}}, "got 0 arms"),
        ({"peers": config()["arms"]}, "an arm and a peer"),
        ({"only": ["x"]}, "not a choice"),
    ):
        with pytest.raises(ConfigError, match=words):
            script["check"](config() | changed)
    with pytest.raises(ConfigError, match="holds no figures"):
        script["read"](Path("/nowhere.json"))


def start(script: dict, monkeypatch: pytest.MonkeyPatch, given: Config, installed: bool = False) -> tuple[list[str], list[str]]:
    """trained() where every job is done the moment it is started: the folders that were, and the arms that stay on the page."""
    names, begun = script["trained"].__globals__, []

    def cost(overrides: list[str]) -> tuple[int, int]:
        assert not begun, "planned after something was trained"
        if "objective/vae=wan" in overrides and not installed:
            raise ImportError("needs diffusers")
        return 10**11, 1

    def work(_engine: object, jobs: list[Job], _stop: object) -> dict[str, str]:
        begun.extend(job.name for job in jobs if not job.done)
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            job.note.parent.mkdir(parents=True, exist_ok=True)
            (job.folder / job.result).write_text("{}")
            job.note.write_text(json.dumps(job._facts()))
        return {}

    for name, stub in (("step_cost", cost), ("work", work), ("gathered", lambda runs, _: [run.arm for run in runs])):
        monkeypatch.setitem(names, name, stub)
    kept = script["trained"](given)
    return begun, list(dict.fromkeys(kept))


def test_an_extra_that_is_missing_is_told_before_training_and_costs_other_arms_nothing(
    script: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = compose("rate_distortion", [f"out={tmp_path}/out", "only=[world c4]"])
    peer = next(iter(given["peers"]))
    begun, kept = start(script, monkeypatch, given)
    assert (len(begun), kept) == (2, ["world c4"]), "the world and one run"
    assert f"{peer} is not on the page: needs diffusers" in capsys.readouterr().out
    with pytest.raises(ImportError, match="needs diffusers"):
        start(script, monkeypatch, given | {"only": [peer]})
    assert start(script, monkeypatch, given | {"only": [peer]}, installed=True)[1] == ["world c4", peer]


def test_an_arm_stays_on_the_page_only_with_every_seed(script: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = compose("rate_distortion", [f"out={tmp_path}/out", "only=[world c4]"])
    assert start(script, monkeypatch, given)[1] == ["world c4"]
    assert start(script, monkeypatch, given | {"only": ["world c8"]})[1] == ["world c4", "world c8"]
    assert start(script, monkeypatch, given | {"only": ["world c8"], "seeds": [0, 1]})[1] == ["world c8"], "of the other one seed is not done"


@pytest.mark.slow
def test_the_command_fills_a_page_and_started_again_trains_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- rate-distortion -->\n<!-- end rate-distortion -->\nafter\n")
    command = [sys.executable, "scripts/rate_distortion.py", f"out={tmp_path / 'out'}", f"raw={tmp_path / 'raw.json'}", f"page={page}", "clips=3"]
    command += ["world=['difficulty=standard','clips=16','val=4','heldout=3']", "budget_tflop=0.08", "ours=['optim=adamw']"]
    command += ["only=[world c4,8x8x8 c32]"]

    def run(*more: str) -> str:
        done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
        return done.stdout

    assert "2 of 2 done" in run()
    trained = {log: log.read_text().count("$ python train.py") for log in (tmp_path / "out").glob("*seed-0/log.txt")}
    assert list(trained.values()) == [1, 1]
    text = page.read_text()
    assert (text.count("| 4x8x8 |"), text.count("| 8x8x8 |")) == (1, 1)
    assert text.startswith("before\n<!-- rate-distortion -->\n`python scripts/rate_distortion.py")
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert all(0.06e12 < arm["training_flop"] <= 0.08e12 for arm in raw["arms"])
    run()
    assert {log: log.read_text().count("$ python train.py") for log in trained} == trained
    run("only=[world c4]")
    text = page.read_text()
    assert text.count("| 8x8x8 |") == 1, "an arm that was done left the page"
    page.write_text("<!-- rate-distortion -->\nspoilt\n<!-- end rate-distortion -->\n")
    run("train=false")
    assert page.read_text() == text.removeprefix("before\n").removesuffix("after\n")
