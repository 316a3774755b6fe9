"""Videos that nearly show what a claim says and must be refused; they hold the oracle to what a person would accept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from data.world.captions import claim
from data.world.render import render
from data.world.sampling import draw_scene
from data.world.scene import Background, Body, Scene, Straight, Track, pixels_per_unit, shares, tracks
from data.world.splits import possible
from data.world.vocabulary import COLOURS, EASY_MOTIONS, NIGHT, PLAIN_BACKGROUNDS, POLYGONS, SHAPES, Claim
from runtime.seeding import Stream, generator

# The best overlap a fake shape may have with the named one at any turn; what reaches 0.7 may be called by its name.
LIKENESS = 0.62
REACH, CELLS = 3.0, 192  # a stencil covers that many area radii each way, in that many cells


@dataclass(frozen=True, slots=True)
class Fake:
    """A video and the claim that it does not fulfil; `kind` says what is wrong with it."""

    kind: str
    video: np.ndarray
    claim: Claim


@dataclass(frozen=True, slots=True)
class Size:
    frames: int
    height: int
    width: int

    def render(self, scene: Scene) -> np.ndarray:
        return render(scene, self.frames, self.height, self.width)


def fakes(count: int, seed: int, frames: int = 17, height: int = 64, width: int = 64) -> Iterator[Fake]:
    """`count` videos, the kinds in turns; fake `n` is a function of (seed, n)."""
    size = Size(frames, height, width)
    for number in range(count):
        rng = generator(seed, Stream.WORLD, 2**48 + number)
        kind = tuple(KINDS)[number % len(KINDS)]
        video, pretended = KINDS[kind](rng, size)
        yield Fake(kind, video, pretended)


def likeness(stencil: np.ndarray, shape: str) -> float:
    """The best IoU of a stencil with the ideal shape of equal area and centroid over all turns."""
    inside = stencil > 0.5
    y, x = (np.indices(stencil.shape) + 0.5) * (2 * REACH / len(stencil)) - REACH
    radius = np.sqrt(inside.sum() * (2 * REACH / len(stencil)) ** 2 / np.pi)
    x, y = (x - x[inside].mean()) / radius, (y - y[inside].mean()) / radius
    best = 0.0
    for turn in np.linspace(0, 2 * np.pi / 3, 24, endpoint=False):
        ideal = _inside(shape, x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn))
        best = max(best, float((ideal & inside).sum() / (ideal | inside).sum()))
    return best


def _single(rng: np.random.Generator, difficulty: str, accept: Callable[[Body], bool] = lambda body: True) -> Scene:
    """A true scene of one object under a camera that stands."""
    while True:
        scene = draw_scene(int(rng.integers(2**62)), 0, difficulty)
        if len(scene.objects) == 1 and scene.camera.name == "static" and accept(scene.objects[0]):
            return scene


def _pair(rng: np.random.Generator, accept: Callable[[Body, Body], bool] = lambda a, b: True) -> Scene:
    while True:
        scene = draw_scene(int(rng.integers(2**62)), 0, "standard")
        if len(scene.objects) == 2 and accept(*scene.objects):
            return scene


def _any_level(rng: np.random.Generator) -> str:
    return "easy" if rng.random() < 0.6 else "standard"


def _other(rng: np.random.Generator, choices: tuple[str, ...], name: str) -> str:
    return str(rng.choice([choice for choice in choices if choice != name]))


def _with(scene: Scene, body: Body) -> Scene:
    return replace(scene, objects=(body, *scene.objects[1:]))


def _half(rng: np.random.Generator, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """One video up to about its middle, then another."""
    turn = round(len(before) * rng.uniform(0.4, 0.6))
    return np.concatenate([before[:turn], after[turn:]])


def _smear(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, "easy")
    return _stamp(scene, size, _unlike(lambda: _streak(rng) if rng.random() < 0.5 else _blot(rng), scene.objects[0].shape)), claim(scene)


def _dent(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, "easy")
    shape = scene.objects[0].shape
    return _stamp(scene, size, _unlike(lambda: _bitten(rng, shape), shape)), claim(scene)


def _other_shape(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, _any_level(rng), lambda body: body.motion != "rotate")
    body = scene.objects[0]
    return size.render(_with(scene, replace(body, shape=_other(rng, SHAPES, body.shape)))), claim(scene)


def _morph(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, "easy")
    body = scene.objects[0]
    other = size.render(_with(scene, replace(body, shape=_other(rng, SHAPES, body.shape))))
    return _half(rng, size.render(scene), other), claim(scene)


def _swapped(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    """Two objects whose colours, shapes or motions are told the wrong way round."""
    part = str(rng.choice(["colour", "shape", "motion"]))
    scene = _pair(rng, lambda a, b: (a.shape, a.motion) != (b.shape, b.motion) if part == "colour" else getattr(a, part) != getattr(b, part))
    said = claim(scene)
    a, b = said.objects
    changed = (replace(a, **{part: getattr(b, part)}), replace(b, **{part: getattr(a, part)}))
    if not all(possible(one.shape or "", one.motion or "") for one in changed):
        return _swapped(rng, size)
    return size.render(scene), replace(said, objects=changed)


def _frozen(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    if rng.random() < 0.3:
        scene = _pair(rng, lambda a, b: a.motion not in ("still", "rotate"))
    else:
        scene = _single(rng, _any_level(rng), lambda body: body.motion != "still")
    body = scene.objects[0]
    start = body.path.at(np.zeros(1))[0] if body.motion != "shrink" else body.path.at(np.ones(1))[0]
    stiff = replace(body, path=Straight((float(start[0]), float(start[1]))), radius=(min(body.radius),) * 2, angle=(0.0, 0.0))
    return size.render(_with(scene, stiff)), claim(scene)


def _flicker(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, _any_level(rng))
    video, empty = size.render(scene), size.render(replace(scene, objects=()))
    gone = np.arange(size.frames) % 2 == 1 if rng.random() < 0.5 else rng.permutation(size.frames) < round(0.4 * size.frames)
    video[gone] = empty[gone]
    return video, claim(scene)


def _recoloured(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, _any_level(rng))
    body = scene.objects[0]
    other = size.render(_with(scene, replace(body, colour=_other(rng, tuple(COLOURS), body.colour))))
    pair = (size.render(scene), other)
    return _half(rng, *(pair if rng.random() < 0.5 else pair[::-1])), claim(scene)


def _vanishes(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _pair(rng) if rng.random() < 0.3 else _single(rng, _any_level(rng))
    pair = (size.render(scene), size.render(replace(scene, objects=scene.objects[1:])))
    return _half(rng, *(pair if rng.random() < 0.7 else pair[::-1])), claim(scene)


def _backwards(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, _any_level(rng), lambda body: body.motion in EASY_MOTIONS)
    return size.render(scene)[::-1].copy(), claim(scene)


def _jumps(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, "easy")
    return size.render(scene)[rng.permutation(size.frames)], claim(scene)


def _extra(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _pair(rng)
    said = claim(scene)
    return size.render(scene), replace(said, objects=said.objects[:1])


def _ground(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, Claim]:
    scene = _single(rng, "easy")
    other = _other(rng, tuple(PLAIN_BACKGROUNDS), scene.background.colour)
    return _half(rng, size.render(scene), size.render(replace(scene, background=Background("plain", other)))), claim(scene)


KINDS: dict[str, Callable[[np.random.Generator, Size], tuple[np.ndarray, Claim]]] = {
    "smear": _smear,
    "dent": _dent,
    "other_shape": _other_shape,
    "morph": _morph,
    "swapped": _swapped,
    "frozen": _frozen,
    "flicker": _flicker,
    "recoloured": _recoloured,
    "vanishes": _vanishes,
    "backwards": _backwards,
    "jumps": _jumps,
    "extra": _extra,
    "ground": _ground,
}


def _unlike(draw: Callable[[], np.ndarray], shape: str) -> np.ndarray:
    """The first stencil drawn that nobody would call by the shape's name."""
    while True:
        stencil = draw()
        if likeness(stencil, shape) <= LIKENESS:
            return stencil


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(CELLS) + 0.5) * (2 * REACH / CELLS) - REACH
    return axis[None, :], axis[:, None]


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in the ideal shape of area radius 1."""
    if shape == "circle":
        return x * x + y * y <= 1
    corners = np.asarray(POLYGONS[shape])
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    return np.logical_and.reduce([(b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0 for a, b in sides])


def _streak(rng: np.random.Generator) -> np.ndarray:
    """A disc drawn out along a line."""
    x, y = _grid()
    ratio, turn = rng.uniform(2.4, 4.0), rng.uniform(0, np.pi)
    thick = np.sqrt(np.pi / (np.pi + 4 * (ratio - 1)))
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.hypot(np.maximum(np.abs(along) - thick * (ratio - 1), 0), across) <= thick


def _blot(rng: np.random.Generator) -> np.ndarray:
    """A closed line that wobbles at random."""
    x, y = _grid()
    angle, reach = np.arctan2(y, x), np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for wave in range(1, 7):
        reach += rng.normal() * 0.9 / wave * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    reach = np.exp(np.clip(reach, -1.2, 0.8))
    return np.hypot(x, y) <= reach / np.sqrt(np.mean(reach**2))


def _bitten(rng: np.random.Generator, shape: str) -> np.ndarray:
    """The shape itself after one or two large bites."""
    x, y = _grid()
    whole = _inside(shape, x, y)
    for _ in range(int(rng.integers(1, 3))):
        turn, away, bite = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1), rng.uniform(0.55, 1.0)
        whole &= np.hypot(x - away * np.cos(turn), y - away * np.sin(turn)) > bite
    if whole.sum() < 0.25 * CELLS**2 * np.pi / (2 * REACH) ** 2:  # too little left to count as an object
        return _bitten(rng, shape)
    return whole


def _stamp(scene: Scene, size: Size, stencil: np.ndarray) -> np.ndarray:
    """The scene with the stencil in the place of its object."""
    (track,) = tracks(scene, shares(size.frames))
    cover = _cover(track, stencil, pixels_per_unit(scene, size.height, size.width), size)
    colour = np.asarray(COLOURS[scene.objects[0].colour]) * (NIGHT if scene.light == "night" else 1) * 255
    empty = size.render(replace(scene, objects=())).astype(np.float64)
    return (empty + cover[..., None] * (colour - empty) + 0.5).astype(np.uint8)


def _cover(track: Track, stencil: np.ndarray, scale: float, size: Size, fine: int = 4) -> np.ndarray:
    """How much of each pixel the stencil fills, counted at `fine` x `fine` points, f h w."""
    y = (np.arange(size.height * fine) + 0.5) / fine - size.height / 2
    x = (np.arange(size.width * fine) + 0.5) / fine - size.width / 2
    pictures = []
    for centre, radius in zip(track.centre * scale, track.radius * scale, strict=True):
        rows, columns = (np.floor((axis - middle) / radius * CELLS / (2 * REACH) + CELLS / 2) for axis, middle in ((y, centre[1]), (x, centre[0])))
        hit = np.ix_((rows >= 0) & (rows < CELLS), (columns >= 0) & (columns < CELLS))
        points = np.zeros((len(y), len(x)))
        points[hit] = stencil[np.ix_(rows[hit[0].ravel()].astype(int), columns[hit[1].ravel()].astype(int))]
        pictures.append(points.reshape(size.height, fine, size.width, fine).mean(axis=(1, 3)))
    return np.stack(pictures)
