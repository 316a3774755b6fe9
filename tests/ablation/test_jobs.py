"""A job is done once, goes on where it stopped, and says why it failed."""

import fcntl
import subprocess
import sys
import threading
import time
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
    hold = f"import fcntl, sys; f = open({str(one.folder / 'run.lock')!r}, 'a+'); fcntl.lockf(f, {int(fcntl.LOCK_EX)})"
    held = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print('held', flush=True); sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert held.stdin is not None
    assert held.stdout is not None
    held.stdout.readline()
    assert one.running
    waiting = threading.Thread(target=run, args=(one,))
    waiting.start()
    time.sleep(0.3)
    assert not (one.folder / "calls").exists(), "it has not waited"
    held.communicate()
    waiting.join(timeout=30)
    assert one.done


def test_notes_may_lie_elsewhere_for_a_command_that_wants_a_folder_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text("import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.mkdir(); (f / 'result.json').write_text('{}')")
    one = Job("a job", tmp_path / "new", "result.json", ((str(script), str(tmp_path / "new")),), tmp_path / "made" / "it")
    for _ in range(2):
        run(one)
    assert [path.name for path in one.folder.iterdir()] == ["result.json"]
    assert sorted(path.name for path in (tmp_path / "made" / "it").iterdir()) == ["done.json", "log.txt"]


def test_paths_are_relative_to_where_the_user_stands(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Job("a job", Path("run"), "result.json", ((script, "run", "1"),)))
    assert (tmp_path / "run" / "calls").read_text() == "1"


def test_commands_that_end_well_and_leave_nothing_have_failed(tmp_path: Path, script: str) -> None:
    one = Job("a job", tmp_path / "run", "another.json", ((script, str(tmp_path / "run"), "1"),))
    with pytest.raises(JobError, match=r"a job failed: its commands ended well and left no .*another\.json"):
        run(one)
    assert not one.note.exists()
