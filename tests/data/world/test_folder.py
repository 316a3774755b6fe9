"""The world on disk: real mp4 files, the same for the same settings, whole or absent, and taken up again where it stopped."""

import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest

from data.world.captions import facts
from data.world.folder import World, make_world
from data.world.render import render
from data.world.scene import Scene
from data.world.splits import heldout
from data.world.vocabulary import COLOURS

ROOT = Path(__file__).parents[3]
WORLD = World("easy", seed=4, clips=5, val=2, heldout=3, frames=9, fps=8, height=32, width=48, crf=12)


def run_script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "make_world.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "easy"
    make_world(WORLD, out, processes=1)
    return out


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_files_show_what_index_and_truth_say(made: Path):
    rule = heldout("easy")
    for split, count in (("train", 5), ("val", 2), ("heldout", 3)):
        index, truths = rows(made / split / "index.jsonl"), rows(made / split / "truth.jsonl")
        assert [row["path"] for row in index] == [row["path"] for row in truths] == [f"clips/{number:06d}.mp4" for number in range(count)]
        for number, (row, states) in enumerate(zip(index, truths, strict=True)):
            video = frames_of(made / split / row["path"])
            assert video.shape == (row["frames"], row["height"], row["width"], 3) == (9, 32, 48, 3)
            exact = render(WORLD.scene(split, number), 9, 32, 48)
            assert 10 * np.log10(255**2 / np.mean((video.astype(float) - exact) ** 2)) > 26  # chroma of edges at 32 px
            assert len(states["frames"]) == 9
            left, top, right, bottom = states["frames"][0]["objects"][0]["box"]
            x, y = round((left + right) / 2), round((top + bottom) / 2)
            assert np.abs(video[0, y, x].astype(int) - video[0, 0, 0]).max() > 40  # the object is where the truth says
            one = row["labels"]["objects"][0]
            assert (rule.kind(one["shape"], one["colour"], one["motion"]) is not None) == (split == "heldout")
            assert set(row["captions"]) == {"short", "long", "motion"}


def test_a_story_is_written_shot_by_shot_and_claims_nothing_of_the_whole(tmp_path: Path):
    world = replace(WORLD, difficulty="sora", clips=24, val=4, heldout=0, stories=3, frames=17)
    make_world(world, tmp_path / "sora", processes=1)
    counts = Counter()
    for split in ("train", "val", "stories"):
        index, truths = rows(tmp_path / "sora" / split / "index.jsonl"), rows(tmp_path / "sora" / split / "truth.jsonl")
        for number, (row, states) in enumerate(zip(index, truths, strict=True)):
            clip = world.scene(split, number)
            counts[split, "shots" in row] += 1
            if isinstance(clip, Scene):
                assert set(row["captions"]) == {"short", "long", "motion", "picture"}
                assert "shot" not in states["frames"][0]
                continue
            assert row["captions"] == {}
            assert [(shot["start_s"], shot["end_s"]) for shot in row["shots"]] == [(0.0, 9 / 8), (9 / 8, 17 / 8)]
            assert [frame["shot"] for frame in states["frames"]] == [0] * 9 + [1] * 8
            for shot, labels, scene in zip(row["shots"], row["labels"]["shots"], (clip.first, clip.second), strict=True):
                assert json.loads(json.dumps(asdict(facts(scene)))) == labels
                assert set(shot["captions"]) == {"short", "long", "motion", "picture"}
                one = labels["objects"][0]
                assert all(one["colour"] in text and one["shape"] in text for text in shot["captions"]["picture"])
            video = frames_of(tmp_path / "sora" / split / row["path"])
            x, y = (round(value) for value in states["frames"][9]["objects"][0]["centre"])
            wanted = 255 * np.asarray(COLOURS[row["labels"]["shots"][1]["objects"][0]["colour"]])
            assert np.abs(video[9, y, x] - wanted).max() < 40
    assert counts[("val", True)] == counts[("stories", False)] == 0
    assert counts[("stories", True)] == 3
    assert counts[("train", True)] > 0


def test_stories_in_a_world_change_no_record_of_a_world_without():
    assert "stories" not in WORLD.record()
    assert replace(WORLD, difficulty="sora", frames=17, stories=2).record()["stories"] == 2


def test_an_interrupted_folder_is_completed_and_finished_clips_are_kept(made: Path):
    clips = made / "train" / "clips"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(clips.iterdir())}
    index = (made / "train" / "index.jsonl").read_bytes()
    (clips / "000003.mp4").unlink()
    (clips / "000001.mp4").write_bytes(b"")
    (clips / ".000004.mp4.77.part").write_bytes(b"half")
    (made / "train" / "index.jsonl").unlink()
    make_world(WORLD, made, processes=2)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(clips.iterdir())}
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    assert {name for name in before if before[name] != after[name]} == {"000001.mp4", "000003.mp4"}
    assert (made / "train" / "index.jsonl").read_bytes() == index


def test_another_config_in_the_same_folder_is_refused_with_what_differs(made: Path):
    with pytest.raises(RuntimeError, match=r"crf=12, now 20; seed=4, now 5"):
        make_world(replace(WORLD, seed=5, crf=20), made)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        make_world(WORLD, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_writers_in_one_folder_are_refused(made: Path):
    with (made / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"):
            make_world(WORLD, made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 33}, "height=34"),
        ({"frames": 0}, "frames=0"),
        ({"difficulty": "eazy"}, "easy, standard, hard"),
        ({"val": -1}, "val=-1"),
        ({"clips": "many"}, "whole number"),
        ({"fps": 0}, "fps=0"),
        ({"stories": 2}, "sora has"),
        ({"stories": 2, "difficulty": "sora", "frames": 13}, "frames=13 is too short"),
    ],
)
def test_impossible_settings_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(WORLD, **change)


def test_the_script_writes_the_folder_and_nothing_beside_it(tmp_path: Path, made: Path):
    settings = ["clips=5", "val=2", "heldout=3", "frames=9", "height=32", "width=48", "processes=1"]
    done = run_script("out=w", "seed=4", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    for name in ("train/index.jsonl", "train/truth.jsonl", "heldout/clips/000002.mp4", "world.json"):
        assert (tmp_path / "w" / name).read_bytes() == (made / name).read_bytes()
    refused = run_script("out=w", "seed=5", *settings, cwd=tmp_path)
    assert refused.returncode == 1
    assert "seed=4, now 5" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_workers_do_not_load_torch():
    code = "import sys, data.world.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
