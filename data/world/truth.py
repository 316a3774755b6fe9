"""What an observer with perfect eyes would write down: the exact state of every object and of the camera in every frame."""

from dataclasses import dataclass

import numpy as np

from data.world.render import masks_at
from data.world.scene import Body, Clip, Scene, Track, magnification, pixels_per_unit, shots, tracks, viewpoint

Box = tuple[float, float, float, float]
# The raster on which hidden areas are measured where anything can be hidden, in pixels of the shorter side: 0.5 % of an object at worst.
RASTER = 96


@dataclass(frozen=True, slots=True)
class ObjectState:
    """One object in one frame. Lengths in pixels from the top left corner of the picture.

    Args:
        centre: of area of the whole shape, hidden parts included.
        radius: of the disc of equal area.
        angle: radians clockwise.
        box: left, top, right, bottom of the whole shape; may reach beyond the picture.
        visible: the share of its area that is inside the picture and not behind anything.
    """

    centre: tuple[float, float]
    radius: float
    angle: float
    box: Box
    visible: float


@dataclass(frozen=True, slots=True)
class FrameState:
    """One frame: its objects in the order of `scene.objects`, and the camera.

    Args:
        time_s: when it is shown.
        view: the world point at the centre of the picture, in pixels of the unmagnified world.
        magnification: 1 is the scene's own scale.
        shot: of a story, which of its shots it belongs to, from 0.
    """

    time_s: float
    objects: tuple[ObjectState, ...]
    view: tuple[float, float]
    magnification: float
    light: str
    shot: int = 0


def truth(clip: Clip, frames: int, height: int, width: int, fps: float = 8.0) -> list[FrameState]:
    """The state of every frame that `render(clip, frames, height, width)` shows."""
    states: list[FrameState] = []
    for shot, (scene, share) in enumerate(shots(clip, frames)):
        states += _shot(scene, share, height, width, fps, shot, len(states))
    return states


def _shot(scene: Scene, share: np.ndarray, height: int, width: int, fps: float, shot: int, first: int) -> list[FrameState]:
    scale = pixels_per_unit(scene, height, width)
    seen = visible_shares(scene, share, height / width)
    zoom, view = magnification(scene, share), viewpoint(scene, share) * scale
    middle = np.asarray((width / 2, height / 2))
    objects = [_states(b, t, v, scale, middle) for b, t, v in zip(scene.objects, tracks(scene, share), seen, strict=True)]
    return [
        FrameState(
            time_s=(first + k) / fps,
            objects=tuple(states[k] for states in objects),
            view=(float(view[k, 0]), float(view[k, 1])),
            magnification=float(zoom[k]),
            light=scene.light,
            shot=shot,
        )
        for k in range(len(share))
    ]


def visible_shares(scene: Scene, share: np.ndarray, tallness: float) -> np.ndarray:
    """How much of each object is seen at each moment, objects f; exactly 1 where nothing can hide any of it.

    Args:
        tallness: height / width of the picture.
    """
    paths = tracks(scene, share)
    height, width = (round(RASTER * max(tallness, 1.0)), round(RASTER * max(1 / tallness, 1.0)))
    scale = pixels_per_unit(scene, height, width)
    half = np.asarray((width, height)) / scale / 2
    boxes = [track.bounds(body.shape) for body, track in zip(scene.objects, paths, strict=True)]
    inside = all((low >= -half).all() and (high <= half).all() for low, high in boxes)
    apart = all(np.maximum(a[0] - b[1], b[0] - a[1]).max(axis=1).min() >= 0 for i, a in enumerate(boxes) for b in boxes[:i])
    if inside and apart and scene.occluder is None:
        return np.ones((len(paths), len(share)))
    areas = masks_at(scene, share, height, width).sum(axis=(2, 3))
    whole = np.stack([np.pi * (track.radius * scale) ** 2 for track in paths])
    return np.clip(areas / whole, 0.0, 1.0)


def _states(body: Body, track: Track, seen: np.ndarray, scale: float, middle: np.ndarray) -> list[ObjectState]:
    low, high = (corner * scale + middle for corner in track.bounds(body.shape))
    centre = track.centre * scale + middle
    return [
        ObjectState(
            centre=(float(centre[k, 0]), float(centre[k, 1])),
            radius=float(track.radius[k] * scale),
            angle=float(track.angle[k]),
            box=(float(low[k, 0]), float(low[k, 1]), float(high[k, 0]), float(high[k, 1])),
            visible=float(seen[k]),
        )
        for k in range(len(centre))
    ]
