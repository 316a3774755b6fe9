"""A VAE run with all its parts, by its command: pictures beside videos in several shapes, then its decoder alone from where it stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.cache import latents
from data.writer import write_mp4
from runtime.checkpoint import read
from train import main
from training.ema import EMA
from training.inference import load_networks, load_vae

TINY = ["objective=vae", "objective.vae.widths=[8,16]", "objective.vae.encoder_depths=[1,1]", "objective.vae.decoder_depths=[1,1]"]
SHORT = ["trainer=toy", "trainer.max_steps=4", "trainer.log_every=1", "trainer.threads=1", "tracking=none"]
TINY += ["objective.vae.decoder_look_back=1", *SHORT]
FLOW = [
    "objective=flow",
    "objective.dit.width=32",
    "objective.dit.depth=1",
    "objective.dit.heads=2",
    "objective.text.width=32",
    "objective.text.depth=1",
]
DATA = [
    "data=videos",
    "data.probes=null",
    "data.workers=0",
    "data.val_samples=4",
    "data.batch_tokens=null",
    "data.batch_size=6",
    "data.shape.pixels=1024",
]
SPECTRAL = ["objective/perceptual=spectral", "objective.perceptual.scales=2"]
PATCH = ["objective/adversary=patch", "objective.adversary.discriminator.widths=[4,8,8]", "objective.adversary.from_sample=16"]


def train(*arguments: str, recipe: list[str] = TINY) -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *recipe, *DATA, *arguments])
        main()
    (run,) = [argument.removeprefix("run=") for argument in arguments if argument.startswith("run=")]
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures and five videos in four shapes."""
    folder = tmp_path_factory.mktemp("mixed") / "set"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number, (frames, height, width) in enumerate([(1, 32, 32)] * 3 + [(1, 48, 16)] * 2 + [(17, 32, 32)] * 3 + [(9, 16, 48), (3, 32, 32)]):
        video = np.kron(draw.integers(0, 255, (frames, height // 8, width // 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
        if frames == 1:
            Image.fromarray(video[0]).save(folder / f"{number}.png")
        else:
            write_mp4(folder / f"{number}.mp4", video, 8)
    return folder


def test_pictures_and_videos_of_several_shapes_train_one_vae_and_then_its_decoder(folder: Path, tmp_path: Path, capsys):
    torch.set_num_threads(1)
    rows = train("data/crop=stills", "data.crop.share=0.3", *SPECTRAL, *PATCH, f"data.train={folder}", f"run={tmp_path}/vae")
    said = capsys.readouterr().err
    assert "10 clips in" in said
    assert "discriminator" in said
    training = [row for row in rows if row["kind"] == "train"]
    assert ["logit_real" in row for row in training] == [False, False, False, True]
    assert all(np.isfinite(row["perceptual"]) and np.isfinite(row["loss"]) for row in training)
    last = [row for row in rows if row["kind"] == "val"][-1]
    assert 0 <= last["dead_channels"] <= 16
    assert 0 < last["latent_std_least"] <= last["latent_std_most"]

    source, _ = load_vae(tmp_path / "vae")
    tuned = train("objective/part=decoder", *PATCH, f"init_from={tmp_path}/vae", f"data.train={folder}", f"run={tmp_path}/decoder")
    assert not any("kl" in row for row in tuned)
    weights = read(tmp_path / "decoder/checkpoints/step-00000004").parts
    frozen = [name for name in source.state_dict() if not name.startswith(("from_latents", "decoder", "head"))]
    for name, tensor in source.state_dict().items():
        for part in ("weights", "ema"):
            assert torch.equal(weights[part][f"vae.{name}"], tensor) == (name in frozen), f"{part} {name}"


def test_a_decoder_without_an_encoder_is_refused_before_its_first_step(folder: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(EMA, "update", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(SystemExit) as stopped:
        train("objective/part=decoder", f"data.train={folder}", f"run={tmp_path}/decoder")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the decoder alone is trained, but its encoder never was. Set init_from=")
    assert not (tmp_path / "decoder/metrics.jsonl").exists()


def test_a_flow_run_takes_a_tuned_decoder_halfway_encodes_nothing_again_and_learns_the_same(folder: Path, tmp_path: Path, capsys, monkeypatch):
    torch.set_num_threads(1)
    data, recipe = [f"data.train={folder}", "trainer.validate_every=2"], [*FLOW, *SHORT, "trainer.checkpoint_every=2"]
    train(*data, f"run={tmp_path}/vae", "trainer.max_steps=1")
    train(*data, f"run={tmp_path}/tuned", "trainer.max_steps=2", "objective/part=decoder", f"init_from={tmp_path}/vae")
    train(*data, f"vae_run={tmp_path}/vae", f"run={tmp_path}/whole", recipe=recipe)

    update = EMA.update
    with monkeypatch.context() as patch:
        patch.setattr(EMA, "update", lambda self, step: (_ for _ in ()).throw(KeyboardInterrupt) if step == 3 else update(self, step))
        with pytest.raises(SystemExit):
            train(*data, f"vae_run={tmp_path}/vae", f"run={tmp_path}/flow", recipe=recipe)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(latents._Maker, "_encoded", lambda *_: pytest.fail("a clip was encoded"))
        train(*data, f"vae_run={tmp_path}/tuned", f"run={tmp_path}/flow", recipe=recipe)
    said = capsys.readouterr().err
    assert f"decodes with vae_run={tmp_path}/tuned at step 2 from now on" in said
    assert "resuming from" in said
    parts = [read(tmp_path / name / "checkpoints/step-00000004").parts for name in ("whole", "flow")]
    assert all(torch.equal(tensor, parts[1][part][name]) for part in parts[0] for name, tensor in parts[0][part].items())
    sampled, tuned = load_networks(tmp_path / "flow").vae.state_dict(), load_vae(tmp_path / "tuned")[0].state_dict()
    assert all(torch.equal(tensor, tuned[name]) for name, tensor in sampled.items())
