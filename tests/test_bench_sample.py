"""scripts/bench_sample.py: what it counts as outside, what it calls the same, and that what was measured once is neither lost nor made again."""

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, nn

from bench.sampling import Watch, growth, overhead, section, spent, worst_difference
from runtime.config import ROOT, compose


class Ticking(nn.Module):
    """Adds so many seconds to a clock."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self) -> None:
        self.clock[0] += self.seconds


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_sample", ROOT / "scripts" / "bench_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(flow_runs: Any, tmp_path: Path) -> dict[str, Any]:
    small = ["difficulty=easy", "processes=1", "solver_steps=2", "batch_size=2", f"raw={tmp_path}/raw.json", f"chart={tmp_path}/chart.png"]
    small += ["overhead.batches=[1,2]", "overhead.rounds=2", "seeds.clips=3", "seeds.batches=[2,3]", "seeds.processes=1", "steps.prompts=2"]
    small += ["steps.evaluations=[2,4]", "variants.prompts=2"]
    return compose("bench_sample", [f"run={flow_runs.root}/every", *small])


def test_seconds_are_parted_into_network_text_and_what_is_left() -> None:
    clock = [0.0]
    network, text = Ticking(clock, 4.0), Ticking(clock, 1.0)

    def call() -> None:
        text()
        clock[0] += 0.5
        network()
        network()

    found = spent(call, network, text, lambda: clock[0])
    assert found == {"network_s": 8.0, "text_s": 1.0, "outside_s": 0.5, "network_calls": 2, "text_calls": 1}
    network()
    assert spent(call, network, text, lambda: clock[0]) == found  # what happens between two calls is of neither
    assert overhead([found, found | {"outside_s": 80.0}, found]) == 0.5 / 8  # one call that a neighbour held up counts for nothing


def test_a_watch_is_gone_when_it_has_seen_enough() -> None:
    clock = [0.0]
    network = Ticking(clock, 1.0)
    with Watch(network, lambda: clock[0]) as watch:
        network()
    network()
    assert watch.calls == 1
    assert watch.seconds == 1.0


def test_unlike_noise_is_no_small_difference() -> None:
    found = {"differences": {"by 2": 1e-7, "by 4": 3e-6}, "noise_same": True}
    assert worst_difference(found) == 3e-6
    assert worst_difference(found | {"noise_same": False}) == float("inf")


def test_memory_is_the_longest_over_the_shortest() -> None:
    assert growth({"peak_mb": {"20": [330.0, 300.0, 900.0], "2": [300.0, 100.0, 310.0]}}) == 1.1


def test_a_page_says_what_failed_and_what_is_open() -> None:
    calls = {"1": [{"network_s": 1.0, "text_s": 0.0, "outside_s": 0.04, "network_calls": 12, "text_calls": 1}]}
    part = {"command": "c", "machine": "m", "load": 0.1, "figures": {"steps": 12, "calls": calls}}
    page = section({"overhead": part})
    assert "| 0.040 | **fail** |" in page
    assert page.count("| not measured | open |") == 2
    calls["1"][0]["outside_s"] = 0.02
    assert "| 0.020 | **pass** |" in section({"overhead": part})


def test_text_is_encoded_once_and_guidance_asks_the_network_once_a_step(script: ModuleType, config: dict[str, Any]) -> None:
    kept: list[Any] = []
    script.overhead(config, kept.append, {})
    rounds = [one for each in kept[-1]["calls"].values() for one in each]
    assert len(rounds) == 4
    assert all(one["text_calls"] == 1 and one["network_calls"] == config["solver_steps"] for one in rounds)
    assert all(one["outside_s"] > 0 and one["network_s"] > 0 for one in rounds)


def test_a_seed_is_told_from_another(script: ModuleType, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config |= {"guidance": {"_target_": "flow.guidance.NoGuidance"}}  # which makes much of the rounding of random weights
    kept: list[Any] = []
    script.seeds(config, kept.append, {})
    assert kept[-1]["noise_same"]
    assert max(kept[-1]["differences"].values()) < 1e-5
    honest = script.made

    def careless(config: dict[str, Any], samples: list[int], size: int) -> tuple[Tensor, Tensor]:
        return honest(config, samples[::-1] if size == 2 else samples, size)

    monkeypatch.setattr(script, "made", careless)
    script.seeds(config, kept.append, {})
    assert not kept[-1]["noise_same"]
    assert kept[-1]["differences"]["in batches of 2"] > 1e-2
    assert kept[-1]["differences"]["in batches of 3"] < 1e-5


def test_what_is_judged_is_kept_and_not_judged_again(
    script: ModuleType, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_sample.py"])
    raw, asked = tmp_path / "raw.json", list[str]()
    honest = script.followed

    def counted(config: dict[str, Any], count: int, cell: dict[str, Any]) -> dict[str, Any]:
        asked.append(f"{cell['name']}, {cell['evaluations']}")
        return honest(config, count, cell) if len(asked) == 1 else honest_of[0]

    honest_of = [honest(config, 2, {"sampling": {"solver": config["solver"], "guidance": config["guidance"], "steps": 1}})]
    monkeypatch.setattr(script, "followed", counted)
    keep = partial(script.keep, raw, "steps")
    script.steps(config, keep, {})
    assert len(asked) == 10 == len(script.read(raw)["steps"]["figures"]["cells"])
    before = json.loads(raw.read_text())["steps"]["figures"]
    del before["cells"]["heun, 4"]
    script.steps(config, keep, before)
    assert asked[10:] == ["heun, 4"]
    assert len(script.read(raw)["steps"]["figures"]["cells"]) == 10
    script.steps(config | {"seed": 1}, keep, before)
    assert len(asked) == 21  # other prompts: nothing of before counts
    found = script.read(raw)
    assert "| solver | 2 | 4 |" in section(found)
    script.chart(found["steps"]["figures"], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000


def test_solvers_are_compared_at_equal_evaluations(script: ModuleType, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(script, "judge", lambda config, prompts, cells, keep, before: seen.extend(cells))
    script.steps(config, seen.append, {})
    for cell in seen:
        found = script.followed(config, 2, cell)
        last_is_euler = cell["name"] == "heun"
        assert found["asked_network"] == cell["evaluations"] - last_is_euler, cell["name"]


def test_the_weaker_network_is_the_earliest_that_the_run_keeps(
    script: ModuleType, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(script, "judge", lambda config, prompts, cells, keep, before: seen.extend(cells))
    script.guidances(config, seen.append, {})
    assert "is left out" in capsys.readouterr().out
    assert not any("run" in cell["sampling"]["guidance"] for cell in seen)
    folders = [type("Folder", (), {"name": f"step-{step:08d}"}) for step in (400, 900)]
    monkeypatch.setattr(script, "Checkpoints", lambda path: type("Kept", (), {"published": lambda self: folders})())
    script.guidances(config, seen.append, {})
    node = seen[-1]["sampling"]["guidance"]
    assert (node["run"], node["step"]) == (config["run"], 400)


def test_every_part_has_its_place_on_the_page(script: ModuleType) -> None:
    from bench.sampling import BARS, CONTENTS, PROMISED

    assert set(script.PARTS) == set(CONTENTS)
    assert set(PROMISED) == set(BARS)
