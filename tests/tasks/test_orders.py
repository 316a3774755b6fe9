"""From a command to clips: each has its own noise and prompt, whatever else is asked for; neighbours that can be made at once are."""

import json
from types import SimpleNamespace

import pytest
import torch

from data.prompts.style import Style
from flow.generate import Timed
from runtime.build import ConfigError
from tasks.command import split_command_line
from tasks.orders import batches, check_files, orders, told
from tasks.task import Files, Plan
from tasks.text import TextToVideo

CONFIG = {"seed": 5, "variations": 2, "frames": None, "height": 16, "width": 24, "fps": 8}


def asked(*arguments, **config):
    return orders(split_command_line(["run=r", *arguments])[0], CONFIG | config, Style(negative="ugly"))


def jobs(folder, *lines):
    (folder / "jobs.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return "--prompts", str(folder / "jobs.jsonl")


def test_variations_of_each_prompt_in_turn():
    found = asked("--prompt", "a", "--prompt", "b")
    assert [(order.prompt, order.seed, order.sample, order.number) for order in found] == [
        ("a", 5, 0, 0),
        ("a", 5, 1, 1),
        ("b", 5, 0, 2),
        ("b", 5, 1, 3),
    ]
    assert {order.negative for order in found} == {"ugly"}
    assert {order.negative for order in asked("--prompt", "a", "--negative", "blurry")} == {"blurry, ugly"}


def test_a_line_says_what_it_wants_and_the_command_the_rest(tmp_path):
    (tmp_path / "p.png").write_bytes(b"")
    lines = {"prompt": "a", "seed": 9, "frames": 5}, {"image": "p.png", "negative": "", "width": 48, "fps": 4}
    one, _, other, more = asked(*jobs(tmp_path, *lines), "--mask", "m.png")
    assert (one.prompt, one.seed, one.frames, one.width, one.files) == ("a", 9, 5, 24, Files(mask="m.png"))
    assert (other.prompt, other.negative, other.seed, other.frames, other.width, other.fps) == ("", "", 5, None, 48, 4)
    assert other.files == Files(images=(str(tmp_path / "p.png"),), mask="m.png")
    assert other.where.endswith("jobs.jsonl, line 2")
    assert (one.sample, other.sample) == (0, 1)
    assert more.sample not in (0, 1, 2)


def test_a_lines_noise_stays_when_others_come_or_go(tmp_path):
    before = asked(*jobs(tmp_path, {"prompt": "a"}, {"prompt": "b"}), variations=3)
    after = asked(*jobs(tmp_path, {"prompt": "other"}, {"prompt": "b"}, {"prompt": "c"}), variations=1)
    first, again = (next(order.sample for order in found if order.prompt == "b") for found in (before, after))
    assert first == again == 1


def test_pictures_that_are_missing_or_given_twice_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"jobs\.jsonl, line 1: there is no image"):
        asked(*jobs(tmp_path, {"image": "p.png"}))
    (tmp_path / "p.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="line 1 has an image, and the command another"):
        asked(*jobs(tmp_path, {"image": "p.png"}), "--image", "q.png")
    with pytest.raises(ConfigError, match=r"q\.png cannot be used \(missing"):
        check_files(asked("--image", "q.png"))


class Numbered:
    """An expander that says its seed, and counts how often it was asked."""

    asked = 0

    def expand(self, prompt, seed):
        self.asked += 1
        return f"{prompt} {seed}"


def test_a_prompt_is_put_in_style_and_written_out_once():
    expander = Numbered()
    say = told(Style("{prompt}, at night"), expander)
    first, second, _, _ = asked("--prompt", "a", "--prompt", "b")
    plan = Plan(torch.zeros(0), 9, script=lambda prompt: Timed((prompt, "c"), torch.full((2, 3), 0.5)))
    for order in (first, second):
        assert order.spoken(plan, say).texts == ("a, at night 5", "c, at night 5")
    assert expander.asked == 2
    assert first.spoken(Plan(torch.zeros(0), 9), say) == "a, at night 5"


def test_what_was_told_before_is_told_again():
    (order,) = asked("--prompt", "a", variations=1)
    again = type(order)(**{field: getattr(order, field) for field in order.__dataclass_fields__} | {"texts": ("long a",)})
    assert again.spoken(Plan(torch.zeros(0), 9), told(Style(), Numbered())) == "long a"


def test_neighbours_of_one_shape_and_seed_are_made_at_once(desk, tmp_path):
    lines = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}, {"prompt": "d", "seed": 1}, {"prompt": "e", "seed": 1, "frames": 5}, {"prompt": "f"}]
    every = asked(*jobs(tmp_path, *lines), variations=1)
    planned = [(order, TextToVideo().begin(Files(), desk(order.frames))) for order in every]
    cut = [[order.prompt for order, _ in batch] for batch in batches(planned, 2, lambda plan: False)]
    assert cut == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    alone = [[order.prompt for order, _ in batch] for batch in batches(planned[:3], 8, lambda plan: plan is planned[1][1])]
    assert alone == [["a"], ["b"], ["c"]]


def test_a_plan_is_asked_for_when_its_batch_is(desk, tmp_path):
    seen = []

    def planned():
        for order in asked("--prompt", "a", variations=4):
            seen.append(order.number)
            yield order, SimpleNamespace(canvas=TextToVideo().begin(Files(), desk()).canvas)

    found = batches(planned(), 2, lambda plan: False)
    next(found)
    assert seen == [0, 1, 2]
