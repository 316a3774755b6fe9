"""sample.py from end to end, on tiny networks with random weights: every task, files of prompts, shares, and the same clip again."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import sample
from data.files.reader import read_video
from data.provenance import read_record
from data.writer import write_mp4
from flow.generate import Generator
from flow.rollout import Rollout
from models.attention import SelfAttention
from models.kernels import Naive
from runtime.build import build
from runtime.config import compose
from training import inference
from training.inference import load_networks
from training.maker import Maker

WIDE = ("height=64", "width=64")


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder, random = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    for name, frames in (("clip", 17), ("other", 9)):
        coarse = random.integers(0, 256, (frames, 8, 8, 3), dtype=np.uint8)
        write_mp4(folder / f"{name}.mp4", coarse.repeat(8, axis=1).repeat(8, axis=2), 8)
    for name in "ab":
        Image.fromarray(random.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    shots = [{"from_s": 0, "to_s": 1, "prompt": "a"}, {"from_s": 1, "to_s": 2.125, "prompt": "b"}]
    (folder / "board.yaml").write_text(yaml.safe_dump({"shots": shots, "given": [{"at_s": 1.5, "image": "a.png"}]}))
    return folder


@pytest.fixture
def call(flow_runs, monkeypatch, media):
    monkeypatch.chdir(media)

    def run(*arguments: object, run: str | Path = "every") -> None:
        sample.main([str(argument) for argument in (f"run={flow_runs.root / run}", *arguments, "device=cpu")])

    return run


def sidecar(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


TASKS = {
    "t2v": (["--prompt", "x"], 9),
    "t2i": (["--prompt", "x"], 1),
    "i2v": (["--image", "a.png"], 9),
    "first_last": (["--image", "a.png", "--last", "b.png"], 9),
    "keyframes": (["--keyframe", "0.5=a.png", "--keyframe", "0.75=other.mp4"], 9),
    "extend": (["--video", "clip.mp4", "task.side=both", "frames=41"], 41),
    "connect": (["--video", "clip.mp4", "--video", "other.mp4", "--prompt", "x", "--then", "y", "task.gap_s=0.5"], 33),
    "recut": (["--video", "clip.mp4", "task.keep_s=[0.5,1.2]"], 17),
    "inbetween": (["--video", "clip.mp4"], 65),
    "loop": (["--prompt", "x", "frames=16"], 16),
    "remix": (["--video", "clip.mp4", "--prompt", "x", "task.strength=0.4"], 17),
    "inpaint": (["--video", "clip.mp4", "--mask", "mask.png", *WIDE], 17),
    "outpaint": (["--image", "a.png", *WIDE, "frames=5"], 5),
    "storyboard": (["--storyboard", "board.yaml", "--prompt", "x,"], 17),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_makes_its_clip_and_makes_it_again(call, tmp_path, capsys, task):
    arguments, frames = TASKS[task]
    call(f"task={task}", *arguments, "steps=2", f"out={tmp_path}/one", "seed=3")
    (file,) = (path for path in (tmp_path / "one").iterdir() if path.suffix != ".json")
    record = sidecar(file)
    assert file.suffix == (".png" if task == "t2i" else ".mp4")
    assert record["frames"] == frames
    if task != "t2i":
        assert len(read_video(file)) == frames
    assert (record["rollout"] is not None) == (task in ("extend", "recut", "inbetween"))  # longer than the clips of training, around clips
    assert record["fps"] == (32 if task == "inbetween" else 8)
    paths = [text for text in arguments if Path(text.rpartition("=")[2]).is_file()]
    assert len(paths) == json.dumps(record["files"]).count("sha256")
    assert len(record["read"]) == (task == "storyboard")
    capsys.readouterr()
    sample.main([f"from={file}", f"out={tmp_path}/two", "device=cpu"])
    assert "the same frames, bit for bit" in capsys.readouterr().out
    (again,) = (path for path in (tmp_path / "two").iterdir() if path.suffix == ".json")
    assert json.loads(again.read_text())["frames_sha256"] == record["frames_sha256"]


def test_a_clip_of_a_batch_is_made_again_to_the_bit(call, tmp_path, capsys, monkeypatch):
    paint, sizes = Generator.paint, []

    def noted(self, canvas, *arguments):
        sizes.append(len(canvas))
        return paint(self, canvas, *arguments)

    monkeypatch.setattr(Generator, "paint", noted)
    call("--prompt", "a", "--prompt", "b", "variations=2", "steps=3", f"out={tmp_path}/one", "batch_size=3", "watermark=visible", *WIDE)
    assert [sidecar(path)["batch"] for path in sorted((tmp_path / "one").glob("*.mp4"))] == [
        *({"clips": 3, "place": place} for place in range(3)),
        {"clips": 1, "place": 0},
    ]
    capsys.readouterr()
    sample.main([f"from={tmp_path}/one/001-a.mp4", f"out={tmp_path}/two", "device=cpu", "formats=[gif]"])
    assert "the same frames, bit for bit" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["000-a.gif", "000-a.json"]
    assert sizes == [3, 1, 3]  # kernels may round otherwise for another number of clips


def test_a_clip_is_not_made_again_by_other_weights_or_from_other_files(call, flow_runs, media, tmp_path, capsys):
    given = tmp_path / "given.png"
    shutil.copy(media / "a.png", given)
    call("--image", given, "steps=1", f"out={tmp_path}/one")
    clip = tmp_path / "one/000-no-prompt.mp4"
    shutil.copy(media / "b.png", given)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ending:
        sample.main([f"from={clip}", f"run={flow_runs.root}/dit", f"out={tmp_path}/two", "device=cpu"])
    told = capsys.readouterr().err
    assert ending.value.code == 1
    assert "cannot be made again" in told
    assert "the config differ" in told
    assert "given.png is another one" in told
    assert not (tmp_path / "two").exists()
    given.unlink()
    with pytest.raises(SystemExit):
        sample.main([f"from={clip}", f"out={tmp_path}/two", "device=cpu"])
    assert "given.png" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sample.main([f"from={media}/clip.mp4", f"out={tmp_path}/two", "device=cpu"])
    assert "record" in capsys.readouterr().err


def test_a_file_of_prompts_is_shared_and_comes_out_the_same(call, tmp_path, capsys):
    lines = [{"prompt": "a"}, {"prompt": "b", "seed": 4}, {"prompt": "c", "frames": 5}, {"prompt": "d"}, {"image": "a.png", "prompt": "e"}]
    jobs = Path("jobs.jsonl")
    jobs.write_text("\n".join(map(json.dumps, lines)))
    common = ("--prompts", jobs, "steps=2", "watermark=none")
    call(*common, f"out={tmp_path}/whole")
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.mp4"))
    assert names == ["000-a.mp4", "001-b.mp4", "002-c.mp4", "003-d.mp4", "004-e.mp4"]
    for rank in (1, 0):
        call(*common, f"out={tmp_path}/shares", f"rank={rank}", "ranks=2")
    assert sorted(path.name for path in (tmp_path / "shares").glob("*.mp4")) == names
    for name in names:
        # Latents agree within 1e-5, which may tip a rounding to 8 bits before the codec.
        one, other = (read_video(tmp_path / folder / name).astype(int) for folder in ("whole", "shares"))
        assert np.abs(one - other).max() <= 3, name
    assert sidecar(tmp_path / "shares/001-b.mp4")["seed"] == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shares").iterdir()}
    capsys.readouterr()
    call(*common, f"out={tmp_path}/shares", "rank=0", "ranks=2")
    assert "is in" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shares").iterdir()} == before
    call(*common, f"out={tmp_path}/shares", "rank=5", "ranks=6")
    assert "rank=5 of ranks=6 has no share: the command makes 5 clips" in capsys.readouterr().out
    call(*common, f"out={tmp_path}/shares", "rank=1", "ranks=2", "formats=[gif]")
    assert "2 clips of" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "shares").glob("*.gif")) == ["001-b.gif", "003-d.gif"]
    for name in ("001-b", "003-d"):
        assert read_record(tmp_path / f"shares/{name}.mp4")["frames"] == 9  # its two copies still agree
    with pytest.raises(SystemExit):
        call(*common, f"out={tmp_path}/shares", "rank=0", "ranks=2", "seed=1")
    assert "000-a.json was made with another seed" in capsys.readouterr().err


def test_processes_share_a_command(call, tmp_path, capfd):
    call("--prompt", "a", "--prompt", "b", "steps=1", f"out={tmp_path}/o", "processes=2")
    assert sorted(path.name for path in (tmp_path / "o").glob("*.mp4")) == ["000-a.mp4", "001-b.mp4"]
    assert capfd.readouterr().out.count("1 clip of 9 frames") == 2


def test_a_bad_line_is_named_and_leaves_nothing_half_done(call, tmp_path, capsys):
    for line, says in (({"prompt": "b", "frames": 6}, "frames=6"), ({"image": "none.png"}, "there is no image"), ({"pormpt": "b"}, "did you mean")):
        Path("bad.jsonl").write_text("\n".join(map(json.dumps, [{"prompt": "a"}, line])))
        with pytest.raises(SystemExit):
            call("--prompts", "bad.jsonl", f"out={tmp_path}/o")
        told = capsys.readouterr().err
        assert "bad.jsonl, line 2" in told
        assert says in told
        assert not list(tmp_path.glob("o/*"))


def test_what_is_longer_than_training_is_made_in_windows_and_written_meanwhile(call, tmp_path, monkeypatch):
    seen, paint = [], Rollout.paint

    def noted(self, *arguments):
        for number, part in enumerate(paint(self, *arguments)):
            seen.append((number, sorted(path.suffix for path in (tmp_path / "o").iterdir())))
            yield part

    monkeypatch.setattr(Rollout, "paint", noted)
    call("--prompt", "x", "frames=41", "steps=1", f"out={tmp_path}/o", "formats=[mp4,gif]")
    assert len(seen) == 9  # three latent frames at first, then one each; and each once for both formats
    assert [names for _, names in seen] == [[], *[[".part"]] * 8]  # the second window is made when the first one's frames are in the file
    record = sidecar(tmp_path / "o/000-x.mp4")
    assert record["rollout"] == {"_target_": "flow.rollout.Rollout", "window": 2, "overlap": 1, "level": 0.0}
    call("--prompt", "x", "frames=41", "steps=1", f"out={tmp_path}/p", "rollout=none")
    assert len(seen) == 9
    assert sidecar(tmp_path / "p/000-x.mp4")["rollout"] is None


def test_a_run_that_saw_no_windows_makes_a_long_clip_at_once_unless_told(call, tmp_path, capsys):
    call("--prompt", "x", "frames=21", "steps=1", f"out={tmp_path}/o", run="dit")
    assert "21 frames are made at once, training showed 9" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("--prompt", "x", "frames=17", "steps=1", f"out={tmp_path}/o", "rollout=windows", "rollout.window=2", "rollout.overlap=1", run="dit")
    assert "not trained for rollout=windows" in capsys.readouterr().err


def test_up_to_twice_the_trained_length_a_clip_is_made_at_once(call, tmp_path):
    for frames in (17, 21):
        call("--prompt", "x", f"frames={frames}", "steps=1", f"out={tmp_path}/{frames}")
    assert [sidecar(tmp_path / f"{frames}/000-x.mp4")["rollout"] is None for frames in (17, 21)] == [True, False]


def test_what_goes_on_from_a_clip_is_not_brought_into_less_time(call, media, tmp_path):
    call("--video", media / "clip.mp4", "task=extend", "task.context_s=0.5", "frames=17", "steps=1", f"out={tmp_path}/o")
    (made,) = (tmp_path / "o").glob("*.mp4")
    assert sidecar(made)["rollout"]["window"] == 2


def test_what_a_run_was_not_trained_for_follows_from_what_is_given(call, media, tmp_path, capsys):
    def refused(*arguments: object, run: str) -> str:
        with pytest.raises(SystemExit):
            call(*arguments, "steps=1", f"out={tmp_path}/o", run=run)
        return capsys.readouterr().err

    board = ("task=storyboard", "--storyboard", "board.yaml")  # with a picture at 1.5 s
    late = "weights has no last_n or ends or span or keyframes"
    assert f"not trained for task=storyboard: objective.conditioning.{late}" in refused(*board, run="dit")
    assert late in refused("task=extend", "task.side=before", "task.context_s=0.25", "--video", "clip.mp4", run="dit")
    told = refused("--image", "a.png", "known_level=0.3", run="every")
    assert "not trained for known_level=0.3: objective.conditioning.noise is 0" in told
    told = refused("--prompt", "x", "frames=41", "rollout.level=0.2", run="every")
    assert "not trained for rollout.level=0.2: objective.conditioning.noise is 0" in told
    call("--prompt", "x", "known_level=0.3", "steps=1", f"out={tmp_path}/o")  # of which nothing is given
    call(*board, "steps=1", "untrained=true", f"out={tmp_path}/o", run="dit")
    assert "note: this run was not trained for task=storyboard" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", [{"_target_": "models.patterns.Causal"}, {"_target_": "models.patterns.Tiled", "window": [2, 2, 2]}])
def test_pictures_that_a_networks_attention_does_not_reach_are_refused(call, flow_runs, tmp_path, capsys, pattern):
    dit = load_networks(flow_runs.root / "every").config["objective"]["dit"]
    run = flow_runs.save(tmp_path / "run", {"none": 1.0, "first": 1.0, "keyframes": 1.0}, dit={**dit, "pattern": pattern})
    name = pattern["_target_"].rpartition(".")[2].lower()
    with pytest.raises(SystemExit):
        call("task=keyframes", "--keyframe", "0.5=a.png", "untrained=true", f"out={tmp_path}/o", run=run)
    told = capsys.readouterr().err
    assert f"task=keyframes gives pictures at later moments, where this run's objective/dit/pattern={name} does not look" in told
    assert "objective/dit/pattern=full" in told
    call("--image", "a.png", "steps=1", f"out={tmp_path}/o", run=run)


def test_an_inbetween_at_a_rate_that_is_asked_for_tells_what_it_leaves_out(call, tmp_path, capsys):
    call("task=inbetween", "--video", "clip.mp4", "fps=8", "steps=1", f"out={tmp_path}/o")
    assert "note: 12 of the 17 frames of clip.mp4 are not used" in capsys.readouterr().err
    assert len(read_video(tmp_path / "o/000-no-prompt.mp4")) == 17


def test_prompts_are_written_in_the_level_of_the_runs_world(call, flow_runs, tmp_path, capsys):
    run = flow_runs.save(tmp_path / "run", {"none": 1.0})
    (tmp_path / "world/train").mkdir(parents=True)
    (tmp_path / "world/world.json").write_text(json.dumps({"difficulty": "sora"}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["train"] = f"{tmp_path}/world/train/index.jsonl"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    call("--prompt", "a red circle circles around", "expander=world", "steps=1", f"out={tmp_path}/o", run=run)
    record = sidecar(tmp_path / "o/000-a-red-circle-circles-around.mp4")
    assert record["expander"]["difficulty"] == "sora"
    with pytest.raises(SystemExit):
        call("--prompt", "a red circle circles around", "expander=world", f"out={tmp_path}/p")
    told = capsys.readouterr().err
    assert "expander.difficulty=easy" in told


def test_the_weaker_network_is_loaded_once_and_sees_as_the_other_does(flow_runs, monkeypatch):
    config = compose("sample", ["run=x", "guidance=auto", f"guidance.run={flow_runs.root}/dit", "refine=draft", "objective/dit/kernel@kernel=naive",
                                "objective/dit/rope@rope=interpolation", "rope.factors=[2,1,1]"])  # fmt: skip
    loaded, load = [], inference.load_networks

    def noted(*arguments):
        loaded.append(load(*arguments))
        return loaded[-1]

    monkeypatch.setattr(inference, "load_networks", noted)
    networks = load(flow_runs.root / "every", "cpu", build(config["kernel"]))
    Maker(networks, config | {"height": 16, "width": 32}, "cpu")
    (weak,) = loaded
    assert weak.dit.rope.scaling.factors == networks.dit.rope.scaling.factors == (2, 1, 1)
    kernels = [[type(part.kernel) for part in one.dit.modules() if isinstance(part, SelfAttention)] for one in (weak, networks)]
    assert kernels[0] == kernels[1] == [Naive] * len(kernels[0])
    with pytest.raises(ValueError, match=r"keeps no checkpoint of step 5, but of 7\. Set guidance\.run or guidance\.step"):
        inference.read_guidance({**config["guidance"], "step": 5}, networks)
    with pytest.raises(ValueError, match=r"of 7\.$"):
        load(flow_runs.root / "dit", step=5)


def test_styles_expanders_and_negatives_are_what_the_record_says(call, tmp_path, capsys):
    call("--prompt", "red circle", "expander=world", "style=daylight", "--negative", "blurry", "steps=1", f"out={tmp_path}/o")
    record = sidecar(tmp_path / "o/000-red-circle.mp4")
    assert record["prompt"] == "red circle"
    assert "red circle" in record["texts"][0]
    assert len(record["texts"][0].split()) > 6
    assert record["negative"] == "blurry"
    call("--prompt", "red circle", "--image", "a.png", "expander=world", "steps=1", f"out={tmp_path}/p")
    assert sidecar(tmp_path / "p/000-red-circle.mp4")["texts"] == ["red circle"]  # what it looks like is the picture's to say
    call("--prompt", "red circle", "--image", "a.png", "expander=world", "expand_given=true", "steps=1", f"out={tmp_path}/q")
    assert len(sidecar(tmp_path / "q/000-red-circle.mp4")["texts"][0].split()) > 6
    capsys.readouterr()


def test_the_weaker_network_of_autoguidance_stands_in_the_record(call, flow_runs, tmp_path, capsys):
    call("--prompt", "x", "steps=1", f"out={tmp_path}/o", "guidance=auto", f"guidance.run={flow_runs.root}/dit")
    clip = tmp_path / "o/000-x.mp4"
    assert sidecar(clip)["others"]["guidance"]["run"] == f"{flow_runs.root}/dit"
    sample.main([f"from={clip}", f"out={tmp_path}/p", "device=cpu"])
    assert "the same frames, bit for bit" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        call("--prompt", "x", f"out={tmp_path}/o", "guidance=auto")
    assert "Set guidance.run" in capsys.readouterr().err


def test_drafts_and_noise_of_two_seeds(call, tmp_path):
    size = ("--prompt", "x", "height=32", "width=32", "steps=2")
    ways = {"own": (), "draft": ("refine=draft",), "half": ("noise=towards", "noise.seed=1"), "other": ("seed=1",)}
    ways |= {"all": ("noise=towards", "noise.seed=1", "noise.share=1.0")}
    for name, more in ways.items():
        call(*size, *more, f"out={tmp_path}/{name}")
    clips = {name: read_video(tmp_path / name / "000-x.mp4").astype(int) for name in ways}
    assert (clips["all"] == clips["other"]).all()
    for name in ("draft", "half", "other"):
        assert np.abs(clips[name] - clips["own"]).max() > 10, name


def test_a_disk_that_is_full_ends_the_command_with_its_words(call, tmp_path, capsys, monkeypatch):
    def refuses(self, target):
        raise OSError(28, "No space left on device")

    call("--prompt", "x", "steps=1", f"out={tmp_path}/o", "formats=[strip]")
    monkeypatch.setattr(os, "replace", refuses)
    with pytest.raises(SystemExit):
        call("--prompt", "x", "steps=1", f"out={tmp_path}/o", "formats=[strip]")
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["000-x.json", "000-x.strip.png"]


def test_the_clip_says_itself_how_it_was_made(call, tmp_path):
    call("--image", "a.png", "steps=1", f"out={tmp_path}/o")
    (tmp_path / "o/000-no-prompt.json").unlink()
    inside = read_record(tmp_path / "o/000-no-prompt.mp4")
    assert inside["files"]["images"][0]["path"] == "a.png"
    assert inside["task"] == {"_target_": "tasks.given.ImageToVideo"}
    assert {"prompt", "seed", "config_sha256", "weights_sha256", "frames_sha256"} <= set(inside)
