"""From YAML to runs: paired seeds, one budget for all, and every mistake told before anything runs."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ablation.plan
from ablation.foresight import foresight
from ablation.plan import Run, asked, check, measures, overrides, plan, prepared, seeds, step_cost, steps_for
from ablation.results import gathered
from models.geometry import latent_grid
from runtime.config import CONFIGS, Config, ConfigError, compose
from training.ema import EMA

SHIPPED = sorted(path.stem for path in (CONFIGS / "ablation").glob("[!_]*.yaml"))


@cache
def vae() -> Config:
    return compose("train", ["run=x", "objective=vae", "data=world", "objective.vae.latent_channels=4"])["objective"]["vae"]


def with_vae(look: Callable[[str], Any]) -> Config:
    return {"objective.vae": vae()} if look("objective.dit") is not None else {}


@cache
def composed(name: str, overrides: tuple[str, ...]) -> Config:
    return compose(name, overrides, with_vae if name == "train" else None)


@pytest.fixture(autouse=True)
def _compose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composing takes half a second, and most arms of most tests are the same."""
    monkeypatch.setattr(ablation.plan, "compose", lambda name, overrides, complete: deepcopy(composed(name, tuple(overrides))))


def config(name: str = "qk_norm", *overrides: str) -> Config:
    return deepcopy(composed("ablate", (f"ablation={name}", *overrides)))


def runs(name: str = "qk_norm", *overrides: str) -> list[Run]:
    return plan(config(name, *overrides), with_vae)


def training(run: Run) -> tuple[str, ...]:
    """The command that trains."""
    ((command,),) = (job.commands for job in (run.job.needs or (run.job,)))
    assert command[0] == "train.py"
    return command


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_ablation_pays_the_same_for_every_arm_under_the_same_seeds(name: str) -> None:
    given = config(name)
    budget, found = given["ablation"]["budget"]["flop"], plan(given, with_vae)
    assert given["ablation"]["name"] == name, "its folder is called as its file"
    assert {run.arm for run in found} == set(given["ablation"]["arms"])
    for run in found:
        assert run.steps is not None
        assert budget - run.flop_per_step < run.steps * run.flop_per_step <= budget, run.arm
        assert f"trainer.max_steps={run.steps}" in training(run)
    seeds = 3 if name == "mixture" else 6  # its runs are sixteen times as long
    for arm in given["ablation"]["arms"]:
        assert [run.seed for run in found if run.arm == arm] == list(range(seeds))
    assert len({run.job.folder for run in found}) == len(found), "two arms are the same run"
    assert len({run.job.name for run in found}) == len(found)


def test_an_average_that_an_arm_asks_for_is_reached() -> None:
    """It begins shorter (training/ema.py): arms that end before they come to theirs would all be the same run."""
    reached = {}
    for run in runs("ema", "seeds=1"):
        decay = composed("train", training(run)[1:])["trainer"]["ema_decay"]
        reached[run.arm] = EMA({}, decay).at((run.steps or 0) - 1) == decay
    assert reached.pop("growing") is False, "it is named for an average that is still growing at the end"
    assert reached
    for arm, found in reached.items():
        assert found, f"{arm}: not in so few steps"


def test_a_level_for_each_frame_is_drawn_by_the_law_of_one_level_for_all() -> None:
    laws = {run.arm: composed("train", training(run)[1:])["objective"]["timesteps"] for run in runs("per_frame", "seeds=1")}
    assert laws["per_frame"]["law"] == laws["one_level"]


def test_tiles_cut_the_clips_of_an_ablation() -> None:
    """A window as large as the clip is no tile: all would look at all."""
    (composition,) = (composed("train", training(run)[1:]) for run in runs("pattern", "seeds=1") if run.arm == "tiled")
    shape, vae, dit = composition["data"]["shape"], composition["objective"]["vae"], composition["objective"]["dit"]
    strides = (vae["stride_t"], vae["stride_s"], vae["stride_s"])
    latents = latent_grid(shape["frames"], shape["height"], shape["width"], strides)
    tokens = [-(-size // patch) for size, patch in zip(latents, dit["patch"], strict=True)]
    assert all(window < size for window, size in zip(dit["pattern"]["window"], tokens, strict=True)), tokens


@pytest.mark.parametrize("name", SHIPPED)
def test_arms_differ_in_what_they_say_and_in_nothing_else(name: str) -> None:
    found = runs(name, "seeds=[3]")
    given, own_folders = config(name), ("run=", "out=", "trainer.max_steps=")
    commands = [{run.arm: training(run) for run in found}, {run.arm: run.job.commands[-1] for run in found}]
    for place, of_arms in enumerate(commands):
        common = set.intersection(*map(set, of_arms.values()))
        for arm, command in of_arms.items():
            own = {word for word in command if word not in common and not word.startswith(own_folders)}
            assert own <= set(overrides(given, arm)[place]), arm
    assert all("seed=3" in training(run) for run in found)


def test_seeds_come_outermost() -> None:
    found = runs("qk_norm", "seeds=2")
    assert [(run.seed, run.arm) for run in found] == [(seed, arm) for seed in (0, 1) for arm in ("per_head", "per_channel", "none")]


def test_an_arm_that_was_changed_is_another_run_and_the_others_stay() -> None:
    before = {run.arm: run.folder for run in runs("qk_norm", "seeds=1")}
    given = config("qk_norm", "seeds=1")
    given["ablation"]["arms"]["none"].append("objective.shift=2.0")
    after = {run.arm: run.folder for run in plan(given, with_vae)}
    assert {arm for arm in before if before[arm] != after[arm]} == {"none"}


def test_another_world_under_the_same_name_is_another_run_and_another_evaluation(tmp_path: Path) -> None:
    found = []
    (tmp_path / "world").mkdir()
    for clips in (10, 20):
        (tmp_path / "world" / "world.json").write_text(f'{{"clips": {clips}}}')
        found.append(runs("modulation", f"base={tmp_path}", "seeds=1", f"ablation.evaluate=['world={tmp_path}/world']")[0])
    assert found[0].folder != found[1].folder
    assert found[0].job.folder.name != found[1].job.folder.name


def test_what_is_alike_in_two_ablations_is_one_run() -> None:
    """The baseline of one is an arm of another that is written otherwise; what is evaluated otherwise is another run."""
    baseline = runs("qk_norm", "seeds=1")[0]
    (prefix,) = (run for run in runs("text", "seeds=1") if run.arm == "prefix")
    assert training(prefix) != training(baseline)
    assert (prefix.folder, prefix.job.needs[0].work) == (baseline.folder, baseline.job.needs[0].work)
    assert (prefix.job.folder, prefix.job.work) == (baseline.job.folder, baseline.job.work)


def test_what_is_evaluated_otherwise_is_not_trained_again() -> None:
    baseline, otherwise = (runs("qk_norm", "seeds=1", *given)[0] for given in ([], ["ablation.evaluate=['prompts=9']"]))
    assert otherwise.folder == baseline.folder
    assert otherwise.job.folder != baseline.job.folder
    arms = {"baseline": [], "slow": {"evaluate": ["steps=50"]}, "other": {"train": ["objective.shift=2.0"], "evaluate": ["steps=50"]}}
    given = config("qk_norm", "seeds=1") | {}
    given["ablation"] |= {"arms": arms, "baseline": "baseline"}
    plain, slow, other = plan(given, with_vae)
    assert slow.folder == plain.folder != other.folder
    assert len({slow.job.folder, plain.job.folder, other.job.folder}) == 3
    assert slow.job.commands[0][-1] == other.job.commands[0][-1] == "steps=50"
    assert "objective.shift=2.0" in training(other)
    assert "in all 12 TFLOP" in foresight(given, [plain, slow, other], gathered(given, [plain, slow, other], {}, "", 0)), "one training for two arms"


def test_arms_that_are_the_same_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"arms per_head and none come to the same config: there is nothing to compare\. Set arms"):
        runs("qk_norm", "ablation.arms.none=['objective.shift=1.0']")


@pytest.mark.parametrize(
    ("folder", "overrides"),
    [
        ("qk_norm", []),
        ("qk_norm", ["seeds=6", "only=[none,per_channel]", "budget.flop=6e12"]),
        ("qk_norm-only-none", ["only=[none]"]),
        ("qk_norm-seeds-6-to-11", ["seeds=[6,7,8,9,10,11]"]),
        ("qk_norm-seeds-0-1-budget-2.5-tflop", ["seeds=2", "budget.flop=2.5e12"]),
        ("qk_norm-only-none-seeds-3-budget-30-steps", ["seeds=[3]", "budget.steps=30", "only=[none]"]),
    ],
)
def test_what_is_asked_otherwise_has_a_page_of_its_own(folder: str, overrides: list[str]) -> None:
    assert asked(config("qk_norm", *overrides)) == folder


def test_other_weights_under_the_same_name_are_another_run(tmp_path: Path) -> None:
    weights = tmp_path / "vae" / "checkpoints" / "step-00000001"
    weights.mkdir(parents=True)
    folders = []
    for sha256 in "ab":
        (weights / "manifest.json").write_text(sha256)
        folders.append(runs("modulation", f"base={tmp_path}", "seeds=1")[0].folder.name)
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    ("match", "arm", "overrides"),
    [
        (r"arms\.none='x', wanted a list of overrides of train\.py, or \{train", "x", []),
        (r"arms\.none=.*'sample'.*, wanted a list of overrides", {"sample": ["steps=2"]}, []),
        (r"arms\.none=.*'steps=2'.*, wanted a list of overrides", {"evaluate": "steps=2"}, []),
        (r"'stepz'|stepz=2", {"evaluate": ["stepz=2"]}, []),
        (r"arms\.none is evaluated otherwise, but no measure is from", {"evaluate": ["steps=2"]}, ["ablation.measures.attributes=null"]),
    ],
)
def test_an_arm_is_overrides_of_two_programs(match: str, arm: Any, overrides: list[str]) -> None:
    given = config("qk_norm", *overrides)
    given["ablation"]["arms"]["none"] = arm
    with pytest.raises(ConfigError, match=match):
        plan(given, with_vae)


def test_arms_may_be_numbers() -> None:
    assert {run.arm for run in runs("ema", "only=[0.9]", "seeds=1")} == {"growing", "0.9"}


def test_only_takes_the_baseline_along() -> None:
    assert {run.arm for run in runs("qk_norm", "only=[none]", "seeds=1")} == {"per_head", "none"}


def test_the_command_line_may_set_another_budget() -> None:
    assert {run.steps for run in runs("modulation", "budget.steps=7")} == {7}
    timed = runs("modulation", "budget.seconds=20")[0]
    assert timed.steps is None
    assert {"trainer.budget_s=20", "trainer.max_steps=null"} <= set(training(timed))
    steps = {run.arm: run.steps or 0 for run in runs("patch", "budget.flop=2e12", "seeds=1")}
    assert steps["4x4"] > 2 * steps["2x2"] > 4 * steps["1x1"]


def test_what_no_measure_asks_for_is_not_evaluated() -> None:
    (run, *_) = runs("modulation", "ablation.measures.attributes=null")
    assert [command[0] for command in run.job.commands] == ["train.py"]
    assert not run.job.needs
    assert list(measures(config("modulation", "ablation.measures.attributes=null"))) == ["loss"]
    (run, *_) = runs("modulation")
    assert [command[0] for command in run.job.commands] == ["scripts/evaluate.py"]
    assert [command[0] for job in run.job.needs for command in job.commands] == ["train.py"]


def test_without_a_question_the_questions_are_named() -> None:
    with pytest.raises(ConfigError, match=r"ablation has no value. Set ablation= one of autoencoder, .*timesteps\."):
        check(compose("ablate", []))


def test_a_step_costs_what_the_objective_will_bill() -> None:
    """Latents that are encoded once cost nothing in a step; encoded in every step they do."""
    cached, parameters = step_cost(["experiment=ablation/flow"], with_vae)
    again, _ = step_cost(["experiment=ablation/flow", "data.latents=null"], with_vae)
    from models.vae import VideoVAE
    from runtime.config import build

    network = build(vae())
    assert isinstance(network, VideoVAE)
    assert again - cached == 32 * network.flops(17, 64, 64)["encode"]
    assert 1e6 < parameters < 1e7


def test_shared_parts_are_made_in_their_order() -> None:
    assert [job.name for job in prepared(config("latents"))][:3] == ["world", "vae", "latents"]
    assert [job.name for job in prepared(config("latents", "ablation.prepare.vae=null"))][:2] == ["world", "latents"]
    assert prepared(config("qk_norm", "base=elsewhere"))[0].folder == Path("elsewhere/world")


WRONG: Sequence[tuple[str, str]] = [
    (r"got 1 arms \(per_head\).*Set arms and baseline", "{per_head: []}"),
    (r"baseline=per_head; wanted at least two arms", "{a: [], b: []}"),
    (r"could not tell two of them apart.*Set arms", "{per_head: [], per-head: []}"),
    (r"could not tell two of them apart.*Set arms", "{per_head: [], α: []}"),
]


@pytest.mark.parametrize(("match", "arms"), WRONG)
def test_arms_that_compare_nothing_are_refused(match: str, arms: str) -> None:
    import yaml

    given = config()
    given["ablation"]["arms"] = yaml.safe_load(arms)
    with pytest.raises(ConfigError, match=match):
        check(given)


@pytest.mark.parametrize(
    ("match", "override"),
    [
        (r"only=nome is no arm \(did you mean 'none'\?\)", "only=[nome]"),
        (r"only='none' must be a list of arms: only=\[none\]", "only=none"),
        (r"only=0.9 is no arm", "only=[0.9]"),
        (r"has no key 'rest'", "ablation.arms.none=['optim=adamw']"),
        (r"seeds=0 must be a count", "seeds=0"),
        (r"seeds=\[1, 1\] must be", "seeds=[1,1]"),
        (r"seeds=-1 must be", "seeds=-1"),
        (r"seeds='many' must be", "seeds=many"),
        (r"ablation\.name='a/b' becomes a folder", "ablation.name=a/b"),
        (r"ablation\.name='runs' becomes a folder.*where all runs lie", "ablation.name=runs"),
        (r"budget=.*exactly one of flop, steps, seconds.*Set budget", "budget={flop: 1e12, steps: 3}"),
        (r"budget=.*above 0", "budget.steps=-3"),
        (r"ablation\.budget=.*exactly one", "ablation.budget.flop=null"),
        (r"measures\.loss\.better='less', wanted one of lower, higher", "ablation.measures.loss.better=less"),
        (r"measures\.loss\.from='train', wanted one of validation, evaluation", "ablation.measures.loss.from=train"),
        (r"measures\.loss\.smallest=0 must be a number above 0", "ablation.measures.loss.smallest=0"),
        (r"does not pay for one step", "budget.flop=1e6"),
        (r"no one cost in FLOP.*Set data/shape=fixed", "ablation.common=['experiment=ablation/flow','data/shape=native']"),
        (r"width=128 .*heads=3", "ablation.arms.none=['objective.dit.heads=3']"),
        (r"qk_norm=nome does not exist", "ablation.arms.none=['objective/dit/qk_norm=nome']"),
    ],
)
def test_wrong_values_name_what_was_given_what_is_wanted_and_the_key(match: str, override: str) -> None:
    with pytest.raises(ValueError, match=match):
        runs("qk_norm", override)


def test_a_budget_pays_for_whole_steps_and_never_for_more() -> None:
    for flop in (1, 7, 10**9, 3 * 10**12):
        steps = steps_for(1e13, flop)
        assert steps * flop <= 1e13 < (steps + 1) * flop
    with pytest.raises(ValueError, match="budget of 1 TFLOP does not pay for one step of 3 TFLOP"):
        steps_for(1e12, 3 * 10**12)


def test_seeds_are_a_count_or_a_list() -> None:
    assert seeds(config("qk_norm", "seeds=[4,2]")) == [4, 2]
    assert seeds(config("qk_norm")) == list(range(6))


def test_a_plan_says_what_it_costs_and_whether_the_seeds_are_enough() -> None:
    given = config("qk_norm")
    found = plan(given, with_vae)
    nothing: dict[str, Any] = {"baseline": "per_head", "arms": {"per_head": {"runs": []}}}
    words = foresight(given, found, nothing)
    assert "18 runs: 3 arms x 6 seeds, 0 of them done" in words
    assert "how far seeds differ is not known yet" in words
    values = {"per_head": [0.30, 0.31, 0.32], "none": [0.31, 0.325, 0.33]}
    arms = {name: {"runs": [{"seed": s, "values": {"loss": v}, "seconds": 60.0} for s, v in enumerate(own)]} for name, own in values.items()}
    earlier = {"baseline": "per_head", "arms": arms}
    words = foresight(given, found, earlier)
    assert "deviate by 0.0029 (of 3 seeds of none)" in words
    assert "corrected for 4 comparisons" in words
    assert "18 process minutes" in words
    few, many = (foresight(config("qk_norm", f"ablation.measures.loss.deviation={d}"), found, nothing) for d in (0.5, 0.0001))
    assert "6 are too few" in few
    assert "6 are enough" in many
    assert "one seed sees nothing" in foresight(given, plan(config("qk_norm", "seeds=1"), with_vae), earlier)
