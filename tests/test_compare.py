"""scripts/compare.py as a user runs it: run folders in, a page out; what is wrong is said in a line."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from evaluation.statistics import wilson

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "scripts/compare.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def made(folder: Path, right: list[bool]) -> Path:
    """A run as train.py and evaluate.py leave it, without samples."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"objective": {"dit": {}}, "data": {}, "run": str(folder), "seed": 0}))
    following = {"all": wilson(right).as_dict(), "all_of": right}
    (folder / "evaluation.json").write_text(json.dumps({"prompt_following": following, "protocol": {"seed": 0, "prompts": len(right)}}))
    return folder


def test_two_runs_become_a_page_a_table_and_their_figures(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", [False] * 30 + [True] * 10), made(tmp_path / "second", [True] * 40)
    done = run(f"runs=[{first},{second}]", f"out={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert "second against first: held-out prompts followed in everything, +75 percentage points [" in done.stdout
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/out/page.html"
    assert "</html>" in (tmp_path / "out" / "page.html").read_text()
    assert "| held-out prompts followed in everything |" in (tmp_path / "out" / "table.md").read_text()
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["runs"]["second"]["differences"]["prompt_following.all"]["value"] == 0.75
    assert comparison["command"].startswith("python scripts/compare.py ")


def test_one_run_alone_is_refused_in_a_line(tmp_path: Path) -> None:
    done = run(f"runs=[{made(tmp_path / 'a', [True, False])}]", f"out={tmp_path}/out")
    assert done.returncode == 1
    assert "wanted 2 to 6" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
