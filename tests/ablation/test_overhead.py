"""Laws of the runner's cost: a slot is empty only while a job waits for it, and every figure of the table is a sum of raw ones."""

import os
from pathlib import Path

import pytest

from ablation.overhead import idle, spans, table


def test_slots_are_empty_between_an_end_and_the_next_beginning_and_not_before_or_after() -> None:
    assert idle([(0, 10), (2, 12), (10.5, 20), (13, 30)], slots=2) == pytest.approx(0.5 + 1)
    assert idle([(0, 10), (10, 20), (20, 30)], slots=1) == 0
    assert idle([(0, 10), (5, 30)], slots=2) == 0, "a slot that is empty at the end has nothing to wait for"
    assert idle([(0, 10), (9.99, 20)], slots=1) == 0, "within what clocks of files can tell"
    with pytest.raises(ValueError, match=r"more than 1 jobs ran at a time\. Set slots"):
        idle([(0, 10), (5, 15)], slots=1)


def test_a_job_lasts_from_its_lock_to_its_note(tmp_path: Path) -> None:
    for name, begin, end in (("b", 20, 31), ("a/measured", 10, 12), ("a", 4, 10)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        for file, at in (("job.lock", begin), ("done.json", end)):
            (tmp_path / name / file).touch()
            os.utime(tmp_path / name / file, (at, at))
    assert spans(tmp_path) == [(4, 10), (10, 12), (20, 31)]


def test_the_table_is_made_of_the_raw_figures() -> None:
    raw = {"slots": 1, "plan": {"own_s": 4.0}, "whole": {"own_s": 5.0, "runs_s": 95.0}, "spans": [[0, 50], [51, 100]], "worked_s": 89.0}
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(raw).splitlines()]
    assert [row[1:] for row in lines[2:]] == [
        ["5.0 s", "5.0% of all"],
        ["4.0 s", "once"],
        ["1.0 s", "1.0% of all"],
        ["1.00 s", "1.0% of the slots' time"],
        ["5.0 s each", "10.1% of the jobs' time: theirs, not the runner's"],
    ]
    assert lines[0][1] == "2 jobs of 50 s, 1 at a time"
