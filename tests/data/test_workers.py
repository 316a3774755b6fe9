import contextlib
import ctypes
import faulthandler
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from data import worker_process, workers
from data.files.faults import VideoError
from data.workers import UNWATCHED, Pool

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def make():
    """A pool that is closed after the test; the budget is generous for what takes no time on a busy machine."""
    pools = []

    def made(job, workers, budget_s=30.0):
        pools.append(Pool(job, workers, budget_s))
        return pools[-1]

    yield made
    for pool in pools:
        pool.close()


class Squares:
    """Item k becomes k * k after a time of its own."""

    def run(self, item, watch):
        with watch(item):
            time.sleep(0.02 * (item * 7 % 5 == 0))
        return item * item

    def give_up(self, token, kind, detail):
        raise AssertionError((token, kind, detail))


def sleep_holding_the_interpreter():
    ctypes.PyDLL(None).sleep(60)


def segfault():
    faulthandler.disable()  # pytest's, which would print a page
    ctypes.string_at(0)


DEEDS = {
    "good": lambda: None,
    "sleep": lambda: time.sleep(60),
    "hold": sleep_holding_the_interpreter,  # what no thread of the same process could end
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "segfault": segfault,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class Deeds:
    """Item (token, deed, times): the file `token` does `deed` the first `times` times that it is opened. Every opening is written down."""

    def __init__(self, folder, inside=True):
        self.log, self.inside = folder / "opened", inside
        self.log.touch()
        self.bad, self.calls = {}, Counter()

    def opened(self, token):
        return self.log.read_text().split().count(str(token))

    def run(self, item, watch):
        token, deed, times = item
        if token in self.bad:
            return token, self.bad[token], self.calls[token]
        with watch(token) if self.inside else contextlib.nullcontext():
            with self.log.open("a") as log:
                log.write(f"{token}\n")
            if self.opened(token) <= times:
                DEEDS[deed]()
        return token, None, self.calls[token]

    def give_up(self, token, kind, detail):
        self.bad[token] = kind, detail
        self.calls[token] += 1


def good(*tokens):
    return [(token, "good", 0) for token in tokens]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_results_come_in_the_order_of_the_items(make, workers):
    pool = make(Squares(), workers)
    assert list(pool.map(range(30))) == [item * item for item in range(30)]
    assert list(pool.map([])) == []
    assert list(pool.map(iter([5]))) == [25]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_endless_items_are_asked_for_only_as_there_is_room(make, workers):
    asked = []
    results = make(Squares(), workers).map(asked.append(item) or item for item in itertools.count())
    for item in range(5):
        assert next(results) == item * item
        assert len(asked) <= item + 1 + 2 * workers
    assert len(asked) == 5 + 2 * workers


def test_workers_read_ahead_while_the_caller_is_away(make):
    class Slow(Squares):
        def run(self, item, watch):
            time.sleep(0.15)
            return item

    results = make(Slow(), 2).map(range(5))
    assert next(results) == 0
    time.sleep(0.6)
    start = time.monotonic()
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    assert time.monotonic() - start < 0.1


@pytest.mark.parametrize("deed", ["sleep", "hold", "stop"])
def test_a_file_that_hangs_is_ended_given_up_everywhere_and_never_opened_again(make, tmp_path, deed):
    job = Deeds(tmp_path)
    pool = make(job, 2, budget_s=0.5)
    start = time.monotonic()
    results = list(pool.map([*good(0, 1), (2, deed, 9), *good(3, 4, 5)]))
    assert time.monotonic() - start < 4
    hung = ("hung", "took longer than 0.5 s; set data.file_budget_s")
    assert results == [(0, None, 0), (1, None, 0), (2, hung, 1), (3, None, 0), (4, None, 0), (5, None, 0)]
    assert job.bad == {2: hung}
    assert list(pool.map([(2, deed, 9)] * 4)) == [(2, hung, 1)] * 4  # by the old worker and by the new one
    assert job.opened(2) == 1


@pytest.mark.parametrize(("deed", "how"), [("segfault", "signal SIGSEGV"), ("exit", "exit code 3"), ("kill", "signal SIGKILL")])
def test_a_file_that_ends_its_worker_twice_is_given_up(make, tmp_path, deed, how):
    job = Deeds(tmp_path)
    pool = make(job, 2)
    results = list(pool.map([*good(0), (1, deed, 9), *good(2, 3, 4)]))
    crashed = ("crashed", f"killed its reader with {how}, twice")
    assert results == [(0, None, 0), (1, crashed, 1), (2, None, 0), (3, None, 0), (4, None, 0)]
    assert list(pool.map([(1, deed, 9)] * 4)) == [(1, crashed, 1)] * 4
    assert job.opened(1) == 2
    assert job.bad == {1: crashed}


@pytest.mark.parametrize("inside", [True, False])
def test_a_worker_killed_from_outside_once_loses_nothing_and_blames_nobody(make, tmp_path, inside):
    job = Deeds(tmp_path, inside)
    results = list(make(job, 2).map([(token, "kill", 1) for token in range(6)]))
    assert results == [(token, None, 0) for token in range(6)]
    assert job.bad == {}


def test_a_file_that_two_workers_are_at_is_given_up_once(make, tmp_path):
    job = Deeds(tmp_path)
    results = list(make(job, 2, budget_s=0.5).map([(7, "sleep", 9), (7, "sleep", 9), *good(8)]))
    assert [(token, calls) for token, _, calls in results] == [(7, 1), (7, 1), (8, 0)]
    assert job.calls == {7: 1}


def test_each_file_of_an_item_has_a_budget_of_its_own(make):
    class Many(Squares):
        def run(self, item, watch):
            for token in range(4):
                with watch(token), watch(token + 100):
                    time.sleep(0.2)
            return item

    assert list(make(Many(), 1, budget_s=0.6).map([1])) == [1]


def test_workers_that_keep_dying_between_files_end_the_run(make, tmp_path):
    job = Deeds(tmp_path, inside=False)
    pool = make(job, 2)
    results = pool.map([*good(0), (1, "exit", 9), *good(2)])
    assert next(results) == (0, None, 0)
    with pytest.raises(RuntimeError, match=r"3 data workers were lost over one item, the last with exit code 3.*lower data\.workers"):
        next(results)
    assert job.opened(1) == 3
    assert list(pool.map(good(5))) == [(5, None, 0)]


def test_a_worker_that_stops_between_files_is_noticed(make, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 2)
    job = Deeds(tmp_path, inside=False)
    assert list(make(job, 1, budget_s=0.3).map([(0, "stop", 1), *good(1)])) == [(0, None, 0), (1, None, 0)]
    assert job.bad == {}


@linux
def test_a_run_that_was_stopped_as_a_whole_blames_no_file(make, tmp_path):
    class Slow(Deeds):
        def run(self, item, watch):
            with watch(item):
                (tmp_path / "pid").write_text(str(os.getpid()))
                for _ in range(20):
                    time.sleep(0.01)
            return item

    job = Slow(tmp_path)
    results = make(job, 1, budget_s=0.6).map([5])
    while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
        time.sleep(0.01)
    os.kill(int(pid), signal.SIGSTOP)
    time.sleep(0.8)  # while this process is away, too
    os.kill(int(pid), signal.SIGCONT)
    assert list(results) == [5]
    assert job.bad == {}


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Raising(Squares):
    def run(self, item, watch):
        if item == 1:
            raise VideoError("a.mp4", "damaged", "at 3 s")
        if item == 2:
            raise IndexError("no frame 7")
        if item == 3:
            raise Unpicklable("one", "two")
        if item == 4:
            return lambda: None
        return os.getpid()


def test_exceptions_keep_their_type_and_tell_where_they_were_raised(make):
    pool = make(Raising(), 1)
    (worker,) = pool.map([0])
    results = pool.map([0, 1, 0])
    assert next(results) == worker
    with pytest.raises(VideoError, match=r"^a\.mp4: damaged: at 3 s$") as caught:
        next(results)
    assert (caught.value.path, caught.value.kind) == ("a.mp4", "damaged")
    assert 'raise VideoError("a.mp4", "damaged", "at 3 s")' in str(caught.value.__cause__)
    with pytest.raises(IndexError, match=r"^no frame 7$"):
        list(pool.map([2]))
    with pytest.raises(RuntimeError, match=r"^Unpicklable: one and two"):
        list(pool.map([3]))
    with pytest.raises(TypeError, match=r"a data worker's result, of type function, cannot be sent"):
        list(pool.map([4]))
    assert list(pool.map([0])) == [worker]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_new_call_drops_what_the_last_one_had_not_delivered(make, workers):
    pool = make(Squares(), workers)
    for start in (0, 100):
        first = pool.map(itertools.count(start))
        assert next(first) == start**2
        assert list(pool.map([7, 8])) == [49, 64]
        with pytest.raises(RuntimeError, match="this iterator has ended"):
            next(first)
    last = pool.map([1])
    pool.close()
    with pytest.raises(RuntimeError, match="this iterator has ended"):
        next(last)


def test_dropped_items_that_nobody_has_begun_are_not_run(make, tmp_path):
    job = Deeds(tmp_path)
    pool = make(job, 1, budget_s=0.5)
    pool.map([(0, "sleep", 9), *good(1, 2, 3)])
    while not job.opened(0):
        time.sleep(0.01)
    assert list(pool.map(good(4))) == [(4, None, 0)]
    assert [job.opened(token) for token in (1, 2, 3, 4)] == [0, 0, 0, 1]
    assert set(job.bad) == {0}  # what was found out on the way counts


@dataclass
class Parts:
    array: np.ndarray
    tensors: tuple[torch.Tensor, ...]
    name: str


class Large(Squares):
    def run(self, item, watch):
        noise = np.random.default_rng(item)
        video = noise.integers(0, 256, (item, 1000, 1000, 3), np.uint8)
        halves = torch.from_numpy(noise.standard_normal((3, 5))).to(torch.bfloat16)
        tensors = (torch.from_numpy(video)[:, ::2], halves, halves.T, torch.tensor(1.5), torch.zeros(0, 4), torch.arange(3) > 1)
        return Parts(np.asfortranarray(video[:, :, :7]), (*tensors, *map(torch.tensor, range(1200))), "ö" * item)


def test_large_results_arrive_bit_for_bit_and_may_be_written_to(make):
    items = [7, 1, 0, 3]
    pools = [make(Large(), workers) for workers in (0, 2)]
    for expected, got in zip(*(pool.map(items) for pool in pools), strict=True):
        assert np.array_equal(expected.array, got.array)
        assert got.array.flags.writeable
        assert expected.name == got.name
        for one, other in zip(expected.tensors, got.tensors, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        got.tensors[0].zero_()


def test_items_may_be_larger_than_a_pipe(make):
    class Sums(Squares):
        def run(self, item, watch):
            time.sleep(0.02)
            return int(item.sum())

    items = [np.full(300_000, number) for number in range(6)]
    assert list(make(Sums(), 1).map(items)) == [300_000 * number for number in range(6)]


class Facts(Squares):
    def run(self, item, watch):
        files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
        ignored = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)]
        return os.getpid(), os.getsid(0), os.readlink("/proc/self/fd/0"), files, torch.get_num_threads(), ignored


@linux
def test_workers_are_apart_from_terminal_signals_and_thread_pools(make):
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    ((pid, session, stdin, _, threads, ignored),) = make(Facts(), 1).map([0])
    assert (session, stdin, threads, ignored) == (pid, os.devnull, 1, [True, True])
    assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before


@linux
def test_nothing_is_kept_in_dev_shm(make):
    def held(*others):
        own = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
        mapped = [line.split()[-1] for who in ("self", *others) for line in Path(f"/proc/{who}/maps").read_text().splitlines()]
        return {name for name in (*own, *mapped) if "/dev/shm" in name}

    before, there = held(), set(os.listdir("/dev/shm"))  # what other tests of this process hold is not ours
    ((pid, _, _, files, *_),) = make(Facts(), 1).map([0])
    assert not (held(pid) | {name for name in files if "/dev/shm" in name}) - before
    assert not [name for name in set(os.listdir("/dev/shm")) - there if "kinora" in name]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@linux
def test_closing_leaves_no_process_and_no_descriptor(make, tmp_path):
    pool = make(Deeds(tmp_path), 2, budget_s=0.2)
    list(pool.map([(0, "sleep", 9), *good(1)]))
    pool.close()
    gc.collect()  # what other tests have left
    before, children = os.listdir("/proc/self/fd"), set(multiprocessing.active_children())
    for cycle in range(20):
        results = pool.map([*good(1, 2, 3), (cycle + 9, "exit", 1), *good(4)])
        for _ in range(cycle % 6):
            next(results, None)
        pool.close()
    assert set(multiprocessing.active_children()) <= children
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@linux
def test_ctrl_c_while_a_worker_starts_leaves_no_process(make):
    gc.collect()
    children = set(multiprocessing.active_children())
    pool = make(Squares(), 1)
    interrupt = [True]
    os.register_at_fork(after_in_parent=lambda: interrupt and os.kill(os.getpid(), interrupt.pop() * signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        pool.map(range(3))
    assert len(set(multiprocessing.active_children()) - children) == 1
    pool.close()
    assert set(multiprocessing.active_children()) <= children
    assert list(pool.map(range(3))) == [0, 1, 4]


@linux
def test_a_pool_that_is_forgotten_ends_its_workers():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    pool = Pool(Facts(), 2, 30)
    results = pool.map(itertools.count())
    pids = {next(results)[0] for _ in range(6)}
    del pool, results
    gc.collect()
    assert pids
    assert all(map(gone, pids))
    assert len(os.listdir("/proc/self/fd")) <= before


@linux
@pytest.mark.parametrize("deed", ["hold", "good"])
def test_workers_end_with_a_parent_that_is_killed(tmp_path, monkeypatch, deed):
    if deed == "good":  # idle workers find out by themselves, also where the kernel does not tell them
        monkeypatch.setattr(worker_process, "_prctl", None)
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        pools = [Pool(Deeds(tmp_path), 2, 30.0) for _ in range(2)]  # the workers of one hold pipes of the other
        for pool in pools:
            pool.map([(token, deed, 9) for token in range(4)])
        time.sleep(0.2)
        os.write(write, " ".join(str(worker.process.pid) for pool in pools for worker in pool._crew).encode())
        time.sleep(60)
        os._exit(0)
    pids = os.read(read, 1000).decode().split()
    os.close(read)
    os.close(write)
    assert len(pids) == 4
    assert not any(map(gone, pids))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 2.5
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [pid for pid in pids if not gone(pid)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert left == []


SCRIPT = """
import ctypes, os, sys, time
sys.path.insert(0, {root!r})
from data.workers import Pool

class Job:
    def run(self, item, watch):
        with watch(item):
            if item > 1:
                ctypes.PyDLL(None).sleep(600)
        return os.getpid()

    def give_up(self, token, kind, detail):
        print("given up", flush=True)

if __name__ == "__main__":
    pool = Pool(Job(), 2, 30.0)
    results = pool.map(range(9))
    print(next(results), next(results), flush=True)
    if sys.argv[1] == "wait":
        next(results)
"""


@linux
@pytest.mark.parametrize("end", ["leave", "wait"])
def test_a_program_ends_with_workers_that_hang_and_they_say_nothing(tmp_path, end):
    script = tmp_path / "program.py"
    script.write_text(SCRIPT.format(root=str(ROOT)))
    program = subprocess.Popen([sys.executable, script, end], stdout=-1, stderr=-1, text=True, start_new_session=True)
    assert program.stdout is not None
    pids = program.stdout.readline().split()
    if end == "wait":
        time.sleep(0.1)
        os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert out == ""
    if end == "leave":
        assert (program.returncode, err) == (0, "")
    else:
        assert err.count("Traceback") == 1
        assert "KeyboardInterrupt" in err
    assert pids
    assert all(map(gone, pids))


SPAWNED = """
import ctypes, os, sys
sys.path.insert(0, {root!r})
import numpy as np
from data import workers

class Job:
    bad = ()

    def run(self, item, watch):
        with watch(item):
            if item == 2 and not self.bad:
                ctypes.PyDLL(None).sleep(600)
        return np.full(10**6, item), self.bad

    def give_up(self, token, kind, detail):
        self.bad = token, kind

if __name__ == "__main__":
    workers.METHOD = "spawn"
    pool = workers.Pool(Job(), 1, 0.5)
    print([(int(array.sum()), bad) for array, bad in pool.map(range(4))])
"""


@linux
@pytest.mark.slow
def test_workers_that_cannot_be_forked_do_the_same(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(SPAWNED.format(root=str(ROOT)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    bad = (2, "hung")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{[(0, ()), (10**6, ()), (2 * 10**6, bad), (3 * 10**6, bad)]}\n"


def test_unwatched_does_nothing():
    with UNWATCHED(3), UNWATCHED(4):
        pass


@pytest.mark.parametrize(("workers", "budget_s"), [(-1, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_wrong_settings_name_their_key(workers, budget_s):
    with pytest.raises(ValueError, match=r"data\.workers, data\.file_budget_s"):
        Pool(Squares(), workers, budget_s)
