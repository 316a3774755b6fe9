"""What training would make of a set, clip by clip and as a whole, found before it starts: every row is accounted for, as a clip or as a fault."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data.buckets import Bucket, Windows
from data.clips import Clips, segment
from data.files.faults import Fault
from data.files.probe import Probe
from data.index import duplicates
from data.plan import Draw, EpochPlan, MicroBatches
from data.shapes import kept_share

SAME_RATE = 0.005  # 30 and 29.97 fps are one rate: a clip of 100 frames has the same ones
UNCLAIMED = "captions without a video"  # how data/formats/folder.py begins the name of this sort


@dataclass(frozen=True, slots=True)
class Facts:
    """Columns with one entry for each usable clip, in the order of the index.

    Args:
        rows: its row of the index.
        shapes: the place of its shape in `Findings.shapes`.
        widths, heights: px of its file as shown.
        seconds: of its stretch of the file; 0 for a single frame.
        rates: frames per second of its file; nan for a single frame.
        kept: share of the picture that is left when it is cut to its shape.
        scales: delivered size / size in the file, before the cut; above 1 it is enlarged.
        starts: frames of the file that the clip can begin with.
        weights: as the index gives them.
        shown: how often the first epoch shows it.
    """

    rows: np.ndarray
    shapes: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    seconds: np.ndarray
    rates: np.ndarray
    kept: np.ndarray
    scales: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    shown: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape that clips are delivered in.

    Args:
        samples: of the first epoch.
        tokens: of one clip.
        at_once: clips of it that pass through the network together, at most.
    """

    bucket: Bucket
    clips: int
    samples: int
    tokens: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Texts:
    """The captions of the usable clips.

    Args:
        none: clips without a caption, or with blank ones alone.
        kinds: how many clips have a caption of each kind.
        words, sizes: of each caption; bytes as UTF-8.
    """

    none: int
    kinds: Mapping[str, int]
    words: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True, slots=True)
class Ledger:
    """The first epoch, compared with the weights row by row.

    Args:
        step_samples, step_tokens: by step.
        once: clips of weight 1 that come exactly once.
        weighted: clips of another weight that come as often as it says, rounded down or up.
        never: clips of weight 0 that do not come.
        wrong: rows that come more or less often than their weight says, or that come although they give no clip.
    """

    step_samples: np.ndarray
    step_tokens: np.ndarray
    once: int
    weighted: int
    never: int
    wrong: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that is known of a set before training.

    Args:
        shapes: from the most common one.
        treated: what is done to clips -> their places in `facts`.
        files: distinct ones among the usable clips: what each holds, and one of its rows.
        ledger: None if there is nothing to show.
        duplicates: rows that show the same stretch of the same file.
        decoded: whether every file was decoded to its end.
    """

    clips: Clips
    facts: Facts
    shapes: tuple[Shape, ...]
    treated: Mapping[str, np.ndarray]
    files: tuple[tuple[Probe, int], ...]
    texts: Texts
    ledger: Ledger | None
    duplicates: tuple[tuple[int, ...], ...]
    decoded: bool

    @property
    def unclaimed(self) -> int:
        """Caption files that no video goes with."""
        return sum(item.count for item in self.clips.index.ignored if item.what.startswith(UNCLAIMED))

    @property
    def lost(self) -> int:
        """What training would never see although the user put it there: bad files, captions whose video is not there, rows that a plan drops.

        Files of other kinds, duplicates and clips of weight 0 are no loss.
        """
        return len(self.clips.faults) + self.unclaimed + (len(self.ledger.wrong) if self.ledger else 0)


@dataclass(frozen=True, slots=True)
class Validation:
    """What validation would look at.

    Args:
        clips: those that are looked at; None if these are training clips.
        rows: of the whole validation set.
        looked_at: of these, the first ones that are used.
        shared: of the clips that are looked at, how many lie in files that are trained on too.
    """

    clips: Clips | None
    rows: int
    looked_at: int
    shared: int

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self.clips.faults if self.clips is not None else ()


def examine(clips: Clips, plan: EpochPlan | None, micro: MicroBatches, frames: int, decoded: bool = False) -> Findings:
    """Find all there is to know; seconds for a million rows, as nothing is opened.

    Args:
        plan: of these clips; None if no clip can be used.
        micro: how a step is cut, which also has the grid of tokens.
        frames: of a clip that is long enough.
        decoded: whether the clips were looked at to their ends.
    """
    count = Counter(bucket for bucket in clips.buckets if bucket is not None)
    buckets = sorted(count, key=lambda bucket: (-count[bucket], bucket))
    shown = np.zeros(len(clips), np.int64) if plan is None else np.bincount(plan.epoch(0)[0], minlength=len(clips))
    facts = _facts(clips, {bucket: place for place, bucket in enumerate(buckets)}, shown)
    samples = np.bincount(facts.shapes, weights=facts.shown, minlength=len(buckets)).astype(int).tolist()
    shapes = tuple(
        Shape(bucket, count[bucket], number, bucket.tokens(micro.grid), _at_once(micro, bucket, number))
        for bucket, number in zip(buckets, samples, strict=True)
    )
    return Findings(
        clips=clips,
        facts=facts,
        shapes=shapes,
        treated=_treated(clips, facts, shapes, frames),
        files=_files(clips),
        texts=_texts(clips),
        ledger=None if plan is None else _ledger(clips, plan, shown),
        duplicates=tuple(duplicates(clips.index)),
        decoded=decoded,
    )


def check_validation(clips: Clips | None, rows: int, most: int, train: Clips) -> Validation:
    """Hold a validation set against the training set.

    Args:
        clips: the rows that are looked at; None if these are the first `most` training clips.
        rows: of the whole validation set.
    """
    if clips is None:
        usable = sum(bucket is not None for bucket in train.buckets[:most])
        return Validation(None, rows, usable, usable)
    trained = {row.media for row, bucket in zip(train.index.rows, train.buckets, strict=True) if bucket is not None}
    return Validation(clips, rows, len(clips), sum(row.media in trained for row in clips.index.rows))


def _facts(clips: Clips, places: Mapping[Bucket, int], shown: np.ndarray) -> Facts:
    columns: list[tuple] = []
    for number, (row, found, bucket) in enumerate(zip(clips.index.rows, clips.probes, clips.buckets, strict=True)):
        if found is None or bucket is None:
            continue
        whole = found.times
        _, times = segment(whole, row)
        # The last frame of a stretch stays until the next one comes; a file's own last frame as long as the others.
        stay = float(whole[-1]) / (len(whole) - 1) if len(whole) > 1 else 0.0
        seconds = float(times[-1] - times[0]) + stay
        starts = Windows(times, bucket.frames, clips.fps).count
        size = (found.width, found.height, bucket.width, bucket.height)
        columns.append((number, places[bucket], *size, seconds, 1 / stay if stay else math.nan, starts, row.weight))
    rows, shapes, w, h, to_w, to_h, seconds, rates, starts, weights = np.array(columns, np.float64).reshape(-1, 10).T
    numbers = rows.astype(np.int64)
    return Facts(
        rows=numbers,
        shapes=shapes.astype(np.int64),
        widths=w.astype(np.int64),
        heights=h.astype(np.int64),
        seconds=seconds,
        rates=rates,
        kept=kept_share(h, w, to_h, to_w),
        scales=np.maximum(to_h / h, to_w / w),
        starts=starts.astype(np.int64),
        weights=weights,
        shown=shown[numbers],
    )


def _at_once(micro: MicroBatches, bucket: Bucket, samples: int) -> int:
    """The largest part that a step of nothing but this shape is cut into."""
    draws = [Draw(number, 0) for number in range(min(samples, 4096))]
    return max((len(part) for part in micro.cut(draws, [bucket])), default=0)


def _treated(clips: Clips, facts: Facts, shapes: tuple[Shape, ...], frames: int) -> dict[str, np.ndarray]:
    lengths = np.array([shape.bucket.frames for shape in shapes], np.int64)[facts.shapes]
    videos = np.array([clips.probe(row).kind != "picture" for row in facts.rows], bool)
    variable = np.array([moving and clips.probe(row).variable for row, moving in zip(facts.rows, videos, strict=True)], bool)
    moving, speed = lengths > 1, facts.rates / clips.fps
    masks = {
        "cropped": facts.kept < 1 - 1e-9,
        "shrunk": facts.scales < 1 - 1e-9,
        "enlarged": facts.scales > 1 + 1e-9,
        "thinned": moving & (speed > 1 + SAME_RATE),
        "repeated": moving & (speed < 1 - SAME_RATE),
        "variable": moving & variable,
        "shortened": videos & (lengths < frames),
        "windowed": videos & (facts.starts > 1),
    }
    changed = np.any(list(masks.values()), axis=0) if len(facts) else np.zeros(0, bool)
    return {name: np.flatnonzero(mask) for name, mask in (masks | {"untouched": ~changed}).items()}


def _files(clips: Clips) -> tuple[tuple[Probe, int], ...]:
    probed = zip(clips.index.rows, clips.probes, strict=True)
    return tuple({row.media: (found, number) for number, (row, found) in enumerate(probed) if found is not None}.values())


def _texts(clips: Clips) -> Texts:
    none, kinds, words, sizes = 0, Counter[str](), [], []
    for row, bucket in zip(clips.index.rows, clips.buckets, strict=True):
        if bucket is None:
            continue
        texts = [text for kind in row.captions.values() for text in kind]
        none += not any(text.strip() for text in texts)
        kinds.update(row.captions.keys())
        words += [len(text.split()) for text in texts]
        sizes += [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    return Texts(none, dict(kinds.most_common()), np.array(words, np.int64), np.array(sizes, np.int64))


def _ledger(clips: Clips, plan: EpochPlan, shown: np.ndarray) -> Ledger:
    rows, starts = plan.epoch(0)
    usable = np.array([bucket is not None for bucket in clips.buckets], bool)
    weights = np.array([row.weight for row in clips.index.rows]) * usable
    right = (shown >= np.floor(weights)) & (shown <= np.ceil(weights))
    return Ledger(
        step_samples=np.diff(starts),
        step_tokens=np.add.reduceat(plan.tokens[rows], starts[:-1]),
        once=int((usable & right & (weights == 1)).sum()),
        weighted=int((usable & right & (weights != 1) & (weights > 0)).sum()),
        never=int((usable & right & (weights == 0)).sum()),
        wrong=tuple(np.flatnonzero(~right).tolist()),
    )
