"""A job mapped over items in worker processes that are watched from outside: no file can hang or kill a run, nor change the order of results."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, Generic, TypeVar

from data.worker_process import UNWATCHED, Board, GivenUp, Job, Raised, Watch, forking, put, take, work

__all__ = ["UNWATCHED", "Job", "Pool", "Watch"]

AHEAD = 2  # items per worker that are handed out and not delivered yet
LOSSES = 3  # workers lost over one item outside of any file; then the run ends
PATIENCE = 10  # budgets that a worker may give no sign of life for while it is at no file: imports, encoding, waiting for the disk
GRACE_NS = 2 * 10**9  # a worker that is over its budget when the parent comes back from an absence has so long to go on
METHOD = "fork" if hasattr(os, "memfd_create") else "spawn"  # Linux forks

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Task:
    number: int  # counts the items of all calls of `map`
    item: Any
    tray: int | None
    reply: Any = None
    done: bool = False
    losses: int = 0
    strikes: dict[int, int] = field(default_factory=dict)  # workers lost at a file, by token


class _WorkerTraceback(Exception):
    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Pool(Generic[Item, Result]):
    """Maps a job over items in worker processes, which persist between calls. For one thread.

    A file that takes longer than its budget costs its worker, and is given up as "hung". One that ends its worker twice is given up as
    "crashed"; after the first time the item is tried again, since a worker may be killed for other reasons. All this is noticed while a
    result is waited for. The memory that results pass through (AHEAD x workers x the largest) is kept until `close`.

    Args:
        workers: 0 runs the job in this process when asked; nothing is supervised then.
        budget_s: for each watched file.
    """

    def __init__(self, job: Job[Item, Result], workers: int, budget_s: float) -> None:
        if workers < 0 or not 0 < budget_s < 1e6:
            raise ValueError(
                f"got workers={workers}, budget_s={budget_s}; wanted 0 or more workers and a time above 0 and below 1e6 s. "
                "Set data.workers, data.file_budget_s."
            )
        self.job, self.workers, self.budget_s = job, workers, budget_s
        self._crew: list[_Worker] = []
        self._trays: list[int | None] = []  # free ones
        self._tasks: dict[int, _Task] = {}  # not delivered yet, and those dropped ones that a worker still has
        self._lost: list[_Task] = []  # to be run again
        self._items: Iterator[Item] | None = None  # None: at their end
        self._next = self._first = 0  # numbers: of the next item, of the first one of this call
        self._given_up: set[int] = set()
        self._finalize: Finalize | None = None

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """Results one by one, in the order of the items, which may be endless: they are asked for as there is room, in this process.

        What the last call had not delivered is dropped; its iterator raises RuntimeError when it is asked again.
        Raises, when its turn has come: what `job.run` raised, with the worker's traceback as its cause; RuntimeError if workers keep
            dying outside of files. The iterator has ended then, and `map` may be called again.
        """
        self._drop()
        self._items = iter(items)
        if self.workers == 0:
            return self._here(self._first, self._items)
        if self._finalize is None:
            self._start()
        self._hand_out()
        return self._deliver(self._first)

    def close(self) -> None:
        """End the workers at once, whatever they are at. The next `map` starts others."""
        if self._finalize is not None:
            self._finalize()
            self._finalize = None
        self._drop()
        self._tasks.clear()

    def _start(self) -> None:
        count = AHEAD * self.workers
        files = [os.memfd_create("kinora-tray") for _ in range(count)] if METHOD == "fork" else []
        self._trays = [*files] or [None] * count
        # Not weakref.finalize: this one runs before multiprocessing waits for its children at exit, and never in a forked child.
        self._finalize = Finalize(self, _end, (self._crew, files), exitpriority=10)

    def _drop(self) -> None:
        self._next += 1  # so that each call has a `_first` of its own
        self._first, self._items = self._next, None
        for worker in self._crew:
            worker.board.wanted = self._first
        held = {task.number for worker in self._crew for task in worker.tasks}
        for task in [task for task in self._tasks.values() if task.number not in held]:
            self._release(task)
        self._lost.clear()

    def _release(self, task: _Task) -> None:
        del self._tasks[task.number]
        self._trays.append(task.tray)

    def _check(self, first: int) -> None:
        if first != self._first:
            raise RuntimeError("this iterator has ended: its pool was closed or asked to map other items. Use what the last call of map returned.")

    def _here(self, first: int, items: Iterator[Item]) -> Iterator[Result]:
        self._check(first)
        for item in items:
            yield self.job.run(item, UNWATCHED)
            self._check(first)

    def _deliver(self, first: int) -> Iterator[Result]:
        number = first
        while True:
            self._check(first)
            try:
                task = self._await(number)
            except BaseException:
                self.close()
                raise
            if task is None:
                return
            if isinstance(task.reply, Raised):
                raise task.reply.error from _WorkerTraceback(task.reply.trace)
            number += 1
            yield task.reply

    def _await(self, number: int) -> _Task | None:
        back = time.monotonic_ns()
        for worker in self._crew:
            self._collect(worker)
        while True:
            self._hand_out()
            task = self._tasks.get(number)
            if task is not None and task.done:
                self._release(task)
                self._hand_out()  # before the caller is off with this one
                return task
            if self._items is None and number == self._next:
                return None
            back = self._attend(back)

    def _hand_out(self) -> None:
        """Give workers all that there is room for, first what was lost."""
        while self._lost or self._trays:
            if self._lost:
                task = self._lost.pop(0)
            elif self._items is None:
                return
            else:
                try:
                    item = next(self._items)
                except StopIteration:
                    self._items = None
                    return
                task = self._tasks[self._next] = _Task(self._next, item, self._trays.pop())
                self._next += 1
            self._choose(task).hand(task)

    def _choose(self, task: _Task) -> "_Worker":
        """The worker with the least to do; a new one if all have something, or if others were lost over this task."""
        worker = min(self._crew, key=lambda each: len(each.tasks), default=None)
        if worker is None or (len(self._crew) < self.workers and (worker.tasks or task.losses or task.strikes)):
            with forking():  # Ctrl-C cannot come between the two: nobody would end the worker
                worker = _Worker(self.job, self.budget_s, self._first)
                self._crew.append(worker)
        return worker

    def _attend(self, back: int) -> int:
        """Wait for something to happen, and see to it.

        Args:
            back: since when this process has been attending. A run that is stopped as a whole and goes on finds its files over their
                budgets; they get a moment to end.
        Returns: the same, or when it found that it had been stopped itself.
        """
        budget = int(self.budget_s * 1e9)
        grace = min(GRACE_NS, budget)
        before = time.monotonic_ns()
        due = min([before + budget, *(max(worker.due, back + grace) for worker in self._crew)])
        ready = wait([each for worker in self._crew for each in (worker.connection, worker.process.sentinel)], max(0, due - before) / 1e9)
        now = time.monotonic_ns()
        if now > max(before, due) + GRACE_NS:
            back = now
        for worker in list(self._crew):
            if worker.connection in ready:
                self._collect(worker)
            if worker.process.sentinel in ready:
                self._bury(worker, None)
            elif now >= max(worker.due, back + grace):
                self._bury(worker, now)
        return back

    def _collect(self, worker: "_Worker") -> None:
        try:
            while worker.connection.poll():
                mail = pickle.loads(worker.connection.recv_bytes())
                reply = take(worker.connection, mail)
                task = worker.tasks.popleft()
                assert task.number == mail.number, "a worker answers in the order in which it was asked"
                task.reply, task.done = reply, True
                if task.number < self._first:
                    self._release(task)
        except (EOFError, OSError):
            return  # it has died, as its sentinel will say

    def _bury(self, worker: "_Worker", overdue: int | None) -> None:
        """Take leave of a worker that has died or, at the time `overdue`, was over its budget; find what it was lost over."""
        exitcode = worker.kill()
        self._collect(worker)  # what it brought before
        late = overdue is not None and worker.due <= overdue  # its board stands still only now
        self._crew.remove(worker)
        worker.close()
        for task in worker.tasks:
            if task.number < self._first:
                self._release(task)
            else:
                self._lost.append(task)
        self._lost.sort(key=lambda task: task.number)
        if worker.tasks and (late or overdue is None):  # else it went on in the last moment, and nothing is to blame
            self._blame(worker.tasks[0], worker.board.file, exitcode, late)

    def _blame(self, task: _Task, token: int | None, exitcode: int | None, late: bool) -> None:
        if token is not None and late:
            self._give_up(token, "hung", f"took longer than {self.budget_s:g} s; set data.file_budget_s")
        elif token is not None:
            task.strikes[token] = task.strikes.get(token, 0) + 1
            if task.strikes[token] == 2:
                self._give_up(token, "crashed", f"killed its reader with {_cause(exitcode)}, twice")
        else:
            task.losses += 1
            if task.losses == LOSSES:
                cause = f"no sign of life for {PATIENCE * self.budget_s:g} s" if late else _cause(exitcode)
                raise RuntimeError(
                    f"{LOSSES} data workers were lost over one item, the last with {cause}, and not while they read any of its files. "
                    "If memory ran out (SIGKILL), lower data.workers. With data.workers=0 an error in the job itself shows."
                )

    def _give_up(self, token: int, kind: str, detail: str) -> None:
        if token in self._given_up:  # two workers were at the same file
            return
        self._given_up.add(token)
        self.job.give_up(token, kind, detail)
        for worker in self._crew:
            worker.tell(GivenUp(token, kind, detail))


class _Worker:
    """The parent's side of a worker process. To be made within `forking`."""

    def __init__(self, job: Job[Any, Any], budget_s: float, first: int) -> None:
        fork = METHOD == "fork"
        context = multiprocessing.get_context("fork") if fork else multiprocessing.get_context("spawn")
        self.board = Board.forked() if fork else Board(context.RawArray("q", 4))
        self.board.wanted = first
        self.budget_ns = int(budget_s * 1e9)
        self.tasks: deque[_Task] = deque()
        self.connection, theirs = context.Pipe()
        main = threading.current_thread() is threading.main_thread()
        self.process = context.Process(target=work, args=(job, theirs, self.board, os.getpid(), main), name="kinora-data", daemon=True)
        self.process.start()
        theirs.close()

    def hand(self, task: _Task) -> None:
        if not self.tasks:
            self.board.alive()  # its time runs from here
        self.tasks.append(task)
        try:
            put(self.connection, task.tray, task.number, task.item)
        except OSError:
            return  # it has died, as its sentinel will say

    def tell(self, message: GivenUp) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(message))
        except OSError:
            return

    @property
    def due(self) -> int:
        """When it is over its time, unless it gets on before that."""
        if not self.tasks:
            return sys.maxsize
        since = self.board.since
        return since + self.budget_ns if since else self.board.sign + PATIENCE * self.budget_ns

    def kill(self) -> int | None:
        """Its exit code. None after 5 s, which SIGKILL needs when a process waits for a dead disk: it is left to itself."""
        self.process.kill()
        self.process.join(5)
        return self.process.exitcode

    def close(self) -> None:
        self.connection.close()
        if self.process.exitcode is not None:
            self.process.close()


def _end(crew: list[_Worker], trays: list[int]) -> None:
    for worker in crew:
        worker.process.kill()
    for worker in crew:
        worker.kill()
        worker.close()
    crew.clear()
    for tray in trays:
        os.ftruncate(tray, 0)  # workers of other pools may have inherited it, and would hold on to its memory
        os.close(tray)


def _cause(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    known = -exitcode in {each.value for each in signal.Signals}
    return f"signal {signal.Signals(-exitcode).name if known else -exitcode}"
