"""Figures are read from what runs left, by name; a run that failed has none."""

import json
from dataclasses import replace
from pathlib import Path

from ablation.jobs import Job
from ablation.plan import Run
from ablation.results import gathered, newest_step
from runtime.config import Config


def made(folder: Path, loss: float, following: float, done: bool = True) -> Job:
    job = Job(folder.name, folder, "evaluation.json", (("train.py", f"run={folder}"),))
    folder.mkdir(parents=True)
    rows = [{"kind": "train", "step": 10, "loss": 9.0}, {"kind": "val", "step": 10, "loss": loss + 1}, {"kind": "val", "step": 20, "loss": loss}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "val", "step": 30, "lo')
    (folder / "cost.json").write_text(json.dumps({"flop": 200, "time_s": 4.5}))
    (folder / "evaluation.json").write_text(json.dumps({"prompt_following": {"all": {"value": following}}}))
    if done:
        (folder / "done.json").write_text(json.dumps(job._facts() | {"on": "a machine" if loss < 1 else "another"}))
    return job


def config() -> Config:
    own = {"better": "lower", "smallest": None, "share": False, "deviation": None}
    measures = {
        "loss": own | {"label": "loss", "from": "validation", "key": "loss"},
        "following": own | {"label": "following", "from": "evaluation", "key": "prompt_following.all.value"},
        "absent": own | {"label": "absent", "from": "evaluation", "key": "prompt_following.some.value"},
        "dropped": None,
    }
    budget = {"flop": None, "steps": 20, "seconds": None}
    ablation = {"name": "n", "question": "q", "baseline": "a", "arms": {"a": [], "b": ["x=1"]}, "measures": measures, "budget": budget, "seeds": 2}
    return {"ablation": ablation, "seeds": None, "budget": {"flop": None, "steps": None, "seconds": None}, "only": None}


def test_runs_are_gathered_by_arm_and_seed_whatever_their_order(tmp_path: Path) -> None:
    runs = [
        Run(arm, seed, made(tmp_path / f"{arm}{seed}", seed, 0.5), tmp_path / f"{arm}{seed}", 20, 10, 7)
        for seed, arm in ((1, "b"), (0, "b"), (1, "a"), (0, "a"))
    ]
    found = gathered(config(), runs, {}, "command", 3.14159)
    assert list(found["arms"]) == ["a", "b"]
    assert [run["seed"] for run in found["arms"]["b"]["runs"]] == [0, 1]
    assert found["arms"]["b"]["runs"][1] == {
        "seed": 1,
        "run": str(tmp_path / "b1"),
        "measured": str(tmp_path / "b1"),
        "values": {"loss": 1.0, "following": 0.5},  # the last validation that was written to its end; what is not there is left out
        "flop": 200,
        "seconds": 4.5,
        "error": None,
    }
    assert found["arms"]["b"] | {"runs": []} == {"overrides": ["x=1"], "steps": 20, "flop_per_step": 10, "parameters": 7, "runs": []}
    assert found["machines"] == ["a machine", "another"]
    assert list(found["measures"]) == ["loss", "following", "absent"]
    assert found["budget"] == {"flop": None, "steps": 20, "seconds": None}
    json.dumps(found, allow_nan=False)


def test_an_arm_may_be_trained_on_one_machine_measured_on_another_and_changed_in_either(tmp_path: Path) -> None:
    given = config()
    given["ablation"]["arms"]["b"] = {"train": ["x=1"], "evaluate": ["steps=4"]}
    training = made(tmp_path / "b0", 2.0, 0.5)
    job = replace(made(tmp_path / "b0" / "measured-a", 0.3, 0.5), needs=(training,))
    job.note.write_text(json.dumps(job._facts() | {"on": "a machine"}))
    found = gathered(given, [Run("b", 0, job, training.folder, 20, 10, 7)], {}, "command", 1)
    assert found["machines"] == ["a machine", "another"]
    assert found["arms"]["b"]["overrides"] == ["x=1", "evaluate: steps=4"]


def test_what_is_not_done_is_left_out_and_what_failed_is_named_without_figures(tmp_path: Path) -> None:
    jobs = [made(tmp_path / "a0", 0.1, 0.2), made(tmp_path / "a1", 0.1, 0.2, done=False), made(tmp_path / "a2", 0.1, 0.2, done=False)]
    runs = [Run("a", seed, job, job.folder, 20, 10, 7) for seed, job in enumerate(jobs)]
    found = gathered(config(), runs, {"a2": "Job 7 of a cluster\n a2 failed: it broke\n  a long log"}, "command", 1)
    assert [(run["seed"], run["error"], bool(run["values"])) for run in found["arms"]["a"]["runs"]] == [(0, None, True), (2, "it broke", False)]


def test_the_newest_step_passes_over_a_line_that_is_being_written(tmp_path: Path) -> None:
    made(tmp_path / "a", 0.1, 0.2)
    assert newest_step(tmp_path / "a") == 20
    assert newest_step(tmp_path / "none") == 0


def test_what_is_no_number_is_no_figure(tmp_path: Path) -> None:
    jobs = [made(tmp_path / "a0", float("nan"), 0.2), made(tmp_path / "a1", float("inf"), 0.2)]
    found = gathered(config(), [Run("a", seed, job, job.folder, 20, 10, 7) for seed, job in enumerate(jobs)], {}, "command", 1)
    assert [run["values"] for run in found["arms"]["a"]["runs"]] == [{"following": 0.2}] * 2
    json.dumps(found, allow_nan=False)
