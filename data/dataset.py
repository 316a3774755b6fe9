"""Clips by draw: decoded, fitted, cropped; a file that gives none is written down and replaced by a draw of (seed, row)."""

import mmap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from data.batch import Batch, Shot
from data.buckets import Bucket
from data.clips import MIDDLE, Clips
from data.files.faults import Fault, VideoError
from data.files.reader import VideoReader
from data.index import Index
from data.plan import Draw
from data.stills import NO_STILLS, StillFrames
from data.transforms import Crop, fit, to_float
from data.workers import UNWATCHED, Watch
from runtime.seeding import Stream, generator

ATTEMPTS = 100  # replacements tried for one draw


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of one shape.

    Args:
        rows: after replacement.
        content: what the source's `batch` understands.
    """

    samples: tuple[int, ...]
    rows: tuple[int, ...]
    content: Any


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a worker sends back for one micro-batch.

    Args:
        groups: one, or more where a clip of another shape had to stand in; none if none could, which the faults explain.
        faults: of this micro-batch, also those that are known already.
    """

    groups: tuple[Group, ...]
    faults: tuple[Fault, ...] = ()


class ClipSource(Protocol):
    """A set of clips: what a Loader draws from. `run` and `give_up` are called in workers too, `batch` in the main process alone."""

    @property
    def index(self) -> Index: ...

    @property
    def buckets(self) -> Sequence[Bucket | None]:
        """Shape by row; None for a row that gives no clip, which is never drawn."""
        ...

    @property
    def bad_limit(self) -> float:
        """The share of the rows that may be unusable."""
        ...

    @property
    def known_faults(self) -> tuple[Fault, ...]:
        """Rows without a clip that are known before anything is drawn."""
        ...

    def run(self, item: Sequence[Draw], watch: Watch) -> Fetched:
        """One micro-batch; its draws are of one shape."""
        ...

    def give_up(self, token: int, kind: str, detail: str) -> None:
        """Never open the row `token` again."""
        ...

    def batch(self, group: Group) -> Batch: ...


def check_faults(faults: Sequence[Fault], rows: int, limit: float, certain: bool = False) -> None:
    """End the run if too many of a set's files are bad.

    Args:
        limit: the share of `rows` that may be bad.
        certain: whether to end it whatever the share (no replacement is left).
    Raises: RuntimeError listing the first ten.
    """
    if not certain and len(faults) <= limit * rows:
        return
    shown = "".join(f"\n  {fault}" for fault in faults[:10])
    more = f"\n  and {len(faults) - 10} more" if len(faults) > 10 else ""
    raise RuntimeError(
        f"{len(faults)} of {rows} clips cannot be used, the limit is {limit:.1%}:{shown}{more}\n"
        "Mend or remove these rows of the index, or raise data.bad_limit."
    )


class StandIns:
    """Which rows stand in for a bad one: rows of its own shape first, then any that are shown at all; drawn by (seed, row) alone.

    Args:
        buckets, weights: by row.
    """

    def __init__(self, buckets: Sequence[Bucket | None], weights: Sequence[float], seed: int) -> None:
        self.seed = seed
        self.shown = [row for row, bucket in enumerate(buckets) if bucket is not None and weights[row] > 0]
        self.peers: dict[Bucket | None, list[int]] = defaultdict(list)
        for row in self.shown:
            self.peers[buckets[row]].append(row)
        self.buckets = buckets

    def candidates(self, row: int) -> Iterator[int]:
        """The row itself, then those that are tried in its place."""
        yield row
        for among, attempts in ((self.peers[self.buckets[row]], ATTEMPTS // 2), (self.shown, ATTEMPTS)):
            for attempt in range(attempts if len(among) > 1 else 0):
                yield among[int(generator(self.seed, Stream.REPLACEMENT, row, attempt).integers(len(among)))]


class VideoDataset:
    """Clips decoded from files, each in the shape that was chosen for its row.

    Args:
        crop: applied to the fitted clip; None for whole clips.
        seed: with the sample number, decides where in a longer file a clip starts and where it is cropped. None takes the middle of
            each file and needs no crop: for validation and for caches, where a row is one clip for ever.
        bad_limit: share of the rows that may be unusable.
        memory_bytes: for keeping fitted clips in memory, so that a small set is decoded once. It changes no bit of what is delivered.
        stills: which pictures of a clip are to be encoded alone: a batch names them.
    """

    def __init__(
        self,
        clips: Clips,
        reader: VideoReader,
        seed: int | None,
        crop: Crop | None = None,
        bad_limit: float = 0.01,
        memory_bytes: int = 0,
        stills: StillFrames = NO_STILLS,
    ) -> None:
        if not 0 <= bad_limit <= 1:
            raise ValueError(f"bad_limit={bad_limit} must be a share in [0, 1]. Set data.bad_limit.")
        assert crop is None or seed is not None, "a crop is drawn by the seed"
        check_faults(clips.faults, len(clips), bad_limit, certain=len(clips.faults) == len(clips))
        self.clips, self.reader, self.seed, self.crop, self.bad_limit, self.stills = clips, reader, seed, crop, bad_limit, stills
        self.index, self.buckets, self.known_faults = clips.index, clips.buckets, clips.faults
        self._stand_ins = StandIns(clips.buckets, [row.weight for row in clips.index.rows], seed or 0)
        self._bad: dict[int, Fault] = {fault.row: fault for fault in clips.faults}
        # A longer file shows another part each time, so that only its middle, where that is what is wanted, can be kept.
        kept = [bucket if only or seed is None else None for bucket, only in zip(clips.buckets, clips.only, strict=True)] if memory_bytes else ()
        self._memory = ClipMemory(kept, memory_bytes)

    def clip(self, row: int, sample: int, watch: Watch = UNWATCHED) -> np.ndarray | Fault:
        """The clip of a row as `sample` sees it, uint8 t h w c before the crop, or why there is none. No replacement here."""
        bucket = self.buckets[row]
        if row in self._bad or bucket is None:
            return self._bad[row]
        kept = self._memory.get(row)
        if kept is not None:
            return kept
        size = bucket.height, bucket.width
        try:
            frames = self.clips.pick(row, self._place(sample))
            with watch(row):
                video = self.reader.read(self.index.rows[row].media, self.clips.probe(row), frames, size)
        except VideoError as error:
            self.give_up(row, error.kind, error.detail)
            return self._bad[row]
        video = fit(video, *size)
        self._memory.put(row, video)
        return video

    def give_up(self, token: int, kind: str, detail: str) -> None:
        """Never open a row's file again; its draws are replaced."""
        self._bad[token] = Fault(token, self.index.name(token), kind, detail)

    def run(self, item: Sequence[Draw], watch: Watch = UNWATCHED) -> Fetched:
        """The cropped clips of one micro-batch, content uint8 b t h w c."""
        faults: dict[int, Fault] = {}
        shapes: dict[tuple[int, ...], list[tuple[int, int, np.ndarray]]] = defaultdict(list)
        for draw in item:
            row, clip = self._replaced(draw, faults, watch)
            if clip is None:
                return Fetched((), tuple(faults.values()))
            if self.crop is not None and self.seed is not None:
                clip = self.crop(clip, self.seed, draw.sample)
            shapes[clip.shape].append((draw.sample, row, clip))
        groups = []
        for members in shapes.values():
            samples, rows, clips = zip(*members, strict=True)
            groups.append(Group(samples, rows, np.stack(clips)))  # b t h w c
        return Fetched(tuple(groups), tuple(faults.values()))

    def _replaced(self, draw: Draw, faults: dict[int, Fault], watch: Watch) -> tuple[int, np.ndarray | None]:
        """The drawn row's clip or its replacement's; what is bad on the way goes into `faults`."""
        for row in self._stand_ins.candidates(draw.row):
            clip = self.clip(row, draw.sample, watch)
            if not isinstance(clip, Fault):
                return row, clip
            faults[row] = clip
            if len(faults) > max(1.0, self.bad_limit * len(self.index)):
                break  # the run ends anyway; do not open a hundred more files first
        return draw.row, None

    def batch(self, group: Group) -> Batch:
        frames = group.content.shape[1]  # after the crop, which may leave a single one
        shots = tuple(self._shots(row, sample, frames) for row, sample in zip(group.rows, group.samples, strict=True))
        return Batch(
            samples=group.samples,
            rows=group.rows,
            captions=tuple(self.index.rows[row].captions for row in group.rows),
            fps=torch.full((len(group.rows),), self.clips.fps, dtype=torch.float32),
            video=to_float(torch.from_numpy(group.content)),
            still_frames=self.stills.table(group.rows, frames),
            shots=shots if any(shots) else (),
        )

    def _shots(self, row: int, sample: int, frames: int) -> tuple[Shot, ...]:
        if not self.index.rows[row].shots:
            return ()
        picked = self.clips.pick(row, self._place(sample))
        if self.crop is not None and self.seed is not None and frames != len(picked):
            picked = self.crop(picked[:, None, None, None], self.seed, sample).reshape(-1)  # in time it cuts numbers as it cut their pictures
        return self.clips.shots(row, picked)

    def _place(self, sample: int) -> float:
        """Where in a longer file to start, as a share of the possible starts."""
        if self.seed is None:
            return MIDDLE
        return float(generator(self.seed, Stream.CROP, sample, 1).random())  # the second counter keeps it apart from the crop in space


class ClipMemory:
    """Fitted clips of the first rows of a set, as many as fit, shared by a process and the workers forked from it.

    An anonymous mapping: pages cost memory only once they are written, and it needs no room in /dev/shm, which containers keep small.
    Each row has its fixed place, so nothing has to be locked: two workers can only write the same bytes. A spawned worker gets a
    memory of its own.

    Args:
        buckets: by row; None for one that is not to be kept.
    """

    def __init__(self, buckets: Sequence[Bucket | None], memory_bytes: int) -> None:
        self._made_of = (buckets, memory_bytes)
        self._shapes = [(0, 0, 0, 3) if bucket is None else (bucket.frames, bucket.height, bucket.width, 3) for bucket in buckets]
        ends = np.cumsum([np.prod(shape) for shape in self._shapes]) if memory_bytes else np.empty(0)
        self.rows = int(np.searchsorted(ends, memory_bytes, side="right"))
        self._ends = ends[: self.rows]
        if self.rows:
            self._clips = np.frombuffer(mmap.mmap(-1, max(1, int(self._ends[-1]))), np.uint8)
            self._there = np.frombuffer(mmap.mmap(-1, self.rows), np.uint8)

    def __reduce__(self) -> Any:
        return ClipMemory, self._made_of

    def get(self, row: int) -> np.ndarray | None:
        return self._place(row) if row < self.rows and self._there[row] else None  # what is not kept is never put

    def put(self, row: int, clip: np.ndarray) -> None:
        if row < self.rows and self._shapes[row][0]:
            self._place(row)[...] = clip
            self._there[row] = 1

    def _place(self, row: int) -> np.ndarray:
        shape = self._shapes[row]
        stop = int(self._ends[row])
        return self._clips[stop - int(np.prod(shape)) : stop].reshape(shape)
