"""From clips to distances over features learnt on them: train.py, scripts/evaluate.py and scripts/check_features.py, on tiny networks."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.transforms import to_float
from data.videos import Videos
from data.writer import write_mp4
from evaluation import feature_sight
from evaluation.frozen_features import FrozenFeatures
from runtime.checkpoint import Checkpoints
from runtime.config import build, load_run_config
from train import main as train
from training.inference import load_vae
from training.learnt import load_encoder, load_features, seen_by_features

ROOT = Path(__file__).resolve().parents[1]
TINY = ["data=videos", "data.probes=null", "data.workers=0", "trainer=toy", "trainer.max_steps=2", "trainer.threads=1", "tracking=none"]
TINY += ["data/shape=fixed", "data.shape.frames=9", "data.shape.height=32", "data.shape.width=32", "data.hold_out=5"]
ENCODER = ["objective=features", "objective.encoder.width=12", "objective.encoder.depth=1", "objective.encoder.heads=1"]
ENCODER += ["objective.encoder.frames=8", "objective.encoder.dimensions=3"]
VAE = ["objective=vae", "objective.vae.widths=[8,8,16]", "objective.vae.encoder_depths=[0,1,1]", "objective.vae.decoder_depths=[0,1,1]"]


def script(name: str, *arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        except SystemExit as error:
            return int(error.code or 0)
    return 0


def trained(run: Path, *arguments: object) -> Path:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", f"run={run}", *map(str, arguments)])
        train()
    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("learnt"), np.random.default_rng(0)
    (root / "films").mkdir()
    for number in range(12):
        write_mp4(root / "films" / f"{number}.mp4", rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2), 8)
    trained(root / "features", f"data.train={root / 'films'}", *TINY, *ENCODER)
    trained(root / "vae", f"data.train={root / 'films'}", *TINY, *VAE)
    return root


def test_a_run_says_what_its_features_are_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(root / "features", f"data.train={root / 'films'}", *TINY, *ENCODER)
    assert f"next: python scripts/evaluate.py run=<a flow model or a VAE> 'features=[learnt:{root / 'features'}]'" in capsys.readouterr().err


@torch.no_grad()
def test_features_are_those_of_the_averaged_weights_and_of_no_others(root: Path) -> None:
    run = root / "features"
    features, (encoder, sha256, size) = load_features(f"learnt:{run}"), load_encoder(run)
    saved = Checkpoints(run / "checkpoints").newest()
    assert saved is not None
    assert all(torch.equal(tensor, saved.parts["ema"][f"encoder.{name}"]) for name, tensor in encoder.state_dict().items())
    assert not torch.equal(encoder.directions, torch.eye(12, 3))  # measured at the end of training
    assert (size, features.key, features.name) == ((32, 32), sha256, f"learnt:features@{sha256[:8]}")
    clip = np.random.default_rng(1).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    wanted = encoder.features(to_float(torch.from_numpy(clip[None, :8])))
    assert load_features(f"learnt:{run}@{sha256[:8]}")(clip) == pytest.approx(wanted.double().numpy())
    with pytest.raises(ValueError, match=rf"@ffff wants other weights than .* For these set features=\[learnt:{run}@{sha256[:8]}\]"):
        load_features(f"learnt:{run}@ffff")
    with pytest.raises(ValueError, match=r"vae trained no features\. .*: python train.py experiment=features/videos videos=<folder> run="):
        load_features(f"learnt:{root / 'vae'}")
    with pytest.raises(ValueError, match=r"trained features, which judge other runs: .*features=\[learnt:"):
        load_vae(run)
    with pytest.raises(ValueError, match="is not one of"):
        FrozenFeatures(f"learnt:{run}")


def test_distances_are_taken_over_them_and_clips_that_they_saw_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = f"learnt:{root / 'features'}"
    assert script("evaluate", f"run={root / 'vae'}", f"features=[{given}]", "device=cpu") == 0
    found, name = json.loads((root / "vae" / "evaluation.json").read_text()), load_features(given).name
    assert found["vae"]["frechet"][name]["samples"] == 5
    assert found["vae"]["kernel"][name]["dimensions"] == 3
    assert found["protocol"]["features"] == {name: load_features(given).key}
    assert found["features_saw"] == {name: {"clips": 0}}  # both held the same clips out
    other = copied(root, "other", ("hold_out: 5", "hold_out: 2"))
    capsys.readouterr()
    saw, out = saw_and_said(root, capsys, other)
    assert saw == {"clips": 3}
    assert "were trained on 3 of the real clips: these may look more usual to them" in out
    index, trained = (build(load_run_config(run)["data"]) for run in (root / "vae", other))
    media = {row.media for row in trained.training_index().rows}
    assert saw_and_said(root, capsys, other, "clips=4")[0] == {"clips": sum(row.media in media for row in index.validation_index().rows[:4])}
    assert saw_and_said(root, capsys, other, "clips=2")[0] == {"clips": sum(row.media in media for row in index.validation_index().rows[:2])}
    assert script("evaluate", f"run={root / 'features'}", "device=cpu") == 1
    assert "trained features, which judge other runs. Set run to a flow model or a VAE, and features=[learnt:" in capsys.readouterr().err


def test_what_cannot_be_told_of_what_features_saw_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = copied(root, "moved", (f"train: {root / 'films'}", f"train: {root / 'gone'}"), ("fps: 8", "fps: 4"))
    saw, out = saw_and_said(root, capsys, moved)
    assert set(saw) == {"why", "note"}
    assert str(root / "gone") in saw["why"]
    assert "may have been trained on some of the real clips" in out
    assert "learnt at 4 fps what they judge at 8" in out

    def without_reader(self: Videos) -> None:
        raise RuntimeError("a parquet index needs pyarrow")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Videos, "training_index", without_reader)
        given = f"learnt:{root / 'features'}"
        features = load_features(given)
        assert seen_by_features([given], [features], [], 8) == {features.name: {"why": "a parquet index needs pyarrow"}}


def copied(root: Path, name: str, *changes: tuple[str, str]) -> Path:
    """The run of features under another name and config, with the same weights."""
    (root / name).mkdir()
    text = (root / "features" / "config.yaml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (root / name / "config.yaml").write_text(text)
    (root / name / "checkpoints").symlink_to(root / "features" / "checkpoints")
    return root / name


def saw_and_said(root: Path, capsys: pytest.CaptureFixture[str], run: Path, *arguments: str) -> tuple[dict, str]:
    """What these features know of the VAE's clips, and all that the terminal says."""
    assert script("evaluate", f"run={root / 'vae'}", f"features=[learnt:{run}]", "device=cpu", *arguments) == 0
    return json.loads((root / "vae" / "evaluation.json").read_text())["features_saw"][load_features(f"learnt:{run}").name], capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("objective.encoder.dimensions=5", "5 validation clips give no 5 directions of features"),
        ("objective.encoder.frames=12", "clips of 9 frames hold no stretch of 12. Set data.shape.min_frames=12"),
    ],
)
def test_a_run_that_could_not_end_does_not_begin(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, said: str) -> None:
    with pytest.raises(SystemExit):
        trained(tmp_path / "run", f"data.train={root / 'films'}", *TINY, *ENCODER, wrong)
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("metrics.jsonl"))  # which the first step writes


def test_what_they_see_is_printed_beside_what_ours_see(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["clips=10", "honest=20", "scenes=16", "draws=1", "dimensions=8", "device=cpu"]
    assert script("check_features", f"features=[learnt:{root / 'features'}]", *sizes, f"out={root / 'sight.json'}") == 0
    out, found = capsys.readouterr().out, json.loads((root / "sight.json").read_text())
    assert list(found) == [
        *("pixels-4x4x4", "pixels-4x4x4, 8 main directions", "spectrum-23", "spectrum-23, 8 main directions"),
        *("random-conv-64", "random-conv-64, 8 main directions", load_features(f"learnt:{root / 'features'}").name),
    ]
    assert all(title in out for title in found)
    for words, said in (
        (["features=[learnt:nowhere]"], "nowhere is not a run folder"),
        (["features=learnt:x"], "features='learnt:x' must be a list of texts"),
        (["clips=9.5"], "clips=9.5 must be a whole number >= 2. Set clips."),
        (["honest=100"], "honest=100 clips make no two sets of clips=96. Set honest=192 or more."),
        (["clips=32"], "Set clips to more than dimensions."),
        (["out=nowhere/x.json"], "is no file in a folder that exists. Set out."),
    ):
        assert script("check_features", *words) == 1
        assert said in capsys.readouterr().err


def test_what_is_measured_stays_whatever_comes_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def few(*given: Any) -> dict:
        if len(seen) == 3:
            raise ValueError("a Frechet distance needs more samples.")
        seen.append(given)
        return sight(*given)

    seen: list[tuple] = []
    sight = feature_sight.sight
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_sight, "sight", few)
        assert (
            script("check_features", "clips=10", "honest=20", "scenes=16", "draws=1", "dimensions=8", "device=cpu", f"out={tmp_path / 'x.json'}") == 1
        )
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["pixels-4x4x4", "pixels-4x4x4, 8 main directions"]
    assert "spectrum-23: a Frechet distance needs more samples. Set clips and honest, or features." in capsys.readouterr().err
