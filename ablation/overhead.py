"""What the runner of an ablation costs beside the runs that it starts: its processor time, and slots that stand idle though jobs wait."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Raw = Mapping[str, Any]  # what scripts/bench_ablate.py measured
Span = tuple[float, float]


def spans(out: Path) -> list[Span]:
    """(taken by a slot, done) of every job below a folder that nothing lay in before, in seconds of the clock."""
    return sorted((lock.stat().st_mtime, (lock.parent / "done.json").stat().st_mtime) for lock in out.rglob("job.lock"))


def idle(jobs: Sequence[Span], slots: int) -> float:
    """Seconds that slots stood empty between two jobs, all slots together; before the first and after the last jobs nothing waits.

    Raises: ValueError if more jobs overlap than there are slots.
    """
    begun, ended = sorted(one for one, _ in jobs), sorted(other for _, other in jobs)
    waits = [begin - end for begin, end in zip(begun[slots:], ended, strict=False)]
    # A job is done in the same moment in which another begins: clocks of files tick every few milliseconds.
    if any(wait < -0.05 for wait in waits):
        raise ValueError(f"more than {slots} jobs ran at a time. Set slots to engine.processes.")
    return sum(max(0.0, wait) for wait in waits)


def table(raw: Raw) -> str:
    """Markdown, each share beside what it is a share of."""
    whole, jobs = raw["whole"], [(begin, end) for begin, end in raw["spans"]]
    taken, empty, work = sum(end - begin for begin, end in jobs), idle(jobs, raw["slots"]), whole["own_s"] + whole["runs_s"]
    growing = max(0.0, whole["own_s"] - raw["plan"]["own_s"])
    rows = [
        ("processor time of the runner", f"{whole['own_s']:.1f} s", f"{whole['own_s'] / work:.1%} of all"),
        ("of it before the first run: imports, every arm composed and counted", f"{raw['plan']['own_s']:.1f} s", "once"),
        ("of it while runs are watched, results gathered and pages written", f"{growing:.1f} s", f"{growing / work:.1%} of all"),
        ("slots empty while jobs waited", f"{empty:.2f} s", f"{empty / (taken + empty):.1%} of the slots' time"),
        ("start and end of a job's own process: imports, loading, saving", *_start(jobs, raw["worked_s"])),
    ]
    lines = [("", f"{len(jobs)} jobs of {median(end - begin for begin, end in jobs):.0f} s, {raw['slots']} at a time", "share"), ("---",) * 3, *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _start(jobs: Sequence[Span], worked_s: float) -> tuple[str, str]:
    """Of the time that jobs took, what they did not spend on training steps or on measuring."""
    taken = sum(end - begin for begin, end in jobs)
    return f"{(taken - worked_s) / len(jobs):.1f} s each", f"{(taken - worked_s) / taken:.1%} of the jobs' time: theirs, not the runner's"
