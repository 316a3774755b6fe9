"""Laws of runs side by side: only what was measured alike is subtracted, item by item where items are known; the rest is said with its remedy."""

import json
import re
import shlex
import shutil
import struct
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ablation.compare import compared
from ablation.compare_alike import APART
from ablation.compare_page import page
from ablation.compare_words import markdown, sentences
from evaluation.gallery import Result, write
from evaluation.report import LIMIT_BYTES
from evaluation.statistics import Mean, apart, paired_bootstrap, paired_shares, wilson
from runtime.config import ConfigError, compose

PROMPTS = ("a red disc rises", "a green square falls", "a blue ring turns", "a grey star grows", "a failure of its own")
PROTOCOL = {"seed": 3, "world": "w", "clips": 20, "size": [16, 32], "frames": 5, "fps": 8, "difficulty": "easy", "step": 40, "steps": 7}
PROTOCOL |= {
    "solver": "Heun",
    "guidance": "ClassifierFree, scale 2.5, frames None",
    "prompts": 20,
    "seen": 4,
    "animated": 6,
    "weights_sha256": "f" * 64,
}
RIGHT = [number % 4 != 0 for number in range(20)]


def made(root: Path, name: str, right: Sequence[bool] = RIGHT, flop: int = 10**12, **settings: Any) -> str:
    """A flow run with an evaluation in which prompt i was followed if right[i]."""
    folder = root / name
    objective = {"dit": {"width": 64}, "vae": {"latent_channels": 4}, "shift": 1.0} | settings
    _write(folder, {"objective": objective, "data": {"latents": f"{folder}/latents"}, "run": str(folder), "seed": 0}, flop)
    header = json.dumps({"dit.a": {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 60]}, "__metadata__": {}}).encode()
    (folder / "checkpoints" / "step-00000040").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000040" / "ema.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(60))
    share = wilson(list(right)).as_dict()
    following = {"all": share, "all_of": list(right), "attributes": {"shape": share}, "seen": wilson([True] * 4).as_dict(), "seen_of": [True] * 4}
    figures = {"prompt_following": following, "tokenizer": {"stride": [4, 8, 8], "latent_channels": 4, "parameters": 7}}
    video = np.full((5, 16, 32, 3), 9 * len(name), np.uint8)
    items = [{"video": video, "prompt": text, "correct": ok, "attributes": {"shape": ok}} for text, ok in zip(PROMPTS, right, strict=False)]
    write(folder, Result(figures, {"drawn": 4, "prompts": items}, [(video, "a row")]), PROTOCOL, 8)
    return str(folder)


def made_vae(root: Path, name: str, levels: Sequence[float]) -> str:
    folder = root / name
    _write(folder, {"objective": {"vae": {"latent_channels": 4}}, "data": {"train": "t", "hold_out": 3}, "run": str(folder), "seed": 0}, 10**12)
    mean = float(np.mean(levels))
    figures = {"vae": {"psnr_db": mean, "psnr_db_low": mean - 2, "psnr_db_high": mean + 2, "psnr_db_of": list(levels), "ssim": 0.9, "n": len(levels)}}
    figures["vae"] |= {"frechet": {"spectrum": {"value": 3.0, "low": 1.0, "high": 2.0, "clips": 20}}}
    video = np.full((5, 16, 32, 3), 90, np.uint8)
    items = [{"source": video, "video": video // 2, "caption": text, "psnr_db": 30.0} for text in PROMPTS]
    protocol = {"seed": 3, "videos": "held out by the run", "clips": len(levels), "size": [16, 32], "frames": 5, "fps": 8}
    write(folder, Result(figures, {"reconstructions": items}, [(video, "a row")]), protocol, 8)
    return str(folder)


def _write(folder: Path, config: dict[str, Any], flop: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [{"kind": kind, "step": step, "loss": 1 / step} for step in range(1, 41) for kind in ("train", "val")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "cost.json").write_text(json.dumps({"time_s": 60.0, "samples": 400, "flop": flop}))


def edit(run: str, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    path = Path(run) / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


class Reader(HTMLParser):
    """Words and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.texts).replace("\u00a0", " ").split())


def flat(runs: Sequence[str]) -> str:
    """The page's words."""
    return Reader(page(compared(runs, "command"))).words


def interval(outcomes: Sequence[bool]) -> Mean:
    share = wilson(outcomes)
    return Mean(share.value, share.low, share.high, share.n)


def test_unpaired_intervals_are_the_published_ones() -> None:
    found = apart(*(interval([True] * k + [False] * (n - k)) for k, n in ((56, 70), (48, 80))))
    assert [found.value, found.low, found.high] == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-5)


def test_paired_intervals_are_the_published_ones() -> None:
    first, second = [True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2
    found, turned = paired_shares(first, second), paired_shares(second, first)
    assert [found.value, found.low, found.high] == pytest.approx([0.2, 0.0569, 0.3404], abs=5e-5)
    assert [-turned.value, -turned.high, -turned.low] == pytest.approx([found.value, found.low, found.high])


def test_two_that_never_differ_are_not_certainly_equal() -> None:
    for share in ([True] * 20, RIGHT):
        found = paired_shares(share, share)
        assert found.low < found.value == 0 < found.high


def test_differences_are_taken_prompt_by_prompt(tmp_path: Path) -> None:
    better = [*RIGHT[:-4], True, True, True, True]
    comparison = compared([made(tmp_path, "a"), made(tmp_path, "b", better)], "command")
    found, base = (comparison["runs"]["b"][key]["prompt_following.all"] for key in ("differences", "figures"))
    assert found["how"] == "paired"
    assert found["value"] == pytest.approx(0.05)
    alone = apart(interval(better), interval(RIGHT))
    assert found["high"] - found["low"] < 0.8 * (alone.high - alone.low)
    assert base == wilson(better).as_dict(), "a run's own figure is the evaluation's"
    assert comparison["runs"]["b"]["differences"]["prompt_following.attributes.shape"]["how"] == "apart"
    assert comparison["runs"]["a"]["differences"] == {}


def test_shares_of_frames_are_paired_by_their_prompts(tmp_path: Path) -> None:
    runs = [made(tmp_path, name) for name in "ab"]
    shares = [number % 5 / 5 for number in range(20)]
    for run, more in zip(runs, (0.0, 0.2), strict=True):
        own = {"framed": {"value": 0.4 + more, "low": 0.0, "high": 1.0, "n": 20}, "framed_of": [share + more for share in shares]}
        edit(run, "evaluation.json", lambda found, own=own: found["prompt_following"].update(own))
    found = compared(runs, "command")["runs"]["b"]["differences"]["prompt_following.framed"]
    assert (found["low"], found["value"], found["high"]) == pytest.approx((0.2, 0.2, 0.2)), "prompt by prompt they differ by the same"


def test_a_run_of_an_ablation_is_compared_by_the_one_evaluation_below_it(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    own = Path(runs[1]) / "measured-0a"
    own.mkdir()
    for name in ("evaluation.json", "evaluation"):
        (Path(runs[1]) / name).rename(own / name)
    comparison = compared(runs, "command")
    assert comparison["runs"]["b"]["measured"] == str(own)
    assert not comparison["runs"]["b"]["faults"]
    assert comparison["runs"]["b"]["differences"]["prompt_following.all"]["how"] == "paired"
    assert page(comparison).count("<video ") == 2 * 4
    shutil.copytree(own, own.with_name("measured-0b"))
    (fault,) = compared(runs, "command")["runs"]["b"]["faults"]
    assert "b has no evaluation.json" in fault["what"], "which of two is meant, nobody knows"
    shutil.copy(own / "evaluation.json", runs[1])
    assert compared(runs, "command")["runs"]["b"]["measured"] == runs[1], "a run's own comes first"


def test_an_older_evaluation_without_items_is_compared_unpaired_and_said(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[1], "evaluation.json", lambda found: (found["prompt_following"].pop("all_of"), found["prompt_following"].pop("seen_of")))
    comparison = compared(runs, "command")
    assert comparison["runs"]["b"]["differences"]["prompt_following.all"]["how"] == "apart"
    words = flat(runs)
    assert "Measured by code that did not keep the single verdicts, so measure again to pair all that can be: b." in words
    assert "did not keep the single verdicts" not in flat([runs[0], made(tmp_path, "c")])


def test_a_run_measured_in_another_way_has_no_difference_but_the_command_that_mends_it(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[1], "evaluation.json", lambda found: found["protocol"].update(steps=9, guidance="NoGuidance"))
    comparison = compared(runs, "command")
    (fault,) = comparison["runs"]["b"]["faults"]
    assert "steps = 9, wanted 7" in fault["what"]
    assert "guidance = NoGuidance, wanted ClassifierFree, scale 2.5, frames None" in fault["what"]
    assert comparison["runs"]["b"]["differences"] == {}
    assert comparison["runs"]["b"]["figures"]["prompt_following.all"]["n"] == 20
    program, script, *overrides = shlex.split(fault["command"])
    assert [program, script] == ["python", "scripts/evaluate.py"]
    config = compose("evaluate", overrides)
    assert config["run"] == runs[1]
    said = {key: value for key, value in config["guidance"].items() if value is not None}
    assert said == {"_target_": "flow.guidance.ClassifierFree", "scale": 2.5}
    assert config["solver"]["_target_"] == "flow.solvers.Heun"
    for key in ("seed", "world", "clips", "prompts", "seen", "animated", "steps"):
        assert config[key] == PROTOCOL[key]
    words = Reader(page(comparison)).words
    assert fault["command"] in words
    assert "Measured in another way, see above: b." in words
    assert "there are no differences" in words
    assert fault["command"] in sentences(comparison)[0]


def test_what_is_null_in_a_protocol_goes_without_saying(tmp_path: Path) -> None:
    """So evaluations from before a key was there compare with those after; a command says it where the config's own value is another."""
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[0], "evaluation.json", lambda found: found["protocol"].update(guidance="ClassifierFree, scale 2.5"))
    assert not compared(runs, "command")["runs"]["b"]["faults"]
    edit(runs[1], "evaluation.json", lambda found: found["protocol"].update(guidance="ClassifierFree, scale 2.5, frames 3.0"))
    (fault,) = compared(runs, "command")["runs"]["b"]["faults"]
    config = compose("evaluate", shlex.split(fault["command"])[2:])
    assert (config["guidance"]["scale"], config["guidance"]["frames"]) == (2.5, None)


@pytest.mark.parametrize("key", [*(key for key in PROTOCOL if key not in APART), "of another day"])
def test_whatever_a_protocol_says_has_to_be_the_same(tmp_path: Path, key: str) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[1], "evaluation.json", lambda found: found["protocol"].update({key: "other"}))
    comparison = compared(runs, "command")
    (fault,) = comparison["runs"]["b"]["faults"]
    assert f"{key} = other, wanted {PROTOCOL.get(key, 'not set')}" in fault["what"]
    assert comparison["runs"]["b"]["differences"] == {}


def test_whose_weights_and_when_and_where_may_differ(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    own = {"weights_sha256": "e" * 64, "config_sha256": "d", "seconds": 9.0, "machine": "another", "versions": {"torch": "8"}, "neighbours": 0}
    edit(runs[1], "evaluation.json", lambda found: found["protocol"].update(own, features={"dino:a": "f" * 64}))
    comparison = compared(runs, "command")
    assert comparison["runs"]["b"]["faults"] == []
    assert comparison["runs"]["b"]["differences"]


def test_figures_by_other_weights_of_one_name_are_not_subtracted(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    for run, key in zip(runs, ("0123456789abcdef" * 4, "f" * 64), strict=True):
        features = {"features": {"dino:small": key, "clip:b": "c" * 64}}
        edit(run, "evaluation.json", lambda found, features=features: found["protocol"].update(features))
    comparison = compared(runs, "command")
    (fault,) = comparison["runs"]["b"]["faults"]
    assert fault["what"].endswith(": dino:small with weights ffffffffffff, wanted 0123456789ab")
    assert comparison["runs"]["b"]["differences"] == {}
    assert shlex.split(fault["command"])[-1] == "features=[dino:FOLDER/small,clip:FOLDER/b]"


def test_the_mending_command_asks_for_the_shape_and_the_positions_of_the_first(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[0], "evaluation.json", lambda found: found["protocol"].update(size=[32, 64], rope="NTK, factors [1.0, 2.0, 2.0]"))
    (fault,) = compared(runs, "command")["runs"]["b"]["faults"]
    assert "size = [16, 32], wanted [32, 64]; rope = not set, wanted NTK, factors [1.0, 2.0, 2.0]" in fault["what"]
    config = compose("evaluate", shlex.split(fault["command"])[2:])
    assert [config[key] for key in ("frames", "height", "width")] == [5, 32, 64]
    assert config["rope"] == {"_target_": "models.rope_scaling.NTK", "factors": [1.0, 2.0, 2.0]}


def test_a_run_that_was_not_measured_is_said_and_its_losses_are_shown(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    (Path(runs[0]) / "evaluation.json").unlink()
    comparison = compared(runs, "command")
    assert [fault["apart"] for fault in comparison["runs"]["a"]["faults"]] == [True]
    assert "seed=3" in comparison["runs"]["a"]["faults"][0]["command"], "as the other was measured"
    assert comparison["runs"]["b"]["differences"] == {}
    text = page(comparison)
    assert "No samples: a." in text
    assert text.count('<polyline class="mean arm-base"') == 4
    (Path(runs[1]) / "evaluation.json").unlink()
    assert "None of these runs has been measured." in flat(runs)


def test_figures_of_other_prompts_are_never_paired_whatever_their_protocol_says(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[1], "evaluation/gallery.json", lambda gallery: gallery["prompts"].reverse())
    comparison = compared(runs, "command")
    assert "other prompts or clips" in comparison["runs"]["b"]["faults"][0]["what"]
    assert comparison["runs"]["b"]["differences"] == {}
    text = page(comparison)
    assert "asked for something else: b." in text
    assert text.count("<video ") == 4


def test_a_run_that_was_trained_on_after_it_was_measured_is_said(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    edit(runs[1], "evaluation.json", lambda found: found["protocol"].update(step=30))
    comparison = compared(runs, "command")
    assert "was trained on to step 40 after it was measured at step 30" in comparison["runs"]["b"]["faults"][0]["what"]
    assert comparison["runs"]["b"]["differences"]


def test_vaes_are_compared_clip_by_clip_beside_their_sources(tmp_path: Path) -> None:
    easy = np.linspace(20, 40, 20)
    runs = [made_vae(tmp_path, "a", easy.tolist()), made_vae(tmp_path, "b", (easy + [0.4, 0.6] * 10).tolist())]
    comparison = compared(runs, "command")
    found = comparison["runs"]["b"]["differences"]
    expected = paired_bootstrap((easy + [0.4, 0.6] * 10).tolist(), easy.tolist(), 3)
    assert (found["vae.psnr_db"]["value"], found["vae.psnr_db"]["low"]) == pytest.approx((expected.value, expected.low))
    assert 0.4 < found["vae.psnr_db"]["low"] < found["vae.psnr_db"]["high"] < 0.6
    assert [found[at]["how"] for at in ("vae.ssim", "vae.frechet.spectrum")] == ["bare", "bare"]
    labels = re.findall(r'<video [^>]*aria-label="([^"]*)"', page(comparison))
    assert labels[:3] == [f"Source: {PROMPTS[0]}", f"Video of a: {PROMPTS[0]}", f"Video of b: {PROMPTS[0]}"]
    assert len(labels) == 3 * 4


def test_vaes_that_held_out_other_clips_of_their_own_are_not_subtracted(tmp_path: Path) -> None:
    runs = [made_vae(tmp_path, name, [30.0, 31.0]) for name in "ab"]
    path = Path(runs[1]) / "config.yaml"
    path.write_text(path.read_text().replace("hold_out: 3", "hold_out: 4"))
    comparison = compared(runs, "command")
    assert "held out other clips" in comparison["runs"]["b"]["faults"][0]["what"]
    assert comparison["runs"]["b"]["differences"] == {}


def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path) -> None:
    flow, vae, encoder = made(tmp_path, "flow"), made_vae(tmp_path, "vae", [30.0, 31.0]), made(tmp_path, "encoder")
    (Path(encoder) / "config.yaml").write_text("run: x\nobjective: {encoder: {}}\n")
    for runs, words in (
        ([flow, vae], "flow is a flow model and .*vae is a VAE: they share no figure"),
        ([flow], "names 1 run folders, wanted 2 to 6"),
        ([flow] * 7, "names 7 run folders"),
        ([flow, f"{flow}/../flow"], "twice"),
        ([flow, str(tmp_path)], "is not a run folder"),
        ([flow, encoder], "encoder is neither a flow model nor a VAE"),
    ):
        with pytest.raises(ConfigError, match=words):
            compared(runs, "command")
    edit(flow, "cost.json", dict.clear)
    (Path(flow) / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"flow/evaluation\.json is not readable"):
        compared([flow, made(tmp_path, "b")], "command")


def test_settings_that_differ_are_listed_and_a_runs_own_folder_is_none(tmp_path: Path) -> None:
    comparison = compared([made(tmp_path, "a"), made(tmp_path, "b", shift=3.0), made(tmp_path, "c", mlp="x")], "command")
    assert comparison["config"] == {
        "objective.shift": {"a": "1.0", "b": "3.0", "c": "1.0"},
        "objective.mlp": {"a": None, "b": None, "c": "'x'"},
    }
    words = Reader(page(comparison)).words
    assert "objective.shift 1.0 3.0 1.0" in " ".join(re.sub(r"(objective\.shift)(1\.0)(3\.0)(1\.0)", r"\1 \2 \3 \4", words).split())
    assert "1 more that only some of them have" in words
    assert "The configs of these runs are the same." in flat([made(tmp_path, "d"), made(tmp_path, "e")])


def points(text: str, own: str) -> list[list[tuple[float, float]]]:
    curves = re.findall(rf'<polyline class="mean {own}" points="([^"]*)"', text)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in curve.split())] for curve in curves]


def test_losses_stand_over_steps_and_over_what_they_cost(tmp_path: Path) -> None:
    text = page(compared([made(tmp_path, "a"), made(tmp_path, "b", flop=2 * 10**12)], "command"))
    first, second = points(text, "arm-base"), points(text, "arm-0")
    ends = [(a[-1][0], b[-1][0]) for a, b in zip(first, second, strict=True)]
    assert len(ends) == 4
    for steps, compute in (ends[:2], ends[2:]):
        assert steps[0] == steps[1]
        assert compute[1] - compute[0] > 190, "the dearer run's curve is twice as long"


def test_samples_under_other_noise_are_said_to_be(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b"), made(tmp_path, "c")]
    assert "The same prompts, the same noise" in flat(runs)
    assert "Under noise of another shape" not in flat(runs)
    edit(runs[1], "evaluation.json", lambda found: found["tokenizer"].update(latent_channels=16))
    assert "Under noise of another shape or seed than the first's, so alike in words alone: b." in flat(runs)
    assert "the same noise" not in flat(runs[:2])


def test_the_page_of_six_runs_needs_nothing_beside_it_and_claims_no_more_than_one_seed(tmp_path: Path) -> None:
    evil = '</q><script>alert("x")</script> & \'"><img src=http://example.org/x> ${aspect} $'
    runs = [made(tmp_path, name, mlp=evil if name == "a" else "y") for name in ("a", "b", "c", "d", "e", "f<i>")]
    for run in runs:
        edit(run, "evaluation/gallery.json", lambda gallery: gallery["prompts"][0].update(prompt=evil))
    comparison = compared(runs, evil)
    text = page(comparison)
    reader = Reader(text)
    sources = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href", "poster", "srcset", "data")]
    assert len(sources) == 3 * 4 * 6, "video, poster and still of six runs for the four prompts that were drawn"
    assert all(source and source.startswith("data:") for source in sources)
    assert not {"script", "link", "iframe", "i>"} & {tag for tag, _ in reader.tags}
    assert "<i></span>" not in text
    assert len(text.encode()) <= LIMIT_BYTES
    assert "Each run is one training seed, and nothing here says what another seed would give." in reader.words
    labels = re.findall(r'<video [^>]*aria-label="Video of ([^:]*):', text)
    assert labels[:6] == ["a", "b", "c", "d", "e", "f&lt;i&gt;"]
    assert reader.words.count('<script>alert("x")</script>') >= 3


def test_the_table_has_every_figure_cost_and_setting(tmp_path: Path) -> None:
    text = markdown(compared([made(tmp_path, "a"), made(tmp_path, "b", [True] * 20, shift=2.0)], "command"))
    assert "| held-out prompts followed in everything | 75 % [53, 89] | 100 % [84, 100] +25 pp [" in text
    assert "| parameters | 15 | 15 |" in text
    assert "| steps | 40 | 40 |" in text
    assert "| `objective.shift` | `1.0` | `2.0` |" in text
    assert "scripts/ablate.py" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
