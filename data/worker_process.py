"""A data worker's life: it runs what it is handed, answers in that order, and leaves word of the file it is at where its parent can read it."""

import ctypes
import io
import mmap
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TOKEN, _SINCE, _SIGN, _FIRST = range(4)
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result", covariant=True)

Watch = Callable[[int], AbstractContextManager[None]]  # `with watch(token):` around opening and decoding one file


def UNWATCHED(token: int) -> AbstractContextManager[None]:
    """The watch of a job that runs in this process: nothing ends a file that hangs."""
    return nullcontext()


class Job(Protocol[Item, Result]):
    """What a pool runs, in workers or here. A spawned worker gets a pickled copy, a forked one shares anonymous mappings with its parent."""

    def run(self, item: Item, watch: Watch) -> Result:
        """The same result in every process and however often it is asked: an item is run again when its worker is lost."""
        ...

    def give_up(self, token: int, kind: str, detail: str) -> None:
        """Never open file `token` again. Called once in each process, before it runs anything else. kind: "hung" or "crashed"."""
        ...


class Board:
    """What a worker is at, as int64 in memory that it shares with its parent, who need not ask it.

    Times are time.monotonic_ns, which is the same clock in all processes. Nothing is locked: a board that is read while it is written
    may show a start beside the wrong file, so a verdict is only read from it once the worker is dead.
    """

    def __init__(self, cells: Any) -> None:
        """cells: at least four int64."""
        self._cells: MutableSequence[int] = cells

    @classmethod
    def forked(cls) -> "Board":
        """For a worker that is forked: an anonymous mapping, which has no file and needs no /dev/shm."""
        return cls(memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q"))

    @property
    def file(self) -> int | None:
        """Token of the file that the worker is at."""
        return self._cells[_TOKEN] if self._cells[_SINCE] else None

    @property
    def since(self) -> int:
        """When it began with this file; 0 between files."""
        return self._cells[_SINCE]

    @property
    def sign(self) -> int:
        """When it last began an item, or was done with a file."""
        return self._cells[_SIGN]

    @property
    def wanted(self) -> int:
        """The parent's word: number of the first item that anyone still waits for."""
        return self._cells[_FIRST]

    @wanted.setter
    def wanted(self, number: int) -> None:
        self._cells[_FIRST] = number

    def alive(self) -> None:
        self._cells[_SIGN] = time.monotonic_ns()

    @contextmanager
    def watch(self, token: int) -> Iterator[None]:
        outer = self._cells[_TOKEN], self._cells[_SINCE]
        self._write(token, time.monotonic_ns())
        try:
            yield
        finally:
            self.alive()
            self._write(*outer)

    def _write(self, token: int, since: int) -> None:
        self._cells[_SINCE] = 0
        self._cells[_TOKEN] = token
        self._cells[_SINCE] = since


@dataclass(frozen=True, slots=True)
class Mail:
    """Says that an item or its result is there: in the tray, else in the pipe behind this."""

    number: int
    tray: int | None  # file descriptor
    size: int  # bytes of its first part


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What Job.give_up is to be called with."""

    token: int
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Raised:
    """The answer of a worker whose job raised."""

    error: Exception
    trace: str


def work(job: Job[Any, Any], connection: Connection, board: Board, parent: int, main: bool) -> None:
    """Run what comes until the parent ends. Stays in here: the process ends by itself or is killed.

    Args:
        main: started by the main thread of the parent.
    """
    settle(main)
    waiting: deque[tuple[Mail, Any]] = deque()
    try:
        while True:
            while not waiting or connection.poll():  # all that has come is read first: a file of a waiting item may be given up
                while not connection.poll(1.0):
                    if os.getppid() != parent:  # the pipe tells of its end only if no other process has inherited it
                        os._exit(0)
                message = pickle.loads(connection.recv_bytes())
                if isinstance(message, GivenUp):
                    job.give_up(message.token, message.kind, message.detail)
                else:
                    waiting.append((message, take(connection, message)))
            mail, item = waiting.popleft()
            board.alive()
            _answer(connection, mail, _run(job, item, board.watch) if mail.number >= board.wanted else None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the parent has ended


@contextmanager
def forking() -> Iterator[None]:
    """Around the start of a worker, from a process that has threads: without the warning that Python 3.12 gives then.

    The worker takes no locks of its parent but those that Python and the C library mend after a fork, and runs torch on one thread, so
    it never waits for a thread that it has not inherited. Signals are held back until it ignores them; a mask alone does not, since the
    system hands a signal that this thread blocks to another one, and Python then raises it here all the same.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if hasattr(signal, "pthread_sigmask") else None
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in SIGNALS} if main else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


def settle(main: bool) -> None:
    """Keep apart from the parent: its threads, its terminal, its signals; and end with it."""
    torch.set_num_threads(1)
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C and signals to the group are for the trainer, which ends its step with batches that workers still have to bring
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back by `forking`
    if _prctl is not None and main:  # else the signal would come when the thread ends
        _prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)


def _run(job: Job[Any, Any], item: Any, watch: Watch) -> Any:
    try:
        return job.run(item, watch)
    except Exception as error:  # whatever a job raises is its caller's to see, in the caller's process
        return Raised(_portable(error), traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """The same if it survives pickling, else one that says as much."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception as reason:  # an exception's own __init__ or __reduce__ may raise anything here
        return RuntimeError(f"{type(error).__qualname__}: {error} (of another type here: {reason})")
    return RuntimeError(f"{type(error).__qualname__}: {error}")


def _answer(connection: Connection, mail: Mail, reply: Any) -> None:
    try:
        put(connection, mail.tray, mail.number, reply)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        reason = TypeError(f"a data worker's result, of type {type(reply).__qualname__}, cannot be sent to another process: {error}")
        put(connection, mail.tray, mail.number, Raised(reason, traceback.format_exc()))


class _Pickler(pickle.Pickler):
    """Tensors by value and uncopied, as arrays are. torch's own way is a file in /dev/shm, or three copies."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and obj.device.type == "cpu" and obj.layout == torch.strided:
            raw = obj.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            return _tensor, (raw, obj.dtype, tuple(obj.shape))
        return NotImplemented


def _tensor(raw: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(raw).view(dtype).reshape(shape)


def put(connection: Connection, tray: int | None, number: int, value: Any) -> None:
    """Send an item or a result of any size.

    It goes through the tray, a file in memory, and the pipe only carries word of it. So nobody waits in the middle of a message for a
    worker that hangs, a worker need not wait for its parent, and 50 MB take a fifth of the time. A spawned worker has no tray; its
    parent trusts it to finish a message that it has begun.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = io.BytesIO()
    _Pickler(body, 5, buffer_callback=buffers.append).dump(value)
    raws = [buffer.raw() for buffer in buffers]
    parts = [pickle.dumps((body.getvalue(), [raw.nbytes for raw in raws])), *raws]
    mail = pickle.dumps(Mail(number, tray, len(parts[0])))
    if tray is None:
        for part in (mail, *parts):
            connection.send_bytes(part)
        return
    place = 0
    for part in parts:
        rest = memoryview(part)
        while rest.nbytes:
            written = os.pwrite(tray, rest, place)
            rest, place = rest[written:], place + written
    connection.send_bytes(mail)


def take(connection: Connection, mail: Mail) -> Any:
    """What `put` has sent: a copy, which may be written to."""
    place = 0

    def part(size: int) -> np.ndarray:
        nonlocal place
        buffer = np.empty(size, np.uint8)
        if mail.tray is None:
            connection.recv_bytes_into(buffer.data)
            return buffer
        done = 0
        while done < size:
            done += os.preadv(mail.tray, [buffer.data[done:]], place + done)
        place += size
        return buffer

    body, sizes = pickle.loads(part(mail.size).data)
    return pickle.loads(body, buffers=[part(size) for size in sizes])
