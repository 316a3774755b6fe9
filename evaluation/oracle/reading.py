"""Pixels to State: everything that a claim may speak of, read from the video alone."""

from dataclasses import dataclass

import numpy as np

from evaluation.oracle.background import daylight, light, read_background
from evaluation.oracle.camera import STATIC, read_camera
from evaluation.oracle.segment import dilate
from evaluation.oracle.tracking import Track, read_tracks


@dataclass(frozen=True, slots=True)
class State:
    """What the oracle saw in a clip.

    `counts` is the number of objects seen in each frame. `background` holds every name that fits what lies behind: a plain colour and
    "plain", or the kind of pattern, or nothing. `camera` is None where it moves in no way that has a name; over plain ground a moving
    camera cannot be seen.
    """

    frames: int
    height: int
    width: int
    tracks: tuple[Track, ...]
    counts: np.ndarray
    background: tuple[str, ...]
    background_steady: bool
    light: str
    camera: str | None
    occluder: bool


def read(video: np.ndarray) -> State:
    """Read a clip.

    Args:
        video: uint8 (t, h, w, 3), RGB.
    Raises: ValueError on anything else.
    """
    if not isinstance(video, np.ndarray) or video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or min(video.shape[:3]) < 1:
        got = f"{video.dtype} {tuple(video.shape)}" if isinstance(video, np.ndarray) else type(video).__name__
        raise ValueError(f"the oracle reads uint8 arrays of shape (frames, height, width, 3), got {got}")
    if min(video.shape[1:3]) < 16:
        raise ValueError(f"the oracle needs frames of at least 16 x 16 pixels to tell shapes, got {video.shape[1]} x {video.shape[2]}")
    frames, height, width = video.shape[:3]
    pixels = video.astype(np.float32)
    pixels *= np.float32(1 / 255)
    lamp = light(pixels)
    pixels = daylight(pixels, lamp)
    ground = read_background(pixels)
    camera = STATIC
    if ground.texture is not None and "stripes" not in ground.names:
        hidden = dilate(ground.strong, 2) | dilate(np.broadcast_to(ground.post[:, None], ground.strong.shape), 1)
        camera = read_camera(ground.texture, hidden)
    tracks, counts = read_tracks(pixels, ground, camera)
    occluder = bool(ground.post.any(1).mean() > 0.8)
    return State(frames, height, width, tracks, counts, ground.names, ground.steady, lamp, camera.name, occluder)
