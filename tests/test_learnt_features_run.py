"""From clips to distances over features learnt on them: train.py, scripts/evaluate.py and scripts/check_features.py, on tiny networks."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.transforms import to_float
from data.writer import write_mp4
from evaluation.frozen_features import FrozenFeatures
from runtime.checkpoint import Checkpoints
from train import main as train
from training.inference import load_encoder, load_features, load_vae

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
    with pytest.raises(ValueError, match=r"but features=.*@ffff wants others: it has trained on\. Set features"):
        load_features(f"learnt:{run}@ffff")
    with pytest.raises(ValueError, match=r"vae trained no features\. Give the run folder of: python train.py objective=features"):
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
    assert "features_saw" not in found  # both held the same clips out
    (root / "other").mkdir()
    (root / "other" / "config.yaml").write_text((root / "features" / "config.yaml").read_text().replace("hold_out: 5", "hold_out: 2"))
    (root / "other" / "checkpoints").symlink_to(root / "features" / "checkpoints")
    capsys.readouterr()
    assert script("evaluate", f"run={root / 'vae'}", f"features=[learnt:{root / 'other'}]", "device=cpu") == 0
    assert json.loads((root / "vae" / "evaluation.json").read_text())["features_saw"] == {f"learnt:{root / 'other'}": 3}
    assert "other were trained on 3 of the real clips: these may look more usual to them" in capsys.readouterr().out
    assert script("evaluate", f"run={root / 'features'}", "device=cpu") == 1
    assert "trained features, which judge other runs" in capsys.readouterr().err


def test_what_they_see_is_printed_beside_what_ours_see(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["clips=10", "honest=20", "scenes=16", "draws=1", "dimensions=8", "device=cpu"]
    assert script("check_features", f"features=[learnt:{root / 'features'}]", *sizes, f"out={root / 'sight.json'}") == 0
    out, found = capsys.readouterr().out, json.loads((root / "sight.json").read_text())
    assert list(found) == [
        *("pixels-4x4x4", "pixels-4x4x4, 8 main directions", "spectrum-23", "spectrum-23, 8 main directions"),
        *("random-conv-64", "random-conv-64, 8 main directions", load_features(f"learnt:{root / 'features'}").name),
    ]
    assert all(title in out for title in found)
    assert script("check_features", "features=[learnt:nowhere]") == 1
    assert "nowhere is not a run folder" in capsys.readouterr().err
