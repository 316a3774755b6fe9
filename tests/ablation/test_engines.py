"""However jobs are run, all are run, no more at a time than asked for, and none after a stop."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import ablation.engines
import ablation.watch
from ablation.engines import Engine, Local, Ray, Slurm, run_there
from ablation.jobs import Job, JobError
from ablation.watch import work
from runtime.preemption import StopRequest

WORK = """
import pathlib, signal, sys, time
folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])

def save(*_):
    time.sleep(2)  # longer than submitit's local form lets a process live that was cancelled
    (folder / "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
(folder / "begun").write_text(str(time.time()))
if (folder / "saved").exists():
    seconds = 0  # it goes on, and is nearly there
if seconds < 0:
    time.sleep(-seconds)
    sys.exit("this one cannot")
time.sleep(seconds)
(folder / "ended").write_text(str(time.time()))
"""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.watch, "LOOK_S", 0.02)


@pytest.fixture
def jobs(tmp_path: Path) -> Callable[..., list[Job]]:
    script = tmp_path / "work.py"
    script.write_text(WORK)

    def make(*seconds: float) -> list[Job]:
        folders = [tmp_path / f"run-{number}" for number in range(len(seconds))]
        return [Job(folder.name, folder, "ended", ((str(script), str(folder), str(long)),)) for folder, long in zip(folders, seconds, strict=True)]

    return make


def spans(jobs: list[Job]) -> list[tuple[float, float]]:
    return [(float((job.folder / "begun").read_text()), float((job.folder / "ended").read_text())) for job in jobs]


def test_no_more_processes_run_at_a_time_than_asked_for(jobs) -> None:
    these = jobs(0.3, 0.3, 0.3, 0.3)
    assert work(Local(processes=2, threads=1), these, StopRequest()) == {}
    overlap = [sum(begun <= at < ended for begun, ended in spans(these)) for at, _ in spans(these)]
    assert max(overlap) == 2


def test_one_that_fails_is_told_at_once_and_holds_nothing_up(jobs, capsys) -> None:
    these, told = jobs(-0.1, 0, 0), list[set[str]]()
    errors = work(Local(processes=1, threads=1), these, StopRequest(), lambda errors: told.append(set(errors)))
    assert set(errors) == {"run-0"}
    assert "this one cannot" in errors["run-0"]
    assert told[0] == {"run-0"}
    assert [job.done for job in these] == [False, True, True]
    out = capsys.readouterr().out
    assert out.index("run-0 failed: this one cannot") < out.index("2 of 3 done, 1 failed")


def test_when_the_first_three_fail_and_none_was_done_the_others_are_not_tried(jobs, capsys) -> None:
    these = jobs(-0.1, -0.1, -0.1, 60, 60)
    assert set(work(Local(processes=1, threads=1), these, StopRequest())) == {"run-0", "run-1", "run-2"}
    assert "the first 3 failed and none was done: the other 2 are not tried" in capsys.readouterr().out
    assert not these[4].done


def test_three_failures_after_a_success_hold_nothing_up(jobs) -> None:
    these = jobs(0, -0.1, -0.1, -0.1, 0.5)
    assert len(work(Local(processes=1, threads=1), these, StopRequest())) == 3
    assert these[4].done


def test_what_is_done_is_not_started(jobs) -> None:
    these = jobs(0, 0)
    work(Local(processes=2, threads=1), these, StopRequest())
    before = spans(these)
    (these[1].folder / "ended").unlink()
    work(Local(processes=2, threads=1), these, StopRequest())
    assert spans(these)[0] == before[0]
    assert spans(these)[1] != before[1]


def sharing(trainings: Sequence[Job], *arms: float) -> list[Job]:
    """For each of them a job for each arm that needs it, arms innermost; of so many seconds."""
    made = []
    for number, need in enumerate(trainings):
        for arm, long in enumerate(arms):
            folder = need.folder.parent / f"arm-{number}-{arm}"
            ((script, *_),) = need.commands
            made.append(Job(folder.name, folder, "ended", ((script, str(folder), str(long)),), needs=(replace(need, name=f"for {arm}"),)))
            folder.mkdir()
    return made


def test_no_place_stands_idle_while_arms_share_a_training(jobs) -> None:
    trainings = jobs(0.5, 0.5)
    assert work(Local(processes=2, threads=1), sharing(trainings, 0, 0, 0), StopRequest()) == {}
    (begun, ended), (other_begun, other_ended) = spans(trainings)
    assert max(begun, other_begun) < min(ended, other_ended), "one waited for the other"


def test_a_training_that_failed_is_not_tried_again_for_another_arm(jobs) -> None:
    failing, fine = trainings = jobs(-0.1, 0)
    these = sharing(trainings, 0, 0, 0, 0)
    errors = work(Local(processes=1, threads=1), these, StopRequest())
    assert set(errors) == {"arm-0-0", "arm-0-1", "arm-0-2", "arm-0-3"}
    assert all("this one cannot" in error for error in errors.values())
    assert failing.log.read_text().count("$ python") == 1
    assert fine.done
    assert all(job.done for job in these[4:])


def test_two_starts_at_once_share_the_work(jobs) -> None:
    these = jobs(0.4, 0.4, 0.4, 0.4)
    starts = [threading.Thread(target=work, args=(Local(processes=1, threads=1), these, StopRequest())) for _ in range(2)]
    for start in starts:
        start.start()
        time.sleep(0.15)  # the first is at the first job
    for start in starts:
        start.join(timeout=60)
    assert all(job.log.read_text().count("$ python") == 1 for job in these)
    overlap = [sum(begun <= at < ended for begun, ended in spans(these)) for at, _ in spans(these)]
    assert max(overlap) == 2, "one only waited for the other"


def test_asked_to_stop_runs_save_and_none_begins(jobs) -> None:
    these, stop = jobs(60, 60, 60), StopRequest()
    engine = Local(processes=2, threads=1)

    class Later(Local):
        """Asks for the stop when two have begun."""

        def start(self, jobs):
            handles = engine.start(jobs)
            while sum((job.folder / "begun").exists() for job in these) < 2:
                time.sleep(0.05)
            stop.code = 143
            return handles

        def stop(self) -> None:
            engine.stop()

    begun = time.monotonic()
    with pytest.raises(SystemExit) as error:
        work(Later(processes=2, threads=1), these, stop)
    assert error.value.code == 143
    assert time.monotonic() - begun < 30
    assert [(job.folder / "saved").exists() for job in these] == [True, True, False]
    assert not (these[2].folder / "begun").exists()


@pytest.mark.parametrize(("key", "engine"), [("processes", lambda: Local(0, 1)), ("threads", lambda: Local(1, 0))])
def test_an_engine_that_runs_nothing_is_refused(key: str, engine: Callable[[], Engine]) -> None:
    with pytest.raises(ValueError, match=rf"{key}=0.*engine\.{key}"):
        engine()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scheduler_ends_a_run_by_a_signal_when_it_has_saved(jobs, tmp_path: Path, monkeypatch, number: signal.Signals) -> None:
    monkeypatch.chdir(tmp_path)
    (one,) = jobs(60)

    def ask() -> None:
        while not (one.folder / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with pytest.raises(JobError, match=rf"^run-0 failed: stopped by signal {int(number)}; the same command goes on from there$"):
        run_there(str(tmp_path), one, threads=1)
    asking.join()
    assert (one.folder / "saved").exists()
    assert not one.running
    run_there(str(tmp_path), one, threads=1)
    assert one.done


def cluster(name: str, folder: Path) -> Engine:
    """An engine of a cluster, in its own local form."""
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}[name], reason=f"the extra [{name}] is not installed")
    own = {"folder": str(folder / "submitit"), "cluster": "local", "parallel": 2, "cpus": 1, "gpus": 0, "memory_gb": 1, "minutes": 2}
    return Slurm(**own, parameters={}) if name == "slurm" else Ray(address=None, cpus=1, gpus=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_clusters_run_the_same_jobs(jobs, tmp_path: Path, name: str) -> None:
    """A failed job carries its message home."""
    these = jobs(0, 0.2, -0.1)
    errors = work(cluster(name, tmp_path), these, StopRequest())
    assert [job.done for job in these] == [True, True, False]
    assert "this one cannot" in errors["run-2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_stop_of_a_cluster_ends_its_runs_when_they_have_saved_and_they_go_on(jobs, tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.setattr(ablation.engines, "PATIENCE_S", 30.0)
    these, stop = jobs(90, 90), StopRequest()

    def ask() -> None:
        deadline = time.monotonic() + 60
        while not all((job.folder / "begun").exists() for job in these) and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.code = 143

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(SystemExit):
        work(cluster(name, tmp_path), these, stop)
    asking.join()
    assert [(job.folder / "saved").exists() for job in these] == [True, True]
    assert not any(job.running or job.done for job in these)
    assert work(cluster(name, tmp_path), these, StopRequest()) == {}
    assert all(job.done for job in these)


def test_a_cluster_without_its_package_names_the_extra(jobs, monkeypatch) -> None:
    for module, engine in (("submitit", Slurm("x", "slurm", 1, 1, 0, 1, 1, {})), ("ray", Ray(None, 1, 0))):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"needs {module}.*pip install.*\[{'slurm' if module == 'submitit' else 'ray'}\]"):
            engine.start(jobs(0))
