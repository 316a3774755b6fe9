"""The command line of sample.py on a run folder with tiny, random networks: what it writes, what it promises, what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import sample
from data.files.reader import read_video
from data.writer import write_mp4
from flow.generate import Generator
from tasks.clips import FORMATS
from training.inference import known_prefix, load_networks, load_vae, make_generator

ROOT = Path(sample.__file__).parent


@pytest.fixture
def runs(flow_runs) -> Path:
    return flow_runs.root


def call(*arguments: object) -> None:
    sample.main([str(argument) for argument in [*arguments, "steps=3", "device=cpu"]])


def frames(path: Path) -> np.ndarray:
    return read_video(path)


def sidecar(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def test_each_prompt_gives_clips_with_sidecars(runs, tmp_path, capsys):
    call(f"run={runs}/dit", f"out={tmp_path}/a", "--prompt", "a red circle", "--prompt=it grows", "variations=2", "seed=5", "batch_size=3")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    stems = ["000-a-red-circle", "001-a-red-circle", "002-it-grows", "003-it-grows"]
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("mp4", "json"))
    facts = sidecar(tmp_path / "a" / "003-it-grows.mp4")
    said = {"prompt": "it grows", "seed": 5, "sample": 1, "frames": 9, "fps": 8, "height": 16, "width": 24, "steps": 3, "files": {}, "step": 7}
    assert {key: facts[key] for key in said} == said
    assert facts["texts"] == ["it grows"]
    off = dict.fromkeys(("project", "interval", "rescale", "zero_init"))
    assert facts["guidance"] == {"_target_": "flow.guidance.ClassifierFree", "scale": 4.0, "frames": 4.0, **off}
    assert {"run", "solver", "shift", "config_sha256", "weights_sha256", "frames_sha256", "seconds", "versions"} <= set(facts)
    assert frames(tmp_path / "a" / "000-a-red-circle.mp4").shape == (9, 16, 24, 3)
    printed = capsys.readouterr().out
    assert printed.count(".mp4") == 4
    assert "4 clips of 9 frames, 24x16, 8 fps" in printed
    with av.open(str(tmp_path / "a" / "000-a-red-circle.mp4")) as container:
        assert json.loads(container.metadata["comment"])["prompt"] == "a red circle"


def test_a_clip_depends_on_its_prompt_seed_and_number_alone(runs, tmp_path):
    call(f"run={runs}/dit", f"out={tmp_path}/many", "--prompt", "a b", "--prompt", "c d", "variations=2", "batch_size=3")
    call(f"run={runs}/dit", f"out={tmp_path}/one", "--prompt", "c d", "batch_size=1")
    call(f"run={runs}/dit", f"out={tmp_path}/seed", "--prompt", "c d", "seed=1")
    one = frames(tmp_path / "one" / "000-c-d.mp4")
    # Latents agree within 1e-5, which may tip a rounding to 8 bits before the codec.
    assert np.abs(frames(tmp_path / "many" / "002-c-d.mp4").astype(int) - one).max() <= 3
    for other in (tmp_path / "many" / "003-c-d.mp4", tmp_path / "many" / "000-a-b.mp4", tmp_path / "seed" / "000-c-d.mp4"):
        assert np.abs(frames(other).astype(int) - one).max() > 10


def test_rope_is_rescaled_and_the_back_end_chosen_by_key(runs, tmp_path):
    long = ("frames=17", "--prompt", "x")
    call(f"run={runs}/dit", f"out={tmp_path}/a", *long, "whole=false")
    call(f"run={runs}/dit", f"out={tmp_path}/b", *long, "objective/dit/rope@rope=interpolation", "rope.factors=[2,1,1]")
    call(f"run={runs}/dit", f"out={tmp_path}/c", *long, "objective/dit/kernel@kernel=naive", "whole=false")
    call(f"run={runs}/dit", f"out={tmp_path}/d", *long)
    trained, scaled, naive, within = (frames(tmp_path / name / "000-x.mp4").astype(int) for name in "abcd")
    assert np.abs(trained - scaled).max() > 10
    assert np.abs(trained - naive).max() <= 3
    assert np.abs(within - scaled).max() <= 3  # twice the trained length within the trained time: the same angles
    assert sidecar(tmp_path / "b" / "000-x.mp4")["rope"]["factors"] == [2, 1, 1]
    assert sidecar(tmp_path / "c" / "000-x.mp4")["kernel"] == {"_target_": "models.kernels.Naive"}
    with pytest.raises(SystemExit):
        call(f"run={runs}/dit", *long, "objective/dit/kernel@kernel=cudnn")


@pytest.mark.parametrize("prompt", ["", "a, b=[c] {d} ${e} 'f' \"g\"", "красный круг", "${oc.env:HOME}", "seed=3", "--help", "x" * 500, "\udcff\n\t"])
def test_prompts_are_taken_word_for_word(runs, tmp_path, prompt, capsys):
    call(f"run={runs}/dit", f"out={tmp_path}", "--prompt", prompt, "steps=1")
    (clip,) = tmp_path.glob("*.mp4")
    assert sidecar(clip)["prompt"] == prompt
    assert clip.name.isascii()
    capsys.readouterr()


def test_folders_are_taken_word_for_word(runs, tmp_path):
    odd = tmp_path / "a, b=[ü] ${x}"
    call(f"run={runs}/dit", f"out={odd}", "--prompt", "x")
    assert (odd / "000-x.mp4").exists()


def test_size_length_rate_solver_and_guidance_are_keys(runs, tmp_path):
    size = ("frames=5", "height=32", "width=16", "fps=12.5")
    call(f"run={runs}/dit", f"out={tmp_path}", "--prompt", "x", *size, "solver=heun", "guidance=3", "formats=[mp4,gif,strip]")
    assert frames(tmp_path / "000-x.mp4").shape == (5, 32, 16, 3)
    facts = sidecar(tmp_path / "000-x.mp4")
    assert (facts["solver"], facts["guidance"]["scale"], facts["fps"]) == ({"_target_": "flow.solvers.Heun"}, 3, 12.5)
    assert Image.open(tmp_path / "000-x.gif").n_frames == 5
    assert Image.open(tmp_path / "000-x.strip.png").width > 16


def test_tiles_change_no_clip(runs, tmp_path):
    size = ("frames=5", "height=48", "width=64")
    for tile in ("auto", "null", "16"):
        call(f"run={runs}/dit", f"out={tmp_path}/{tile}", "--prompt", "x", *size, f"tile={tile}", "formats=[strip,mp4]")
    whole, tiled = (np.asarray(Image.open(tmp_path / tile / "000-x.strip.png")).astype(int) for tile in ("null", "16"))
    assert np.abs(tiled - whole).max() <= 1  # the last bits may tip a rounding to 8 bits
    auto, null = (frames(tmp_path / tile / "000-x.mp4") for tile in ("auto", "null"))
    assert (auto == null).all()


def test_frames_are_asked_for_while_later_ones_are_not_yet_decoded(runs, tmp_path, monkeypatch):
    events = []

    class Noted:
        """A clip that says which of its frames it was asked for."""

        def __init__(self, video):
            self.video = video

        def __len__(self):
            return len(self.video)

        def __iter__(self):
            for number, picture in enumerate(self.video):
                events.append(f"asked for {number}")
                yield picture

    decoded = Generator.decoded

    def frames_noted(self, latents):
        for piece in decoded(self, latents):
            events.append(f"decoded {piece.shape[1]}")
            yield piece

    monkeypatch.setattr(Generator, "decoded", frames_noted)
    monkeypatch.setitem(FORMATS, "mp4", lambda stem, video, record: write_mp4(f"{stem}.mp4", Noted(video), record["fps"]))
    call(f"run={runs}/dit", f"out={tmp_path}", "--prompt", "x")
    later = [["decoded 4", *[f"asked for {n}" for n in range(start, start + 4)]] for start in (1, 5)]
    assert events == ["decoded 1", "asked for 0", *later[0], *later[1]]
    assert frames(tmp_path / "000-x.mp4").shape == (9, 16, 24, 3)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 24, 40), (5, 8, 8), (1, 16, 8), (5, 40, 24)])
def test_grids_that_no_patch_divides_and_single_frames_are_sampled(flow_runs, runs, tmp_path, count, height, width):
    dit = load_networks(runs / "dit").config["objective"]["dit"]
    other = flow_runs.save(tmp_path / "patched", {"none": 1.0, "picture": 1.0}, dit={**dit, "patch": [1, 2, 2]})
    size = (f"frames={count}", f"height={height}", f"width={width}")
    call(f"run={other}", f"out={tmp_path}/o", "--prompt", "x", *size, "formats=[mp4,gif,strip]", "steps=1")
    assert frames(tmp_path / "o" / "000-x.mp4").shape == (count, height, width, 3)


LONG = """
import sys
sys.path.insert(0, sys.argv[1])
from functools import partial
import torch
from data.writer import write_mp4
from flow.generate import Generator
from flow.guidance import NoGuidance
from flow.solvers import Euler
from models.vae_tiles import decode_tiled
from runtime.config import build, compose
from tasks.clips import Decoded

file, frames, tile = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
vae = build(compose("train", ["run=x", "data=world", "objective=vae", "objective/vae=world"])["objective"]["vae"]).requires_grad_(False)
generator = Generator(vae, vae, partial(decode_tiled, vae, tile=tile), vae.latent_channels, Euler(), NoGuidance(), 1, 1.0)


def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))


before = status("VmRSS")
latents = torch.randn(1, vae.latent_channels, 1 + (frames - 1) // vae.stride[0], 256 // vae.stride[1], 256 // vae.stride[2])
write_mp4(file, Decoded(generator, [latents], frames), 8)
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("tile", [256, 128])
def test_memory_to_decode_and_write_does_not_grow_with_the_clip(tmp_path, tile):
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system does not have")
    exact = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else what malloc keeps for later moves the peak by a tenth
    added = {}
    for count in (33, 129):
        command = [sys.executable, "-c", LONG, str(ROOT), str(tmp_path / "a.mp4"), str(count), str(tile)]
        added[count] = int(subprocess.run(command, capture_output=True, text=True, check=True, env=exact).stdout)  # kB
    assert added[129] <= 1.05 * added[33]  # the frames alone, as bytes, would be 18 MB more


def test_a_second_call_overwrites_nothing(runs, tmp_path):
    for _ in range(2):
        call(f"run={runs}/dit", f"out={tmp_path}", "--prompt", "x", "steps=1")
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["000-x.mp4", "001-x.mp4"]


def test_too_long_a_prompt_is_cut_with_a_note(runs, tmp_path, capsys):
    call(f"run={runs}/dit", f"out={tmp_path}", "--prompt", "one two three four five six seven", "steps=1")
    assert "note: prompt 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "size"), [("RGB", (24, 16)), ("RGBA", (90, 31)), ("L", (7, 50)), ("P", (24, 24)), ("I;16", (24, 16)), ("1", (25, 17))]
)
def test_pictures_of_any_size_and_mode_become_the_first_frame(runs, tmp_path, mode, size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    picture.save(tmp_path / "given.png")
    call(f"run={runs}/dit", f"out={tmp_path}/out", "--image", tmp_path / "given.png", "--prompt", "x")
    facts = sidecar(tmp_path / "out" / "000-x.mp4")
    (image,) = facts["files"]["images"]
    assert image["path"] == str(tmp_path / "given.png")
    assert len(image["sha256"]) == 64
    assert facts["task"] == {"_target_": "tasks.given.ImageToVideo"}


def test_the_given_first_frame_is_the_vaes_own_reconstruction_of_it(runs):
    networks = load_networks(runs / "dit")
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 16, 24, 3), dtype=np.uint8)
    config = {"solver": {"_target_": "flow.solvers.Euler"}, "guidance": {"_target_": "flow.guidance.ClassifierFree", "scale": 3.0}}
    generator = make_generator(networks, config | {"steps": 4, "batch_size": 2})
    assert generator.shift == 2.0  # the training rule is the sampling rule
    known, mask = known_prefix(networks.vae, picture, (3, 2, 3))
    latents = generator.latents(["x"], (3, 2, 3), 8.0, 0, [0], known, mask)
    assert torch.equal(latents[:, :, 0], known[:, :, 0])
    alone = generator.videos(known[:, :, :1])
    assert (generator.videos(latents)[:, :1].int() - alone.int()).abs().max() <= 1  # kernels differ by shape in the last bits


def test_a_video_file_gives_its_first_frame(runs, tmp_path):
    call(f"run={runs}/dit", f"out={tmp_path}", "--prompt", "x", "steps=1")
    call(f"run={runs}/dit", f"out={tmp_path}/next", "--image", tmp_path / "000-x.mp4")
    assert (tmp_path / "next" / "000-no-prompt.mp4").exists()


def test_a_run_that_was_not_trained_for_a_task_goes_on_only_if_that_is_wanted(flow_runs, tmp_path, capsys):
    other = flow_runs.save(tmp_path / "free", {"none": 1.0})
    Image.new("RGB", (24, 16)).save(tmp_path / "given.png")
    given = (f"run={other}", "--image", tmp_path / "given.png", "steps=1")
    told = refused(capsys, *given)
    assert "not trained for task=i2v: objective.conditioning.weights has no first or first_n" in told
    assert "set untrained=true" in told
    call(*given, "untrained=true")
    assert "note: this run was not trained for task=i2v" in capsys.readouterr().err
    assert (other / "videos" / "000-no-prompt.mp4").exists()  # the default folder


def test_averaged_weights_are_used_and_a_damaged_checkpoint_is_passed_over(flow_runs, runs, tmp_path):
    run = tmp_path / "run"
    networks = load_networks(runs / "dit")
    for step, factor in ((1, 1.0), (2, 2.0)):
        with torch.no_grad():
            networks.dit.head.weight.mul_(factor)
        flow_runs.save(run, {"none": 1.0}, step=step, networks={"dit": networks.dit, "text": networks.text})
    assert load_networks(run).step == 2
    assert torch.equal(load_networks(run).dit.head.weight, networks.dit.head.weight)
    broken = run / "checkpoints" / "step-00000002" / "ema.safetensors"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    with pytest.warns(UserWarning, match="sha256"):
        older = load_networks(run)
    assert older.step == 1
    assert torch.equal(older.dit.head.weight, networks.dit.head.weight / 2)


def test_a_vae_run_and_the_copy_in_a_flow_run_are_the_same_vae(runs):
    own, copied = load_vae(runs / "vae")[0].state_dict(), load_vae(runs / "dit")[0].state_dict()
    assert own.keys() == copied.keys()
    assert all(torch.equal(own[name], copied[name]) for name in own)
    assert own["latent_std"].tolist() == pytest.approx([0.7] * 4)


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ending:
        call(*arguments)
    assert ending.value.code == 1
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert "clips of" not in told.out
    return told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frames=6"], ["frames=6", "5 or 9"]),
        (["height=20"], ["height=20", "16 or 24"]),
        (["width=4"], ["width=4", "8 or 16"]),
        (["solver=huen"], ["solver=huen", "heun"]),
        (["stpes=3"], ["stpes", "steps"]),
        (["steps=many"], ["steps='many'", "whole number"]),
        (["steps=0"], ["steps=0"]),
        (["seed=-1"], ["seed=-1"]),
        (["fps=0"], ["fps=0"]),
        (["formats=[avi]"], ["formats", "mp4, gif, strip"]),
        (["variations=0"], ["variations=0"]),
        (["tile=12"], ["tile=12", "8 or 16"]),
        (["tile=large"], ["tile='large'", "auto, or null"]),
        (["guidance.scal=2"], ["scal", "scale"]),
        (["guidance.scale=high"], ["scale", "high"]),
        (["--image", "no such.png"], ["no such.png", "missing"]),
        (["--image", "setup.cfg"], ["setup.cfg", "cannot be used"]),
        (["--image", "a", "--image", "b"], ["2 times"]),
        (["--mask", "setup.cfg"], ["--mask is given", "task=inpaint"]),
        (["--mask", "setup.cfg", "task=t2v"], ["--mask is of no use to task=t2v"]),
        (["--video", "setup.cfg", "task=extend", "untrained=true"], ["setup.cfg", "cannot be used"]),
        (["task=i2w"], ["task=i2w", "i2v"]),
        (["task=extend", "task.side=left", "--video", "setup.cfg"], ["side='left'"]),
        (["known_level=1"], ["known_level=1"]),
        (["untrained=2"], ["untrained=2"]),
        (["as_given=no"], ["as_given='no'", "true or false"]),
        (["rollout=windows", "task=loop", "untrained=true"], ["task=loop makes a clip at once", "Set rollout=auto"]),
        (["rollout.at_once=0"], ["rollout.at_once=0"]),
        (["rank=2", "ranks=2"], ["rank=2 of ranks=2"]),
        (["rollout.window=1"], ["window"]),
        (["refine=draft"], ["width=24", "Set width=32"]),
        (["--negative", "x", "guidance=none"], ["negative prompt"]),
        (["watermark=invisible"], ["watermark"]),
        (["expander=world"], ["the world does not know"]),
        (["--prompt"], ["--prompt wants a value"]),
        (["--prmpt", "y"], ["--prmpt", "did you mean '--prompt'"]),
        (["-m"], ["-m is no option"]),
    ],
)
def test_bad_values_are_refused_by_name(runs, tmp_path, capsys, arguments, says, monkeypatch):
    monkeypatch.chdir(ROOT)
    tail = [] if arguments == ["--prompt"] else ["--prompt", "x"]
    with pytest.raises(SystemExit) as ending:
        sample.main([f"run={runs}/dit", f"out={tmp_path}/o", "device=cpu", *tail, *arguments])
    assert ending.value.code == 1
    error = capsys.readouterr().err
    for word in says:
        assert word in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("o/*"))


def test_folders_that_are_no_flow_run_are_refused_by_what_they_are(flow_runs, runs, tmp_path, capsys):
    assert "trained a VAE" in refused(capsys, f"run={runs}/vae", "--prompt", "x")
    assert "not a run folder" in refused(capsys, f"run={tmp_path}/nothing", "--prompt", "x")
    assert "run=... is missing" in refused(capsys, "--prompt", "x")
    assert "--prompt is missing" in refused(capsys, f"run={runs}/dit")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text((runs / "dit" / "config.yaml").read_text())
    assert "no complete checkpoint" in refused(capsys, f"run={empty}", "--prompt", "x")
    flow_runs.save(empty, {"none": 1.0}, dit={**load_networks(runs / "dit").config["objective"]["dit"], "depth": 2})
    (empty / "config.yaml").write_text((runs / "dit" / "config.yaml").read_text())
    assert "unexpected" in refused(capsys, f"run={empty}", "--prompt", "x")


def test_an_output_folder_that_cannot_be_written_is_refused_before_sampling(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, f"run={runs}/dit", f"out={tmp_path}/file/out", "--prompt", "x")


def test_a_disk_that_fills_up_keeps_the_clips_before(runs, tmp_path, capsys, monkeypatch):
    written = []

    whole = FORMATS["mp4"]

    def full(stem, video, record):
        if written:
            raise OSError(28, "No space left on device")
        written.append(stem)
        return whole(stem, video, record)

    monkeypatch.setitem(FORMATS, "mp4", full)
    assert "No space left" in refused(capsys, f"run={runs}/dit", f"out={tmp_path}/o", "--prompt", "x", "variations=2")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["000-x.json", "000-x.mp4"]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run=nowhere", "--prompt", "x", "-h"]])
def test_help_is_short_and_shows_commands(arguments, capsys):
    sample.main(arguments)
    shown = capsys.readouterr().out
    assert "python sample.py run=" in shown
    assert "--image" in shown
    assert len(shown.splitlines()) < 20


def test_it_runs_as_a_command_from_another_folder(runs, tmp_path):
    command = [sys.executable, str(ROOT / "sample.py"), f"run={runs}/dit", "out=here", "--prompt", "x", "steps=1", "device=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "000-x.mp4").exists()
