"""Distances that see what an eye sees and a squared error does not: texture that is gone; one figure per clip, so parts of a batch add up."""

from collections.abc import Sequence
from math import pi

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from training.inference import load_vae

# Rows: luma, red against cyan, blue against yellow; orthonormal. A colour's detail is not seen at the finest scale (JPEG halves it, too).
OPPONENT = ((3**-0.5, 3**-0.5, 3**-0.5), (2 / 6**0.5, -(6**-0.5), -(6**-0.5)), (0.0, -(2**-0.5), 2**-0.5))


class Perceptual(nn.Module):
    """A distance between clips and their reconstructions.

    Args:
        weight: of the distance, beside the mean squared error.
    Attributes:
        sha256: of the weights that it compares by; None if it has none.
    Raises: ValueError if the weight is not a finite number >= 0.
    """

    sha256: str | None = None

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight={weight} must be a finite number >= 0. Set objective.perceptual.weight.")
        self.weight = weight

    def forward(self, video: Tensor, result: Tensor) -> Tensor:
        """Of each clip b 3 t h w in [-1, 1], (b,) float32: a mean over what the clip has, so it does not grow with its size."""
        raise NotImplementedError

    def flops(self, frames: int, height: int, width: int) -> int:
        """FLOP of one training step for one clip: both clips forward, the gradient by the reconstruction."""
        raise NotImplementedError


class Spectral(Perceptual):
    """Compares local spectra of frames, and of the differences between frames, at several scales.

    Windows of a frame become Fourier coefficients X, those of the reconstruction Y; m = sqrt(|X|^2 + floor^2). Their distance is
    |log m(X) - log m(Y)| + phase |X - Y| / m(X). The first term asks for the right amount of texture wherever its waves lie: half of it
    missing costs as much in a faint texture as in a strong one, and as much at 2 px as at 8 px. A squared error asks for little of it:
    there a flat grey is better than a texture that is a pixel off. The second term says where the waves lie, and like a squared error
    prefers none to one in the wrong place.

    The frames' windows lose their mean, so a change of brightness costs nothing here (the other losses see it). Differences keep
    theirs: flicker is one.

    Args:
        window: px, even; windows overlap by half.
        scales: the picture, a half of it, a quarter...; those smaller than a window are left out.
        floor: size of a wave, in units of pixel values, below which differences fade. Its gradient is largest for waves of about this size: with a
            floor at the noise of plain grounds, those grounds are most of the gradient.
        phase: weight of the second term.
        motion: weight of the differences between frames, beside the frames; 0 saves half the time.
    """

    still: Tensor
    moving: Tensor
    colours: Tensor

    def __init__(self, weight: float, window: int, scales: int, floor: float, phase: float, motion: float) -> None:
        super().__init__(weight)
        if window < 4 or window % 2 or scales < 1 or not floor > 0 or not phase >= 0 or not motion >= 0:
            raise ValueError(
                f"got window={window}, scales={scales}, floor={floor}, phase={phase}, motion={motion}; wanted an even window from 4, at least one "
                "scale, a floor above 0 and weights >= 0. Set objective.perceptual."
            )
        self.window, self.scales, self.floor, self.phase, self.motion = window, scales, floor, phase, motion
        for name, bank in zip(("still", "moving"), _banks(window), strict=True):
            self.register_buffer(name, bank, persistent=False)
        self.register_buffer("colours", torch.tensor(OPPONENT), persistent=False)

    def forward(self, video: Tensor, result: Tensor) -> Tensor:
        if min(video.shape[-2:]) < self.window:
            raise ValueError(
                f"a clip of {video.shape[-2]}x{video.shape[-1]} px has no window of {self.window} px. "
                "Set objective.perceptual.window, or larger clips in data.shape."
            )
        # float32: the logarithm of a small difference of large numbers is what bfloat16 has no digits for
        with torch.autocast(video.device.type, enabled=False):
            pair = [torch.einsum("kc,bcthw->bkthw", self.colours, clip.float()) for clip in (video, result)]
            total, scales = video.new_zeros(len(video)), 0
            while scales < self.scales and min(pair[0].shape[-2:]) >= self.window:
                total = total + self._at_a_scale(*(clip[:, :1] if scales == 0 else clip for clip in pair))
                pair = [F.avg_pool3d(clip, (1, 2, 2)) for clip in pair]
                scales += 1
        return total / scales

    def flops(self, frames: int, height: int, width: int) -> int:
        hop, taps, total = self.window // 2, self.window**2, 0
        for scale in range(self.scales):
            windows = (height // hop - 1) * (width // hop - 1) * (frames + (frames - 1) * (self.motion > 0)) * (3 if scale else 1)
            total += 2 * max(0, windows) * taps * self.still.shape[1]
            height, width = height // 2, width // 2
        return 3 * total

    def _at_a_scale(self, video: Tensor, result: Tensor) -> Tensor:
        total = self._apart(video, result, self.still)
        if self.motion and video.shape[2] > 1:
            total = total + self.motion * self._apart(video.diff(dim=2), result.diff(dim=2), self.moving)
        return total

    def _apart(self, video: Tensor, result: Tensor, bank: Tensor) -> Tensor:
        """Mean distance of the coefficients of each clip, (b,)."""
        with torch.no_grad():
            real = _windows(video, self.window) @ bank
            size = self._size(real)
        made = _windows(result, self.window) @ bank  # n (2 k)
        apart = (torch.log(self._size(made)) - torch.log(size)).abs()
        if self.phase:
            apart = apart + self.phase * (torch.sqrt(_power(made - real) + 1e-12) / size)
        return apart.reshape(len(video), -1).mean(dim=1)

    def _size(self, waves: Tensor) -> Tensor:
        return torch.sqrt(_power(waves) + self.floor**2)


class Learnt(Perceptual):
    """Compares what the encoder of another VAE run of ours makes of both: the mean squared difference of its whitened latents.

    Args:
        run: its folder; the averaged weights of its newest checkpoint are used and do not move.
        sha256: of those weights; null takes whatever is there, and `sha256` says what it was.
    """

    def __init__(self, weight: float, run: str, sha256: str | None) -> None:
        super().__init__(weight)
        self.vae, self.sha256 = load_vae(run)
        if sha256 not in (None, self.sha256):
            raise ValueError(f"the VAE of {run} has the sha256 {self.sha256}, wanted {sha256}: it has trained on. Set objective.perceptual.sha256.")

    def forward(self, video: Tensor, result: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.vae.encode(video)
        return (self.vae.encode(result) - wanted).square().flatten(1).mean(dim=1)

    def flops(self, frames: int, height: int, width: int) -> int:
        return 3 * self.vae.flops(frames, height, width)["encode"]


def _banks(window: int) -> Sequence[Tensor]:
    """Windowed waves of unit norm as columns, cosines beside sines, (window^2, 2 k): without and with what a constant leaves in them.

    Of the waves (u, v) and (-u, -v), which say the same of real pixels, one is taken; (0, 0) stands in the second bank alone.
    """
    half = window // 2
    waves = [(u, v) for u in range(half + 1) for v in range(-half + 1, half + 1) if v >= 0 or 0 < u < half]
    place = torch.arange(window, dtype=torch.float64)
    hann = torch.sin(pi * (place + 0.5) / window) ** 2
    taper = torch.outer(hann, hann).flatten()  # (y x)
    y, x = torch.meshgrid(place, place, indexing="ij")
    turns = torch.stack([(u * y + v * x).flatten() for u, v in waves], dim=1) * (2 * pi / window)  # (y x) k
    bank = torch.cat([torch.cos(turns), torch.sin(turns)], dim=1) * taper[:, None] / taper.square().sum().sqrt()
    without = bank - taper[:, None] * bank.sum(dim=0) / taper.sum()
    kept = [number for number in range(2 * len(waves)) if number % len(waves) != waves.index((0, 0))]
    return without[:, kept].float(), bank.float()


def _windows(video: Tensor, window: int) -> Tensor:
    """All windows at steps of half a window, n (y x), clip after clip; a rim that fills no step is left out.

    Made from cells of half a window: unfolding takes twice the time, a convolution with one input channel four times.
    """
    hop = window // 2
    high, wide = video.shape[-2] // hop, video.shape[-1] // hop
    cells = rearrange(video[..., : high * hop, : wide * hop], "b c t (i y) (j x) -> (b c t) i j y x", y=hop, x=hop)
    rows = torch.cat([cells[:, :, :-1], cells[:, :, 1:]], dim=-1)
    return torch.cat([rows[:, :-1], rows[:, 1:]], dim=-2).flatten(-2).flatten(0, -2)


def _power(waves: Tensor) -> Tensor:
    """Squared length of each wave from its cosine and sine, n (2 k) -> n k."""
    cosine, sine = waves.chunk(2, dim=-1)
    return cosine.square() + sine.square()
