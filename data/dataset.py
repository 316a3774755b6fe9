"""Clips by draw: decoded, fitted, cropped; a file that gives none is written down and replaced by a draw of (seed, row)."""

import mmap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from data.batch import Batch
from data.buckets import Bucket, TooShort
from data.catalogue import Clips
from data.files.faults import Fault, VideoError
from data.files.reader import VideoReader
from data.index import Index
from data.plan import Draw
from data.transforms import Crop, fit, to_float
from data.workers import UNWATCHED, Watch
from runtime.seeding import Stream, generator

ATTEMPTS = 100  # replacements tried for one draw


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a worker sends back for one micro-batch.

    Args:
        rows: after replacement.
        content: what the dataset's `batch` understands; None if no replacement was found, which the faults explain.
        faults: of this micro-batch, also those that are known already.
    """

    samples: tuple[int, ...]
    rows: tuple[int, ...]
    content: Any
    faults: tuple[Fault, ...]


class ClipSource(Protocol):
    """A set of clips: what a Loader draws from. `run` and `give_up` are called in workers too, `batch` in the main process alone.

    Attributes:
        index: its rows.
        buckets: shape by row; None for a row that gives no clip, which is never drawn.
        bad_limit: share of the rows that may be unusable.
        known_faults: rows without a clip that are known before anything is drawn.
    """

    index: Index
    buckets: Sequence[Bucket | None]
    bad_limit: float
    known_faults: tuple[Fault, ...]

    def run(self, item: Sequence[Draw], watch: Watch) -> Fetched:
        """One micro-batch; its draws are of one shape."""
        ...

    def give_up(self, token: int, kind: str, detail: str) -> None:
        """Never open the row `token` again."""
        ...

    def batch(self, fetched: Fetched) -> Batch: ...


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
    """Which rows stand in for a bad one: rows of its own shape while there are any, else any; drawn by (seed, row) alone."""

    def __init__(self, buckets: Sequence[Bucket | None], seed: int) -> None:
        self.buckets, self.seed = buckets, seed
        self.peers: dict[Bucket, list[int]] = defaultdict(list)
        for row, bucket in enumerate(buckets):
            if bucket is not None:
                self.peers[bucket].append(row)

    def candidates(self, row: int) -> Iterator[int]:
        """The row itself, then those that are tried in its place."""
        yield row
        bucket = self.buckets[row]
        assert bucket is not None, f"row {row} gives no clip, so it is never drawn"
        others = [rows for other, rows in self.peers.items() if other.frames >= bucket.frames]
        for attempt in range(ATTEMPTS):
            rows = self.peers[bucket] if len(self.peers[bucket]) > 1 and attempt < ATTEMPTS // 2 else [row for part in others for row in part]
            yield rows[int(generator(self.seed, Stream.REPLACEMENT, row, attempt).integers(len(rows)))]


class VideoDataset:
    """Clips decoded from files, each in the shape that was chosen for its row.

    Args:
        crop: applied to the fitted clip; None for whole clips.
        seed: with the sample number, decides where in a longer file a clip starts and where it is cropped. None takes the middle of
            each file and needs no crop: for validation and for caches, where a row is one clip for ever.
        bad_limit: share of the rows that may be unusable.
        memory_bytes: for keeping fitted clips in memory, so that a small set is decoded once. It changes no bit of what is delivered.
    """

    def __init__(
        self, clips: Clips, reader: VideoReader, seed: int | None, crop: Crop | None = None, bad_limit: float = 0.01, memory_bytes: int = 0
    ) -> None:
        if not 0 <= bad_limit <= 1:
            raise ValueError(f"bad_limit={bad_limit} must be a share in [0, 1]. Set data.bad_limit.")
        assert crop is None or seed is not None, "a crop is drawn by the seed"
        if crop is not None:
            for bucket in {bucket for bucket in clips.buckets if bucket is not None}:
                crop.check(bucket.height, bucket.width)
        self.clips, self.reader, self.seed, self.crop, self.bad_limit = clips, reader, seed, crop, bad_limit
        self.index, self.buckets, self.known_faults = clips.index, clips.buckets, clips.faults
        self._stand_ins = StandIns(clips.buckets, seed or 0)
        self._bad: dict[int, Fault] = {fault.row: fault for fault in clips.faults}
        self._memory = ClipMemory(clips.buckets, memory_bytes)

    def clip(self, row: int, sample: int, bucket: Bucket | None = None, watch: Watch = UNWATCHED) -> np.ndarray | Fault:
        """The clip of a row as `sample` sees it, uint8 t h w c before the crop, or why there is none. No replacement here.

        Args:
            bucket: another shape than the row's own, when it stands in for another row.
        """
        own = self.buckets[row]
        if row in self._bad or own is None:
            return self._bad[row]
        shape = bucket or own
        kept = self._memory.get(row) if shape == own else None
        if kept is not None:
            return kept
        media, size = self.index.rows[row].media, (shape.height, shape.width)
        try:
            frames, starts = self.clips.pick(row, shape.frames, self._place(sample))
            with watch(row):
                video = self.reader.read(media, self.clips.probe(row), frames, size)
        except TooShort as error:
            return Fault(row, self.index.name(row), "too_short", str(error))  # for this shape; its own it fills
        except VideoError as error:
            self.give_up(row, error.kind, error.detail)
            return self._bad[row]
        video = fit(video, *size)
        if shape == own and (starts == 1 or self.seed is None):  # a longer file shows another part each time
            self._memory.put(row, video)
        return video

    def give_up(self, token: int, kind: str, detail: str) -> None:
        """Never open a row's file again; its draws are replaced."""
        self._bad[token] = Fault(token, self.index.name(token), kind, detail)

    def run(self, item: Sequence[Draw], watch: Watch = UNWATCHED) -> Fetched:
        """The cropped clips of one micro-batch, content uint8 b t h w c."""
        faults: dict[int, Fault] = {}
        rows, clips = [], []
        for draw in item:
            row, clip = self._replaced(draw, faults, watch)
            if clip is None:
                return Fetched((), (), None, tuple(faults.values()))
            rows.append(row)
            clips.append(clip if self.crop is None or self.seed is None else self.crop(clip, self.seed, draw.sample))
        return Fetched(tuple(draw.sample for draw in item), tuple(rows), np.stack(clips), tuple(faults.values()))  # b t h w c

    def _replaced(self, draw: Draw, faults: dict[int, Fault], watch: Watch) -> tuple[int, np.ndarray | None]:
        """The drawn row's clip or its replacement's; what is bad on the way goes into `faults`."""
        for row in self._stand_ins.candidates(draw.row):
            clip = self.clip(row, draw.sample, self.buckets[draw.row], watch)
            if not isinstance(clip, Fault):
                return row, clip
            if row in self._bad:
                faults[row] = clip
            if len(faults) > max(1.0, self.bad_limit * len(self.index)):
                break  # the run ends anyway; do not open a hundred more files first
        return draw.row, None

    def batch(self, fetched: Fetched) -> Batch:
        assert fetched.content is not None, "faults are looked at before a batch is made"
        return Batch(
            samples=fetched.samples,
            rows=fetched.rows,
            captions=tuple(self.index.rows[row].captions for row in fetched.rows),
            fps=torch.full((len(fetched.rows),), self.clips.fps, dtype=torch.float32),
            video=to_float(torch.from_numpy(fetched.content)),
        )

    def _place(self, sample: int) -> float:
        """Where in a longer file to start, as a share of the possible starts."""
        if self.seed is None:
            return 0.5
        return float(generator(self.seed, Stream.CROP, sample, 1).random())  # the second counter keeps it apart from the crop in space


class ClipMemory:
    """Fitted clips of the first rows of a set, as many as fit, shared by a process and the workers forked from it.

    An anonymous mapping: pages cost memory only once they are written, and it needs no room in /dev/shm, which containers keep small.
    Each row has its fixed place, so nothing has to be locked: two workers can only write the same bytes. A spawned worker gets a
    memory of its own.
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
        return self._place(row) if row < self.rows and self._there[row] else None

    def put(self, row: int, clip: np.ndarray) -> None:
        if row < self.rows:
            self._place(row)[...] = clip
            self._there[row] = 1

    def _place(self, row: int) -> np.ndarray:
        shape = self._shapes[row]
        stop = int(self._ends[row])
        return self._clips[stop - int(np.prod(shape)) : stop].reshape(shape)
