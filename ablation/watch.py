"""Waiting for jobs in public: failures at once, a line now and then, and an orderly end when asked to stop."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ablation.engines import Engine, Handle
from ablation.jobs import Job
from ablation.results import newest_step
from runtime.preemption import StopRequest

LOOK_S = 0.5
TOLD_S = 30.0  # between two lines while nothing ends
SHOWN = 4  # jobs under way that a line names
HOPELESS = 3  # so many failures and no success: the cause is in what all jobs share


def work(engine: Engine, jobs: Sequence[Job], stop: StopRequest, ended: Callable[[Mapping[str, str]], object] = lambda _: None) -> dict[str, str]:
    """Have an engine do what is not done yet. A failed job does not hold up the others, unless the first three fail and none was ever done.

    Args:
        jobs: of different names.
        ended: is told why jobs failed, each time that one has ended.
    Returns: why jobs failed, by their names.
    Raises: SystemExit if asked to stop, when every run has saved.
    """
    errors: dict[str, str] = {}
    left = _spread([job for job in jobs if not job.done])
    waiting = {job.name: job for job in left}
    told = time.monotonic()
    try:
        handles = dict(zip(waiting, engine.start(left) if left else [], strict=True))
        while waiting:
            time.sleep(LOOK_S)
            if stop.code is not None:
                print("asked to stop: runs save and end; the same command goes on from here", flush=True)
                raise SystemExit(stop.code)
            over = [name for name in waiting if handles[name].done()]
            for name in over:
                del waiting[name]
                failure = _why(handles[name])
                if failure is not None:
                    errors[name] = failure
                    print(failure, flush=True)
            if over:
                ended(errors)
            if len(errors) == len(jobs) - len(waiting) >= HOPELESS and waiting:
                print(f"the first {len(errors)} failed and none was done: the other {len(waiting)} are not tried", flush=True)
                return errors
            if over or time.monotonic() - told > TOLD_S:
                told = time.monotonic()
                print(_state(len(jobs), waiting, errors), flush=True)
    finally:
        engine.stop()
    return errors


def _spread(jobs: Sequence[Job]) -> list[Job]:
    """Jobs that need what an earlier one makes come last, so that no place stands idle to wait for it."""
    made: set[Path] = set()
    first, last = [], []
    for job in jobs:
        needed = {need.lock for need in job.needs if not need.done}
        (last if needed & made else first).append(job)
        made |= needed
    return first + last


def _why(handle: Handle) -> str | None:
    error = handle.exception()
    return None if error is None else str(error) or type(error).__name__


def _state(count: int, waiting: Mapping[str, Job], errors: Mapping[str, str]) -> str:
    """How far all are, in a line."""
    under_way = [f"{name} at step {newest_step((*job.needs, job)[0].folder)}" for name, job in waiting.items() if job.running]
    failed = f", {len(errors)} failed" if errors else ""
    more = f" and {len(under_way) - SHOWN} more" if len(under_way) > SHOWN else ""
    return f"{count - len(waiting) - len(errors)} of {count} done{failed}" + (f"; {', '.join(under_way[:SHOWN])}{more}" if under_way else "")
