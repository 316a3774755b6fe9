"""Named features of frozen networks from a local folder: frames as the folder itself says, weights that are all there, and nothing downloaded."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evaluation import learnt_features
from evaluation.learnt_features import LearntFeatures
from runtime.local_weights import digest, read_frozen

Video = NDArray[np.uint8]  # t h w c
Values = NDArray[np.float64]
FRAMES = 8  # of a clip, evenly spread, that a network for pictures looks at: each is a sample
KINDS = {
    "videomae": {"videomae": "VideoMAEModel"},
    "dino": {
        "vit": "ViTModel",
        "dinov2": "Dinov2Model",
        "dinov2_with_registers": "Dinov2WithRegistersModel",
    },
    "clip": {"clip": "CLIPVisionModelWithProjection", "clip_vision_model": "CLIPVisionModelWithProjection"},
}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEANS = {"videomae": IMAGENET, "dino": IMAGENET, "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What becomes of a frame before a network sees it.

    Args:
        resize: (height, width); a single number is the shorter edge; None leaves the size.
        crop: (height, width) of the middle that is kept; None keeps all.
        cubic: how it is resized; False is linear. Antialiased, like Pillow.
        mean, std: of the three colours in [0, 1].
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    cubic: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, folder: Path, kind: str, image_size: int, model_type: str = "") -> "Preprocessing":
        """As preprocessor_config.json says, or what it leaves open: the shorter edge to the network's own size, the middle of it, the colours
        that networks of this kind were trained with. In a ViT's file (model_type vit, as in config.json) a number is a square that all of a
        frame is squashed into, and a crop is made only where it says so.

        Raises: ValueError if the file is damaged.
        """
        path = folder / "preprocessor_config.json"
        told = _json(path) if path.is_file() else {}
        mean, std = MEANS[kind]
        if model_type == "vit" and path.is_file():  # what its own processor in transformers takes for granted
            told = {"size": image_size, "do_center_crop": False, "resample": 2} | told
            told["size"] = told["size"] if isinstance(told["size"], dict) else dict.fromkeys(("height", "width"), told["size"])
        size, crop = told.get("size", {"shortest_edge": image_size}), told.get("crop_size", {"height": image_size, "width": image_size})
        try:
            found = cls(
                resize=_size(size) if told.get("do_resize", True) else None,
                crop=_pair(_size(crop)) if told.get("do_center_crop", True) else None,
                cubic=told.get("resample", 2 if kind == "videomae" else 3) == 3,  # Pillow's numbers
                mean=tuple(told.get("image_mean", mean)) if told.get("do_normalize", True) else (0.0,) * 3,
                std=tuple(told.get("image_std", std)) if told.get("do_normalize", True) else (1.0,) * 3,
            )
            odd = not told.get("do_rescale", True) or not math.isclose(told.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-3)
            if odd or len(found.mean) != 3 or len(found.std) != 3:
                raise ValueError("wanted colours in [0, 1] (rescale_factor 1/255) and three means and deviations")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} says what is not understood here ({error}). Correct it, or remove it for the usual values.") from None
        return found

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """t 3 h w of t h w 3."""
        x = rearrange(torch.from_numpy(np.ascontiguousarray(frames)).float() / 255, "t h w c -> t c h w")
        if self.resize is not None:
            h, w = x.shape[2:]
            edge = self.resize
            size = edge if isinstance(edge, tuple) else (max(edge, h * edge // w), max(edge, w * edge // h))  # the shorter edge is `edge`
            x = functional.interpolate(x, size, mode="bicubic" if self.cubic else "bilinear", antialias=True).clamp(0, 1)
        if self.crop is not None:
            (h, w), (high, wide) = x.shape[2:], self.crop
            if h < high or w < wide:
                raise ValueError(f"frames of {h}x{w} hold no middle of {high}x{wide}: preprocessor_config.json resizes them to less than it crops.")
            top, left = (h - high) // 2, (w - wide) // 2
            x = x[:, :, top : top + high, left : left + wide]
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std


class FrozenFeatures:
    """VideoMAE, DINO (v1 as ViT, v2) or CLIP's picture half from a local folder in Hugging Face's format (extra [hf]).

    - videomae: the mean over the tokens of its last layer, one sample for each stretch of as many frames as it takes; a clip that is shorter
      is spread over them, frames repeated.
    - dino: the class token of its last layer, after the final norm; clip: the projected embedding. One sample for each of FRAMES frames.

    Args:
        given: "videomae:<folder>", "dino:<folder>" or "clip:<folder>".
    Attributes:
        name: the kind and the folder's own name.
        key: sha256 over the folder's files: what the name stands for.
    Raises: ValueError naming the file if the folder holds no such network, or one that does not take a black square clip, prepared as the
        folder says; RuntimeError without transformers.
    """

    def __init__(self, given: str, device: str = "cpu") -> None:
        kind, _, path = given.partition(":")
        if kind not in KINDS or not path:
            raise ValueError(
                f"features={given!r} is not one of {', '.join(f'{kind}:<folder>' for kind in (*KINDS, learnt_features.KIND))}. Set features."
            )
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no config.json: wanted a {kind} network in Hugging Face's format. Set features.")
        config = _json(folder / "config.json")
        model = KINDS[kind].get(config.get("model_type", ""))
        if model is None:
            raise ValueError(f"{folder} holds a {config.get('model_type')!r}, {kind} wants one of {', '.join(KINDS[kind])}. Set features.")
        if find_spec("transformers") is None:
            raise RuntimeError(f"features={given} need transformers: pip install -e '.[hf]', or leave them out.")
        self.kind, self.device, self.name = kind, device, f"{kind}:{folder.resolve().name}"
        self._model = _network(folder, model, config).to(device)
        self.key = digest(folder, (".json", ".safetensors")).hexdigest()
        own = self._model.config
        self._frames = int(own.num_frames) if kind == "videomae" else FRAMES
        self._prepare = Preprocessing.of(folder, kind, int(own.image_size), config["model_type"])
        edge = max(int(own.image_size), *(self._prepare.crop or (0,)))
        try:  # now, and not after hours of sampling
            self(np.zeros((1, edge, edge, 3), np.uint8))
        except Exception as error:  # whatever its layers raise at a size that they do not take
            why = " ".join(str(error).split())[:300]
            raise ValueError(f"{folder} prepares frames that its own {model} does not take ({why}). Correct its preprocessor_config.json.") from error

    @torch.no_grad()
    def __call__(self, video: Video) -> Values:
        """(k, d) of a clip: see above."""
        if self.kind == "videomae":
            stretches = len(video) // self._frames
            picked = np.arange(max(1, stretches) * self._frames)
            if not stretches:
                picked = picked * len(video) // self._frames
            parts = (self._prepare(video[part])[None] for part in picked.reshape(-1, self._frames))  # 1 t c h w, one at a time
            out = [self._model(pixel_values=part.to(self.device)).last_hidden_state.mean(dim=1) for part in parts]
        else:
            count = min(self._frames, len(video))
            found = self._model(pixel_values=self._prepare(video[np.arange(count) * len(video) // count]).to(self.device))
            out = [found.image_embeds if self.kind == "clip" else found.last_hidden_state[:, 0]]
        return torch.cat(out).double().cpu().numpy()


def read_features(
    given: Sequence[str], device: str = "cpu", learnt: Callable[[str], LearntFeatures] | None = None
) -> list[FrozenFeatures | LearntFeatures]:
    """Features by what stands in the key `features`.

    Args:
        learnt: how "learnt:<run>" is read; None: not at all.
    Raises: ValueError if two have one name: their figures would be one figure.
    """
    found = [learnt(each) if learnt and each.startswith(f"{learnt_features.KIND}:") else FrozenFeatures(each, device) for each in given]
    names = [features.name for features in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"features={list(given)} hold {name} twice. Give the folders unlike names.")
    return found


def _network(folder: Path, model: str, told: Mapping[str, Any]) -> Any:
    """In float32. Raises: ValueError if the files cannot be read or a weight is missing."""
    # sdpa whatever config.json says: a name that is not transformers' own is a kernel to be downloaded
    options = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    if told["model_type"] == "clip":  # the whole CLIP: how wide its embedding is stands beside its two halves
        options["projection_dim"] = told.get("projection_dim", 512)
    return read_frozen(folder, model, options, "features", spared="pooler.")  # behind what is taken here; DINO's folders have none


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Set features to a whole folder.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, wanted a JSON object. Set features to a whole folder.")
    return content


def _size(told: Any) -> tuple[int, int] | int:
    """Of a number, {"shortest_edge": ...} or {"height": ..., "width": ...}."""
    if isinstance(told, dict):
        return int(told["shortest_edge"]) if "shortest_edge" in told else (int(told["height"]), int(told["width"]))
    return int(told)


def _pair(size: tuple[int, int] | int) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
