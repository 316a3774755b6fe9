"""A frozen text encoder from train.py to sample.py, and scripts/cache_latents.py: what it makes is what train.py would have made."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import sample
import train as train_module
from data.cache import latents, texts
from data.writer import write_mp4
from models import text_frozen
from runtime.tracking import TIME_FIELDS
from training.ema import EMA

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "cache_latents.py"
SMALL = ["data=videos", "data/shape=fixed", "data.shape.frames=5", "data.shape.height=32", "data.shape.width=32", "data.val_samples=2"]
SMALL += ["data.probes=null", "data.batch_size=4", "data.micro_batch=2", "data.workers=0", "trainer=toy", "trainer.device=cpu", "tracking=none"]
VAE = ["objective=vae", "objective.vae.widths=[8,16]", "objective.vae.encoder_depths=[1,1]", "objective.vae.decoder_depths=[1,1]"]
DIT = ["objective.dit.width=32", "objective.dit.depth=1", "objective.dit.heads=2"]


def called(main, name: str, *arguments: object) -> None:
    """What `python name ...` does, here."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        main()


def train(*arguments: object) -> None:
    called(train_module.main, "train.py", *arguments)


def cache(*arguments: object) -> None:
    called(runpy.run_path(str(SCRIPT))["main"], "cache_latents.py", *arguments)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(7):
        video = np.random.default_rng(number).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"{number}.mp4", video, 8)
        captions = {"short": [f"a square {number % 3}"], "long": [f"a square of colour {number} moves", "a red square"]}
        rows.append(json.dumps({"path": f"{number}.mp4", "captions": captions}))
    (folder / "train.jsonl").write_text("\n".join(rows[:5]) + "\n")
    (folder / "val.jsonl").write_text("\n".join(rows[5:]) + "\n")
    return [f"data.train={folder}/train.jsonl", f"data.val={folder}/val.jsonl"]


TEXTS = 3 + 7 + 1  # of training and validation, each once


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory, clips) -> Path:
    run = tmp_path_factory.mktemp("vae") / "run"
    train(f"run={run}", *SMALL, *VAE, *clips, "trainer.max_steps=1")
    return run


@pytest.fixture
def flow(clips, vae_run, text_models) -> list[str]:
    """The keys of a flow run on a frozen T5, without its folders."""
    text = ["objective/text=t5", f"objective.text.path={text_models}/t5", "objective.text.width=16", "objective.text.max_tokens=8"]
    return [*SMALL, *DIT, *text, *clips, f"vae_run={vae_run}"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(run: Path) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in found]


def digests(run: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (run / "checkpoints/step-00000010").glob("*.safetensors")}


def test_a_run_on_a_frozen_encoder_resumes_bitwise_holds_none_of_it_and_can_be_sampled(tmp_path, flow, monkeypatch, capsys):
    train(f"run={tmp_path}/whole", *flow)
    assert f"{TEXTS} of {TEXTS} captions encoded" in capsys.readouterr().err
    with safe_open(tmp_path / "whole/checkpoints/step-00000010/ema.safetensors", framework="pt") as saved:
        assert {name for name in saved.keys() if name.startswith("text.")} == {"text.null", "text.trained_with"}  # noqa: SIM118, it is no dict
        assert saved.get_tensor("text.null").abs().max() > 0

    update = EMA.update
    with monkeypatch.context() as patch:
        patch.setattr(EMA, "update", lambda self, step: (_ for _ in ()).throw(KeyboardInterrupt) if step == 7 else update(self, step))
        with pytest.raises(SystemExit):
            train(f"run={tmp_path}/cut", *flow)
    with monkeypatch.context() as patch:  # what is cached is not encoded again
        patch.setattr(text_frozen, "read_frozen", lambda *_: pytest.fail("the encoder's weights were read"))
        train(f"run={tmp_path}/cut", *flow)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")

    out = tmp_path / "clips"
    sample.main([f"run={tmp_path}/whole", "--prompt", "a blue square that no clip shows", f"out={out}", "steps=1", "device=cpu"])
    assert len(list(out.glob("*.mp4"))) == 1


def test_a_cache_changes_no_loss_by_more_than_rounding(tmp_path, flow):
    losses = []
    for cached in (f"{tmp_path}/texts", "null"):
        run = tmp_path / cached.rpartition("/")[2]
        train(f"run={run}-run", *flow, f"objective.text.cache={cached}", "trainer.max_steps=4")
        losses.append([row["loss"] for row in rows(Path(f"{run}-run"))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # 4 steps of Adam on vectors that differ by 1e-6


def test_training_after_cache_latents_encodes_nothing(tmp_path, flow, monkeypatch, capsys):
    folders = [f"data.latents={tmp_path}/latents", f"objective.text.cache={tmp_path}/texts"]
    cache(*flow, *folders)
    said = capsys.readouterr()
    assert "latents     5 of 5 clips encoded in" in said.err
    assert all(f"%) {name}" in said.err for name in ("waiting for decoded clips", "encoding", "writing"))
    assert "latents     5 clips in 1 shard, " in said.out
    assert f"texts       {TEXTS} captions in 1 shard, " in said.out
    assert f"next: python train.py {flow[0]} " in said.out
    assert said.out.rstrip().endswith("run=runs/first")
    made = contents(tmp_path / "latents"), contents(tmp_path / "texts")

    monkeypatch.setattr(text_frozen, "read_frozen", lambda *_: pytest.fail("the encoder's weights were read"))
    monkeypatch.setattr(latents._Maker, "_encoded", lambda *_: pytest.fail("a clip was encoded"))
    cache(*flow, *folders)
    train(f"run={tmp_path}/run", *flow, *folders, "trainer.max_steps=2")
    assert (contents(tmp_path / "latents"), contents(tmp_path / "texts")) == made
    assert "encoded in" not in capsys.readouterr().err

    # and with the run that train.py made, whose own copy of the VAE it now is
    cache(*[key for key in flow if not key.startswith("vae_run=")], *folders, f"run={tmp_path}/run")
    assert "encoded in" not in capsys.readouterr().err


def test_the_folders_of_a_run_are_filled_as_the_run_would(tmp_path, flow):
    train(f"run={tmp_path}/a", *flow, "trainer.max_steps=1")
    cache(f"run={tmp_path}/b", *flow)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["latents", "texts"]
    for name in ("latents", "texts"):
        assert contents(tmp_path / "a" / name) == contents(tmp_path / "b" / name)


CHILD = """
import runpy, sys; sys.path.insert(0, {root!r})
from data.cache import latents, texts
latents.SHARD_ROWS, texts.SHARD_TEXTS = 2, 4
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_two_ranks_make_what_one_makes_byte_for_byte(tmp_path, flow, monkeypatch, capsys):
    monkeypatch.setattr(latents, "SHARD_ROWS", 2)
    monkeypatch.setattr(texts, "SHARD_TEXTS", 4)
    cache(*flow, f"data.latents={tmp_path}/latents-1", f"objective.text.cache={tmp_path}/texts-1")
    capsys.readouterr()
    together = [*flow, f"data.latents={tmp_path}/latents-2", f"objective.text.cache={tmp_path}/texts-2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RANK": "1", "WORLD_SIZE": "2"}
    code = CHILD.format(root=str(ROOT), script=str(SCRIPT))
    with subprocess.Popen([sys.executable, "-c", code, *together], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as other:
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        cache(*together)
        _, said = other.communicate()
    assert other.returncode == 0, said
    assert "latents     2 of 5 clips encoded" in said
    assert "texts       4 of 11 captions encoded" in said
    assert "latents     3 of 5 clips encoded" in capsys.readouterr().err
    for name in ("latents", "texts"):
        assert len(list((tmp_path / f"{name}-2").glob("*.safetensors"))) == 3
        assert contents(tmp_path / f"{name}-1") == contents(tmp_path / f"{name}-2")


def test_another_encoder_or_caption_is_refused_before_anything_is_trained(tmp_path, flow, text_models, capsys):
    cache(*flow, f"data.latents={tmp_path}/latents", f"objective.text.cache={tmp_path}/texts")
    train_index = next(key for key in flow if key.startswith("data.train=")).removeprefix("data.train=")
    other = tmp_path / "other.jsonl"
    other.write_text(Path(train_index).read_text().replace("square 0", "circle 0"))
    for change, says in (
        ([f"objective.text.path={text_models}/umt5"], "another text encoder"),
        (["objective.text.max_tokens=6"], "another length (max_tokens=8, now 6)"),
        (["objective.text.cache_dtype=bfloat16"], "another dtype (float32, now bfloat16)"),
        ([f"data.train={other}", f"data.root={Path(train_index).parent}"], "other captions (11 texts"),
        (["trainer.precision=bfloat16"], "another VAE (weights float32-"),
    ):
        with pytest.raises(SystemExit):
            train(f"run={tmp_path}/run", *flow, f"data.latents={tmp_path}/latents", f"objective.text.cache={tmp_path}/texts", *change)
        assert says in capsys.readouterr().err
        shutil.rmtree(tmp_path / "run")


def test_a_wrong_start_is_refused_in_a_line(tmp_path, flow, monkeypatch, capsys):
    folder = f"data.latents={tmp_path}/latents"
    without = [key for key in flow if not key.startswith("vae_run=")]
    several = {"RANK": "0", "WORLD_SIZE": "2"}
    for arguments, environment, says in (
        (flow, {}, "data.latents has no value"),
        ([*flow, folder], {}, "objective.text.cache has no value"),
        ([*flow, "data.latents=null", "objective.text.cache=null"], {}, "nothing to cache"),
        ([*without, folder], {}, "vae_run is null"),
        ([*SMALL, "objective=vae", folder, *flow[-3:-1]], {}, "only a flow objective"),
        ([*flow, folder, "trainer.precision=auto"], several, "trainer.precision=auto is measured"),
        ([*flow, folder], {"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 does not fit WORLD_SIZE=2"),
        ([*flow, folder], {"RANK": "x"}, "must be whole numbers"),
    ):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit):
                cache(*arguments)
        assert says in capsys.readouterr().err
    assert not (tmp_path / "latents").exists()


def test_bad_files_are_named(tmp_path, flow, capsys):
    index = Path(next(key for key in flow if key.startswith("data.train=")).removeprefix("data.train="))
    shutil.copytree(index.parent, tmp_path / "set")
    (tmp_path / "set/3.mp4").write_text("not a video")
    latents = f"data.latents={tmp_path}/latents"
    cache(*flow, f"data.train={tmp_path}/set/train.jsonl", latents, "objective.text.cache=null", "data.bad_limit=0.5")
    said = capsys.readouterr().out
    assert "bad files   1 clips cannot be used\n            3.mp4: " in said
    assert "latents     4 clips" in said
    assert "texts" not in said
