"""Finds the objects' pixels: how much each pixel differs from the background, connected regions, and soft coverage of one object."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Region:
    """A connected set of pixels of one frame: `rows`, `starts`, `stops` are its horizontal runs (stop exclusive)."""

    frame: int
    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @property
    def area(self) -> int:
        return int((self.stops - self.starts).sum())

    def touches(self, other: "Region", gap_px: int) -> bool:
        """Whether the boxes around both come within `gap_px`."""
        rows = max(self.rows[0], other.rows[0]) - min(self.rows[-1], other.rows[-1])
        columns = max(self.starts.min(), other.starts.min()) - min(self.stops.max(), other.stops.max()) + 1
        return max(rows, columns) <= gap_px

    def joined(self, other: "Region") -> "Region":
        rows, starts, stops = (np.concatenate(pair) for pair in ((self.rows, other.rows), (self.starts, other.starts), (self.stops, other.stops)))
        order = np.argsort(rows, kind="stable")
        return Region(self.frame, rows[order], starts[order], stops[order])

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of all its pixels."""
        lengths = self.stops - self.starts
        before = np.cumsum(lengths) - lengths
        return np.repeat(self.rows, lengths), np.arange(lengths.sum()) + np.repeat(self.starts - before, lengths)

    def paint(self, canvas: np.ndarray, value: bool | int = True) -> None:
        """Write `value` into the region's pixels of a (t h w) array."""
        for row, start, stop in zip(self.rows, self.starts, self.stops, strict=True):
            canvas[self.frame, row, start:stop] = value


def regions(mask: np.ndarray, least_px: int) -> list[list[Region]]:
    """The 4-connected regions of every frame, largest first; smaller ones than `least_px` are left out.

    Runs of pixels are joined by union-find: the number of runs is small, so no image-sized Python loop is needed.

    Args:
        mask: bool (t, h, w).
    """
    frames, height, width = mask.shape
    edges = np.diff(np.pad(mask, ((0, 0), (0, 0), (1, 1))).astype(np.int8).reshape(frames * height, width + 2), axis=1)
    line, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    parent = list(range(len(line)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first = np.searchsorted(line, np.arange(frames * height + 1)).tolist()
    starts, stops = start.tolist(), stop.tolist()
    for row in np.unique(line).tolist():
        if row % height == 0:
            continue
        above, above_end, here, here_end = first[row - 1], first[row], first[row], first[row + 1]
        while above < above_end and here < here_end:
            if starts[above] < stops[here] and starts[here] < stops[above]:
                parent[root(here)] = root(above)
            if stops[above] < stops[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(run) for run in range(len(line))], dtype=np.int64)
    found: list[list[Region]] = [[] for _ in range(frames)]
    order = np.argsort(roots, kind="stable")
    cuts = np.flatnonzero(np.diff(roots[order])) + 1
    for group in np.split(order, cuts) if len(order) else []:
        region = Region(int(line[group[0]]) // height, line[group] % height, start[group], stop[group])
        if region.area >= least_px:
            found[region.frame].append(region)
    for frame in found:
        frame.sort(key=lambda region: -region.area)
    return found


def dilate(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a bool (t, h, w) mask by `pixels` to all eight sides."""
    grown = mask.copy()
    for _ in range(pixels):
        wide = grown.copy()
        wide[:, :, 1:] |= grown[:, :, :-1]
        wide[:, :, :-1] |= grown[:, :, 1:]
        grown = wide.copy()
        grown[:, 1:] |= wide[:, :-1]
        grown[:, :-1] |= wide[:, 1:]
    return grown


def coverage(difference: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Soft coverage: the share of the way from the background to the object's colour at which a pixel lies.

    Args:
        difference: (t, h, w, 3), video minus background.
        contrast: (t, 3), object's colour minus background.
    Returns: float32 (t, h, w) in [0, 1]; below 0.1 it is noise and set to 0.
    """
    scale = contrast / np.maximum((contrast**2).sum(-1, keepdims=True), 1e-6)
    alpha = np.einsum("thwc,tc->thw", difference, scale)
    alpha[alpha < 0.1] = 0
    return np.minimum(alpha, 1, out=alpha)
