"""Laws of frozen features: the network that the folder holds, fed as the folder says, or no figure at all. Tiny ones with random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.frozen_features import FrozenFeatures, Preprocessing, read_features
from evaluation.video_features import distances

transformers = pytest.importorskip("transformers")
SIZE = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8}
    text = {"vocab_size": 9, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    root = tmp_path_factory.mktemp("frozen")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: dict[str, Any] = {
            "mae": transformers.VideoMAEModel(transformers.VideoMAEConfig(**own, num_frames=4, tubelet_size=2)),
            "dino1": transformers.ViTModel(transformers.ViTConfig(**own), add_pooling_layer=False),
            "dino2": transformers.Dinov2Model(transformers.Dinov2Config(**{**own, "intermediate_size": None})),
            "clip": transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=own, projection_dim=5)),
        }
        for name, model in made.items():
            for weights in model.parameters():
                torch.nn.init.normal_(weights, std=0.3)
            model.save_pretrained(root / name)
    return root


def clip(seed: int, frames: int = 9, height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def frames_as_made(video: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Pillow's own resize of the shorter edge and the middle: what transformers' processors do."""
    from PIL import Image

    out = []
    for frame in video:
        picture = Image.fromarray(frame).resize((SIZE * 40 // 24, SIZE), Image.Resampling.BICUBIC)
        left = (picture.width - SIZE) // 2
        out.append((np.asarray(picture)[:, left : left + SIZE] / 255 - mean) / std)
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float()


def test_frames_are_prepared_as_pillow_would() -> None:
    video, (mean, std) = clip(0) // 2 + np.uint8(60), ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    prepared = Preprocessing(SIZE, (SIZE, SIZE), True, mean, std)(video)
    # Pillow rounds to 8 bits between its two passes and after them: a level or two.
    assert (prepared - frames_as_made(video, mean, std)).abs().max() < 3 / 255 / 0.2


@pytest.mark.parametrize(
    ("given", "dimensions", "samples"), [("videomae:mae", 12, 2), ("dino:dino1", 12, 8), ("dino:dino2", 12, 8), ("clip:clip", 5, 8)]
)
def test_features_are_what_the_network_itself_says(folders: Path, given: str, dimensions: int, samples: int) -> None:
    kind, _, name = given.partition(":")
    features, video = FrozenFeatures(f"{kind}:{folders / name}"), clip(1)
    found = features(video)
    assert (found.shape, found.dtype, features.name) == ((samples, dimensions), np.float64, given)
    prepared = Preprocessing.of(folders / name, kind, SIZE)(video)  # without a file, all alike
    with torch.no_grad():
        if kind == "videomae":
            direct = transformers.VideoMAEModel.from_pretrained(folders / name)(
                pixel_values=prepared[:8].unflatten(0, (2, 4))
            ).last_hidden_state.mean(1)
        elif kind == "clip":
            model = transformers.CLIPModel.from_pretrained(folders / name)
            direct = model.visual_projection(model.vision_model(pixel_values=prepared[:8]).pooler_output)
        else:
            direct = transformers.AutoModel.from_pretrained(folders / name)(pixel_values=prepared[:8]).last_hidden_state[:, 0]
    assert np.allclose(found, direct.numpy(), atol=1e-4)
    assert not np.allclose(found, features(clip(2)), atol=1e-2)


def test_the_folder_says_how_frames_are_prepared(folders: Path, tmp_path: Path) -> None:
    assert Preprocessing.of(folders / "clip", "clip", SIZE).mean[0] == pytest.approx(0.48145466)
    assert Preprocessing.of(folders / "dino2", "dino", SIZE) == Preprocessing(SIZE, (SIZE, SIZE), True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    folder = Path(shutil.copytree(folders / "dino2", tmp_path / "dino2"))
    told = {
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 1, 2],
        "resample": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    assert Preprocessing.of(folder, "dino", SIZE) == Preprocessing(20, (16, 16), False, (0.1, 0.2, 0.3), (1, 1, 2))
    other, before = FrozenFeatures(f"dino:{folder}"), FrozenFeatures(f"dino:{folders / 'dino2'}")
    assert other.key != before.key
    assert not np.allclose(other(clip(1)), before(clip(1)), atol=1e-2)
    (folder / "preprocessor_config.json").write_text(json.dumps(told | {"rescale_factor": 2 / 255}))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json says what is not understood"):
        FrozenFeatures(f"dino:{folder}")


@pytest.mark.parametrize(
    "told",
    [
        {"size": 16, "resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},  # as DINO v1's
        {"size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        {"size": {"height": 16, "width": 16}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ],
)
def test_a_vit_gets_frames_as_its_own_processor_in_transformers_makes_them(folders: Path, tmp_path: Path, told: dict[str, Any]) -> None:
    folder, video = Path(shutil.copytree(folders / "dino1", tmp_path / "dino1")), clip(4, frames=1) // 2 + np.uint8(60)
    (folder / "preprocessor_config.json").write_text(json.dumps(told | {"image_processor_type": "ViTImageProcessor"}))
    own = transformers.ViTImageProcessor.from_pretrained(folder)(list(video), return_tensors="pt")["pixel_values"]
    prepared = Preprocessing.of(folder, "dino", SIZE, "vit")(video)
    assert prepared.shape == own.shape == (1, 3, SIZE, SIZE)
    assert (prepared - own).abs().max() < 3 / 255 / 0.5  # it rounds to 8 bits, as Pillow does
    model = transformers.ViTModel.from_pretrained(folder)
    with torch.no_grad():
        direct = model(pixel_values=own).last_hidden_state[:, 0]
    off = np.abs(FrozenFeatures(f"dino:{folder}")(video) - direct.numpy()).max()
    assert off < 0.02, off  # those levels; a crop moves them by 0.08


def test_frames_of_a_size_that_the_network_does_not_take_are_noticed_at_once(folders: Path, tmp_path: Path) -> None:
    for kind, name in (("dino", "dino1"), ("clip", "clip"), ("videomae", "mae")):
        folder = Path(shutil.copytree(folders / name, tmp_path / name))
        size = {"height": 24, "width": 24}
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "crop_size": size}))
        with pytest.raises(ValueError, match=r"prepares frames that its own .* does not take") as caught:
            FrozenFeatures(f"{kind}:{folder}")
        assert str(folder) in str(caught.value)
    small = Path(shutil.copytree(folders / "dino2", tmp_path / "small"))
    (small / "preprocessor_config.json").write_text(json.dumps({"size": 8, "crop_size": 16}))
    with pytest.raises(ValueError, match=r"small prepares frames .* hold no middle of 16x16"):
        FrozenFeatures(f"dino:{small}")


def test_a_config_chooses_no_attention_of_its_own(folders: Path, tmp_path: Path) -> None:
    """A name that is not transformers' own is a program that it would download."""
    for kind, name in (("dino", "dino1"), ("dino", "dino2"), ("clip", "clip"), ("videomae", "mae")):
        folder = Path(shutil.copytree(folders / name, tmp_path / name))
        told = json.loads((folder / "config.json").read_text()) | {"attn_implementation": "someone/kernel"}
        if name == "clip":
            told["vision_config"] |= {"attn_implementation": "someone/kernel"}
        (folder / "config.json").write_text(json.dumps(told))
        changed, before = FrozenFeatures(f"{kind}:{folder}"), FrozenFeatures(f"{kind}:{folders / name}")
        assert changed(clip(1)) == pytest.approx(before(clip(1)), abs=1e-6)


def test_a_short_clip_is_spread_over_the_frames_that_the_network_takes(folders: Path) -> None:
    features, still = FrozenFeatures(f"videomae:{folders / 'mae'}"), clip(3, frames=1)
    assert features(still) == pytest.approx(features(np.repeat(still, 4, axis=0)), abs=1e-6)
    assert FrozenFeatures(f"dino:{folders / 'dino1'}")(still).shape == (1, 12)


def test_a_long_clip_is_prepared_a_stretch_at_a_time(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, prepared, prepare = FrozenFeatures(f"videomae:{folders / 'mae'}"), [], Preprocessing.__call__
    monkeypatch.setattr(Preprocessing, "__call__", lambda self, frames: (prepared.append(len(frames)), prepare(self, frames))[1])
    assert len(features(clip(3, frames=14))) == 3
    assert prepared == [4, 4, 4]


def test_both_distances_are_taken_over_them_under_their_name(folders: Path) -> None:
    clips = [clip(seed, height=24, width=24) for seed in range(6)]
    frozen = read_features([f"dino:{folders / 'dino1'}", f"videomae:{folders / 'mae'}"])
    found = distances(clips, [video // 3 for video in clips], resamples=4, frozen=frozen)
    assert found["frechet"]["dino:dino1"]["samples"] == 48
    assert found["kernel"]["dino:dino1"]["value"] > 0
    assert found["frechet"]["dino:dino1"]["left_out"] == 0  # whole clips: none is too small
    assert "more than 12 samples" in found["frechet"]["videomae:mae"]["why"]
    assert found["kernel"]["videomae:mae"]["samples"] == 12


def broken(change: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def made(source: Path, target: Path) -> Path:
        folder = Path(shutil.copytree(source, target / "broken"))
        change(folder)
        return folder

    return made


def without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "layer.1." not in name}, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def sharded(*files: object) -> Callable[[Path], None]:
    """An index that names files, the weights themselves in a pickle, in a folder within and beside the folder."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file

        weights = load_file(folder / "model.safetensors")
        (folder / "in").mkdir()
        torch.save(weights, folder / "pytorch_model.bin")
        shutil.copy(folder / "model.safetensors", folder / "in/model.safetensors")
        shutil.copy(folder / "model.safetensors", folder.parent / "model.safetensors")
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        named = {name: files[i % len(files)] for i, name in enumerate(weights)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))

    return change


def configured(**keys: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | keys))


def test_shards_beside_their_index_are_read(folders: Path, tmp_path: Path) -> None:
    folder = broken(sharded("model-1.safetensors"))(folders / "dino1", tmp_path)
    assert np.array_equal(FrozenFeatures(f"dino:{folder}")(clip(1)), FrozenFeatures(f"dino:{folders / 'dino1'}")(clip(1)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            sharded("pytorch_model.bin"),
            r"weight_map in .*index\.json names 'pytorch_model\.bin': wanted plain names of \*\.safetensors .* Set features",
        ),
        (sharded("model-1.safetensors", "pytorch_model.bin"), r"names 'pytorch_model\.bin'"),
        (sharded("in/model.safetensors"), r"names 'in/model\.safetensors'"),
        (sharded("../model.safetensors"), r"names '\.\./model\.safetensors'"),
        (sharded(3), "names '3'"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": 1}'), "cannot be read as an index of weights"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), r"holds adapter_config\.json, which leads to other weights"),
        (configured(transformers_weights="adapter_model.bin"), r"holds transformers_weights in config\.json"),
    ],
)
def test_a_folder_that_leads_to_other_weights_is_refused(folders: Path, tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    folder = broken(make)(folders / "dino1", tmp_path)
    with pytest.raises(ValueError, match=said):
        FrozenFeatures(f"dino:{folder}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (broken(without_a_layer), "lack .* of a ViTModel's tensors"),
        (broken(pickled), "cannot be read as a ViTModel"),
        (broken(lambda folder: (folder / "model.safetensors").write_bytes(b"x")), "cannot be read as a ViTModel"),
        (broken(lambda folder: (folder / "config.json").write_text("{")), r"config\.json cannot be read as JSON"),
        (broken(lambda folder: (folder / "config.json").unlink()), r"holds no config\.json"),
        (broken(lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}')), "holds a 'bert', dino wants one of vit"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_name(folders: Path, tmp_path: Path, make: Callable[[Path, Path], Path], said: str) -> None:
    folder = make(folders / "dino1", tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        FrozenFeatures(f"dino:{folder}")
    assert "broken" in str(caught.value)


def test_other_names_are_refused_i3d_among_them(folders: Path, tmp_path: Path) -> None:
    for given in ("i3d:/x", "dino", "dino:", "/x"):
        with pytest.raises(ValueError, match="is not one of videomae:<folder>"):
            FrozenFeatures(given)
    twin = shutil.copytree(folders / "dino1", tmp_path / "dino1")
    with pytest.raises(ValueError, match="hold dino:dino1 twice"):
        read_features([f"dino:{folders / 'dino1'}", f"dino:{twin}"])
