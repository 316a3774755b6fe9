"""The table, the files and the page of the suite of tasks."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.files.reader import read_video
from evaluation.tasks.files import write_tasks
from evaluation.tasks.outcome import ABOUT, Example, Outcome, mask, slug
from evaluation.tasks.page import page
from evaluation.tasks.rows import Row, shown, table

FIGURE = {"value": 0.85, "low": 0.8, "high": 0.9, "n": 16}
EVIL = "a <b>red</b> & \"square\" | <script>alert('x')</script>"


def drawn(frames: int = 9, level: int = 60) -> np.ndarray:
    return np.full((frames, 32, 32, 3), level, np.uint8)


def outcome(name: str, *rows: Row) -> Outcome:
    examples = [Example(drawn(), EVIL, mask(9, (0, 1), (8, 9)), drawn(level=200), EVIL), Example(drawn(9, 120), "")]
    curve = {"lasting": [{"value": 1.0}, {"value": 0.5}]}
    figures = {"rollout": curve, "chained": curve} if name == "rollout" else {"own": 1}
    return Outcome(name, rows or [Row(name, f"measure of {name}", FIGURE)], figures, examples)


def parts() -> list[Outcome]:
    return [outcome(name) for name in (*ABOUT, "storyboard, 33 frames")]


def test_a_row_is_met_on_the_side_of_its_bar_on_which_it_should_lie() -> None:
    row = Row("a", "b", FIGURE, 0.8)
    assert row.met is True
    assert replace(row, bar=0.85).met is True
    assert replace(row, bar=0.86).met is False
    assert replace(row, least=False).met is False
    assert replace(row, least=False, bar=0.85).met is True
    assert replace(row, bar=None).met is None
    assert Row.of(row.as_dict()) == row
    assert row.as_dict() == {
        "task": "a",
        "measure": "b",
        "figure": FIGURE,
        "bar": 0.8,
        "least": True,
        "unit": "share",
        "ceiling": None,
        "frozen": None,
        "reference": None,
        "sure": False,
        "met": True,
    }


def test_below_what_is_hardly_ever_right_nothing_is_met(tmp_path: Path) -> None:
    """Two that both follow no prompt differ by nothing."""
    row = Row("loop", "below", {"value": 0.0, "low": -0.1, "high": 0.1}, 0.1, False, "points", reference=0.5)
    low = replace(row, reference=0.49)
    assert (row.met, row.verdict, low.met, low.verdict) == (True, "met", False, "missed, reference too low")
    assert "| **missed**, reference too low |" in table([low])
    assert next(write_tasks(tmp_path, [outcome("loop", low)], {}, 8)) == "loop: below: 0.0 pp  MISSED, reference too low"
    assert "✗</span> reference too low" in page(tmp_path)


def test_better_means_the_whole_interval() -> None:
    """Two that are alike are not one better than the other, nor is what may be chance."""
    figures = [{"value": value, "low": low, "high": 0.9} for value, low in ((0.0, 0.0), (0.5, 0.0), (0.5, -0.1), (0.5, 0.1))]
    assert [Row("rollout", "above", figure, 0.0, True, sure=True).met for figure in figures] == [False, False, False, True]
    assert [Row("rollout", "below", figure, 0.9, False, sure=True).met for figure in figures] == [False] * 4
    assert Row("rollout", "below", figures[0], 0.91, False, sure=True).met is True
    assert "> 0.0 pp" in table([Row("rollout", "above", figures[3], 0.0, True, "points", sure=True)])


def test_figures_are_written_in_their_unit() -> None:
    assert [shown(0.1234, unit) for unit in ("share", "points", "dB", "ratio", "plain")] == ["12.3 %", "12.3 pp", "0.12 dB", "0.12 x", "0.123"]
    assert shown(None, "share") == ""


def test_the_table_has_a_line_for_every_row_and_names_each_task_once() -> None:
    rows = [
        Row("loop", "pace", FIGURE, 0.5, True, "ratio", 1.0, 0.0),
        Row("loop", "even", {"value": 0.5}),
        Row("remix", "behind", FIGURE, 0.1, False, "points"),
    ]
    head, rule, *lines = table(rows).splitlines()
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [
        ["loop", "pace", "0.85 x", "0.80 x to 0.90 x", "16", ">= 0.50 x", "met", "1.00 x", "0.00 x"],
        ["", "even", "50.0 %", "", "", "", "", "", ""],
        ["remix", "behind", "85.0 pp", "80.0 pp to 90.0 pp", "16", "<= 10.0 pp", "**missed**", "", ""],
    ]


def test_what_is_measured_is_on_disk_before_the_next_part_begins(tmp_path: Path) -> None:
    def breaks() -> Iterator[Outcome]:
        yield outcome("loop", Row("loop", "pace", FIGURE, 0.5))
        assert json.loads((tmp_path / "tasks.json").read_text())["rows"][0]["met"] is True
        yield outcome("remix", Row("remix", "grows", FIGURE, 0.9))
        raise RuntimeError("out of memory")

    told = []
    with pytest.raises(RuntimeError, match="out of memory"):
        told.extend(write_tasks(tmp_path, breaks(), {"seed": 0}, 8))
    found = json.loads((tmp_path / "tasks.json").read_text())
    assert [(row["task"], row["met"]) for row in found["rows"]] == [("loop", True), ("remix", False)]
    assert list(found["figures"]) == ["loop", "remix"]
    assert found["protocol"] == {"seed": 0}
    assert (tmp_path / "tasks.md").read_text().count("\n") == 4
    assert "out of memory" not in page(tmp_path)
    assert page(tmp_path).count("<h2>") == 3


def test_parts_that_were_measured_alike_stay_in_their_order(tmp_path: Path) -> None:
    told = {"step": 7, "tasks": {"sizes": ((8, 8),)}}
    list(write_tasks(tmp_path, [outcome("loop"), outcome("storyboard, 17 frames"), outcome("rollout")], told | {"machine": "a"}, 8))
    again = [outcome("inpainting"), outcome("loop", Row("loop", "anew", FIGURE)), outcome("storyboard, 33 frames")]
    first, *_ = write_tasks(tmp_path, again, told | {"machine": "b", "run": "c"}, 8)
    assert "parts that are not measured now stay" in first
    found = json.loads((tmp_path / "tasks.json").read_text())
    names = ["inpainting", "loop", "storyboard, 17 frames", "storyboard, 33 frames", "rollout"]
    assert list(found["figures"]) == [row["task"] for row in found["rows"]] == names
    assert [row["measure"] for row in found["rows"]][1:3] == ["anew", "measure of storyboard, 17 frames"]
    assert (tmp_path / "tasks.md").read_text().count("\n") == 2 + 5
    assert page(tmp_path).count("<h2>") == 5 + 1


def test_another_measurement_is_moved_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    list(write_tasks(tmp_path, [outcome("loop"), outcome("remix")], {"step": 7, "seed": 0}, 8))
    before, shown_before = (tmp_path / "tasks.json").read_bytes(), page(tmp_path)
    first, *_ = write_tasks(tmp_path, [outcome("loop")], {"step": 8, "seed": 0}, 8)
    assert first == f"the earlier measurement, with another step, is now in {tmp_path / 'tasks-1'}/"
    assert list(json.loads((tmp_path / "tasks.json").read_text())["figures"]) == ["loop"]
    assert (tmp_path / "tasks-1" / "tasks.json").read_bytes() == before
    assert page(tmp_path / "tasks-1") == shown_before
    first, *_ = write_tasks(tmp_path, [outcome("loop")], {"step": 9, "seed": 0}, 8)
    assert "tasks-2" in first
    (tmp_path / "tasks.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):  # before anything is made
        next(write_tasks(tmp_path, (pytest.fail("made") for _ in range(1)), {"step": 9}, 8))


def test_each_row_is_told_with_its_verdict(tmp_path: Path) -> None:
    rows = Row("loop", "pace", FIGURE, 0.5), Row("loop", "even", FIGURE, 0.9), Row("loop", "far", FIGURE)
    told = list(write_tasks(tmp_path, [outcome("loop", *rows)], {}, 8))
    assert told[:3] == ["loop: pace: 85.0 %  met", "loop: even: 85.0 %  MISSED", "loop: far: 85.0 %"]
    assert str(tmp_path / "tasks.md") in told[3]


def test_examples_can_be_read_again(tmp_path: Path) -> None:
    list(write_tasks(tmp_path, [outcome("behind a post")], {}, 8))
    own = tmp_path / "tasks" / slug("behind a post")
    index = json.loads((own / "index.json").read_text())
    assert (index["name"], index["fps"]) == ("behind a post", 8)
    assert [row["measure"] for row in index["rows"]] == ["measure of behind a post"]
    first, second = index["examples"]
    assert first["given"] == [True, *[False] * 7, True]
    assert first["caption"] == EVIL
    assert "source" not in second
    for name, level in ((first["video"], 60), (first["source"], 200), (second["video"], 120)):
        video = read_video(own / name)
        assert video.shape == (9, 32, 32, 3)
        assert np.abs(video.astype(int) - level).max() <= 3  # the codec's
    for entry, key in ((first, "video_still"), (first, "source_still"), (second, "video_still")):
        assert (own / entry[key]).read_bytes().startswith(b"\x89PNG")


def test_folders_of_parts_do_not_meet() -> None:
    assert len({slug(one.name) for one in parts()}) == len(parts())


def test_the_page_shows_every_part_and_nothing_of_a_caption_as_markup(tmp_path: Path) -> None:
    list(write_tasks(tmp_path, parts(), {"seed": 0, "note": "<i>odd</i>", "versions": {"x": "1"}}, 8))
    text = page(tmp_path)
    for one in parts():
        assert f"<h2>{one.name[0].upper()}{one.name[1:]}</h2>" in text
        assert f"measure of {one.name}" in text
    for name, about in ABOUT.items():
        assert about.replace("'", "&#x27;") in text, name
    assert "<script>alert" not in text
    assert "<b>red</b>" not in text
    assert "<i>odd</i>" not in text
    assert text.count("&lt;script&gt;") >= 2 * len(parts())
    assert text.count("<video") == 3 * len(parts())  # two clips, and the source of one
    assert text.count('aria-label="given frames"') == len(parts())
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert "attributes and still move, from 1 to 2 times the trained length" in text


def test_the_page_counts_the_bars_that_are_met(tmp_path: Path) -> None:
    rows = Row("loop", "pace", FIGURE, 0.5), Row("loop", "even", FIGURE, 0.9), Row("loop", "far", FIGURE)
    list(write_tasks(tmp_path, [outcome("loop", *rows)], {}, 8))
    text = page(tmp_path)
    assert "1 of 2 bars are met" in text
    assert text.count("✓") == text.count("✗") == 1


def test_a_page_without_its_media_still_tells_everything(tmp_path: Path) -> None:
    list(write_tasks(tmp_path, [outcome("loop"), outcome("remix")], {}, 8))
    for file in (tmp_path / "tasks" / "loop").glob("*.*4"):
        file.unlink()
    for file in (tmp_path / "tasks" / "loop").glob("*.png"):
        file.unlink()
    text = page(tmp_path)
    assert "measure of loop" in text
    assert "000.mp4 (not there)" in text
    assert text.count("<video") == 3  # of the other part
    for file in (tmp_path / "tasks" / "remix").iterdir():
        file.unlink()
    assert "measure of loop" in page(tmp_path)


def test_a_run_that_was_not_measured_says_how(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scripts/evaluate.py run=.* suite=tasks"):
        page(tmp_path)
