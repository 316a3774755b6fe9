"""A job is done once, goes on where it stopped, and says why it failed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ablation.jobs import Job, JobError, run

WORK = """
import os, pathlib, sys
folder, number = pathlib.Path(sys.argv[1]), sys.argv[2]
print("says", number, "with", os.environ.get("OMP_NUM_THREADS"))
if number == "bad":
    print("the cause of it all", file=sys.stderr)
    sys.exit(3)
with open(folder / "calls", "a") as file:
    file.write(number)
(folder / "result.json").write_text("{}")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "work.py"
    path.write_text(WORK)
    return str(path)


def job(folder: Path, script: str, *numbers: str) -> Job:
    return Job("a job", folder / "run", "result.json", tuple((script, str(folder / "run"), number) for number in numbers))


def test_commands_run_in_order_once(tmp_path: Path, script: str) -> None:
    one = job(tmp_path, script, "1", "2")
    assert not one.done
    for _ in range(2):
        run(one, threads=1)
    assert (one.folder / "calls").read_text() == "12"
    assert "says 1 with 1" in one.log.read_text()
    assert one.done


def test_other_commands_are_another_job(tmp_path: Path, script: str) -> None:
    run(job(tmp_path, script, "1"))
    other = job(tmp_path, script, "1", "2")
    assert not other.done
    run(other)
    assert (other.folder / "calls").read_text() == "112"


def test_without_its_result_nothing_is_done(tmp_path: Path, script: str) -> None:
    one = job(tmp_path, script, "1")
    run(one)
    (one.folder / "result.json").unlink()
    assert not one.done
    (one.folder / "result.json").write_text("{}")
    assert one.done
    (one.folder / "result.json").write_text('{"measured": "otherwise"}')
    assert not one.done, "somebody else's result"
    (one.folder / "result.json").write_text("{}")
    (one.folder / "done.json").write_text("[[cut")
    assert not one.done


def test_a_failure_names_the_job_the_command_and_what_it_said_and_is_not_done(tmp_path: Path, script: str) -> None:
    bad = job(tmp_path, script, "1", "bad", "2")
    with pytest.raises(
        JobError, match=r"(?s)^a job failed: the cause of it all\n  python .*work\.py .* bad ended with exit code 3\n.*says bad.*log\.txt"
    ):
        run(bad)
    assert not bad.done
    assert (bad.folder / "calls").read_text() == "1", "nothing runs after a command that failed"


def test_a_folder_that_another_process_works_in_is_waited_for(tmp_path: Path, script: str) -> None:
    one = job(tmp_path, script, "1")
    one.folder.mkdir()
    assert not one.running
    with held(one):
        assert one.running
        waiting = threading.Thread(target=run, args=(one,))
        waiting.start()
        time.sleep(0.3)
        assert not (one.folder / "calls").exists(), "it has not waited"
    waiting.join(timeout=30)
    assert one.done
    assert not one.running


def test_who_waits_can_be_told_to_stop(tmp_path: Path, script: str) -> None:
    one = job(tmp_path, script, "1")
    one.folder.mkdir()
    answers = iter([False, True])
    with held(one):
        run(one, stopped=lambda: next(answers))
    assert not one.done


def test_a_command_that_outlives_whoever_started_it_still_holds_the_job(tmp_path: Path) -> None:
    """As after kill -9 of scripts/ablate.py: a second start must not work in the same folder."""
    script = tmp_path / "long.py"
    script.write_text("import sys; open(sys.argv[1] + '/begun', 'w'); sys.stdin.read()")
    one = Job("a job", tmp_path / "run", "none", ((str(script), str(tmp_path / "run")),))
    call = f"from pathlib import Path; from ablation.jobs import Job, run; run(Job('a', Path({str(one.folder)!r}), 'none', {one.commands!r}))"
    starter = subprocess.Popen([sys.executable, "-c", call], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for((one.folder / "begun").exists)
    starter.kill()
    starter.wait()
    assert one.running
    assert starter.stdin is not None
    starter.stdin.close()
    wait_for(lambda: not one.running)


def test_two_starts_of_one_job_do_its_work_once(tmp_path: Path, script: str) -> None:
    one = job(tmp_path, script, "1", "2")
    both = [threading.Thread(target=run, args=(one,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(timeout=30)
    assert (one.folder / "calls").read_text() == "12"


def test_work_that_comes_to_the_same_is_the_same_however_it_is_written(tmp_path: Path, script: str) -> None:
    first, second = (replace(job(tmp_path, script, *numbers), work="alike") for numbers in ("12", "21"))
    run(first)
    assert second.done
    assert not replace(second, work="unlike").done


def test_what_several_jobs_need_is_done_first_and_once(tmp_path: Path, script: str) -> None:
    need = job(tmp_path, script, "1")
    both = [Job(name, tmp_path / name, "result.json", ((script, str(tmp_path / name), name),), needs=(need,)) for name in "ab"]
    for one in both:
        one.folder.mkdir()
        run(one)
        assert one.done
    assert (need.folder / "calls").read_text() == "1"
    with held(need):
        assert both[0].running


def test_what_is_made_again_makes_undone_what_needed_it(tmp_path: Path, script: str) -> None:
    need = job(tmp_path, script, "1")
    one = Job("b", tmp_path / "b", "result.json", ((script, str(tmp_path / "b"), "2"),), needs=(need,))
    one.folder.mkdir()
    run(one)
    assert one.done
    (need.folder / "result.json").write_text('{"trained": "again"}')
    assert not one.done, "what it needs is no longer done"
    need.note.write_text(json.dumps(need._facts()))
    assert need.done
    assert not one.done, "it measured what was there before"
    run(one)
    assert (one.folder / "calls").read_text() == "22"


def test_what_needs_a_job_that_failed_is_not_tried(tmp_path: Path, script: str) -> None:
    one = replace(job(tmp_path / "other", script, "1"), needs=(replace(job(tmp_path, script, "bad"), name="what it needs"),))
    with pytest.raises(JobError, match=r"^what it needs failed: the cause of it all"):
        run(one)
    assert not one.folder.exists()


@contextmanager
def held(one: Job) -> Iterator[None]:
    """Another process has the job."""
    hold = f"import fcntl, sys; f = open({str(one.lock)!r}, 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.05)


def test_notes_may_lie_elsewhere_for_a_command_that_wants_a_folder_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text("import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.mkdir(); (f / 'result.json').write_text('{}')")
    one = Job("a job", tmp_path / "new", "result.json", ((str(script), str(tmp_path / "new")),), tmp_path / "made" / "it")
    for _ in range(2):
        run(one)
    assert [path.name for path in one.folder.iterdir()] == ["result.json"]
    assert sorted(path.name for path in (tmp_path / "made" / "it").iterdir()) == ["done.json", "job.lock", "log.txt"]


def test_paths_are_relative_to_where_the_user_stands(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Job("a job", Path("run"), "result.json", ((script, "run", "1"),)))
    assert (tmp_path / "run" / "calls").read_text() == "1"


def test_commands_that_end_well_and_leave_nothing_have_failed(tmp_path: Path, script: str) -> None:
    one = Job("a job", tmp_path / "run", "another.json", ((script, str(tmp_path / "run"), "1"),))
    with pytest.raises(JobError, match=r"a job failed: its commands ended well and left no .*another\.json"):
        run(one)
    assert not one.note.exists()
