"""Laws of an ablation's page: complete in itself, like set beside like, and whatever is missing or failed is said."""

import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablation.page import page
from ablation.verdicts import sentences
from evaluation.charts import Line, Span, lines, spans
from evaluation.gallery import Result, write
from evaluation.report import LIMIT_BYTES

VOID = {"meta", "br", "img", "rect", "line", "polyline", "circle", "wbr"}
PROMPTS = ("a red disc rises", "a green square falls", "a blue ring turns", "a grey star grows", "never shown")
SEEDS = (3, 4, 5)
ARMS = {"base": (25, 0.0, []), "wide": (50, 0.02, ["objective.dit.width=64"]), "odd": (25, -0.02, ["objective.dit.odd=true"])}


class Reader(HTMLParser):
    """Tags with their attributes and texts, and whether they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.texts).replace("\u00a0", " ").split())

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Three arms under three seeds with losses, and with samples under the last two."""
    root, arms = tmp_path_factory.mktemp("checkout"), {}
    for place, (name, (gflop, gap, overrides)) in enumerate(ARMS.items()):
        runs, steps = [], 1000 // gflop
        for seed in SEEDS:
            folder = root / "runs" / f"{name}-{seed}"
            folder.mkdir(parents=True)
            level = 0.4 + gap + 0.001 * seed
            rows = [{"kind": kind, "step": step, "loss": level + 1 / step} for step in range(1, steps + 1) for kind in ("train", "val")]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            if seed > SEEDS[0]:
                write(folder, samples(place), {"size": [16, 32]}, 8)
            values = {"loss": level + 1e-4 * ((7 * seed + place) % 5), "following": 0.5 - gap}
            cost = {"flop": 1_000_000_000_000, "seconds": 10.0 + place}
            runs.append({"seed": seed, "run": f"runs/{name}-{seed}", "measured": f"runs/{name}-{seed}", "values": values, "error": None, **cost})
        arms[name] = {"overrides": overrides, "steps": steps, "flop_per_step": gflop * 10**9, "parameters": 1000, "runs": runs}
    measures = {
        "loss": {"label": "validation loss", "better": "lower", "smallest": 0.005, "share": False},
        "following": {"label": "prompts followed", "better": "higher", "smallest": 0.03, "share": True},
    }
    facts = {"name": "width", "question": "How wide?", "command": "python scripts/ablate.py ablation=width", "baseline": "base"}
    facts |= {"machines": ["a machine, torch 9", "another"], "seconds": 600.0, "seeds": list(SEEDS), "measures": measures, "arms": arms}
    return facts | {"budget": {"flop": 1e12, "steps": None, "seconds": None}}, root


def samples(place: int) -> Result:
    video = np.full((5, 16, 32, 3), 60 * place, np.uint8)
    items = []
    for number, text in enumerate(PROMPTS):
        right = number != place
        items.append({"video": video, "prompt": text, "correct": right, "attributes": {"shape": True, "motion": right}})
    return Result({}, {"drawn": 4, "prompts": items}, [(video, "a row")])


@pytest.fixture
def results(shared: tuple[dict[str, Any], Path]) -> dict[str, Any]:
    return deepcopy(shared[0])


@pytest.fixture
def root(shared: tuple[dict[str, Any], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared[1], tmp_path / "checkout"))


@pytest.fixture(scope="module")
def complete(shared: tuple[dict[str, Any], Path]) -> str:
    return page(*shared)


def test_the_page_needs_nothing_beside_it(complete: str) -> None:
    reader = Reader(complete)
    sources = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href", "poster", "srcset", "data")]
    assert len(sources) == 3 * 4 * 3, "video, poster and still of three arms for four prompts"
    assert all(source and source.startswith("data:") for source in sources)
    assert not reader.all("script", "link", "iframe", "object", "base", "form")
    assert not re.search(r"url\(|@import|javascript:|\son\w+=", complete)
    assert all(attributes.get("aria-label") for attributes in reader.all("svg", "video"))
    assert len(complete.encode()) <= LIMIT_BYTES
    assert "aspect-ratio: 32 / 16" in complete


def test_the_question_and_then_verdicts_in_words_come_first(complete: str, results: dict[str, Any]) -> None:
    words = Reader(complete).words
    places = [words.index(sentence) for sentence in sentences(results)]
    assert len(places) == 4
    assert places == sorted(places)
    assert words.index("How wide?") < places[0]
    assert places[-1] < words.index("Difference from base")


def test_the_same_prompts_stand_side_by_side_under_the_first_seed_that_all_arms_have(complete: str) -> None:
    assert f"Seed {SEEDS[1]}: the first four prompts" in complete
    blocks = complete.split("<h3><q>")[1:]
    assert [block.split("<")[0] for block in blocks] == list(PROMPTS[:4])
    for place, block in enumerate(blocks):
        block = block[: block.index("</ul>")]
        assert re.findall(r'<video [^>]*aria-label="Video of (\w+): ([^"]*)"', block) == [(name, PROMPTS[place]) for name in ARMS]
        assert block.count("✗ wrong: motion") == block.count('<figure class="wrong">') == (1 if place < 3 else 0)


def change(root: Path, run: str, edit: Callable[[dict[str, Any]], None]) -> None:
    path = root / "runs" / run / "evaluation" / "gallery.json"
    gallery = json.loads(path.read_text())
    edit(gallery)
    path.write_text(json.dumps(gallery))


def test_videos_of_other_prompts_are_never_set_beside_the_rest(results: dict[str, Any], root: Path) -> None:
    change(root, "odd-4", lambda gallery: gallery["prompts"].reverse())
    text = page(results, root)
    assert "Not shown, as the evaluation asked for other prompts: odd." in text
    assert text.count("<video ") == 2 * 4
    assert "Video of odd" not in text


def test_only_prompts_that_were_drawn_in_every_arm_are_shown(results: dict[str, Any], root: Path) -> None:
    """What comes after `drawn` are failures, of another prompt in every arm."""
    change(root, "wide-4", lambda gallery: gallery.update(drawn=2))
    assert page(results, root).count("<h3><q>") == 2


def points(text: str, arm: str, kind: str = "mean") -> list[list[tuple[float, float]]]:
    """The curves of an arm in the two charts of losses."""
    found = re.findall(rf'<polyline class="{kind} {arm}" points="([^"]*)"', text)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in curve.split())] for curve in found]


def test_curves_stand_over_flop_so_arms_of_one_budget_end_together(complete: str) -> None:
    for chart in range(2):
        ends = [points(complete, mark)[chart][-1][0] for mark in ("arm-base", "arm-0", "arm-1")]
        assert ends == pytest.approx([ends[0]] * 3, abs=0.2)
        gap = [curve[-1][0] - curve[-2][0] for curve in (points(complete, mark)[chart] for mark in ("arm-base", "arm-0"))]
        assert gap[1] == pytest.approx(2 * gap[0], abs=0.3), "a step of the wide arm costs twice as much"
    assert len(points(complete, "arm-0", "seed")) == 2 * len(SEEDS)
    assert "GFLOP</text>" in complete


def test_arms_that_share_a_training_share_a_curve_and_are_said_to(complete: str, results: dict[str, Any], root: Path) -> None:
    assert "9 runs" in complete
    assert "share their trainings" not in complete
    results["arms"]["odd"]["overrides"] = ["evaluate: steps=4"]
    for own, trained in zip(results["arms"]["odd"]["runs"], results["arms"]["base"]["runs"], strict=True):
        own["run"] = trained["run"]
    text = page(results, root)
    words = Reader(text).words
    assert "6 trainings, measured 9 times" in words
    assert "base and odd share their trainings, so one curve." in words
    assert "evaluate: steps=4" in words
    assert not points(text, "arm-1")
    assert len(points(text, "arm-base", "seed")) == 2 * len(SEEDS)
    assert len(re.findall("<video ", text)) == 3 * 4, "what was measured is still shown of each"
    results["arms"]["odd"]["runs"][0] |= {"error": "its evaluation failed", "values": {}}
    curves = points(page(results, root), "arm-base")
    assert curves == points(text, "arm-base"), "a training whose other evaluation failed is in the mean as before"


def test_a_run_that_failed_is_named_and_in_no_mean(results: dict[str, Any], root: Path) -> None:
    results["arms"]["wide"]["runs"][0] |= {"values": {}, "flop": None, "seconds": None, "error": "RuntimeError: not finite"}
    path = root / "runs" / "wide-3" / "metrics.jsonl"
    path.write_text("".join(json.dumps({"kind": "train", "step": step, "loss": 50.0}) + "\n" for step in range(1, 6)))
    text, whole = page(results, root), page(results, Path("nowhere"))
    words = Reader(text).words
    assert "wide, seed 3: failed: RuntimeError: not finite" in words
    assert "1 of its 3 runs failed" in words
    assert "Not every run is in these comparisons" in words
    heights = [y for _, y in points(text, "arm-0")[0]]
    assert len(heights) > 10, "the mean goes on after the failed run's last step"
    assert heights == sorted(heights), "down, as the losses of the others do"
    assert len(points(text, "arm-0", "seed")) == 3 + 2, "its training is drawn as far as it came"
    assert "Runs that are missing" in whole


def test_what_is_missing_is_said(results: dict[str, Any], root: Path) -> None:
    words = Reader(page(results, root)).words
    assert "none: every run ended and was measured" in words
    shutil.rmtree(root / "runs" / "odd-4" / "evaluation")
    shutil.rmtree(root / "runs" / "odd-5" / "evaluation")
    for seed in SEEDS:
        (root / "runs" / f"wide-{seed}" / "metrics.jsonl").unlink()
    (root / "runs" / "base-4" / "evaluation" / "prompts-00-video.mp4").unlink()
    del results["arms"]["odd"]["runs"][1]["values"]["following"], results["arms"]["odd"]["runs"][2]
    words = Reader(page(results, root)).words
    for told in (
        "No samples under this seed: odd.",
        "No such losses in metrics.jsonl of wide.",
        "prompts-00-video.mp4 (not there)",
        "odd, seed 4: no prompts followed",
        "odd, seed 5: no run yet",
        "prompts followed was measured under 1 seed in common",
    ):
        assert told in words
    shutil.rmtree(root / "runs")
    for node in results["arms"].values():
        node["runs"].clear()
    words = Reader(page(results, root)).words
    assert "No run has left samples of prompts." in words
    assert "No such losses in metrics.jsonl of base, wide and odd." in words
    assert "base, seeds 3 to 5: no run yet" in words


def test_a_damaged_file_is_refused_by_name(results: dict[str, Any], root: Path) -> None:
    (root / "runs" / "odd-4" / "evaluation" / "gallery.json").write_text("{")
    with pytest.raises(ValueError, match=r"odd-4/evaluation/gallery\.json is not readable"):
        page(results, root)


def test_arms_that_did_not_cost_the_same_are_said_to(complete: str, results: dict[str, Any], root: Path) -> None:
    assert "did not cost the same" not in complete
    results["arms"]["wide"]["runs"][0]["flop"] *= 1.1
    assert "did not cost the same" in page(results, root)


def test_whatever_was_written_is_text_and_never_markup(results: dict[str, Any], root: Path) -> None:
    evil = '</q><script>alert("x")</script> & \'"><img src=http://example.org/x> ${aspect} $'
    results |= {"question": evil, "command": evil, "machines": [evil]}
    results["measures"]["loss"]["label"] = evil
    results["arms"]["odd"]["overrides"] = [evil]
    results["arms"]["odd"]["runs"][0] |= {"values": {}, "error": evil}
    results["arms"][evil] = results["arms"].pop("wide")
    for name in ("base", "wide", "odd"):
        change(root, f"{name}-4", lambda gallery: gallery["prompts"][0].update(prompt=evil))
    reader = Reader(page(results, root))
    assert not reader.all("script")
    assert all(str(attributes["src"]).startswith("data:") for attributes in reader.all("img"))
    assert reader.words.count('<script>alert("x")</script>') > 10


def drawn(text: str, kind: str) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in re.findall(rf'<line class="{kind}" x1="([-\d.]+)" x2="([-\d.]+)"', text)]


def row(name: str, low: float, value: float, high: float) -> Span:
    return Span(name, "", name, (low, value, high), [low, high], "worse")


def test_differences_are_drawn_to_scale_around_zero_with_the_band_behind() -> None:
    text = spans([row("a", -0.01, 0.01, 0.03), row("b", -0.04, -0.02, 0.0)], 0.02, ("better", "worse"))
    Reader(text)
    (zero, _), (a, b), discs = drawn(text, "zero")[0], drawn(text, "range"), drawn(text, "disc")
    unit = (a[1] - a[0]) / 0.04
    for (left, right), (low, value, high), (disc, _) in zip((a, b), ((-0.01, 0.01, 0.03), (-0.04, -0.02, 0.0)), discs, strict=True):
        assert [left, disc, right] == pytest.approx([zero + unit * low, zero + unit * value, zero + unit * high], abs=0.05)
    x, width = (float(value) for value in re.findall(r'<rect class="track" x="([\d.]+)" width="([\d.]+)"', text)[0])
    assert (x, x + width) == pytest.approx((zero - unit * 0.02, zero + unit * 0.02), abs=0.05)
    assert all(0 < at < 100 for pair in (*drawn(text, "point"), a, b) for at in pair)


def test_one_arm_far_off_does_not_flatten_the_others_and_is_marked_as_cut_off() -> None:
    near = [row("a", 0.001, 0.002, 0.003), row("b", -0.003, -0.002, -0.001)]
    text = spans([*near, row("far", 1.0, 2.0, 3.0)], None, ("better", "worse"))
    assert drawn(text, "disc")[0][0] - drawn(text, "disc")[1][0] > 40
    assert len(drawn(text, "disc")) == 2
    assert text.count("<polyline") == 1
    assert spans([], None, ("", "")).count("<svg") == 0


def test_a_seed_beside_its_interval_is_on_the_scale_and_one_seed_alone_is_drawn() -> None:
    text = spans([Span("a", "", "a", (0.01, 0.02, 0.03), [-0.5, 0.02, 0.54], "worse"), Span("b", "", "b", None, [0.3], "worse")], None, ("", ""))
    assert len(drawn(text, "point")) == 4
    assert len(drawn(text, "disc")) == 1


def test_a_curve_enters_a_chart_from_above_at_its_own_slope_and_a_failed_one_does_not_set_the_scale() -> None:
    falling = Line([(1.0, 100.0), (50.0, 1.0), (100.0, 0.5)], "fine")
    text = lines([falling, Line([(1.0, 0.6), (60.0, 1e6)], "failed", scales=False)], "words", "TFLOP", settled=0.2)
    fine, failed = (
        [tuple(map(float, pair.split(","))) for pair in re.findall(rf'"{kind}" points="([^"]*)"', text)[0].split()] for kind in ("fine", "failed")
    )
    unit = (fine[2][0] - fine[1][0]) / 50
    # From 2 to 0 in log10 over 49: it comes under the upper end, at 0.02, 0.49 before it is at 1.
    assert fine[1][0] - fine[0][0] == pytest.approx(0.49 * unit, abs=0.2)
    assert fine[2][1] - fine[1][1] > 180, "from 1 to 0.5 fills the chart"
    assert failed[1][1] == fine[0][1], "at the upper edge"
