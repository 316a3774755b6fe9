"""How the camera moves, from the background's texture alone: one pan and one zoom rate for the whole clip, fitted to all pairs of frames."""

from dataclasses import dataclass

import numpy as np

# Over the whole clip: pans in shares of the shorter side, zooms in log magnification. Less than half of it counts as standing still.
LEAST_PAN = 0.1
LEAST_ZOOM = 0.16


@dataclass(frozen=True, slots=True)
class CameraPath:
    """`shift` is how far the background moves on the screen, (x, y) in pixels a frame; `rate` is log magnification a frame."""

    name: str | None
    shift: tuple[float, float]
    rate: float

    def to_world(self, centroid: np.ndarray, height: int, width: int) -> np.ndarray:
        """Screen places, (t, 2) in pixels, as a camera that stands still would see them."""
        k = np.arange(len(centroid))[:, None]
        middle = np.array([width / 2, height / 2])
        return middle + (centroid - middle - k * np.asarray(self.shift)) / self.magnification(len(centroid))[:, None]

    def magnification(self, frames: int) -> np.ndarray:
        """(t,), 1 where the camera sees most."""
        growth = np.exp(self.rate * np.arange(frames))
        return growth / growth.min()


STATIC = CameraPath("static", (0.0, 0.0), 0.0)


def read_camera(texture: np.ndarray, hidden: np.ndarray) -> CameraPath:
    """Fit the motion of a texture.

    Args:
        texture: (t, h, w) grey levels around their mean.
        hidden: bool (t, h, w), pixels that are not background.
    """
    frames, height, width = texture.shape
    if frames < 2:
        return STATIC
    smooth = _smooth(np.where(hidden, 0, texture))
    middle_x, middle_y = width / 2, height / 2
    rows, columns = np.mgrid[2 : height - 2, 2 : width - 2]
    x, y = columns + 0.5 - middle_x, rows + 0.5 - middle_y
    shown = ~(hidden[:-1] | hidden[1:])[:, 2:-2, 2:-2]
    before, after = smooth[:-1], smooth[1:]
    solution = np.zeros(3)
    for _ in range(5):
        # Half of the motion on each side keeps the linearisation symmetric.
        warped_before = _warp(before, x, y, -solution / 2, middle_x, middle_y)
        warped_after = _warp(after, x, y, solution / 2, middle_x, middle_y)
        mean = (warped_before + warped_after) / 2
        gx, gy = np.zeros_like(mean), np.zeros_like(mean)
        gx[:, :, 1:-1] = (mean[:, :, 2:] - mean[:, :, :-2]) / 2
        gy[:, 1:-1] = (mean[:, 2:] - mean[:, :-2]) / 2
        weight = shown.copy()
        weight[:, :, [0, -1]] = weight[:, [0, -1]] = False
        gx, gy, change = gx[weight], gy[weight], (warped_after - warped_before)[weight]
        px, py = np.broadcast_to(x, weight.shape)[weight], np.broadcast_to(y, weight.shape)[weight]
        columns_ = np.stack([gx, gy, gx * px + gy * py], 1)
        normal = columns_.T @ columns_ + 1e-6 * np.eye(3)
        update = -np.linalg.solve(normal, columns_.T @ change)
        solution = solution + update
        if np.abs(update[:2]).max() < 0.01 and abs(update[2]) < 1e-4:
            break
    shift, rate = solution[:2], float(solution[2])
    return CameraPath(_name(shift * (frames - 1) / min(height, width), rate * (frames - 1)), (float(shift[0]), float(shift[1])), rate)


def _name(pan: np.ndarray, zoom: float) -> str | None:
    if abs(zoom) >= LEAST_ZOOM:
        return ("zoom_in" if zoom > 0 else "zoom_out") if np.abs(pan).max() < LEAST_PAN else None
    if np.abs(pan).max() >= LEAST_PAN:
        if np.abs(pan).min() > LEAST_PAN / 2:
            return None
        # The world slides against the camera.
        return ("pan_left" if pan[0] > 0 else "pan_right") if abs(pan[0]) > abs(pan[1]) else ("pan_up" if pan[1] > 0 else "pan_down")
    return "static" if np.abs(pan).max() < LEAST_PAN / 2 and abs(zoom) < LEAST_ZOOM / 2 else None


def _smooth(image: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def _warp(image: np.ndarray, x: np.ndarray, y: np.ndarray, motion: np.ndarray, middle_x: float, middle_y: float) -> np.ndarray:
    # The image at the places to which (x, y) move; bilinear.
    height, width = image.shape[1:]
    column = np.clip(x + motion[0] + motion[2] * x + middle_x - 0.5, 0, width - 1.001)
    row = np.clip(y + motion[1] + motion[2] * y + middle_y - 0.5, 0, height - 1.001)
    left, top = column.astype(int), row.astype(int)
    fx, fy = (column - left).astype(np.float32), (row - top).astype(np.float32)
    upper = image[:, top, left] * (1 - fx) + image[:, top, left + 1] * fx
    lower = image[:, top + 1, left] * (1 - fx) + image[:, top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy
