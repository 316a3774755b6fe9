"""The words of the procedural world and what they look like; no drawing here, so the oracle may read this and stay independent."""

from dataclasses import dataclass

# RGB in [0, 1], as seen in daylight.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.12),
    "green": (0.12, 0.66, 0.22),
    "blue": (0.16, 0.30, 0.90),
    "yellow": (0.96, 0.84, 0.10),
    "purple": (0.62, 0.20, 0.78),
    "cyan": (0.10, 0.80, 0.86),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle")
# The ideal shapes. All have the area of a disc of radius r, the *area radius*, so that size says nothing about shape; an object's
# position is its centroid. In units of r, with x to the right, y downwards and the shape unturned:
#   circle    the disc of radius 1;
#   square    sides parallel to the frame, half a side sqrt(pi) / 2;
#   triangle  equilateral, one corner straight up at distance R = sqrt(4 pi / (3 sqrt(3))), the base level at R / 2 below.
# A turn by an angle goes clockwise on the screen: (x, y) -> (x cos - y sin, x sin + y cos).
POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.886227, -0.886227), (0.886227, -0.886227), (0.886227, 0.886227), (-0.886227, 0.886227)),
    "triangle": ((0.0, -1.555120), (1.346774, 0.777560), (-1.346774, 0.777560)),
}
# Screen directions as (x, y) with y downwards; each motion covers a good part of the frame in a clip.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (1, 0),
    "left": (-1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up_right": (1, -1),
    "up_left": (-1, -1),
    "down_right": (1, 1),
    "down_left": (-1, 1),
}
EASY_MOTIONS: tuple[str, ...] = (*DIRECTIONS, "grow", "shrink")
MOTIONS: tuple[str, ...] = (*EASY_MOTIONS, "bounce", "circle_around", "rotate", "still")
# Plain backgrounds; all are far from every object colour.
PLAIN_BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.05, 0.05, 0.06),
    "grey": (0.50, 0.50, 0.50),
    "white": (0.96, 0.96, 0.95),
    "brown": (0.42, 0.27, 0.15),
}
BACKGROUND_KINDS: tuple[str, ...] = ("plain", "gradient", "stripes", "checks", "speckles")
CAMERAS: tuple[str, ...] = ("static", "pan_left", "pan_right", "pan_up", "pan_down", "zoom_in", "zoom_out")
LIGHTS: tuple[str, ...] = ("day", "night")
SIZES: tuple[str, ...] = ("small", "large")
# The post that objects may pass behind; far from every object and background.
OCCLUDER: tuple[float, float, float] = (0.97, 0.60, 0.74)
# What night does to a daylight colour: a per-channel factor.
NIGHT: tuple[float, float, float] = (0.46, 0.48, 0.66)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a caption claims of one object; None where it says nothing."""

    shape: str | None = None
    colour: str | None = None
    motion: str | None = None
    size: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caption claims of a clip. The oracle checks a video against it; a field that is None is not claimed.

    `objects` is in no order: who does what is told by the attributes. `background` is a plain colour's name or a kind.
    """

    objects: tuple[Attributes, ...]
    background: str | None = None
    camera: str | None = None
    light: str | None = None
    occluder: bool | None = None

    @property
    def count(self) -> int:
        return len(self.objects)
