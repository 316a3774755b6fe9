"""Clips by draw: decoded, fitted, cropped; a file that gives none is written down and replaced by a draw of (seed, row)."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from data.batch import Batch
from data.buckets import Bucket, TooShort, Windows
from data.index import Index
from data.reader import VideoError, VideoInfo, VideoReader
from data.transforms import Crop, fit, to_float
from runtime.seeding import Stream, generator

ATTEMPTS = 100  # replacements tried for one draw


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a step: its number in the run, which all its random draws hang on, and the index row it shows."""

    sample: int
    row: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that gave no clip, and why."""

    row: int
    path: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.detail}"


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
    content: Tensor | None
    faults: tuple[Fault, ...]


class ClipSource(Protocol):
    """A set of clips of one shape: what a Loader draws from. `fetch` runs in workers, `batch` in the main process."""

    bad_limit: float
    known_faults: tuple[Fault, ...]

    def __len__(self) -> int: ...

    def fetch(self, draws: Sequence[Draw]) -> Fetched: ...

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


def candidates(seed: int, row: int, rows: int) -> Iterator[int]:
    """The row itself, then those that stand in for it if it is bad, as (seed, row) draws them."""
    yield row
    for attempt in range(ATTEMPTS):
        yield int(generator(seed, Stream.REPLACEMENT, row, attempt).integers(rows))


class VideoDataset:
    """Clips of one bucket, decoded from files.

    Args:
        bucket, fps: shape and rate that clips are delivered in.
        crop: applied to the fitted clip; None for whole clips.
        seed: with the sample number, decides where in a longer file a clip starts and where it is cropped. None takes the middle of
            each file and needs no crop: for validation and for caches, where a row is one clip for ever.
        bad_limit: share of the rows that may be unusable.
        memory_bytes: for keeping fitted clips in memory, so that a small set is decoded once. It changes no bit of what is delivered.
    """

    def __init__(
        self,
        index: Index,
        reader: VideoReader,
        bucket: Bucket,
        fps: float,
        seed: int | None,
        crop: Crop | None = None,
        bad_limit: float = 0.01,
        memory_bytes: int = 0,
    ) -> None:
        if not fps > 0:
            raise ValueError(f"fps={fps} is no frame rate, it must be above 0. Set data.fps.")
        if not 0 <= bad_limit <= 1:
            raise ValueError(f"bad_limit={bad_limit} must be a share in [0, 1]. Set data.bad_limit.")
        assert crop is None or seed is not None, "a crop is drawn by the seed"
        if crop is not None:
            crop.check(bucket.height, bucket.width)
        self.index, self.reader, self.bucket, self.fps = index, reader, bucket, fps
        self.seed, self.crop, self.bad_limit = seed, crop, bad_limit
        self.known_faults: tuple[Fault, ...] = ()
        self._bad: dict[int, Fault] = {}
        self._memory = ClipMemory((bucket.frames, bucket.height, bucket.width, 3), len(index), memory_bytes)

    def __len__(self) -> int:
        return len(self.index)

    def clip(self, row: int, sample: int) -> np.ndarray | Fault:
        """The clip of a row as `sample` sees it, uint8 t h w c before the crop, or why there is none. No replacement here."""
        if row in self._bad:
            return self._bad[row]
        kept = self._memory.get(row)
        if kept is not None:
            return kept
        windows = _WindowPicker(self.bucket.frames, self.fps, self._place(sample))
        path = self.index.rows[row].path
        try:
            try:
                video = self.reader.read(path, windows)
            except TooShort as error:
                raise VideoError(path, "too_short", str(error)) from error
        except VideoError as error:
            self._bad[row] = Fault(row, self.index.name(row), error.kind, error.detail)
            return self._bad[row]
        video = fit(video, self.bucket.height, self.bucket.width)
        if windows.count == 1 or self.seed is None:  # a longer file shows another part each time
            self._memory.put(row, video)
        return video

    def fetch(self, draws: Sequence[Draw]) -> Fetched:
        """The cropped clips of one micro-batch, content uint8 b t h w c."""
        faults: dict[int, Fault] = {}
        rows, clips = [], []
        for draw in draws:
            row, clip = self._replaced(draw, faults)
            if clip is None:
                return Fetched((), (), None, tuple(faults.values()))
            rows.append(row)
            clips.append(clip if self.crop is None or self.seed is None else self.crop(clip, self.seed, draw.sample))
        content = torch.from_numpy(np.stack(clips))  # b t h w c
        return Fetched(tuple(draw.sample for draw in draws), tuple(rows), content, tuple(faults.values()))

    def _replaced(self, draw: Draw, faults: dict[int, Fault]) -> tuple[int, np.ndarray | None]:
        """The drawn row's clip or its replacement's; what is bad on the way goes into `faults`."""
        for row in candidates(self.seed or 0, draw.row, len(self)):
            clip = self.clip(row, draw.sample)
            if not isinstance(clip, Fault):
                return row, clip
            faults[row] = clip
            if len(faults) > max(1.0, self.bad_limit * len(self)):
                break  # the run ends anyway; do not open a hundred more files first
        return draw.row, None

    def batch(self, fetched: Fetched) -> Batch:
        assert fetched.content is not None, "faults are looked at before a batch is made"
        return Batch(
            samples=fetched.samples,
            rows=fetched.rows,
            captions=tuple(self.index.rows[row].captions for row in fetched.rows),
            fps=torch.full((len(fetched.rows),), self.fps, dtype=torch.float32),
            video=to_float(fetched.content),
        )

    def _place(self, sample: int) -> float:
        """Where in a longer file to start, as a share of the possible starts."""
        if self.seed is None:
            return 0.5
        return float(generator(self.seed, Stream.CROP, sample, 1).random())  # the second counter keeps it apart from the crop in space


class _WindowPicker:
    """Chooses the frames once the reader has the time line, and remembers how many windows there were."""

    def __init__(self, frames: int, fps: float, place: float) -> None:
        self.frames, self.fps, self.place = frames, fps, place
        self.count = 0

    def __call__(self, info: VideoInfo) -> np.ndarray:
        windows = Windows(info.times, self.frames, self.fps)
        self.count = windows.count
        return windows.pick(self.place)


class ClipMemory:
    """Fitted clips of the first rows of a set, as many as fit, shared by a process and the workers forked from it.

    An anonymous mapping: pages cost memory only once they are written, and it needs no room in /dev/shm, which containers keep small.
    Each row has its fixed place, so nothing has to be locked: two workers can only write the same bytes. A spawned worker gets a
    memory of its own.
    """

    def __init__(self, shape: tuple[int, ...], rows: int, memory_bytes: int) -> None:
        self._made_of = (shape, rows, memory_bytes)
        clip_bytes = int(np.prod(shape))
        self.rows = min(rows, memory_bytes // clip_bytes)
        if self.rows:
            self._clips = np.frombuffer(mmap.mmap(-1, self.rows * clip_bytes), np.uint8).reshape(self.rows, *shape)
            self._there = np.frombuffer(mmap.mmap(-1, self.rows), np.uint8)

    def __reduce__(self) -> Any:
        return ClipMemory, self._made_of

    def get(self, row: int) -> np.ndarray | None:
        return self._clips[row] if row < self.rows and self._there[row] else None

    def put(self, row: int, clip: np.ndarray) -> None:
        if row < self.rows:
            self._clips[row] = clip
            self._there[row] = 1
