"""Compares a region with ideal shapes of equal area at the same centroid; strict by overlap, lenient by angular moments."""

from dataclasses import dataclass

import numpy as np

from data.world.vocabulary import SHAPES

# Angular moments of ideal shapes: a triangle has 0.49 at order 3, a square 0.24 at order 4, a circle 0 at both.
TRIANGLE_MOMENT = 0.22
SQUARE_MOMENT = 0.11
# Width in pixels of an antialiased rim, from 0.2 to 0.8 of coverage, and by which factors a smoothed one is sharpened.
SHARP_PX = 0.7
STEEPNESS = (1.8, 3.0)


@dataclass(frozen=True, slots=True)
class Fit:
    """How one object looks in each frame. The last axis of the overlaps is in the order of `vocabulary.SHAPES`.

    `upright` and `turned` are soft IoUs with the ideals, as they stand and at the angle that the region itself suggests;
    `edge_px` is the width of the soft rim; `moments` the magnitudes at orders 3 and 4.
    """

    upright: np.ndarray  # t s
    turned: np.ndarray  # t s
    angle: np.ndarray  # t 2, radians: the phase of orders 3 and 4, divided by the order
    moments: np.ndarray  # t 2
    area: np.ndarray  # t
    centroid: np.ndarray  # t 2, (x, y) in pixels
    edge_px: np.ndarray  # t

    @property
    def lenient(self) -> np.ndarray:
        """Per frame the index of the shape by angular moments: (t,) int."""
        triangle = self.moments[:, 0] > TRIANGLE_MOMENT
        square = self.moments[:, 1] > SQUARE_MOMENT
        return np.where(triangle, SHAPES.index("triangle"), np.where(square, SHAPES.index("square"), SHAPES.index("circle")))


def ideal(name: str, x: np.ndarray, y: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Coverage of an ideal shape of the given area, centred on its centroid at the origin, antialiased over one pixel.

    A square stands on a side, a triangle is equilateral with its tip upwards (y points down).
    """
    if name == "circle":
        distance = np.hypot(x, y) - np.sqrt(area / np.pi)
    elif name == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - np.sqrt(area) / 2
    elif name == "triangle":
        # Area of an equilateral triangle with inradius r: 3 sqrt(3) r^2.
        inradius = np.sqrt(area / (3 * np.sqrt(3)))
        distance = np.maximum(y, np.abs(x) * (np.sqrt(3) / 2) - y / 2) - inradius
    else:
        raise ValueError(f"no ideal shape is known for '{name}', only for {', '.join(SHAPES)}")
    return np.clip(0.5 - distance, 0, 1)


def fit(alpha: np.ndarray) -> Fit:
    """Compare the soft region of every frame with every ideal shape.

    Args:
        alpha: (t, h, w) coverage of one object; frames without it are all zero and get zeros.
    """
    frames, height, width = alpha.shape
    area = alpha.sum((1, 2))
    safe = np.maximum(area, 1e-6)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    centroid = np.stack([alpha.sum(1) @ columns / safe, alpha.sum(2) @ rows / safe], 1)
    patch, x, y = _patches(alpha, centroid)
    outside = area - patch.sum((1, 2))
    point = x + 1j * y
    r = np.abs(point)
    unit = point / np.maximum(r, 1e-6)
    moments, angle = np.zeros((frames, 2)), np.zeros((frames, 2))
    for column, order in enumerate((3, 4)):
        weight = patch * r**order
        moment = np.einsum("tyx,tyx->t", weight, unit**order)
        moments[:, column] = np.abs(moment) / np.maximum(weight.sum((1, 2)), 1e-6)
        angle[:, column] = np.angle(moment) / order
    size = area[:, None, None].astype(np.float32)
    rim = ((patch > 0.2) & (patch < 0.8)).sum((1, 2))
    edge_px = rim / np.maximum(2 * np.sqrt(np.pi * safe), 1e-6)
    # The contour at one half counts: a rim that a codec made soft and ragged (colour has half the resolution) is smoothed, then sharpened.
    sharp = patch
    for axis in (1, 2):
        sharp = (np.roll(sharp, 1, axis) + 2 * sharp + np.roll(sharp, -1, axis)) / 4
    steep = np.clip(edge_px[:, None, None].astype(np.float32) / SHARP_PX, STEEPNESS[0], STEEPNESS[1])
    sharp = np.clip((sharp - 0.5) * steep + 0.5, 0, 1)

    def overlap(name: str, px: np.ndarray, py: np.ndarray) -> np.ndarray:
        drawn = ideal(name, px, py, size)
        both = np.minimum(drawn, sharp).sum((1, 2))
        return both / np.maximum(drawn.sum((1, 2)) + sharp.sum((1, 2)) + outside - both, 1e-6)

    upright = np.stack([overlap(name, x, y) for name in SHAPES], 1)
    # The tip upwards is the angle -pi/2 of the order-3 moment (the y axis points down); a square's corners are at pi/4.
    turned = upright.copy()
    for name, turn in (("triangle", angle[:, 0] + np.pi / 2), ("square", angle[:, 1] + np.pi / 4)):
        cos, sin = (part[:, None, None].astype(np.float32) for part in (np.cos(turn), np.sin(turn)))
        column = SHAPES.index(name)
        turned[:, column] = np.maximum(turned[:, column], overlap(name, cos * x + sin * y, cos * y - sin * x))
    return Fit(upright, turned, angle, moments, area, centroid, edge_px)


def _patches(alpha: np.ndarray, centroid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # A square window around the centroid that holds the object, so that small objects cost little.
    frames, height, width = alpha.shape
    reach = 4
    occupied_rows, occupied_columns = (alpha.max(axis) > 0 for axis in (2, 1))
    for frame in range(frames):
        rows, columns = np.flatnonzero(occupied_rows[frame]), np.flatnonzero(occupied_columns[frame])
        if len(rows):
            cx, cy = centroid[frame]
            reach = max(reach, int(max(cx - columns[0], columns[-1] - cx, cy - rows[0], rows[-1] - cy)) + 3)
    reach = min(reach, max(height, width))
    padded = np.pad(alpha, ((0, 0), (reach, reach), (reach, reach)))
    corner = np.floor(centroid).astype(int)  # in the padded frame this is the window's upper left
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1), axis=(1, 2))
    index = np.clip(corner, 0, [width - 1, height - 1])
    patch = windows[np.arange(frames), index[:, 1], index[:, 0]]
    offsets = np.arange(2 * reach + 1) - reach + 0.5
    x = offsets[None, None, :] + (index[:, 0] - centroid[:, 0])[:, None, None]
    y = offsets[None, :, None] + (index[:, 1] - centroid[:, 1])[:, None, None]
    return patch, np.broadcast_to(x, patch.shape).astype(np.float32), np.broadcast_to(y, patch.shape).astype(np.float32)
