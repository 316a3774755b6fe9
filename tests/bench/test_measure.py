"""Ratios are of pairs and the right way up; memory is what a call adds; FLOP are those of the closed forms."""

import os
import subprocess

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import fresh
from bench.ceilings import copy_rate
from bench.fresh import Job, peaks_mb
from bench.measure import CpuMeter, count_flop, paired_ratio, pinned, take_turns, tf32, without_tf32


class Listed:
    """A meter that has run each call and says how many came before it."""

    def __init__(self) -> None:
        self.count = 0

    def seconds(self, call) -> float:
        call()
        self.count += 1
        return float(self.count)

    def peak_mb(self, call) -> None:
        return None


def test_a_ratio_is_ours_over_theirs():
    assert paired_ratio([1.0], [4.0]) == 0.25


def test_a_ratio_is_the_median_over_pairs_not_a_ratio_of_medians():
    assert paired_ratio([1.0, 2.0, 9.0], [1.0, 4.0, 3.0]) == 1.0
    for ours, theirs in (([], []), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match="are no pairs"):
            paired_ratio(ours, theirs)


def test_calls_take_turns_and_neither_is_always_first():
    ran: list[str] = []
    times = take_turns({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3, Listed())
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab", "once each unmeasured, then in turns"
    assert times == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is told by Linux alone")
def test_peak_memory_is_what_a_call_adds_and_not_what_is_held():
    meter, held = CpuMeter("process"), torch.ones(64 * 2**18)  # 64 MB
    small, large = (meter.peak_mb(lambda size=size: torch.ones(size * 2**18)) for size in (16, 48))
    assert 14 <= small <= 24
    assert 46 <= large <= 58
    assert held.sum() > 0


def test_flop_are_counted_by_kind():
    layer, q = nn.Linear(8, 16), torch.randn(2, 3, 10, 4)
    found = count_flop(
        lambda: (layer(torch.randn(5, 8)), F.scaled_dot_product_attention(q, q, q), F.conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 1, 1)))
    )
    assert found.matmul == 2 * 5 * 8 * 16 + 2 * 16 * 2 * 3
    assert found.attention == 4 * 2 * 3 * 10 * 10 * 4
    assert found.total == found.matmul + found.attention


def test_pinning_ends_as_it_began():
    before = torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with pinned(None, 1):
        assert torch.get_num_threads() == 1
    assert before == (torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None)
    with pytest.raises(ValueError, match=r"core=100000 is not there.*Set core"), pinned(100_000, 1):
        pass


def test_an_unknown_clock_is_refused():
    with pytest.raises(ValueError, match=r"clock='sundial' is unknown. Set clock=process or wall"):
        CpuMeter("sundial")  # pyright: ignore[reportArgumentType]


def test_float32_is_float32_on_a_gpu_too_and_the_settings_are_as_before_afterwards():
    before = tf32()
    with without_tf32():
        assert tf32() == {"convolutions": False, "products": False}
    assert tf32() == before


class Operations(TorchDispatchMode):
    """A meter that notes what a call runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))

    def seconds(self, call) -> float:
        with self:
            call()
        return 2.0

    def peak_mb(self, call) -> None:
        return None


def test_the_rate_of_a_copy_is_read_and_written_bytes_and_no_memory_is_taken_for_it():
    meter = Operations()
    assert copy_rate(100, "cpu", meter, 1) == 100.0
    assert meter.names == ["copy_"]


def test_each_peak_has_a_process_of_its_own_whose_heap_gives_back_what_is_freed(monkeypatch):
    ran = []

    def run(command, env, **rest):
        ran.append((command[1:], env["MALLOC_MMAP_THRESHOLD_"]))
        return subprocess.CompletedProcess(command, 0, f"chatter\n{len(ran)}.5\n", "")

    monkeypatch.setattr(fresh.subprocess, "run", run)
    assert peaks_mb(Job("bench.vae:streaming", "cpu", []), 3) == [1.5, 2.5, 3.5]
    assert ran == [(["-m", "bench.fresh"], "65536")] * 3


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"bench.vae:streaming of \['none', .* ended with 1 in a process of its own: .*none"):
        peaks_mb(Job("bench.vae:streaming", "cpu", ["none", "decode", 5, 32, 32]), 1)
