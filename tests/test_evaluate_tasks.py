"""scripts/evaluate.py suite=tasks and scripts/showcase.py from end to end, on tiny networks with random weights."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from data.files.reader import read_video
from evaluation.tasks.suite import PARTS
from runtime.config import dump, load_run_config

ROOT = Path(__file__).resolve().parents[1]
FEW = ["suite=tasks", "tasks.clips=4", "tasks.rollouts=4", "tasks.times=2", "tasks.sizes=[[32,48]]", "tasks.lengths=[13]", "steps=1", "device=cpu"]


@pytest.fixture(scope="module")
def run(flow_runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on clips of 17x48x48 of a world that is not there but for its settings, which are all that is needed."""
    root = tmp_path_factory.mktemp("tasks")
    made = flow_runs.save(root / "run", {"none": 1.0})
    saved = load_run_config(made)
    saved["data"]["shape"] |= {"frames": 17, "height": 48, "width": 48}
    saved["data"]["val"] = str(root / "world" / "val" / "index.jsonl")
    (made / "config.yaml").write_text(dump(saved))
    (root / "world").mkdir()
    (root / "world" / "world.json").write_text(json.dumps({"difficulty": "sora", "seed": 0, "fps": 8}))
    return made


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """What `python scripts/NAME.py ...` does, here: exit status, output, errors."""

    def script(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return script


def shown(run: Path, call) -> tuple[dict, str]:
    """What was found, and the page of it."""
    code, out, err = call("showcase", f"run={run}")
    assert code == 0, err
    assert out.strip() == str(run / "showcase.html")
    return json.loads((run / "tasks.json").read_text()), (run / "showcase.html").read_text()


def test_parts_are_measured_written_and_shown(run: Path, call) -> None:
    code, out, err = call("evaluate", f"run={run}", *FEW, "tasks.parts=[connect,inpaint,shapes]")
    assert code == 0, err
    found, page = shown(run, call)
    assert list(found["figures"]) == ["connect", "inpainting", "any shape"]
    assert found["protocol"]["tasks"]["clips"] == found["figures"]["inpainting"]["given"]["worse_db"]["n"] == 4
    assert (found["protocol"]["step"], found["protocol"]["solver"], found["protocol"]["world"]) == (7, "Euler", "sora, seed 0")
    assert (found["protocol"]["tasks"]["window"], found["protocol"]["tasks"]["overlap"]) == (4, 2)  # as trained: clips of 5 latent frames
    assert len(out.splitlines()) == len(found["rows"]) + 2
    for row in found["rows"]:
        assert f"{row['task']}: {row['measure']}: " in out
        assert row["measure"] in (run / "tasks.md").read_text()
        assert row["measure"] in page
    assert f"python scripts/showcase.py run={run}" in out
    inpainted = json.loads((run / "tasks" / "inpainting" / "index.json").read_text())
    assert read_video(run / "tasks" / "inpainting" / inpainted["examples"][0]["video"]).shape == (17, 48, 48, 3)
    sizes = json.loads((run / "tasks" / "any-shape" / "index.json").read_text())["examples"]
    shapes = [read_video(run / "tasks" / "any-shape" / one["video"]).shape for one in sizes]
    assert shapes == [(17, 48, 48, 3), (17, 32, 48, 3), (13, 48, 48, 3)]


def test_a_part_that_is_measured_again_leaves_the_others(run: Path, call, tmp_path: Path) -> None:
    for part, alike in (("inpaint", False), ("connect", True)):
        code, out, err = call("evaluate", f"run={run}", f"out={tmp_path}", *FEW, f"tasks.parts=[{part}]")
        assert code == 0, err
        assert ("was measured alike" in out) == alike
    assert list(json.loads((tmp_path / "tasks.json").read_text())["figures"]) == ["connect", "inpainting"]


@pytest.mark.slow
def test_every_part_is_measured_and_shown(run: Path, call, tmp_path: Path) -> None:
    """pytest -m slow tests/test_evaluate_tasks.py: two minutes, most of them for the oracle's looks at clips of noise."""
    code, _, err = call("evaluate", f"run={run}", f"out={tmp_path}", *FEW)
    assert code == 0, err
    found, page = shown(tmp_path, call)
    assert len(found["figures"]) == len(PARTS) + 7 + 1  # `around` has eight ways, `storyboard` two lengths
    assert [name for name in found["figures"] if f"<h2>{name[0].upper()}{name[1:]}</h2>" not in page] == []
    assert len(list((tmp_path / "tasks").iterdir())) == len(found["figures"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["suite=task"], "suite='task' is unknown: prompts or tasks. Set suite."),
        (["tasks.parts=[loop,lop]"], "tasks.parts has 'lop', which is none of around, posts, connect, inpaint, loop,"),
        (["tasks.clips=1"], "tasks.clips=1 measures nothing: a whole number of at least 4. Set tasks.clips."),
        (["tasks.sizes=[[50,48]]"], "tasks.sizes: height=50 is off the VAE's grid: it must be a multiple of 8 (48 or 56). Set tasks.sizes."),
        (["tasks.lengths=[14]"], "Set tasks.lengths."),
        (["tasks.sizes=[48]"], "Set tasks.sizes."),
        (["tasks.sizes=[[8,8]]"], "16 or more, the least that the oracle can read. Set tasks.sizes."),
        (["tasks.parts=null"], "tasks.parts=None must be a list of some of around, posts,"),
        (["tasks.parts=3"], "tasks.parts=3 must be a list of some of around, posts,"),
        (["tasks.parts=loop"], "tasks.parts='loop' must be a list of some of around, posts,"),
        (["tasks.window=abc"], "tasks.window='abc', tasks.overlap=None, tasks.level=0.0 must be two counts of latent frames,"),
        (["tasks.overlap=4"], "tasks.window=4, tasks.overlap=4: each window needs at least one latent frame from the one before"),
        (["tasks.overlap=true"], "Set tasks.window, overlap and level."),
        (["tasks.level=much"], "Set tasks.window, overlap and level."),
        (["tasks.level=1.5"], "tasks.level=1.5 must be a flow time"),
        (["tasks=null"], "tasks=None must hold what suite=tasks measures, tasks.clips and the like"),
        (["prompts=8", "features=[dino:x]"], "prompts=8, features=['dino:x'] says what suite=prompts measures, and suite=tasks goes by tasks.clips"),
        (["clips=8"], "Set these, and leave clips out."),
        (["frames=33"], "suite=tasks has tasks.sizes and tasks.lengths. Set them to null."),
        (["tasks.clip=4"], "tasks.clip"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(run: Path, call, words: list[str], told: str) -> None:
    few = [] if words == ["tasks=null"] else FEW  # which would be set in nothing
    code, out, err = call("evaluate", f"run={run}", "suite=tasks", *few, *words)
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.strip().splitlines()) <= 2


def test_a_run_that_makes_no_video_and_one_that_was_not_measured_say_so(flow_runs, run: Path, call, tmp_path: Path) -> None:
    code, _, err = call("evaluate", f"run={flow_runs.root / 'vae'}", *FEW)
    assert code == 1
    assert "suite=tasks measures what a flow model makes, and run=" in err
    assert "is a VAE run. Set run to a flow model." in err
    code, _, err = call("showcase", f"run={tmp_path}")
    assert code == 1
    assert f"Measure it first: python scripts/evaluate.py run={tmp_path} suite=tasks" in err
