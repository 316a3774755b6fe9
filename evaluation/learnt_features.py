"""Features of whole clips by a network that a run of ours trained; its folder and its weights are the name, which means the same numbers."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.transforms import fit, to_float

Video = NDArray[np.uint8]  # t h w c
Values = NDArray[np.float64]
KIND = "learnt"
DIGITS = 8  # of the weights' sha256 that stand in a name


def run_of(given: str) -> tuple[str, str]:
    """The folder in "learnt:<run>" or "learnt:<run>@<digits>", and the digits that its weights' sha256 must begin with. A folder whose own name
    ends like that is given with digits."""
    path = given.partition(":")[2]
    found = re.fullmatch(r"(.+?)(?:@([0-9a-f]+))?", path)
    return (found[1], found[2] or "") if found else (path, "")


def acquaintance(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is to say of how learnt features know the judged clips, with their names: which they were trained on, and at another rate."""
    for name, node in figures.get("features_saw", {}).items():
        if "why" in node:
            yield name, f"may have been trained on some of the real clips: {node['why']}"
        elif node["clips"]:
            yield name, f"were trained on {node['clips']} of the real clips: these may look more usual to them than others would"
        if "note" in node:
            yield name, node["note"]


class LearntFeatures:
    """One sample for each stretch of as many frames as the network takes, in the size that it was trained on; a clip that is shorter is spread
    over them, frames repeated.

    Args:
        folder: own name of the run's folder.
        sha256: of the weights.
        encode: b 3 frames height width in [-1, 1] -> b d.
        frames, height, width: of a stretch.
    Attributes:
        name: learnt:<folder>@<first digits of sha256>; with the folder's path it is what `features` takes, and refuses other weights.
        key: sha256.
    """

    def __init__(self, folder: str, sha256: str, encode: Callable[[Tensor], Tensor], frames: int, height: int, width: int) -> None:
        self.name, self.key = f"{KIND}:{folder}@{sha256[:DIGITS]}", sha256
        self._encode, self._frames, self._size = encode, frames, (height, width)

    @torch.no_grad()
    def __call__(self, video: Video) -> Values:
        """(k, d) of a clip: see above."""
        stretches = len(video) // self._frames
        picked = np.arange(max(1, stretches) * self._frames)
        if not stretches:
            picked = picked * len(video) // self._frames
        fitted = fit(video[picked], *self._size)
        parts = to_float(torch.from_numpy(fitted.reshape(-1, self._frames, *fitted.shape[1:]))).split(16)  # b 3 t h w
        return torch.cat([self._encode(part) for part in parts]).double().cpu().numpy()
