"""Laws of folders of frozen weights: what is read is what the digest stands for, wherever a file of the folder points."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtime.local_weights import digest, read_frozen

KEY = "some.key"
OPTIONS = {"dtype": "auto"}


@pytest.fixture
def folder(text_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(text_models / "clip_text", tmp_path / "copied"))


def indexed(file: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))


def test_a_frozen_network_is_the_one_that_was_saved_and_is_not_trained(folder: Path) -> None:
    from transformers import CLIPTextModel

    read, saved = read_frozen(folder, "CLIPTextModel", OPTIONS, KEY), CLIPTextModel.from_pretrained(folder)
    assert not read.training
    assert not any(weights.requires_grad for weights in read.parameters())
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in read.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (indexed("pytorch_model.bin"), r"names 'pytorch_model\.bin': wanted plain names of \*\.safetensors .*any code when opened\. Set some\.key"),
        (indexed("in/model.safetensors"), r"names 'in/model\.safetensors'"),
        (indexed("../model.safetensors"), r"names '\.\./model\.safetensors'"),
        (indexed(3), "names '3'"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": 1}'), "cannot be read as an index of weights"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), r"holds adapter_config\.json, which leads to other weights"),
        (
            lambda folder: (folder / "config.json").write_text('{"text_config": {"transformers_weights": "adapter_model.bin"}}'),
            r"holds transformers_weights in config\.json",
        ),
    ],
)
def test_a_folder_that_leads_elsewhere_is_refused_before_anything_is_read(folder: Path, monkeypatch, change, said: str) -> None:
    change(folder)
    monkeypatch.setitem(sys.modules, "transformers", None)  # whoever gets as far finds no transformers
    with pytest.raises(ValueError, match=said):
        read_frozen(folder, "CLIPTextModel", OPTIONS, KEY)


def test_no_option_opens_what_is_closed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot be read as a CLIPTextModel .* Set some\.key"):
        read_frozen(folder, "CLIPTextModel", OPTIONS | {"use_safetensors": False}, KEY)


def test_the_digest_is_names_and_content_of_the_files_that_count(folder: Path, tmp_path: Path) -> None:
    endings = (".json", ".safetensors")
    before, moved = digest(folder, endings).hexdigest(), Path(shutil.copytree(folder, tmp_path / "moved"))
    (moved / "README.md").write_text("of no account")
    assert digest(moved, endings).hexdigest() == before
    (moved / "config.json").rename(moved / "konfig.json")
    assert digest(moved, endings).hexdigest() != before
    (moved / "konfig.json").rename(moved / "config.json")
    with (moved / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert digest(moved, endings).hexdigest() != before
