import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from runtime import checkpoint
from runtime.checkpoint import CheckpointError, Checkpoints, digest, read, restore

PARTS = {
    "weights": {"a.w": torch.arange(6.0).reshape(2, 3), "a.b": torch.tensor(3.0)},
    "optimizer": {"m/a.w": torch.ones(2, 3, dtype=torch.bfloat16)},
}
FACTS = {"bad": 0, "tally": {"loss": [0.1, 3.0]}, "text": "é"}


def saved(folder, *steps, keep_last=2):
    checkpoints = Checkpoints(folder, keep_last)
    for step in steps:
        checkpoints.save(step, PARTS, FACTS | {"step_again": step})
    return checkpoints


def test_round_trip_keeps_every_bit_dtype_and_fact(tmp_path):
    loaded = saved(tmp_path, 7).newest()
    assert loaded.step == 7
    assert loaded.facts == json.loads(json.dumps(FACTS | {"step_again": 7}))
    for part, tensors in PARTS.items():
        assert loaded.parts[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert loaded.parts[part][name].dtype == tensor.dtype
            assert torch.equal(loaded.parts[part][name], tensor)


def test_equal_tensors_give_equal_files(tmp_path):
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 1)
    assert digest(tmp_path / "a/step-00000001/weights.safetensors") == digest(tmp_path / "b/step-00000001/weights.safetensors")


def test_tied_and_strided_tensors_are_saved_as_they_look(tmp_path):
    square = torch.randn(3, 3)
    Checkpoints(tmp_path).save(1, {"weights": {"a": square, "same": square, "turned": square.T}}, {})
    parts = read(tmp_path / "step-00000001").parts["weights"]
    assert torch.equal(parts["a"], square)
    assert torch.equal(parts["same"], square)
    assert torch.equal(parts["turned"], square.T)


def test_the_newest_are_kept_and_at_least_two(tmp_path):
    saved(tmp_path, 1, 2, 3, 4, keep_last=3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003", "step-00000004"]
    with pytest.raises(ValueError, match=r"keep_last=1.*Set trainer\.keep_last"):
        Checkpoints(tmp_path, 1)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, name, damage):
    checkpoints = saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x80
        path.write_bytes({"flip": content, "cut": content[: len(content) // 2], "empty": b""}[damage])
    if (name, damage) == ("manifest.json", "missing"):
        assert checkpoints.newest().step == 1  # never published, as far as anyone can tell
        return
    with pytest.warns(UserWarning, match=rf"step-00000002.{name}.*Falling back"):
        assert checkpoints.newest().step == 1


def test_every_flipped_bit_of_the_weights_is_found(tmp_path):
    saved(tmp_path, 1)
    path = tmp_path / "step-00000001/weights.safetensors"
    content = path.read_bytes()
    for position in range(0, len(content) * 8, 7):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="sha256"):
            read(path.parent)


def test_with_no_usable_checkpoint_the_run_does_not_start_afresh_in_silence(tmp_path):
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "step-00000001/weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"), pytest.warns(UserWarning, match="missing"):
        checkpoints.newest()
    assert Checkpoints(tmp_path / "nothing").newest() is None


def test_litter_of_an_interrupted_save_is_ignored_and_cleaned(tmp_path):
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000009.tmp-0badcafe")
    (tmp_path / "step-00000005").mkdir()  # a name without a manifest is not a checkpoint
    assert checkpoints.newest().folder.name == "step-00000001"
    checkpoints.clean()
    assert not list(tmp_path.glob("*.tmp-*"))


@pytest.mark.parametrize("phase", ["save_file", "sync_file", "write_text", "rename"])
def test_a_kill_in_any_phase_of_a_save_leaves_the_checkpoint_before(tmp_path, phase):
    saved(tmp_path, 1)

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        if phase == "rename":
            Path.rename = die
        else:
            setattr(checkpoint, phase, die)
        try:
            Checkpoints(tmp_path).save(2, PARTS, {})
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest().step == 1
    checkpoints.save(2, PARTS, {})  # the same step again, over the litter
    assert checkpoints.newest().step == 2


def test_a_failed_save_says_where_and_leaves_nothing_behind(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 100))
    with pytest.raises(CheckpointError, match=r"step-00000002 could not be written .*bytes needed, 100 free"):
        checkpoints.save(2, PARTS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_disk_that_fills_up_on_the_way_is_an_error_of_ours_too(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1)

    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"step-00000002 could not be written .*No space left"):
        checkpoints.save(2, PARTS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("name", ["../../weights.safetensors", "/etc/weights.safetensors", "weights.pt", ".safetensors", "a/b.safetensors"])
def test_a_manifest_cannot_name_a_file_elsewhere_or_of_another_kind(tmp_path, name):
    saved(tmp_path, 1)
    path = tmp_path / "step-00000001/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = manifest["files"].pop("weights.safetensors")
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="strange files"):
        read(path.parent)


def test_a_pickle_in_place_of_a_part_is_never_opened(tmp_path):
    saved(tmp_path, 1)
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return open, (str(canary), "w")

    path = tmp_path / "step-00000001/weights.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": digest(path)}  # a hostile manifest agrees with it
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read(path.parent)
    assert not canary.exists()


def test_restoring_is_all_or_nothing_with_a_table(tmp_path):
    targets = {"same": torch.zeros(2), "missing": torch.zeros(1), "shape": torch.zeros(3), "dtype": torch.zeros(2)}
    found = {"same": torch.ones(2), "extra": torch.ones(5), "shape": torch.ones(4), "dtype": torch.ones(2).bfloat16()}
    with pytest.raises(CheckpointError) as refused:
        restore(targets, found, "x")
    for line in ("missing     missing (1,)", "unexpected  extra (5,)", "mismatched  shape: saved (4,)", "mismatched  dtype: saved (2,)"):
        assert line in str(refused.value)
    assert all((target == 0).all() for target in targets.values())
    restore({"same": targets["same"]}, {"same": found["same"]}, "x")
    assert (targets["same"] == 1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    targets = {"dit.a": torch.zeros(2), "dit.b": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"runs/a holds NaN or infinite values in 1 of 2 tensors, first in dit\.b"):
        restore(targets, {"dit.a": torch.ones(2), "dit.b": torch.tensor([1.0, value, 3.0])}, "runs/a")
    assert targets["dit.a"].abs().max() == 0
