"""LPIPS from weights on the user's own disk: a convolutional feature stack and its linear heads, checked name by name, never fetched."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.perceptual import Perceptual

FILES = ("features.safetensors", "heads.safetensors")
# Where the stacks were trained: mean and deviation of ImageNet's pixels, as the published LPIPS applies them to [-1, 1].
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of the stack, then a ReLU.

    Args:
        number: of the layer in torchvision's `features`, which its weights are named by.
        kernel, stride, padding: px.
        pool: kernel of a max pooling with stride 2 before it; 0: none.
        tap: whether its output is compared.
    """

    number: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = False


STACKS: Mapping[str, Sequence[Conv]] = {
    "vgg16": (
        *(Conv(0), Conv(2, tap=True)),
        *(Conv(5, pool=2), Conv(7, tap=True)),
        *(Conv(10, pool=2), Conv(12), Conv(14, tap=True)),
        *(Conv(17, pool=2), Conv(19), Conv(21, tap=True)),
        *(Conv(24, pool=2), Conv(26), Conv(28, tap=True)),
    ),
    "alex": (
        Conv(0, 11, 4, 2, tap=True),
        Conv(3, 5, padding=2, pool=3, tap=True),
        Conv(6, pool=3, tap=True),
        Conv(8, tap=True),
        Conv(10, tap=True),
    ),
}


class Lpips(Perceptual):
    """Learnt perceptual distance of single frames, with the weights of a local folder.

    Args:
        path: folder with features.safetensors (torchvision's names, `features.0.weight`...; `classifier.*` is not read) and heads.safetensors
            (the lpips package's names, `lin0.model.1.weight`...).
        network: of the feature stack.
        widths: channels of the five stages whose outputs are compared; the files must hold exactly these.
        sha256: of both files, one after the other; null takes whatever is there, and `sha256` says what it was.
    Raises: ValueError naming the file and what is wrong with it.
    Source: Zhang et al. 2018.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weight: float, path: str, network: Literal["vgg16", "alex"], widths: Sequence[int], sha256: str | None) -> None:
        super().__init__(weight)
        self.convs, self.least = STACKS[network], 16 if network == "vgg16" else 31
        if len(widths) != 5:
            raise ValueError(f"widths={list(widths)} must hold five numbers, one for each stage. Set objective.perceptual.widths.")
        folder = Path(path)
        for name in FILES:
            if not (folder / name).is_file():
                raise ValueError(f"{folder} has no {name}. Set objective.perceptual.path to a folder with {' and '.join(FILES)}.")
        self.sha256 = hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()
        if sha256 not in (None, self.sha256):
            raise ValueError(f"the weights in {folder} have the sha256 {self.sha256}, wanted {sha256}. Set objective.perceptual.sha256 or .path.")
        wanted, heads = _shapes(self.convs, widths)
        self.features = _parameters(_read(folder / FILES[0], wanted, "classifier."))
        self.heads = _parameters(_read(folder / FILES[1], heads))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, video: Tensor, result: Tensor) -> Tensor:
        if min(video.shape[-2:]) < self.least:
            raise ValueError(f"a clip of {video.shape[-2]}x{video.shape[-1]} px is too small for LPIPS, which needs {self.least}. Set data.shape.")
        with torch.no_grad():
            wanted = self._taps(video)
        apart = [
            F.conv2d((mine - theirs).square(), self.heads[f"lin{number}_model_1_weight"]).mean(dim=(1, 2, 3))  # (b t)
            for number, (mine, theirs) in enumerate(zip(self._taps(result), wanted, strict=True))
        ]
        return torch.stack(apart).sum(dim=0).float().reshape(len(video), -1).mean(dim=1)

    def flops(self, frames: int, height: int, width: int) -> int:
        total = 0
        for conv in self.convs:
            if conv.pool:
                height, width = ((side - conv.pool) // 2 + 1 for side in (height, width))
            height, width = ((side + 2 * conv.padding - conv.kernel) // conv.stride + 1 for side in (height, width))
            total += 2 * height * width * self.features[f"features_{conv.number}_weight"].numel()
        return 3 * frames * total

    def _taps(self, video: Tensor) -> list[Tensor]:
        """Features of each frame, (b t) c h w, of unit length at every place."""
        x = (rearrange(video, "b c t h w -> (b t) c h w") - self.mean) / self.std
        taps = []
        for conv in self.convs:
            x = F.max_pool2d(x, conv.pool, 2) if conv.pool else x
            weight, bias = (self.features[f"features_{conv.number}_{name}"] for name in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, conv.stride, conv.padding))
            if conv.tap:
                taps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return taps


def _shapes(convs: Sequence[Conv], widths: Sequence[int]) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """What the two files must hold."""
    features: dict[str, tuple[int, ...]] = {}
    before, stage = 3, 0
    for conv in convs:
        features[f"features.{conv.number}.weight"] = (widths[stage], before, conv.kernel, conv.kernel)
        features[f"features.{conv.number}.bias"] = (widths[stage],)
        before, stage = widths[stage], stage + conv.tap
    return features, {f"lin{number}.model.1.weight": (1, width, 1, 1) for number, width in enumerate(widths)}


def _read(path: Path, wanted: Mapping[str, tuple[int, ...]], unread: str | None = None) -> dict[str, Tensor]:
    try:
        found = {name: tensor for name, tensor in load_file(path).items() if unread is None or not name.startswith(unread)}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}. Convert the weights again.") from None
    wrong = [f"lacks {name}" for name in wanted if name not in found] + [f"has {name}, which is not wanted" for name in found if name not in wanted]
    wrong += [
        f"has {name} of shape {tuple(found[name].shape)}, wanted {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    wrong += [f"has values in {name} that are not finite" for name in wanted if name in found and not torch.isfinite(found[name]).all()]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} {'; '.join(wrong[:3])}{more}. Set objective.perceptual.path, .network or .widths.")
    return {name: tensor.float() for name, tensor in found.items()}


def _parameters(tensors: Mapping[str, Tensor]) -> nn.ParameterDict:
    """Frozen, by name; a ParameterDict's names hold no dots."""
    return nn.ParameterDict({name.replace(".", "_"): nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()})
