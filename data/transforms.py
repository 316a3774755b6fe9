"""From decoded frames to what a network sees: fitted to the bucket, cropped by counters, scaled to [-1, 1]."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from runtime.seeding import Stream, generator


def fit(video: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale until the frame covers height x width, keeping its shape, and cut the middle out.

    Args:
        video: uint8 t h w c.
    Returns: uint8 t height width c; the input itself where it has that size already.
    """
    _, h, w, _ = video.shape
    if (h, w) == (height, width):
        return video
    size, top, left = _cover(h, w, height, width)
    frames = rearrange(torch.from_numpy(np.ascontiguousarray(video)), "t h w c -> t c h w").float()
    if size != (h, w):
        # antialias: without it a thin moving edge flickers when it is scaled down
        frames = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)
    frames = frames[:, :, top : top + height, left : left + width].round().clamp(0, 255).to(torch.uint8)
    return rearrange(frames, "t c h w -> t h w c").contiguous().numpy()


def fit_box(box: Sequence[float], size: tuple[int, int], height: int, width: int) -> tuple[float, float, float, float]:
    """Where `fit` puts a box (left, top, right, bottom, in pixels) of a picture of `size`; it may reach beyond what is left of the picture."""
    (h, w), (scaled, top, left) = size, _cover(*size, height, width)
    across, down = scaled[1] / w, scaled[0] / h
    return box[0] * across - left, box[1] * down - top, box[2] * across - left, box[3] * down - top


def _cover(h: int, w: int, height: int, width: int) -> tuple[tuple[int, int], int, int]:
    """The size to which h x w is scaled to cover height x width, and where the cut begins in it: top and left."""
    scale = max(height / h, width / w)
    size = (max(height, round(h * scale)), max(width, round(w * scale)))
    return size, (size[0] - height) // 2, (size[1] - width) // 2


def to_float(video: Tensor) -> Tensor:
    """uint8 b t h w c -> float32 b c t h w in [-1, 1]."""
    return rearrange(video, "b t h w c -> b c t h w").to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 127.5).sub_(1)


def to_uint8(video: Tensor) -> Tensor:
    """float b c t h w -> uint8 b t h w c; values outside [-1, 1] are clipped. Undoes `to_float` exactly."""
    levels = video.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "b c t h w -> b t h w c").contiguous()


@runtime_checkable
class Crop(Protocol):
    """Cuts a part out of a clip. What it cuts depends on the clip and on (seed, sample) alone."""

    def __call__(self, video: np.ndarray, seed: int, sample: int) -> np.ndarray: ...


class DetailCrop:
    """A square crop that prefers places where something is to be seen; of a clip that is smaller, all that there is.

    Most of a clip is background; an autoencoder that looks at details learns several dB in the time in which it learns the plain
    parts of whole clips.

    Args:
        size: px, height and width of the crop.
        candidates: random places that are compared; the one with the most varied pixels wins.
        share: of the samples for which they are compared; the others take the first place, so that plain parts are seen too.
    """

    def __init__(self, size: int, candidates: int = 3, share: float = 0.7) -> None:
        if size < 1 or candidates < 1 or not 0 <= share <= 1:
            raise ValueError(
                f"got size={size}, candidates={candidates}, share={share}; wanted two counts from 1 and a share in [0, 1]. Set data.crop."
            )
        self.size, self.candidates, self.share = size, candidates, share

    def __call__(self, video: np.ndarray, seed: int, sample: int) -> np.ndarray:
        """uint8 t h w c -> uint8 t size size c, or less of a smaller clip."""
        _, h, w, _ = video.shape
        height, width = min(self.size, h), min(self.size, w)
        rng = generator(seed, Stream.CROP, sample)
        compared = self.candidates if rng.random() < self.share else 1
        places = rng.integers(0, [h - height + 1, w - width + 1], (compared, 2))
        crops = [video[:, top : top + height, left : left + width] for top, left in places]
        return crops[0] if compared == 1 else max(crops, key=_spread)


class Stills:
    """Lets some samples show a single frame of their clip, so that pictures are learnt beside videos; a batch is then cut by shape.

    Which samples and which of their frames depends on (seed, sample) alone. A frame counts as many values as it has: a share of 0.2
    among clips of 17 frames is 1.5 % of the values in the loss, as it is of the time.

    Args:
        share: of the samples.
        crop: applied afterwards to clips and frames alike; None for whole ones.
    Raises: ValueError if the share is out of range.
    """

    def __init__(self, share: float, crop: Crop | None) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} must lie in [0, 1]. Set data.crop.share.")
        self.share, self.crop = share, crop

    def __call__(self, video: np.ndarray, seed: int, sample: int) -> np.ndarray:
        """uint8 t h w c -> the same or uint8 1 h w c, cropped."""
        rng = generator(seed, Stream.CROP, sample, 2)  # the second counter keeps it apart from cropping in space (0) and in time (1)
        if rng.random() < self.share:
            frame = int(rng.integers(len(video)))
            video = video[frame : frame + 1]
        return video if self.crop is None else self.crop(video, seed, sample)


def _spread(crop: np.ndarray) -> int:
    """Variance of the pixel values times the squared count: an integer, so that no machine's rounding decides differently.

    The sums are whole numbers below 2**53, which float64 holds exactly in whatever order they are added.
    """
    values = crop.reshape(-1).astype(np.float64)
    squares = np.einsum("i,i->", values, values)  # not values @ values: BLAS would wake threads that a busy machine has no core for
    return crop.size * int(squares) - int(values.sum()) ** 2
