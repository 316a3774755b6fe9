import json
import sys
import threading
import time
import types

import pytest

from runtime.tracking import Journal, NoTracker, Wandb, read_journal


def test_a_journal_is_cut_back_to_the_step_the_run_goes_on_from(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Journal(path, 0) as journal:
        for step in range(1, 6):
            journal.write({"kind": "train", "step": step, "loss": 1 / step})
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')  # a crash in the middle of a line
    with Journal(path, 3) as journal:
        journal.write({"kind": "train", "step": 4, "loss": 9.0})
    assert [(row["step"], row["loss"]) for row in read_journal(path)] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 9.0)]


def test_a_fresh_start_forgets_the_rows_of_a_start_that_saved_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Journal(path, 0) as journal:
        journal.write({"step": 1})
    with Journal(path, 0):
        assert read_journal(path) == []


def test_numbers_that_json_lacks_become_text(tmp_path):
    with Journal(tmp_path / "m", 0) as journal:
        journal.write({"step": 1, "loss": float("nan"), "norm": float("inf"), "lr": -0.5})
    assert read_journal(tmp_path / "m") == [{"step": 1, "loss": "nan", "norm": "inf", "lr": -0.5}]


def fake_wandb(monkeypatch, init):
    module = types.ModuleType("wandb")
    module.Settings = lambda **settings: settings
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)


def use(tracker, tmp_path, rows=3):
    began = time.monotonic()
    tracker.start(tmp_path, {"seed": 1})
    for step in range(rows):
        tracker.log({"kind": "train", "step": step, "loss": 0.5, "what": "text"})
    logged = time.monotonic() - began
    tracker.finish()
    return logged, time.monotonic() - began


def raises(**_):
    raise SystemExit("no network")


def test_wandb_that_fails_costs_a_line(tmp_path, monkeypatch, capsys):
    fake_wandb(monkeypatch, raises)
    logged, _ = use(Wandb("p", "offline", 5.0), tmp_path)
    assert logged < 1.0
    assert "wandb: SystemExit: no network; metrics.jsonl has every figure" in capsys.readouterr().err


def test_wandb_that_hangs_costs_its_patience_once_and_training_nothing(tmp_path, monkeypatch, capsys):
    release = threading.Event()
    fake_wandb(monkeypatch, lambda **_: release.wait(30))
    logged, whole = use(Wandb("p", "online", 0.3), tmp_path, rows=20_000)  # more rows than wait in line
    assert logged < 2.0
    assert whole < 4.0
    assert "did not finish within 0.3 s" in capsys.readouterr().err
    release.set()


def test_wandb_that_is_not_installed_costs_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    use(Wandb("p", "offline", 5.0), tmp_path)
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_wandb_gets_numbers_by_kind_and_step(tmp_path, monkeypatch):
    got = []
    session = types.SimpleNamespace(log=lambda row, step: got.append((row, step)), finish=lambda: got.append("closed"))
    fake_wandb(monkeypatch, lambda **_: session)
    use(Wandb("p", "offline", 5.0), tmp_path, rows=1)
    assert got == [({"train/step": 0, "train/loss": 0.5}, 0), "closed"]


@pytest.mark.slow
def test_real_wandb_writes_inside_the_run(tmp_path):
    use(Wandb("p", "offline", 60.0), tmp_path)
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_no_tracker_does_nothing(tmp_path):
    use(NoTracker(), tmp_path)
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == "[]"
