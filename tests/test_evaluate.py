"""scripts/evaluate.py: a VAE on clips of its own, a flow run in another shape than it was trained in; what it measures, and what it refuses to."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files.reader import read_video
from data.transforms import to_float
from data.world.folder import World, make_world
from data.writer import write_mp4
from evaluation.autoencoder import latent_bits
from models.vae import VideoVAE
from runtime.checkpoint import Checkpoints
from runtime.config import build, compose, dump, load_run_config
from train import main as train
from training.ema import network_state
from training.learnt import load_features
from training.vae_bundle import bundle_vae

ROOT = Path(__file__).resolve().parents[1]
TINY = ["objective=vae", "objective.vae.widths=[8,8,16]", "objective.vae.encoder_depths=[0,1,1]", "objective.vae.decoder_depths=[0,1,1]"]
TINY += ["data=videos", "data.probes=null", "data.workers=0", "trainer=toy", "trainer.max_steps=2", "trainer.threads=1", "tracking=none"]
VAE = {"_target_": "models.vae.VideoVAE", "latent_channels": 4, "widths": [8], "encoder_depths": [1], "decoder_depths": [2]}
DIT = {"_target_": "models.dit.DiT", "latent_channels": 4, "width": 32, "depth": 1, "heads": 2, "text_width": 16}
TEXT = {"_target_": "models.text.TextTransformer", "width": 16, "depth": 1, "heads": 1, "max_tokens": 8}
TEXT |= {"tokenizer": {"_target_": "models.text.WordTokenizer", "buckets": 64}}
FEW = ["prompts=2", "seen=2", "clips=2", "animated=2", "steps=2", "device=cpu"]


def films(folder: Path, numbers: range) -> Path:
    """Plain clips whose brightness is their number times 20, in two shapes."""
    folder.mkdir()
    for number in numbers:
        height, width = (32, 48) if number % 2 else (48, 32)
        write_mp4(folder / f"{number}.mp4", np.full((9, height, width, 3), 20 * number, np.uint8), 8)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `held` (three of nine clips held out), and the configs alone of `all` (none) and `blind` (validated on the clips it trained on)."""
    root = tmp_path_factory.mktemp("own")
    films(root / "films", range(9))
    films(root / "others", range(9, 12))
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", f"run={root / 'held'}", f"data.train={root / 'films'}", "data.hold_out=3", *TINY])
        train()
    saved = load_run_config(root / "held")
    for name, changed in {"all": {"hold_out": 0}, "blind": {"hold_out": 0, "val": str(root / "films")}}.items():
        (root / name).mkdir()
        (root / name / "config.yaml").write_text(dump(saved | {"data": saved["data"] | changed}))
    return root


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """What `python scripts/evaluate.py ...` does, here: exit status, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="__main__")
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def captions(run: Path) -> set[str]:
    return {item["caption"] for item in json.loads((run / "evaluation" / "gallery.json").read_text())["reconstructions"]}


def test_a_run_on_own_clips_is_measured_on_those_it_held_out(runs: Path, evaluate) -> None:
    code, out, _ = evaluate(f"run={runs / 'held'}")
    assert code == 0
    found = json.loads((runs / "held" / "evaluation.json").read_text())
    assert found["vae"]["n"] == 3
    index = build(load_run_config(runs / "held")["data"]).training_index()
    trained = {Path(index.name(row)).name for row in range(len(index))}
    assert len(trained) == 6
    assert trained.isdisjoint(Path(name).name for name in captions(runs / "held"))
    assert found["protocol"]["videos"] == "held out by the run"
    assert found["tokenizer"]["stride"] == [4, 8, 8]
    assert "stride 4x8x8: 16 channels" in out
    assert "ceiling" not in found


def test_other_clips_are_measured_by_name(runs: Path, evaluate) -> None:
    code, out, _ = evaluate(f"run={runs / 'held'}", f"videos={runs / 'others'}", "clips=2")
    assert code == 0
    assert json.loads((runs / "held" / "evaluation.json").read_text())["vae"]["n"] == 2
    assert "2 clips of" in out
    assert captions(runs / "held") <= {"9.mp4", "10.mp4", "11.mp4"}


@torch.no_grad()
def test_bits_of_a_clip_take_the_memory_of_one_latent_frame() -> None:
    """The whole clip tells as many; no layer is given more than a latent frame at once."""
    script = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="evaluate")
    torch.manual_seed(0)
    vae = VideoVAE(widths=(8, 8, 16), encoder_depths=(0, 1, 1), decoder_depths=(0, 1, 1), latent_channels=4)
    vae.set_statistics(torch.randn(4), torch.rand(4) + 0.5)
    videos = [np.random.default_rng(number).integers(0, 256, (13, 32, 32, 3), dtype=np.uint8) for number in range(2)]
    wholes = [vae.posterior(to_float(torch.from_numpy(video[None]))) for video in videos]
    wanted = sum(latent_bits(whole.mean, whole.logvar, vae.latent_mean, vae.latent_std) for whole in wholes)
    seen: list[int] = []
    vae.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    assert script["tokenizer_of"](vae, videos, "cpu").bits_per_pixel * 2 * 13 * 32 * 32 == pytest.approx(wanted, rel=1e-5)
    assert seen == [1] * 8


@torch.no_grad()
def test_bits_of_a_large_picture_take_the_memory_of_a_tile() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="evaluate")
    torch.manual_seed(0)
    vae = VideoVAE(widths=(8, 8, 16), encoder_depths=(0, 1, 1), decoder_depths=(0, 1, 1), latent_channels=4)
    video = np.random.default_rng(0).integers(0, 256, (1, 640, 640, 3), dtype=np.uint8)
    whole = vae.posterior(to_float(torch.from_numpy(video[None])))
    wanted = latent_bits(whole.mean, whole.logvar, vae.latent_mean, vae.latent_std)
    seen: list[int] = []
    vae.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2] * given[0].shape[3]))
    assert script["tokenizer_of"](vae, [video], "cpu").bits_per_pixel * 640 * 640 == pytest.approx(wanted, rel=1e-5)
    assert len(seen) > 1
    assert max(seen) < 0.8 * (640 // vae.patch[1]) ** 2


def test_clips_that_were_trained_on_measure_nothing(runs: Path, evaluate) -> None:
    """On them a VAE looks better than it is."""
    for arguments, words in (
        ([f"run={runs / 'all'}"], "it held no clip out"),
        ([f"run={runs / 'blind'}"], "9 of the 9 clips"),
        ([f"run={runs / 'held'}", f"videos={runs / 'films'}"], "6 of the 9 clips"),
        ([f"run={runs / 'held'}", "world=x", "videos=y"], "both given"),
    ):
        code, _, err = evaluate(*arguments)
        assert code == 1
        assert words in err
        assert "Set videos=<a folder of other clips>" in err or "Set one of them" in err
        assert len(err.strip().splitlines()) == 1


def test_a_flow_run_without_a_world_or_with_other_clips_says_what_to_set(runs: Path, tmp_path: Path, evaluate) -> None:
    saved = load_run_config(runs / "held")
    for name, val in {"null": None, "list": [str(runs / "others")], "text": str(runs / "others")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(dump(saved | {"objective": {"dit": {}}, "data": saved["data"] | {"val": val}}))
    for arguments, words in (
        ([f"run={tmp_path / 'null'}"], "data.val=null, which is no part of a world. Set world=<folder of make_world.py>"),
        ([f"run={tmp_path / 'list'}"], "which is no part of a world. Set world=<folder of make_world.py>"),
        ([f"run={tmp_path / 'text'}"], "is no folder of scripts/make_world.py"),
        ([f"run={tmp_path / 'null'}", f"videos={runs / 'others'}"], "is a flow run, which is measured on a world. Set videos=null"),
    ):
        code, _, err = evaluate(*arguments)
        assert code == 1
        assert words in err
        assert len(err.strip().splitlines()) == 1


def test_training_clips_are_read_or_the_reason_is_told(runs: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="evaluate")
    saved = load_run_config(runs / "held")
    found = script["training_of"](saved, 4)
    assert (len(found.values), found.total, found.unreadable) == (4, 6, 0)
    assert script["training_of"](saved, 0) is None
    gone = script["training_of"](saved | {"data": saved["data"] | {"train": str(runs / "nowhere")}}, 4)
    assert isinstance(gone, str)
    assert "nowhere" in gone


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on clips of 9x32x32, with random weights that make every input matter, beside a world of 9x32x48."""
    root = tmp_path_factory.mktemp("flow")
    make_world(World("easy", seed=0, clips=0, val=2, heldout=2, frames=9, fps=8, height=32, width=48, crf=12), root / "world", processes=1)
    random, networks = torch.Generator().manual_seed(0), {}
    for name, node in {"vae": VAE, "dit": DIT, "text": TEXT}.items():
        networks[name] = build(node)
        for parameter in networks[name].parameters():
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    shape = {"_target_": "data.shapes.Fixed", "frames": 9, "height": 32, "width": 32, "grid": [4, 16, 16]}
    data = {"shape": shape, "fps": 8, "val": str(root / "world" / "val" / "index.jsonl")}
    flow = {"dit": DIT, "text": TEXT, "vae": VAE, "shift": 1.0}
    for name, objective, trained in (("vae", {"vae": VAE}, ("vae",)), ("run", flow, ("dit", "text"))):
        (root / name).mkdir()
        (root / name / "config.yaml").write_text(dump({"objective": objective, "data": data}))
        state = network_state({part: networks[part] for part in trained})
        Checkpoints(root / name / "checkpoints").save(1, {"ema": state}, {})
    bundle_vae(str(root / "vae"), VAE, root / "run")
    return root


def shown(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first sample of a prompt, and the first frame that was given to an animated one."""
    gallery = json.loads((run / "evaluation" / "gallery.json").read_text())
    sample, given = gallery["prompts"][0]["video"], gallery["image_to_video"][0]["given"]
    return read_video(run / "evaluation" / sample), read_video(run / "evaluation" / given)


def test_samples_are_made_and_judged_in_the_shape_that_is_asked_for(flow: Path, evaluate) -> None:
    run = flow / "run"
    code, out, err = evaluate(f"run={run}", "frames=5", "height=48", "width=64", *FEW)
    assert code == 0, err
    found = json.loads((run / "evaluation.json").read_text())
    assert (found["protocol"]["size"], found["protocol"]["frames"]) == ([48, 64], 5)
    assert [part.shape for part in shown(run)] == [(5, 48, 64, 3), (1, 48, 64, 3)]
    # 48x64 covers a real clip of 32x48 at 1.5 times its size, of which the sides are cut off: the VAE was given that.
    assert found["tokenizer"]["values_ratio"] == pytest.approx(3 * 9 * 48 * 64 / (4 * 3 * 6 * 8))
    assert found["memorisation"]["why"] == "samples are 5x48x64, another shape than most clips of the run's training."
    assert "5x48x64" in out
    code, _, _ = evaluate(f"run={run}", "neighbours=0", *FEW)
    assert code == 0
    assert json.loads((run / "evaluation.json").read_text())["protocol"]["size"] == [32, 32]
    assert [part.shape for part in shown(run)] == [(9, 32, 32, 3), (1, 32, 32, 3)]


def test_samples_are_judged_by_learnt_features_which_say_what_they_saw(flow: Path, evaluate) -> None:
    sizes = {"frames": 4, "width": 12, "depth": 1, "heads": 1, "dimensions": 2}
    words = [f"objective.encoder.{key}={value}" for key, value in sizes.items()]
    saved = compose("train", ["run=x", "objective=features", *words, f"data.train={flow / 'world' / 'heldout'}", "data.fps=4", "data.probes=null"])
    (flow / "features").mkdir()
    (flow / "features" / "config.yaml").write_text(dump(saved))
    torch.manual_seed(0)
    Checkpoints(flow / "features" / "checkpoints").save(1, {"ema": network_state({"encoder": build(saved["objective"]["encoder"])}), "other": {}}, {})
    given = f"learnt:{flow / 'features'}"
    for run, part in (("run", "generated"), ("vae", "vae")):
        code, out, err = evaluate(f"run={flow / run}", f"features=[{given}]", *FEW, *(["neighbours=0"] if run == "run" else []))
        assert code == 0, err
        found, name = json.loads((flow / run / "evaluation.json").read_text()), load_features(given).name
        assert found[part]["frechet"][name]["samples"] == 4
        assert found["features_saw"] == {name: {"clips": 2, "note": "learnt at 4 fps what they judge at 8: motion is another to them"}}
        assert f"{name} were trained on 2 of the real clips" in out
        assert f"{name} learnt at 4 fps" in out


def test_rope_is_scaled_for_all_samples_and_said(flow: Path, evaluate) -> None:
    made = {}
    for name, words in {"plain": [], "interpolation": ["objective/dit/rope@rope=interpolation", "rope.factors=[1,2,2]"]}.items():
        code, _, err = evaluate(f"run={flow / 'run'}", "height=64", "width=64", "neighbours=0", *words, *FEW)
        assert code == 0, err
        made[name] = shown(flow / "run")[0].astype(int), json.loads((flow / "run" / "evaluation.json").read_text())["protocol"]
    assert made["interpolation"][1]["rope"] == "Interpolation, factors [1, 2, 2]"
    assert "rope" not in made["plain"][1]
    assert np.abs(made["plain"][0] - made["interpolation"][0]).max() > 10


def test_a_shape_that_cannot_be_made_or_read_names_its_key(flow: Path, evaluate) -> None:
    for words, wanted in (
        ("frames=1", "samples of 1 frame cannot be measured: a clip that begins with a given frame needs more than one latent frame. Set frames=5"),
        ("frames=6", "frames must be 1 + 4k (5 or 9). Set frames."),
        ("height=50", "it must be a multiple of 8 (48 or 56). Set height."),
        ("width=8", "width=8 must be a whole number >= 16, or null for what the run was trained on. Set width."),
        ("frames=4.0", "Set frames."),
    ):
        code, _, err = evaluate(f"run={flow / 'run'}", words, *FEW)
        assert code == 1
        assert wanted in err
    code, _, err = evaluate(f"run={flow / 'vae'}", "height=48", *FEW)
    assert code == 1
    assert "height=48 says how samples are made" in err
    assert len(err.strip().splitlines()) == 1
