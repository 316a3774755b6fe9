"""Where jobs run: a few at a time on this machine, or all at once on machines that a scheduler hands out. An engine is a way to get futures."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from ablation.jobs import FAILED, Job, JobError, Process, run
from runtime.preemption import StopRequest

LOOK_S = 0.2  # between two looks whether a run of a cluster has ended
PATIENCE_S = 120.0  # for runs of a cluster to save


class Handle(Protocol):
    """What has become of a job; concurrent.futures.Future is one."""

    def done(self) -> bool: ...

    def exception(self) -> BaseException | None:
        """Why it failed, or None; asked for when it is done."""
        ...


class Engine(Protocol):
    """Runs jobs elsewhere: in another process at least."""

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        """Take all jobs on; returns at once."""
        ...

    def stop(self) -> None:
        """End what is under way and start nothing more; returns when nothing runs. Runs save first, and go on when started again."""
        ...


class Local:
    """Processes of this machine.

    Args:
        processes: that run at the same time.
        threads: of one operation in each; null: PyTorch's choice. processes x threads beyond the number of cores only take turns.
    """

    def __init__(self, processes: int, threads: int | None) -> None:
        if processes < 1 or (threads is not None and threads < 1):
            raise ValueError(f"processes={processes}, threads={threads} run nothing: at least 1 each. Set engine.processes, engine.threads.")
        self.processes, self.threads = processes, threads
        self._pool, self._lock, self._running, self._stopped = ThreadPoolExecutor(processes), threading.Lock(), list[Process](), False
        self._waiting, self._failed = dict[Job, Future[None]](), dict[Path, JobError]()

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        self._waiting = {job: Future() for job in jobs}
        handles = list(self._waiting.values())
        for _ in jobs:
            self._pool.submit(self._next)
        return handles

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()  # does nothing to one that has ended
        self._pool.shutdown(cancel_futures=True)

    def _next(self) -> None:
        """Do the first job that nobody else is at, here or in another start; where all are taken, wait for the first."""
        with self._lock:
            job = next((one for one in self._waiting if not one.running), next(iter(self._waiting)))
            handle = self._waiting.pop(job)
        try:
            for need in job.needs:
                if need.lock in self._failed:  # for another job, in this start
                    raise self._failed[need.lock]
            run(job, self.threads, self._started, lambda: self._stopped)
        except JobError as error:
            if error.lock is not None:
                self._failed[error.lock] = error
            handle.set_exception(error)
        except BaseException as error:  # whatever it was, whoever waits must hear of it
            handle.set_exception(error)
        else:
            handle.set_result(None)

    def _started(self, process: Process) -> None:
        with self._lock:
            self._running = [one for one in self._running if one.poll() is None] + [process]
            if self._stopped:
                process.terminate()


class Slurm:
    """One job of a SLURM cluster for each; all machines see the checkout and the output folder under the same path. Extra [slurm].

    Args:
        folder: submitit's own files.
        cluster: slurm; or local, which runs all jobs at once as processes of this machine.
        parallel: jobs that run at the same time.
        parameters: of submitit.AutoExecutor.update_parameters, without what is named here.
    """

    def __init__(
        self, folder: str, cluster: str, parallel: int, cpus: int, gpus: int, memory_gb: int, minutes: int, parameters: dict[str, Any]
    ) -> None:
        self.folder, self.cluster = folder, cluster
        own = {"cpus_per_task": cpus, "gpus_per_node": gpus, "mem_gb": memory_gb, "timeout_min": minutes}
        self.cpus, self.parameters = cpus, own | ({"slurm_array_parallelism": parallel} if cluster == "slurm" else {}) | parameters
        self._submitted: dict[Any, Job] = {}

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        executor = _module("submitit", "slurm").AutoExecutor(folder=self.folder, cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        with executor.batch():
            handles = [executor.submit(run_there, os.getcwd(), job, self.cpus) for job in jobs]
        self._submitted = dict(zip(handles, jobs, strict=True))
        return handles

    def stop(self) -> None:
        under_way = [handle for handle in self._submitted if not handle.done()]
        for handle in under_way:
            handle.cancel(check=False)  # SLURM may have forgotten it
        _saved([self._submitted[handle] for handle in under_way])


class Ray:
    """One task of a Ray cluster for each; all machines see the checkout and the output folder under the same path. Extra [ray].

    Args:
        address: of the cluster; null: one is started on this machine, and ended with the ablation.
        cpus, gpus: that a task takes; gpus may be a share.
    """

    def __init__(self, address: str | None, cpus: int, gpus: float) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self._submitted: dict[Any, Job] = {}

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        ray = _module("ray", "ray")
        ray.init(address=self.address, ignore_reinit_error=True, log_to_driver=False)
        task: Callable[..., Any] = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(run_there)
        self._submitted = {task.remote(os.getcwd(), job, self.cpus): job for job in jobs}  # type: ignore[attr-defined]
        return [task.future() for task in self._submitted]

    def stop(self) -> None:
        ray = _module("ray", "ray")
        under_way = [task for task in self._submitted if not ray.wait([task], timeout=0)[0]]
        for task in under_way:
            ray.cancel(task)
        _saved([self._submitted[task] for task in under_way])
        ray.shutdown()


def run_there(where: str, job: Job, threads: int | None) -> None:
    """A job in a process that a scheduler started, elsewhere than the user stands: relative paths are so to `where`.

    However the scheduler stops it, by a signal or an error in the midst of its wait, the run saves first. It is looked at now and then,
    as Ray's interrupts reach no one who waits for a process.

    Raises: JobError if the job fails or is stopped.
    """
    os.chdir(where)
    engine = Local(1, threads)
    try:
        with StopRequest() as stop:
            (handle,) = engine.start([job])
            while not handle.done() and stop.code is None:
                time.sleep(LOOK_S)
    finally:
        engine.stop()
    if stop.code is not None:
        raise JobError(f"{job.name}{FAILED}stopped by signal {stop.code - 128}; the same command goes on from there")
    if (error := handle.exception()) is not None:
        raise error


def _saved(jobs: Sequence[Job]) -> None:
    """Wait until nobody is at these jobs any more."""
    end = time.monotonic() + PATIENCE_S
    while any(job.running for job in jobs) and time.monotonic() < end:
        time.sleep(LOOK_S)


def _module(name: str, extra: str) -> Any:
    """Raises: ImportError naming the extra."""
    try:
        return __import__(name)
    except ImportError:
        raise ImportError(f"engine={extra} needs {name}, which is not installed. Run: pip install -c constraints.txt -e '.[{extra}]'") from None
