"""The journeys of a user, each by the commands that the README names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.files.reader import read_video

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_fast_demo_goes_through_every_stage_and_its_run_can_be_sampled(tmp_path: Path) -> None:
    demo = run("scripts/demo.py", "--fast", "--out", str(tmp_path / "demo"))
    assert demo.returncode == 0, demo.stderr[-2000:]
    assert "not meant to be good" in demo.stdout
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "data:video/mp4;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    figures = json.loads((tmp_path / "demo" / "dit" / "evaluation.json").read_text(encoding="utf-8"))
    assert {"prompt_following", "chance", "shuffled", "ceiling", "vae", "image_to_video"} <= set(figures)
    assert set(figures["prompt_following"]["all"]) == {"value", "low", "high", "n"}

    again = run("scripts/demo.py", "--fast", "--out", str(tmp_path / "demo"))
    assert again.returncode == 0
    assert "is complete" in again.stderr

    prompt = 'a "red" circle, 100% ${oc.env:HOME} [up]'
    clips = run("sample.py", f"run={tmp_path}/demo/dit", "--prompt", prompt, "seed=3", f"out={tmp_path}/clips", "steps=2")
    assert clips.returncode == 0, clips.stderr
    (sidecar,) = (tmp_path / "clips").glob("*.json")
    assert json.loads(sidecar.read_text(encoding="utf-8"))["prompt"] == prompt
    assert read_video(sidecar.with_suffix(".mp4")).shape == (17, 64, 64, 3)
