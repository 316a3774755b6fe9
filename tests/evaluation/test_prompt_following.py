"""Laws of prompt following: who is judged by what, and what its controls say."""

from collections.abc import Sequence

import numpy as np
import pytest

from data.world.captions import claim
from data.world.render import render
from data.world.sampling import draw_scene
from data.world.splits import heldout
from data.world.vocabulary import Attributes, Claim
from evaluation.oracle import Verdict
from evaluation.oracle import chance as oracle_chance
from evaluation.prompt_following import Prompt, Record, by_count, by_kind, chance, derangement, follow, judged, shuffled, summary, swapped
from evaluation.suite import draw_prompts, values

EASY = {"shape": 3, "colour": 6, "motion": 10, "background": 4}


def clips(count: int, split: str = "heldout") -> list[np.ndarray]:
    return [render(draw_scene(0, number, "easy", split), 17, 64, 64) for number in range(count)]


def record(correct: bool, lenient: bool, attributes: dict[str, bool], kind: str | None = None) -> Record:
    return Record(Prompt("", Claim(()), kind), np.zeros((1, 1, 1, 3), np.uint8), None, Verdict(correct, lenient, attributes))


def test_true_renders_follow_their_prompts_and_not_those_of_others() -> None:
    prompts = draw_prompts(12, 0, "easy", "heldout")
    records = judged(prompts, clips(12))
    assert summary(records)["value"] == 1
    assert summary(shuffled(records, seed=0))["value"] <= 1 / 12


def test_true_renders_of_two_objects_fail_with_their_colours_exchanged() -> None:
    numbers = [number for number in range(40) if len(draw_scene(0, number, "standard", "val").objects) == 2][:6]
    scenes = [draw_scene(0, number, "standard", "val") for number in numbers]
    records = judged([Prompt("", claim(scene)) for scene in scenes], [render(scene, 17, 64, 64) for scene in scenes])
    exchanged = swapped(records)
    assert summary(records)["value"] == 1
    assert len(exchanged) >= 5
    assert summary(exchanged)["value"] == 0
    assert by_count(records)["2"]["n"] == 6
    assert not swapped(judged(draw_prompts(1, 0, "easy", "val"), clips(1, "val")))


def test_every_prompt_gets_its_own_sample_number_whatever_the_batch_size() -> None:
    prompts = draw_prompts(5, 0, "easy", "val")
    seen: list[list[tuple[str, int]]] = []

    def generate(texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        calls[-1] += [len(texts)]
        seen[-1] += list(zip(texts, samples, strict=True))
        return [np.zeros((5, 32, 32, 3), np.uint8)] * len(texts)

    calls: list[list[int]] = []
    for size in (2, 5):
        seen.append([])
        calls.append([])
        records = follow(generate, prompts, first_sample=70, batch_size=size)
        assert [item.prompt for item in records] == prompts
    assert calls == [[2, 2, 1], [5]]
    assert seen[0] == seen[1] == [(prompt.text, 70 + place) for place, prompt in enumerate(prompts)]


def test_a_derangement_moves_every_item_and_uses_each_once() -> None:
    for n in (2, 3, 7, 64):
        partner = derangement(n, seed=1)
        assert sorted(partner) == list(range(n))
        assert all(place != other for place, other in enumerate(partner))
    assert derangement(64, 1) == derangement(64, 1) != derangement(64, 2)
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, seed=0)


def test_shares_are_counted_per_attribute_and_per_kind() -> None:
    records = [
        record(True, True, {"shape": True, "colour": True}, "triple"),
        record(False, True, {"shape": False, "colour": True}, "triple"),
        record(False, False, {"shape": False, "colour": False}, "shape_colour"),
        record(True, True, {"shape": True}, None),
    ]
    figures = summary(records)
    assert (figures["value"], figures["n"], figures["lenient"]["value"]) == (0.5, 4, 0.75)
    assert figures["graded"]["value"] == (1 + 0.5 + 0 + 1) / 4
    assert figures["graded"]["low"] < figures["graded"]["value"] < figures["graded"]["high"]
    assert figures["attributes"]["shape"]["value"] == 0.5
    assert figures["attributes"]["colour"] == pytest.approx({**figures["attributes"]["colour"], "value": 2 / 3, "n": 3})
    kinds = by_kind(records)
    assert (kinds["triple"]["value"], kinds["triple"]["n"], kinds["shape_colour"]["value"]) == (0.5, 2, 0)
    assert set(kinds) == {"triple", "shape_colour"}


def test_chance_at_easy_is_one_in_720_and_agrees_with_the_oracles() -> None:
    figures = chance(draw_prompts(9, 0, "easy", "heldout"), values("easy"))
    assert figures == pytest.approx({"all": 1 / 720, "shape": 1 / 3, "colour": 1 / 6, "motion": 1 / 10, "background": 1 / 4})
    assert figures["all"] == pytest.approx(oracle_chance())


def test_chance_agrees_with_counting_every_outcome() -> None:
    sizes = {"shape": 2, "colour": 3}
    two = Claim((Attributes("circle", "red"), Attributes("square", "blue")))
    same = Claim((Attributes("circle", "red"), Attributes("circle", "red")))
    mixed = Claim((Attributes("circle", "red"), Attributes("circle", "blue")))
    # Two objects are drawn, 6 x 6 outcomes; unlike ones may come in either order.
    for claimed, everything, shape in ((two, 2 / 36, 2 / 4), (same, 1 / 36, 1 / 4), (mixed, 2 / 36, 1 / 4)):
        figures = chance([Prompt("", claimed)], sizes)
        assert figures["all"] == pytest.approx(everything)
        assert figures["shape"] == pytest.approx(shape)


def test_what_a_prompt_does_not_claim_costs_no_chance() -> None:
    assert chance([Prompt("it grows", Claim((Attributes(motion="grow"),)))], EASY) == pytest.approx({"all": 0.1, "motion": 0.1})


def test_prompts_of_the_evaluation_are_held_out_and_balanced_over_kinds() -> None:
    prompts = draw_prompts(30, 0, "easy", "heldout")
    rule = heldout("easy")
    kinds = [rule.kind(*(getattr(prompt.claim.objects[0], name) for name in ("shape", "colour", "motion"))) for prompt in prompts]
    assert kinds == [prompt.kind for prompt in prompts]
    assert {kind: kinds.count(kind) for kind in kinds} == {"shape_colour": 10, "colour_motion": 10, "triple": 10}
    assert all(prompt.kind is None for prompt in draw_prompts(20, 0, "easy", "val"))
    assert prompts == draw_prompts(30, 0, "easy", "heldout")
