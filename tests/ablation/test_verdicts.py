"""Laws of the words and tables: pairs of one seed, one correction for everything, and nothing that failed left unsaid."""

import csv as reader
from io import StringIO
from math import nan
from typing import Any

import pytest

from ablation.verdicts import Row, Scale, comparisons, costs, csv, gaps, markdown, meaning, rows, run_words, sentence, sentences
from evaluation.effects import Effect, Verdict, holm, paired_effect

LOSS = {0: 0.40, 1: 0.42, 2: 0.41, 3: 0.43, 4: 0.39, 5: 0.415}
FOLLOWING = {0: 0.50, 1: 0.40, 2: 0.45, 3: 0.55, 4: 0.50, 5: 0.47}
SHIFTS = (0.0119, 0.0123, 0.0121, 0.0116, 0.0124, 0.0117)


def run(seed: int, error: str | None = None, **values: float) -> dict[str, Any]:
    cost: dict[str, Any] = {"flop": 16_000_000_000_000, "seconds": 80.0 + seed} if error is None else {"flop": None, "seconds": None}
    return {"seed": seed, "run": f"runs/{seed}", "measured": f"runs/{seed}/measured-a", "values": values, "error": error, **cost}


def arm(runs: list[dict[str, Any]], *overrides: str) -> dict[str, Any]:
    return {"overrides": list(overrides), "steps": 640, "flop_per_step": 25_000_000_000, "parameters": 2_080_000, "runs": runs}


def shifted(loss: float, following: float) -> list[dict[str, Any]]:
    """Runs a little off the baseline's, by nearly as much under every seed."""
    scale = {seed: shift / 0.012 for seed, shift in zip(LOSS, SHIFTS, strict=True)}
    return [run(seed, loss=LOSS[seed] + loss * scale[seed], following=FOLLOWING[seed] + following * scale[seed]) for seed in LOSS]


@pytest.fixture
def results() -> dict[str, Any]:
    measures = {
        "loss": {"label": "validation loss", "better": "lower", "smallest": 0.005, "share": False},
        "following": {"label": "prompts followed", "better": "higher", "smallest": 0.03, "share": True},
    }
    arms = {
        "normal": arm([run(seed, loss=LOSS[seed], following=FOLLOWING[seed]) for seed in LOSS]),
        "uniform": arm(shifted(0.012, -0.08), "objective/timesteps=uniform"),
        "mode": arm(shifted(0.001, 0.06), "objective/timesteps=mode"),
    }
    for name, node in arms.items():
        for own in node["runs"]:
            own |= {"run": f"runs/{name}-{own['seed']}", "measured": f"runs/{name}-{own['seed']}/measured-a"}
    facts = {"name": "times", "question": "Which noise levels?", "command": "python scripts/ablate.py ablation=times", "baseline": "normal"}
    facts |= {"machines": ["a machine, torch 9", "another"], "seconds": 600.0, "seeds": list(LOSS)}
    return facts | {"budget": {"flop": 1.6e13, "steps": None, "seconds": None}, "measures": measures, "arms": arms}


def find(found: list[Row], name: str, measure: str) -> Row:
    return next(row for row in found if (row.arm, row.measure) == (name, measure))


def test_every_arm_has_every_measure_in_order_and_the_baseline_no_verdict(results: dict[str, Any]) -> None:
    found = rows(results)
    assert [(row.arm, row.measure) for row in found] == [(name, measure) for name in results["arms"] for measure in results["measures"]]
    assert [row.verdict is None for row in found] == [True, True, False, False, False, False]
    assert [row.verdict for row in found[2:]] == [Verdict.WORSE, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.BETTER]
    assert found[0].mean == pytest.approx(sum(LOSS.values()) / 6)


def test_only_seeds_of_both_are_paired_and_each_with_its_own(results: dict[str, Any]) -> None:
    runs = results["arms"]["uniform"]["runs"]
    results["arms"]["uniform"]["runs"] = [runs[4], run(2, "out of memory"), runs[0], runs[3]]
    del results["arms"]["normal"]["runs"][3]
    effect = find(rows(results), "uniform", "loss").effect
    assert effect == paired_effect([runs[0]["values"]["loss"], runs[4]["values"]["loss"]], [LOSS[0], LOSS[4]])
    assert effect is not None
    assert effect.value == pytest.approx((SHIFTS[0] + SHIFTS[4]) / 2)


def test_one_correction_pays_for_every_arm_and_every_measure(results: dict[str, Any]) -> None:
    found = [row for row in rows(results) if row.effect is not None]
    assert comparisons(rows(results)) == len(found) == 4
    assert [row.p_adjusted for row in found] == holm([row.effect.p for row in found if row.effect is not None])
    assert "over all 4 comparisons" in meaning(results)
    assert meaning(results) in markdown(results)


def test_fewer_than_two_common_seeds_leave_it_open_and_cost_no_correction(results: dict[str, Any]) -> None:
    results["arms"]["uniform"]["runs"] = results["arms"]["uniform"]["runs"][:1]
    row = find(rows(results), "uniform", "loss")
    assert (row.effect, row.p_adjusted, row.verdict) == (None, None, Verdict.INCONCLUSIVE)
    assert row.mean == pytest.approx(LOSS[0] + SHIFTS[0])
    assert comparisons(rows(results)) == 2
    told = sentence(results, row, 2)
    assert told == "uniform against normal is inconclusive: validation loss was measured under 1 seed in common, two are needed"


def test_a_figure_that_is_not_finite_is_none_and_said(results: dict[str, Any]) -> None:
    results["arms"]["uniform"]["runs"][2]["values"]["loss"] = nan
    row = find(rows(results), "uniform", "loss")
    assert row.effect is not None
    assert row.effect.n == 5
    assert gaps(results) == ["uniform, seed 2: no validation loss"]


def test_verdicts_in_plain_words(results: dict[str, Any]) -> None:
    # By hand: the shifts' deviation is 3.22e-4, so half an interval is 2.571 * 3.22e-4 / sqrt(6) = 3.38e-4, and in proportion.
    assert sentences(results) == [
        "uniform is worse than normal: validation loss +0.01200 [0.01166, 0.01234], 6 seeds",
        "mode is equivalent to normal: validation loss +0.001000 [0.000972, 0.001028], 6 seeds; the smallest difference that matters is 0.005",
        "uniform is worse than normal: prompts followed -8.00 percentage points [-8.23, -7.77], 6 seeds",
        "mode is better than normal: prompts followed +6.00 percentage points [5.83, 6.17], 6 seeds",
    ]


def test_what_is_open_says_how_many_seeds_would_tell(results: dict[str, Any]) -> None:
    for place, each in enumerate(results["arms"]["mode"]["runs"]):
        each["values"]["loss"] = LOSS[place] + (0.01 if place % 2 else -0.008)
    row = find(rows(results), "mode", "loss")
    assert row.verdict == Verdict.INCONCLUSIVE
    few, many = (int(sentence(results, row, number).split("about ")[1].split()[0]) for number in (1, 4))
    assert 6 < few < many
    results["measures"]["loss"]["smallest"] = None
    assert sentence(results, find(rows(results), "mode", "loss"), 4).endswith("6 seeds")


def test_the_same_figures_under_every_seed_are_no_finding_and_are_said(results: dict[str, Any]) -> None:
    mode, normal = (results["arms"][name]["runs"] for name in ("mode", "normal"))
    for own, base in zip(mode, normal, strict=True):
        own["values"]["following"] = base["values"]["following"]
    told = sentence(results, find(rows(results), "mode", "following"), 4)
    head = "mode against normal is inconclusive: prompts followed +0.0 percentage points [0.0, 0.0], 6 seeds"
    assert told == f"{head}; it is the same under every seed"
    for own, base in zip(mode, normal, strict=True):
        own["values"]["loss"] = base["values"]["loss"]
    told = sentence(results, find(rows(results), "mode", "following"), 4)
    assert told == f"{head}; every figure is the same under every seed: do the overrides do anything?"


def test_few_seeds_that_agree_exactly_are_said_to_be_few(results: dict[str, Any]) -> None:
    for own, base in zip(results["arms"]["mode"]["runs"], results["arms"]["normal"]["runs"], strict=True):
        own["values"]["following"] = base["values"]["following"] + 1 / 64
    results["arms"]["mode"]["runs"] = results["arms"]["mode"]["runs"][:3]
    told = sentence(results, find(rows(results), "mode", "following"), 4)
    assert told.startswith("mode against normal is inconclusive: prompts followed +1.6 percentage points [1.6, 1.6], 3 seeds; ")
    assert "so few seeds may agree by chance; to see a difference of 3 percentage points takes about 8 seeds" in told


def test_an_interval_beside_zero_that_the_correction_does_not_let_pass_says_so(results: dict[str, Any]) -> None:
    for place, each in enumerate(results["arms"]["mode"]["runs"]):
        sign = (-1) ** place
        each["values"] = {"loss": LOSS[place] + 0.004 + 0.003 * sign, "following": FOLLOWING[place] + 0.1 * sign}
    row = find(rows(results), "mode", "loss")
    assert row.effect is not None
    assert row.effect.p < 0.05
    assert row.effect.low > 0
    assert row.verdict == Verdict.INCONCLUSIVE
    assert f"6 seeds; p = {2 * row.effect.p:.2g} after the correction for 4 comparisons; to see" in sentence(results, row, 4)
    assert "p =" not in sentence(results, find(rows(results), "mode", "following"), 4)


def test_a_difference_has_two_digits_of_its_intervals_width() -> None:
    loss, share = Scale(False), Scale(True)
    assert loss.difference(Effect(0.0123456, 0.00831, 0.01642, 6, 0.1, 0.1, 0.1)) == "+0.0123 [0.0083, 0.0164]"
    assert loss.difference(Effect(-1.23456, -13.831, 11.342, 6, 0.1, 0.1, 0.1)) == "-1 [-14, 11]"
    assert loss.difference(Effect(-0.00001, -0.1, 0.1, 6, 0.1, 0.1, 0.1)) == "+0.00 [-0.10, 0.10]"
    assert loss.difference(Effect(0.015625, 0.015625, 0.015625, 2, 0.0, 0.5, 0.5)) == "+0.016 [0.016, 0.016]"
    assert loss.difference(Effect(0, 0, 0, 2, 0.0, 1, 1)) == "+0.0 [0.0, 0.0]"
    assert share.difference(Effect(0.0321, 0.0105, 0.0537, 6, 0.1, 0.1, 0.1)) == "+3.2 pp [1.1, 5.4]"
    assert Scale(True, 1).mean(0.2034) == "20.3 %"
    assert share.smallest(0.03) == "3 pp"


def test_means_are_as_sharp_as_the_sharpest_difference_but_not_sharper_than_five_digits(results: dict[str, Any]) -> None:
    found = rows(results)
    assert Scale.of(results, found, "loss").mean(found[0].mean) == "0.41083"
    assert Scale.of(results, found, "following").mean(found[1].mean) == "47.83 %"
    assert Scale.of(results, found[:2], "loss").mean(found[0].mean) == "0.411", "no difference to be as sharp as"
    assert Scale(True).mean(0.0) == "0 %"


def test_the_table_has_a_cell_for_everything_and_names_what_failed(results: dict[str, Any]) -> None:
    results["arms"]["uniform"]["runs"][2] = run(2, "CUDA out of memory | 3 GiB")
    results["arms"]["a|b"] = arm([])
    text = markdown(results)
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {1 + 1 + 2 * 2 + 4}
    protocol = "`python scripts/ablate.py ablation=times`: 16 TFLOP of training for each run, seeds 0 to 5; a machine, torch 9; another."
    assert text.startswith(f"# Which noise levels?\n\n{protocol}")
    assert "| +0.001000 [0.000972, 0.001028] **equivalent** |" in text
    assert "| 640 | 16 | 82.6 | 2,080,000 |" in text, "seconds are those of the five runs that ended"
    assert "- uniform, seed 2: failed: CUDA out of memory | 3 GiB" in text
    assert "- a|b, seeds 0 to 5: no run yet" in text
    assert sentence(results, find(rows(results), "uniform", "loss"), 4).endswith("5 seeds; 1 of its 6 runs failed")


def test_costs_that_nobody_knows_are_a_dash(results: dict[str, Any]) -> None:
    results["arms"]["mode"] |= {"steps": None, "runs": [run(0, "failed")]}
    assert costs(results, "mode") == ["–", "–", "–", "2,080,000"]


def test_the_long_form_holds_every_figure_unrounded(results: dict[str, Any]) -> None:
    results["arms"]["mode"]["runs"][1] = run(1, 'said "no", and more')
    lines = list(reader.DictReader(StringIO(csv(results))))
    assert list(lines[0])[:6] == ["arm", "seed", "measure", "value", "flop", "seconds"]
    assert len(lines) == 3 * 6 * 2
    for line in lines:
        own = next(each for each in results["arms"][line["arm"]]["runs"] if each["seed"] == int(line["seed"]))
        assert line["value"] == "" if own["error"] else float(line["value"]) == own["values"][line["measure"]]
        assert line["error"] == (own["error"] or "")
        assert (line["run"], line["measured"]) == (own["run"], own["measured"])


def test_trainings_that_arms_share_are_counted_once(results: dict[str, Any]) -> None:
    assert run_words(results) == "18 runs"
    for node in results["arms"].values():
        for own in node["runs"]:
            own["run"] = f"runs/{own['seed']}"
    assert run_words(results) == "6 trainings, measured 18 times"
    assert "seeds 0 to 5; 6 trainings, measured 18 times; a machine" in markdown(results)
