"""Named features of short windows of a video and distances over them: fixed formulas and fixed weights, so that a name means the same numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch.nn import functional

from evaluation.frechet import compare_sets
from evaluation.kernel_distance import kernel_distance
from runtime.seeding import Stream, generator

Video = NDArray[np.uint8]  # t h w c
Windows = NDArray[np.uint8]  # k t h w c
Values = NDArray[np.float64]
# Frames, height and width of a window, whatever the clips: a part of what the names mean. Several of each clip make enough samples.
WINDOW = (8, 32, 32)


class VideoFeatures(Protocol):
    """What is compared of windows. `name` says which features they are and how many; kernel distances divide them by `unit`, about what they
    measure on clips of the world: a part of what the name means, as it decides what a kernel distance counts as much."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def unit(self) -> float: ...

    def __call__(self, windows: Windows) -> Values:
        """(k, dimensions) of k windows."""
        ...


class ClipFeatures(Protocol):
    """What is compared of whole clips: see evaluation.frozen_features."""

    @property
    def name(self) -> str: ...

    def __call__(self, video: Video) -> Values:
        """(k, d): as many samples as the features take of a clip, of one d for all clips."""
        ...


class Pixels:
    """Mean colour, and mean change from frame to frame, of 4x4 parts of the window, in 8-bit levels: tint, layout and motion, no detail."""

    name, dimensions, unit = "pixels-4x4x4", 64, 128.0

    def __call__(self, windows: Windows) -> Values:
        values = windows.astype(np.float64)
        rows, columns = (np.arange(size) * 4 // size for size in windows.shape[2:4])
        fold = [np.equal.outer(np.arange(4), places) for places in (rows, columns)]
        down, across = (part / part.sum(axis=1, keepdims=True) for part in fold)  # 4 h, 4 w

        def pooled(frames: Values) -> Values:
            return np.einsum("kthwc,ih,jw->kijc", frames, down, across, optimize=True) / frames.shape[1]

        change = np.abs(np.diff(values, axis=1)).mean(axis=-1, keepdims=True)
        return np.concatenate([pooled(values), pooled(change)], axis=-1).reshape(len(windows), -1)


class Spectrum:
    """Log energy of the brightness in 6 bands of spatial and 4 of temporal frequency: sharpness, texture, flicker, and no place.

    Bands end at 0, 1/16, 1/8, 1/4, 1/2 cycles per pixel and at the corners; at 0, 1/8, 1/4 and 1/2 cycles per frame. The mean of the whole
    window, its band of no frequency, is taken out: 23 are left. That of each frame stays, so that a picture that flickers as a whole is seen.
    Energy is in units of what rounding to 8 bits adds, plus one, so that a plain ground is 0 and not minus infinity.
    """

    name, dimensions, unit = "spectrum-23", 23, 8.0

    def __call__(self, windows: Windows) -> Values:
        values = windows.astype(np.float64) @ np.array([0.299, 0.587, 0.114])  # k t h w
        t, h, w = values.shape[1:]
        taper = np.multiply.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1])
        mean = (values * taper).sum(axis=(1, 2, 3), keepdims=True) / (t * taper.sum())
        density = np.square(np.abs(np.fft.fftn((values - mean) * taper, axes=(1, 2, 3)))) / (t * np.square(taper).sum())
        along, down, across = np.meshgrid(*(np.abs(np.fft.fftfreq(size)) for size in (t, h, w)), indexing="ij")
        space = np.digitize(np.hypot(down, across), [1e-9, 1 / 16, 1 / 8, 1 / 4, 1 / 2], right=True)
        time = np.digitize(along, [1e-9, 1 / 8, 1 / 4], right=True)
        band = (space * 4 + time).ravel()
        sums = np.stack([np.bincount(band, one.ravel(), minlength=24) for one in density])
        return np.log1p(12 * sums / np.maximum(1, np.bincount(band, minlength=24)))[:, 1:]


class RandomConvolutions:
    """Mean activations of a small convolution network with fixed random weights: combinations of edges, colours and motion that nobody chose.

    Filters of the first layer sum to zero over space and time, but for every fourth: most see structure, some see colour.
    """

    name, dimensions, unit = "random-conv-64", 64, 0.2
    LAYERS = ((3, 16, (3, 4, 4), (1, 2, 2)), (16, 32, (3, 4, 4), (2, 2, 2)), (32, 64, (2, 3, 3), (1, 1, 1)))

    def __init__(self) -> None:
        self.weights = []
        for number, (channels, out, kernel, _) in enumerate(self.LAYERS):
            drawn = generator(0, Stream.FEATURES, number).standard_normal((out, channels, *kernel))
            if number == 0:
                drawn[np.arange(out) % 4 > 0] -= drawn[np.arange(out) % 4 > 0].mean(axis=(2, 3, 4), keepdims=True)
            drawn *= np.sqrt(2 / drawn[0].size)
            self.weights.append(torch.from_numpy(drawn).float())

    @torch.no_grad()
    def __call__(self, windows: Windows) -> Values:
        means = []
        for part in torch.from_numpy(windows).split(64):
            x = rearrange(part, "k t h w c -> k c t h w").float() / 127.5 - 1
            for weight, (*_, stride) in zip(self.weights, self.LAYERS, strict=True):
                x = functional.conv3d(x, weight, stride=stride).relu()
            means.append(reduce(x.double(), "k c t h w -> k c", "mean").numpy())
        return np.concatenate(means)


def distances(
    sources: Sequence[Video], results: Sequence[Video], seed: int = 0, resamples: int = 200, frozen: Sequence[ClipFeatures] = ()
) -> dict[str, dict[str, Any]]:
    """Distances between clips and their counterparts, or as many others: `frechet` and `kernel`, each by the name of the features; see
    `frechet.Distance` and `kernel_distance.KernelDistance`.

    Clips that hold no window, stills among them, are left out; `left_out` counts them. Features that the others give too few samples for have
    a value of None, and `why`; a kernel distance needs two clips, a Frechet distance more samples than dimensions.

    Args:
        frozen: features besides, of whole clips; they leave none out.
    """
    if not sources:
        raise ValueError("a distance needs clips, got none.")
    pairs = [pair for pair in zip(sources, results, strict=True) if all(_holds_a_window(video) for video in pair)]
    found: dict[str, dict[str, Any]] = {"frechet": {}, "kernel": {}}

    def compare(name: str, own: Sequence[Values], made: Sequence[Values], unit: float, left_out: int) -> None:
        measures = {"frechet": lambda: compare_sets(own, made, seed, resamples), "kernel": lambda: kernel_distance(own, made, unit, seed, resamples)}
        for kind, measure in measures.items():
            try:
                if not own:
                    size = "x".join(map(str, WINDOW))
                    raise ValueError(f"no clip is as large as a window of {size} frames and pixels, got {sources[0].shape[:3]}.")
                found[kind][name] = measure().as_dict()
            except ValueError as error:
                found[kind][name] = {"value": None, "why": str(error)}
            found[kind][name]["left_out"] = left_out

    for features in (Pixels(), Spectrum(), RandomConvolutions()):
        own, made = ([features(windows(pair[side], WINDOW)) for pair in pairs] for side in (0, 1))
        compare(features.name, own, made, features.unit, len(sources) - len(pairs))
    for model in frozen:
        compare(model.name, [model(video) for video in sources], [model(video) for video in results], 1.0, 0)
    return found


def in_words(found: Mapping[str, Any], n: int) -> list[str]:
    """Lines for the terminal: what `distances` found of `n` clips."""
    lines = []
    if left_out := max((distance.get("left_out", 0) for distance in found["frechet"].values()), default=0):
        size = "x".join(map(str, WINDOW))
        lines.append(f"Frechet and kernel distances leave out {left_out} of {n} clips, which are smaller than {size} frames and pixels")
    for kind, title in (("frechet", "Frechet"), ("kernel", "kernel distance")):
        for name, distance in found[kind].items():
            if distance["value"] is None:
                lines.append(f"{title} {name}: not measured ({distance['why']})")
                continue
            chance = "" if distance["halves"] is None else f", two halves of the source {distance['halves']:.4g}"
            bounds = f"[{distance['low']:.4g}, {distance['high']:.4g}]"
            spread = f", {distance['bias']:.2g} of it by chance, without that {bounds}" if kind == "frechet" else f" {bounds}"
            lines.append(f"{title} {name}: {distance['value']:.4g}{spread}{chance}, n={distance['samples']}")
    return lines


def _holds_a_window(video: Video) -> bool:
    return all(have >= least for have, least in zip(video.shape[:3], WINDOW, strict=True))


def windows(video: Video, size: tuple[int, ...]) -> Windows:
    """A video cut into windows that do not overlap, from its first frame and its top left corner; what is left over is left out."""
    t, h, w = (have // part for have, part in zip(video.shape[:3], size, strict=True))
    cut = video[: t * size[0], : h * size[1], : w * size[2]]
    return np.ascontiguousarray(rearrange(cut, "(f t) (y h) (x w) c -> (f y x) t h w c", f=t, y=h, x=w))
