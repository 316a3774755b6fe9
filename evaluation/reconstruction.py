"""How close a video is to its source: PSNR, PSNR inside the object's box, SSIM, flicker, seams at block edges; 8-bit RGB videos in, t h w c."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import bootstrap

Video = NDArray[np.uint8]  # t h w c
Boxes = Sequence[Sequence[float]]  # of one frame: left, top, right, bottom in pixels
PEAK = 255.0
# What an identical clip counts in a mean; a difference of one level in one value of a 64x64x17 clip is 101 dB.
HIGHEST_DB = 100.0
HIGHEST_RATIO = 1000.0  # of edges, where a result is flat inside its blocks: JSON knows no infinity
WINDOW = 11
SIGMA = 1.5


def psnr_db(source: Video, result: Video) -> float:
    """Peak signal to noise of the whole clip, in dB: 10 log10(255^2 / mean squared error); infinite if identical."""
    _check(source, result)
    return _decibel(np.square(source.astype(np.float64) - result).mean())


def box_psnr_db(source: Video, result: Video, boxes: Sequence[Boxes]) -> float | None:
    """PSNR of the pixels inside the objects' boxes: plain backgrounds flatter the whole clip's figure.

    Args:
        boxes: for every frame its boxes (left, top, right, bottom) in pixels, rounded outwards and cut to the frame here.
    Returns: None if no box holds a pixel.
    """
    _check(source, result)
    if len(boxes) != len(source):
        raise ValueError(f"got boxes for {len(boxes)} frames of a clip of {len(source)}, wanted a list for every frame. Check truth.jsonl.")
    inside = np.zeros(source.shape[:3], dtype=bool)  # t h w
    for frame, frame_boxes in enumerate(boxes):
        for left, top, right, bottom in frame_boxes:
            inside[frame, max(0, floor(top)) : max(0, ceil(bottom)), max(0, floor(left)) : max(0, ceil(right))] = True
    if not inside.any():
        return None
    return _decibel(np.square(source[inside].astype(np.float64) - result[inside]).mean())


def ssim(source: Video, result: Video) -> float:
    """Structural similarity, mean over windows, channels and frames: 1 if identical, 0 if unrelated.

    Gaussian window of 11x11 pixels with sigma 1.5, only windows that lie inside the frame, K1 = 0.01, K2 = 0.03, weighted (not
    sample) variances, each RGB channel by itself.

    Raises: ValueError if a frame is smaller than the window.
    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    _check(source, result)
    height, width = source.shape[1:3]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels, got {width}x{height}. Set height and width.")
    rows, columns = _window(height), _window(width).T

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows @ image @ columns

    x, y = (np.moveaxis(video.astype(np.float64), -1, 1) for video in (source, result))  # t c h w
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def flicker(source: Video, result: Video) -> float:
    """Change from frame to frame that the source does not have: the mean |d result/dt - d source/dt|, in 8-bit levels.

    An error that stands still (a wrong colour, a blur that moves with the object) costs nothing; one that comes and goes does.
    """
    _check(source, result)
    if len(source) < 2:
        return 0.0
    return float(np.abs(np.diff(result.astype(np.float64) - source, axis=0)).mean())


def edge_ratio(source: Video, result: Video, block: int) -> float | None:
    """How much stronger the gradient across the edges of blocks is than inside them, in units of the same ratio of the source.

    1 is a picture without seams. The gradient is the mean absolute difference of neighbouring pixels, in height and in width; block edges
    lie at multiples of `block` pixels from the top left corner. Relative to the source, because what it shows may lie on that grid too.

    Returns: None if a frame holds no block edge or no two pixels inside a block, or one of the two shows nothing; infinite if the result is
        flat inside its blocks.
    """
    return _edge_ratio([(source, result)], block)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Means over clips; the PSNR intervals are 95 % bootstrap intervals over clips. `psnr_db_of`: each clip's own, to compare
    two autoencoders on the same clips; `edge_ratio`: by the name of the grid, all clips together."""

    psnr_db: float
    psnr_db_low: float
    psnr_db_high: float
    psnr_box_db: float | None
    ssim: float
    flicker: float
    edge_ratio: Mapping[str, float | None]
    psnr_db_of: Sequence[float]
    n: int


def compare(
    sources: Sequence[Video],
    results: Sequence[Video],
    boxes: Sequence[Sequence[Boxes] | None],
    seed: int = 0,
    blocks: Mapping[str, int] | None = None,
) -> Reconstruction:
    """Measure reconstructions.

    Args:
        boxes: of each clip as in box_psnr_db, or None where a clip's truth is not known.
        blocks: grids to look for seams on, as pixels by name: {"patch": 2, "stride": 8}.
    """
    if not len(sources) == len(results) == len(boxes) > 0:
        raise ValueError(f"got {len(sources)} sources, {len(results)} results and {len(boxes)} lists of boxes, wanted as many of each, at least one")
    each = [min(HIGHEST_DB, psnr_db(a, b)) for a, b in zip(sources, results, strict=True)]
    overall = bootstrap(each, seed)
    boxed = [box_psnr_db(a, b, box) for a, b, box in zip(sources, results, boxes, strict=True) if box is not None]
    inside = [min(HIGHEST_DB, value) for value in boxed if value is not None]
    return Reconstruction(
        psnr_db=overall.value,
        psnr_db_low=overall.low,
        psnr_db_high=overall.high,
        psnr_box_db=float(np.mean(inside)) if inside else None,
        ssim=float(np.mean([ssim(a, b) for a, b in zip(sources, results, strict=True)])),
        flicker=float(np.mean([flicker(a, b) for a, b in zip(sources, results, strict=True)])),
        edge_ratio={name: _capped(_edge_ratio(zip(sources, results, strict=True), block)) for name, block in (blocks or {}).items()},
        psnr_db_of=[round(value, 4) for value in each],
        n=len(sources),
    )


def _edge_ratio(pairs: Iterable[tuple[Video, Video]], block: int) -> float | None:
    """Sums over all clips before any division: a nearly flat clip by itself would weigh without limit."""
    if block < 1:
        raise ValueError(f"block={block} is no size of a block in pixels: at least 1.")
    totals = np.zeros((2, 2))  # source or result; sum of gradients at edges or inside: as many places in both, so that counts cancel
    for pair in pairs:
        _check(*pair)
        for which, video in enumerate(pair):
            for axis in (1, 2):
                at_edge = np.arange(1, video.shape[axis]) % block == 0
                steps = np.abs(np.diff(video.astype(np.int16), axis=axis))  # int16 holds the differences of bytes
                gradient = np.moveaxis(steps, axis, 0).reshape(len(at_edge), -1).sum(axis=1, dtype=np.float64)
                totals[which] += gradient[at_edge].sum(), gradient[~at_edge].sum()
    (source_edge, source_inside), (edge, inside) = totals
    if not source_edge or not source_inside or not edge + inside:
        return None
    return inf if not inside else float((edge / inside) / (source_edge / source_inside))


def _check(source: Video, result: Video) -> None:
    if source.shape != result.shape or source.ndim != 4 or source.size == 0:
        raise ValueError(f"wanted two videos of one shape (t, h, w, c), got {source.shape} and {result.shape}")
    for video in (source, result):
        if video.dtype != np.uint8:
            raise ValueError(f"wanted 8-bit videos (uint8), got {video.dtype}; PSNR would take another peak for it")


def _capped(ratio: float | None) -> float | None:
    return None if ratio is None else min(HIGHEST_RATIO, ratio)


def _decibel(mean_squared_error: float) -> float:
    return inf if mean_squared_error == 0 else 10 * log10(PEAK**2 / mean_squared_error)


def _window(size: int) -> NDArray[np.float64]:
    """The 1-D Gaussian window at every place inside `size` pixels, as a matrix (size - 10, size)."""
    weights = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / SIGMA**2)
    weights /= weights.sum()
    matrix = np.zeros((size - WINDOW + 1, size))
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = weights
    return matrix
