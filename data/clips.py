"""The rows of an index with the shape that each is delivered in: what was found in the files, turned into what a step can draw from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.batch import Shot
from data.buckets import TOLERANCE_S, Bucket, TooShort, Windows, longest
from data.files.faults import Fault
from data.files.probe import Probe
from data.index import Index, Row
from data.shapes import Shapes

MIDDLE = 0.5  # the place of the one clip that a longer file gives to validation and to caches
Found = Probe | tuple[str, str]  # what a file holds, or the kind and detail of its fault


@dataclass(frozen=True, slots=True)
class Clips:
    """The rows of an index and the shape in which each is delivered.

    Args:
        probes, buckets: by row; None where the row gives no clip.
        only: by row, whether its file or segment holds one such clip and no more.
        faults: the rows that give none, and why.
        fps: that clips are delivered at.
    """

    index: Index
    probes: tuple[Probe | None, ...]
    buckets: tuple[Bucket | None, ...]
    only: tuple[bool, ...]
    faults: tuple[Fault, ...]
    fps: float

    @classmethod
    def of(cls, index: Index, found: Sequence[Found], shapes: Shapes, fps: float) -> "Clips":
        """Give every row its shape."""
        probes: list[Probe | None] = [None] * len(index)
        buckets: list[Bucket | None] = [None] * len(index)
        only = [False] * len(index)
        faults: list[Fault] = []
        last, times = None, np.empty(0)  # rows that follow one another are often segments of one long file
        for number, (row, what) in enumerate(zip(index.rows, found, strict=True)):
            if not isinstance(what, Probe):
                faults.append(Fault(number, index.name(number), *what))
                continue
            if what is not last:
                last, times = what, what.times
            try:
                buckets[number], only[number] = _shape(what, times, row, shapes, fps)
                probes[number] = what
            except TooShort as error:
                faults.append(Fault(number, index.name(number), "too_short", str(error)))
        return cls(index, tuple(probes), tuple(buckets), tuple(only), tuple(faults), fps)

    def __len__(self) -> int:
        return len(self.index)

    def probe(self, row: int) -> Probe:
        found = self.probes[row]
        assert found is not None, f"row {row} gives no clip"
        return found

    def pick(self, row: int, place: float) -> np.ndarray:
        """Frame numbers, in the row's file, of its clip that starts at the share `place` in [0, 1) of all possible starts."""
        first, times = segment(self.probe(row).times, self.index.rows[row])
        bucket = self.buckets[row]
        assert bucket is not None, f"row {row} gives no clip"
        return first + Windows(times, bucket.frames, self.fps).pick(place)

    def shots(self, row: int, frames: np.ndarray) -> tuple[Shot, ...]:
        """The row's timed captions as they lie in a clip of these frames of its file, see `pick`.

        A frame belongs to the shot in which it comes on screen. Shots in which none of these frames does are left out.
        """
        given = self.index.rows[row].shots
        if not given:
            return ()
        times = self.probe(row).times
        offsets = times[frames] - times[0] + TOLERANCE_S
        spans = [np.searchsorted(offsets, (shot.start_s, shot.end_s)).tolist() for shot in given]
        return tuple(Shot(start, stop, shot.captions) for (start, stop), shot in zip(spans, given, strict=True) if start < stop)


def _shape(found: Probe, times: np.ndarray, row: Row, shapes: Shapes, fps: float) -> tuple[Bucket, bool]:
    """The shape of a row's clip, and whether there is but one place where it can start."""
    _, own = segment(times, row)
    if not len(own):
        raise TooShort(f"no frame comes on screen between start_s={row.start_s:g} and {f'end_s={row.end_s:g}' if row.end_s else 'the end'}")
    bucket = shapes.bucket(longest(own, fps), found.height, found.width)
    return bucket, Windows(own, bucket.frames, fps).count == 1


def segment(times: np.ndarray, row: Row) -> tuple[int, np.ndarray]:
    """The part of a file's frames that a row names: the number of its first frame, and the times of all.

    start_s and end_s count from the file's first frame; a frame belongs to the segment if it comes on screen in it.
    """
    if row.start_s == 0 and row.end_s is None:
        return 0, times
    offsets = times - times[0] + 1e-6  # a frame at 1.0 s may be kept as 0.99999999
    start = int(np.searchsorted(offsets, row.start_s))
    stop = len(times) if row.end_s is None else int(np.searchsorted(offsets, row.end_s))
    return start, times[start:stop]
