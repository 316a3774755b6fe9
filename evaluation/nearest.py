"""Whether a generator repeats its training clips: the nearest one to every sample, measured against how near real clips come that are new to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, lgamma
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch.nn import functional

from data.dataset import VideoDataset
from data.files.faults import Fault
from data.videos import Videos
from evaluation.statistics import CONFIDENCE, wilson

Video = NDArray[np.uint8]  # t h w c
Values = NDArray[np.float64]
GRID = (8, 8, 8)  # parts of a clip's time, height and width
NEARER_THAN = 0.05  # of real clips, so many lie as near to a training clip as what is counted
SHOWN = 3  # pairs, on the page


@dataclass(frozen=True, slots=True)
class Training:
    """The clips that samples are looked for among.

    Args:
        values: (n, d), their signatures.
        rows: of `source`.
        total: clips that the run was trained on.
        unreadable: clips that were to be looked at and could not be read.
    """

    values: Values
    rows: tuple[int, ...]
    source: VideoDataset
    total: int
    unreadable: int

    def clip(self, place: int) -> Video:
        """As the run sees it."""
        found = self.source.clip(self.rows[place], 0)
        assert not isinstance(found, Fault), "it could be read when its signature was taken"
        return found


@dataclass(frozen=True, slots=True)
class Near:
    """The training clip that comes nearest, and how near, in 8-bit levels."""

    place: int
    distance: float


def signature(video: Video) -> Values:
    """Mean colours of 8 x 8 x 8 parts of a clip less the mean colour of all of it, in 8-bit levels: what moves where and when, over the whole clip.

    Parts are large, so that what a decoder loses of detail makes no copy look new; the mean is removed, so that no tint does either.
    """
    values = torch.from_numpy(np.ascontiguousarray(video)).float()
    parts = functional.adaptive_avg_pool3d(rearrange(values, "t h w c -> c t h w"), GRID).double()
    return (parts - parts.mean(dim=(1, 2, 3), keepdim=True)).flatten().numpy()


def read_training(videos: Videos, most: int) -> Training:
    """At most `most` of the clips a run was trained on, evenly spread over its index, in the shape that it saw them in.

    Raises: ValueError if none can be read.
    """
    index = videos.training_index()
    shown = [row for row in range(len(index)) if index.rows[row].weight > 0]
    count = min(most, len(shown))
    clips = videos.clips(index.take([shown[number * len(shown) // count] for number in range(count)]))
    source = VideoDataset(clips, videos.reader, None, None, bad_limit=1.0)
    values = {row: signature(video) for row in range(count) if not isinstance(video := source.clip(row, 0), Fault)}
    if not values:
        raise ValueError(f"none of {count} training clips of {index.source} can be read")
    return Training(np.stack(list(values.values())), tuple(values), source, len(shown), count - len(values))


def nearest(training: Training, videos: Sequence[Video]) -> list[Near]:
    """For every video the training clip whose signature differs least, by the root of the mean square."""
    found = []
    for video in videos:
        square = np.square(training.values - signature(video)).mean(axis=1)
        found.append(Near(int(square.argmin()), float(np.sqrt(square.min()))))
    return found


def repeated(samples: Sequence[Near], real: Sequence[Near]) -> dict[str, Any]:
    """The share of samples that lie nearer to a training clip than almost all real clips that training never showed: all but a share `expected`.

    `expected` is about 5 %, as near as the number of real clips allows (of 6 it is 14 %), and is the share of samples if they are of the law
    of the real clips. `expected_low` and `expected_high` hold 95 % of what chance makes of it then, the chance in the threshold taken in: the
    count is beta-binomial whatever the law, if samples and real clips are drawn independently. Samples that are asked for the very scenes of
    the real clips vary with them, so that for them the range is too wide rather than too narrow. The interval of the share is Wilson's.
    """
    distances, known = ([near.distance for near in side] for side in (samples, real))
    rank = max(1, round(NEARER_THAN * (len(known) + 1)))
    threshold = sorted(known)[rank - 1]
    low, high = _by_chance(len(distances), rank, len(known))
    return wilson([distance < threshold for distance in distances]).as_dict() | {
        "expected": rank / (len(known) + 1),
        "expected_low": low / len(distances),
        "expected_high": high / len(distances),
        "threshold": threshold,
        "median": float(np.median(distances)),
        "median_real": float(np.median(known)),
        "real": len(known),
    }


def _by_chance(n: int, rank: int, real: int) -> tuple[int, int]:
    """How many of `n` draws fall below the rank-th lowest of `real` others of the same continuous law: central 95 %."""

    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    a, b = rank, real + 1 - rank
    logs = [log_beta(k + a, n - k + b) - log_beta(a, b) - log_beta(k + 1, n - k + 1) - np.log(n + 1) for k in range(n + 1)]
    below = np.cumsum([exp(value) for value in logs])
    low, high = np.searchsorted(below, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return int(low), min(n, int(high))


def memorisation(training: Training, parts: Mapping[str, tuple[Sequence[Video], Sequence[Video]]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of every part, (samples, real clips of the same law that training never showed), and the three nearest pairs of all of them.

    A pair: part, place of the sample in it, both videos, their distance and the part's threshold.
    """
    figures: dict[str, Any] = {"training_clips": len(training.values), "of": training.total, "unreadable": training.unreadable}
    found: list[tuple[Near, str, int]] = []
    for name, (samples, real) in parts.items():
        near = nearest(training, samples)
        figures[name] = repeated(near, nearest(training, real))
        found += [(one, name, place) for place, one in enumerate(near)]
    pairs = [
        {
            "sample": parts[name][0][place],
            "training": training.clip(near.place),
            "part": name,
            "place": place,
            "distance": near.distance,
            "threshold": figures[name]["threshold"],
        }
        for near, name, place in sorted(found, key=lambda item: item[0].distance)[:SHOWN]
    ]
    return figures, pairs
