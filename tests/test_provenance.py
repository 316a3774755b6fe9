"""scripts/provenance.py and scripts/showcase.py from end to end: whatever sample.py writes can be read back, and one bad file ends nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

import sample
from scripts.provenance import main

ROOT = Path(sample.__file__).parent


@pytest.fixture(scope="module")
def clips(flow_runs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("clips")
    sample.main([f"run={flow_runs.root}/every", f"out={out}", "--prompt", "x", "steps=1", "frames=5", "formats=[mp4,png,strip,gif]", "device=cpu"])
    return out


@pytest.mark.parametrize("ending", [".png", ".strip.png", ".gif", ".mp4", ".json"])
def test_every_file_of_a_clip_tells_how_it_was_made(clips, tmp_path, capsys, ending):
    assert main([f"{clips}/000-x{ending}"]) == 0
    assert 'prompt           "x"' in capsys.readouterr().out
    sample.main([f"from={clips}/000-x{ending}", f"out={tmp_path}/o", "device=cpu"])
    assert "the same frames, bit for bit" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_does_not_end_the_command(clips, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_text("no video")
    alone = tmp_path / "alone.png"
    alone.write_bytes((clips / "000-x.png").read_bytes())
    assert main([str(tmp_path / "none.mp4"), str(tmp_path / "broken.mp4"), str(alone), str(clips / "000-x.mp4")]) == 1
    told = capsys.readouterr().out
    assert told.count("error: ") == 2
    assert "there is no alone.json beside it" in told
    assert 'prompt           "x"' in told


def test_a_page_that_cannot_be_written_names_its_key(tmp_path):
    (tmp_path / "tasks.json").write_text("{}")
    code = "import scripts.showcase as s; s.page = lambda run: ''; s.main()"
    command = [sys.executable, "-c", code, f"run={tmp_path}", f"out={tmp_path}/tasks.json/x.html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Set out=" in done.stderr
