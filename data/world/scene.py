"""One clip of the world as numbers, without pixels: what is there, how it moves, and the exact state at every moment.

Coordinates: the origin is the centre of the frame, x points right, y down, the unit is the frame's shorter side. Time is the share of
the clip in [0, 1], so a scene has no frame count, no fps and no size of its own.
"""

from dataclasses import dataclass

import numpy as np

from data.world.vocabulary import POLYGONS

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Straight:
    """From `start` by `step` in even time; a step of (0, 0) stays."""

    start: Point
    step: Point = (0.0, 0.0)

    def at(self, share: np.ndarray) -> np.ndarray:
        return np.asarray(self.start) + share[:, None] * np.asarray(self.step)  # f 2


@dataclass(frozen=True, slots=True)
class Bounce:
    """Straight on from `start`, thrown back by the walls of the box from `low` to `high`; `step` is the way without walls."""

    start: Point
    step: Point
    low: Point
    high: Point

    def at(self, share: np.ndarray) -> np.ndarray:
        low, room = np.asarray(self.low), np.asarray(self.high) - np.asarray(self.low)
        free = np.asarray(self.start) + share[:, None] * np.asarray(self.step) - low
        return low + room - np.abs(np.mod(free, 2 * room) - room)  # f 2


@dataclass(frozen=True, slots=True)
class Orbit:
    """On a circle around `centre`: `turns` rounds from `phase` (radians, 0 is right, clockwise on the screen)."""

    centre: Point
    radius: float
    phase: float
    turns: float

    def at(self, share: np.ndarray) -> np.ndarray:
        angle = self.phase + 2 * np.pi * self.turns * share
        return np.asarray(self.centre) + self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # f 2


Path = Straight | Bounce | Orbit


@dataclass(frozen=True, slots=True)
class Body:
    """One object.

    Args:
        size: "small", "large", or None where no caption may name it (it changes).
        path: of the centroid, in world coordinates.
        radius: the area radius at the beginning and at the end; the steps between are equal factors.
        angle: radians clockwise at the beginning and at the end.
    """

    shape: str
    colour: str
    motion: str
    size: str | None
    path: Path
    radius: tuple[float, float]
    angle: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Background:
    """What lies behind the objects, fixed in the world.

    Args:
        kind: one of BACKGROUND_KINDS.
        colour: a name of PLAIN_BACKGROUNDS; a gradient runs from it to `second`, a texture varies it.
        angle: radians, where stripes and gradients run to.
        scale: width of a stripe, a check or a speckle's cell.
        seed: of the speckles.
    """

    kind: str
    colour: str
    second: str | None = None
    angle: float = 0.0
    scale: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Camera:
    """Moves by `step` through the world (so the world slides the other way) and magnifies by up to `zoom` at the end or the start."""

    name: str = "static"
    step: Point = (0.0, 0.0)
    zoom: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Occluder:
    """A post in front of all objects, upright through the whole frame; fixed in the world."""

    centre: float
    width: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything there is in a clip. Later objects are nearer to the viewer; `aspect` is width / height of the frame it was made for."""

    objects: tuple[Body, ...]
    background: Background
    camera: Camera = Camera()
    light: str = "day"
    occluder: Occluder | None = None
    aspect: float = 1.0

    @property
    def extent(self) -> Point:
        """Width and height of the frame in units."""
        return (max(self.aspect, 1.0), max(1 / self.aspect, 1.0))


@dataclass(frozen=True, slots=True)
class Story:
    """Two shots in one clip that differ in one attribute. Each scene runs through the whole clip and is shown for its own part.

    Args:
        change: which attribute, one of `data.world.stories.CHANGES`.
        switch: the share of the clip at which the second takes over, between two frames.
    """

    first: Scene
    second: Scene
    change: str
    switch: float


Clip = Scene | Story


@dataclass(frozen=True, slots=True)
class Track:
    """One object on the screen, frame by frame, in units around the centre of the frame."""

    centre: np.ndarray  # f 2
    radius: np.ndarray  # f
    angle: np.ndarray  # f

    def bounds(self, shape: str) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest x and y of the shape at every frame, each f 2."""
        if shape == "circle":
            return self.centre - self.radius[:, None], self.centre + self.radius[:, None]
        corners = self.corners(shape)
        return corners.min(axis=1), corners.max(axis=1)

    def corners(self, shape: str) -> np.ndarray:
        """The corners of a square or a triangle, f k 2."""
        x, y = np.asarray(POLYGONS[shape]).T  # k
        cos, sin = np.cos(self.angle)[:, None], np.sin(self.angle)[:, None]
        turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)  # f k 2
        return self.centre[:, None] + self.radius[:, None, None] * turned


def shares(frames: int) -> np.ndarray:
    """The moments of `frames` frames as shares of the clip, first and last included; a single frame is the first."""
    if frames < 1:
        raise ValueError(f"frames={frames}: a clip has at least one frame.")
    return np.linspace(0.0, 1.0, frames)


def shots(clip: Clip, frames: int) -> list[tuple[Scene, np.ndarray]]:
    """The scenes that follow each other in a clip of `frames` frames, each with the moments at which it is shown."""
    share = shares(frames)
    if isinstance(clip, Scene):
        return [(clip, share)]
    first = share < clip.switch
    return [(scene, part) for scene, part in ((clip.first, share[first]), (clip.second, share[~first])) if len(part)]


def magnification(scene: Scene, share: np.ndarray) -> np.ndarray:
    """How much the camera magnifies at each moment, f."""
    start, end = scene.camera.zoom
    return start * (end / start) ** share


def viewpoint(scene: Scene, share: np.ndarray) -> np.ndarray:
    """The world point at the centre of the frame at each moment, f 2. It passes the origin in the middle of the clip."""
    return (share - 0.5)[:, None] * np.asarray(scene.camera.step)


def tracks(scene: Scene, share: np.ndarray) -> list[Track]:
    """Every object as the camera sees it."""
    zoom, view = magnification(scene, share), viewpoint(scene, share)
    result = []
    for body in scene.objects:
        start, end = body.radius
        result.append(
            Track(
                centre=(body.path.at(share) - view) * zoom[:, None],
                radius=start * (end / start) ** share * zoom,
                angle=body.angle[0] + (body.angle[1] - body.angle[0]) * share,
            )
        )
    return result


def pixels_per_unit(scene: Scene, height: int, width: int) -> float:
    """The scale of a picture of `height` x `width`; another aspect than the scene's own shows more of the world around it."""
    return min(width / scene.extent[0], height / scene.extent[1])
