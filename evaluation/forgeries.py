"""Videos that only pretend to do what a claim says, to test the oracle; painted here, so that a fault of the renderer cannot hide one here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from data.world.vocabulary import COLOURS, DIRECTIONS, EASY_MOTIONS, PLAIN_BACKGROUNDS, SHAPES, Attributes, Claim
from runtime.seeding import Stream, generator

Coverage = np.ndarray  # (t, h, w) float32 in [0, 1]


@dataclass(frozen=True, slots=True)
class Forgery:
    """`kind` says what is wrong with the video, `claim` what it pretends to be."""

    kind: str
    video: np.ndarray  # uint8 t h w 3
    claim: Claim


@dataclass(slots=True)
class Sketch:
    """An honest clip before it is spoilt: what is where, in pixels."""

    shape: str
    colour: str
    motion: str
    background: str
    place: np.ndarray  # t 2, (x, y)
    radius: np.ndarray  # t, area radius
    size: int

    @property
    def claim(self) -> Claim:
        return Claim((Attributes(self.shape, self.colour, self.motion),), self.background)

    def cover(self) -> Coverage:
        return cover(self.shape, self.place, self.radius, self.size)

    def video(self, alpha: Coverage | None = None, colours: np.ndarray | None = None, ground: np.ndarray | None = None) -> np.ndarray:
        """Paint; `colours` and `ground` are (t, 3) where they differ from the sketch's own."""
        alpha = self.cover() if alpha is None else alpha
        over = np.broadcast_to(COLOURS[self.colour], (len(alpha), 3)) if colours is None else colours
        under = np.broadcast_to(PLAIN_BACKGROUNDS[self.background], (len(alpha), 3)) if ground is None else ground
        return to_bytes(under[:, None, None] + alpha[..., None] * (over - under)[:, None, None])


def to_bytes(video: np.ndarray) -> np.ndarray:
    return (np.clip(video, 0, 1) * 255 + 0.5).astype(np.uint8)


def cover(shape: str, place: np.ndarray, radius: np.ndarray, size: int, rounding: float = 0.0) -> Coverage:
    """Coverage by signed distance. `rounding` is the corner radius of a square as a share of half its side."""
    y, x = np.mgrid[:size, :size] + 0.5
    x, y, r = x - place[:, 0, None, None], y - place[:, 1, None, None], radius[:, None, None]
    if shape == "circle":
        distance = np.hypot(x, y) - r
    elif shape == "square":
        # The corners lost by rounding are given back as size: area 4 s^2 - (4 - pi) k^2 s^2.
        half = r * np.sqrt(np.pi / (4 - (4 - np.pi) * rounding**2))
        corner = rounding * half
        across, down = np.abs(x) - half + corner, np.abs(y) - half + corner
        distance = np.hypot(np.maximum(across, 0), np.maximum(down, 0)) + np.minimum(np.maximum(across, down), 0) - corner
    else:
        distance = np.maximum(y, np.abs(x) * np.sqrt(0.75) - y / 2) - r * np.sqrt(np.pi / np.sqrt(27))
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws the honest clip that a kind spoils."""

    rng: np.random.Generator
    frames: int
    size: int

    def sketch(self, motion: str | None = None) -> Sketch:
        """An honest easy clip."""
        rng, frames = self.rng, self.frames
        motion = str(rng.choice(EASY_MOTIONS)) if motion is None else motion
        share = np.linspace(-0.5, 0.5, frames)[:, None]
        middle = 0.5 + rng.uniform(-0.04, 0.04, 2)
        radius = np.full(frames, rng.uniform(0.13, 0.18))
        place = np.broadcast_to(middle, (frames, 2)).copy()
        if motion in DIRECTIONS:
            place += share * np.asarray(DIRECTIONS[motion]) * rng.uniform(0.36, 0.42)
        else:
            radius = 0.18 * np.exp((1 if motion == "grow" else -1) * share[:, 0] * rng.uniform(0.65, 0.78))
        shape, colour, ground = (str(rng.choice(list(words))) for words in (SHAPES, COLOURS, PLAIN_BACKGROUNDS))
        return Sketch(shape, colour, motion, ground, place * self.size, radius * self.size, self.size)


def blurred(alpha: Coverage, sigma_px: np.ndarray) -> Coverage:
    """Gaussian blur of each frame by its own sigma, in the frequency domain (the frame wraps around, objects stay off its edge)."""
    along = np.fft.fftfreq(alpha.shape[1])[:, None] ** 2 + np.fft.rfftfreq(alpha.shape[2])[None] ** 2
    kernel = np.exp(-2 * np.pi**2 * along * sigma_px[:, None, None] ** 2)
    return np.fft.irfft2(np.fft.rfft2(alpha) * kernel, s=alpha.shape[1:]).astype(np.float32)


def _other(rng: np.random.Generator, words: object, but: str) -> str:
    return str(rng.choice([word for word in words if word != but]))  # type: ignore[attr-defined]


def _parts(frames: int, cut: int, first: object, second: object) -> np.ndarray:
    return np.where(np.arange(frames)[:, None] < cut, np.asarray(first), np.asarray(second))


def blob(draw: Draw) -> Forgery:
    """So soft that no outline is left."""
    s = draw.sketch()
    return Forgery("blob", s.video(np.clip(1.2 * blurred(s.cover(), s.radius * draw.rng.uniform(0.45, 0.8)), 0, 1)), s.claim)


def trail(draw: Draw) -> Forgery:
    """A smear that drags its past behind it."""
    s = draw.sketch(str(draw.rng.choice(list(DIRECTIONS))))
    alpha, trace = s.cover(), np.zeros((s.size, s.size), np.float32)
    keep = draw.rng.uniform(0.82, 0.95)
    result = []
    for frame in alpha:
        trace = np.maximum(frame, keep * trace)
        result.append(trace)
    return Forgery("trail", s.video(np.stack(result)), s.claim)


def dented(draw: Draw) -> Forgery:
    """A bite is missing; what is left overlaps with the ideal by less than about 0.75."""
    s = draw.sketch()
    angle = draw.rng.uniform(0, 2 * np.pi)
    bite = s.place + (s.radius * 0.75)[:, None] * [np.cos(angle), np.sin(angle)]
    hole = cover("circle", bite, s.radius * draw.rng.uniform(0.5, 0.85), s.size)
    return Forgery("dented", s.video(s.cover() * (1 - hole)), s.claim)


def ring(draw: Draw) -> Forgery:
    """An outline, or a shape with a hole."""
    s = draw.sketch()
    return Forgery("ring", s.video(s.cover() * (1 - cover(s.shape, s.place, s.radius * draw.rng.uniform(0.6, 0.8), s.size))), s.claim)


def between(draw: Draw) -> Forgery:
    """A square so rounded that it is as near to a circle."""
    s = draw.sketch()
    s.shape = str(draw.rng.choice(["circle", "square"]))
    return Forgery("between", s.video(cover("square", s.place, s.radius, s.size, draw.rng.uniform(0.60, 0.68))), s.claim)


def stretched(draw: Draw) -> Forgery:
    """Nearly twice as long as wide."""
    s = draw.sketch()
    factor = draw.rng.uniform(1.35, 1.5)
    wide = s.place * [1 / factor, factor]
    y, x = (np.mgrid[: s.size, : s.size] + 0.5) * np.array([factor, 1 / factor])[:, None, None]
    radius = s.radius[:, None, None]
    dx, dy = x - wide[:, 0, None, None], y - wide[:, 1, None, None]
    if s.shape == "circle":
        distance = np.hypot(dx, dy) - radius
    elif s.shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - radius * np.sqrt(np.pi) / 2
    else:
        distance = np.maximum(dy, np.abs(dx) * np.sqrt(0.75) - dy / 2) - radius * np.sqrt(np.pi / np.sqrt(27))
    return Forgery("stretched", s.video(np.clip(0.5 - distance, 0, 1).astype(np.float32)), s.claim)


def morphing(draw: Draw) -> Forgery:
    """Another shape from the middle on."""
    s = draw.sketch()
    alpha, other = s.cover(), cover(_other(draw.rng, SHAPES, s.shape), s.place, s.radius, s.size)
    half = len(alpha) // 2
    return Forgery("morphing", s.video(np.concatenate([alpha[:half], other[half:]])), s.claim)


def wrong(draw: Draw) -> Forgery:
    """One attribute is another."""
    s = draw.sketch()
    one = s.claim.objects[0]
    field = str(draw.rng.choice(["shape", "colour", "motion", "background"]))
    words = {"shape": SHAPES, "colour": COLOURS, "motion": EASY_MOTIONS, "background": PLAIN_BACKGROUNDS}[field]
    false = {field: _other(draw.rng, words, getattr(s, field))}
    claim = Claim(
        (Attributes(false.get("shape", one.shape), false.get("colour", one.colour), false.get("motion", one.motion)),),
        false.get("background", s.background),
    )
    return Forgery(f"wrong {field}", s.video(), claim)


def frozen(draw: Draw) -> Forgery:
    """Stands still all along, or from the middle on, or until then."""
    s = draw.sketch()
    frames = np.arange(len(s.place))
    half = len(frames) // 2
    use = [np.zeros_like(frames), np.minimum(frames, half), np.maximum(frames, half)][draw.rng.integers(3)]
    s.place, s.radius = s.place[use], s.radius[use]
    return Forgery("frozen", s.video(), s.claim)


def creeping(draw: Draw) -> Forgery:
    """Moves the right way, but by next to nothing."""
    s = draw.sketch()
    little = draw.rng.uniform(0.1, 0.25)
    s.place = s.place.mean(0) + little * (s.place - s.place.mean(0))
    s.radius = np.exp(np.log(s.radius).mean() + little * (np.log(s.radius) - np.log(s.radius).mean()))
    return Forgery("creeping", s.video(), s.claim)


def returning(draw: Draw) -> Forgery:
    """Goes there and back."""
    s = draw.sketch()
    frames = np.arange(draw.frames)
    use = 2 * np.minimum(frames, frames[::-1])
    s.place, s.radius = s.place[use], s.radius[use]
    return Forgery("returning", s.video(), s.claim)


def shuffled(draw: Draw) -> Forgery:
    """The frames in a wrong order."""
    s = draw.sketch()
    order = draw.rng.permutation(len(s.place))
    s.place, s.radius = s.place[order], s.radius[order]
    return Forgery("shuffled", s.video(), s.claim)


def jumping(draw: Draw) -> Forgery:
    """Most of the way in one step."""
    s = draw.sketch()
    share = np.linspace(0, 1, len(s.place))
    eased = 0.35 * share + 0.65 * (share > draw.rng.uniform(0.3, 0.7))
    place, size = s.place, np.log(s.radius)
    s.place = place[0] + eased[:, None] * (place[-1] - place[0])
    s.radius = np.exp(size[0] + eased * (size[-1] - size[0]))
    return Forgery("jumping", s.video(), s.claim)


def flickering(draw: Draw) -> Forgery:
    """Gone in a quarter of the frames or more."""
    s = draw.sketch()
    there = np.ones(len(s.place), bool)
    there[draw.rng.choice(len(there), draw.rng.integers(5, 9), replace=False)] = False
    return Forgery("flickering", s.video(s.cover() * there[:, None, None]), s.claim)


def pulsing(draw: Draw) -> Forgery:
    """Its size jumps up and down."""
    s = draw.sketch()
    s.radius = s.radius * np.where(draw.rng.random(len(s.radius)) < 0.5, 0.72, 1.1)
    return Forgery("pulsing", s.video(), s.claim)


def vanishing(draw: Draw) -> Forgery:
    """There in one half of the clip only, or fading away."""
    s = draw.sketch()
    share = np.linspace(0, 1, len(s.place))
    there = [share < 0.5, share > 0.5, np.clip(1.4 - 1.6 * share, 0, 1)][draw.rng.integers(3)].astype(np.float32)
    return Forgery("vanishing", s.video(s.cover() * there[:, None, None]), s.claim)


def recoloured(draw: Draw) -> Forgery:
    """Another colour from the middle on, or turning into it."""
    s = draw.sketch()
    first, second = (np.asarray(COLOURS[name]) for name in (s.colour, _other(draw.rng, COLOURS, s.colour)))
    share = np.linspace(0, 1, len(s.place))[:, None]
    mix = share if draw.rng.random() < 0.3 else (share > 0.5)
    return Forgery("recoloured", s.video(colours=first + mix * (second - first)), s.claim)


def moving_ground(draw: Draw) -> Forgery:
    """Another background from some frame on."""
    s = draw.sketch()
    ground = _parts(
        len(s.place),
        int(draw.rng.integers(4, len(s.place) - 3)),
        PLAIN_BACKGROUNDS[s.background],
        PLAIN_BACKGROUNDS[_other(draw.rng, PLAIN_BACKGROUNDS, s.background)],
    )
    return Forgery("moving ground", s.video(ground=ground), s.claim)


def company(draw: Draw) -> Forgery:
    """A second object that nobody claimed."""
    s = draw.sketch(str(draw.rng.choice(["up", "down"])))
    s.place = s.place * [0.5, 1] + [0.02 * s.size, 0]
    s.radius = s.radius * 0.8
    other = cover(str(draw.rng.choice(SHAPES)), s.place[::-1] * [-1, 1] + [s.size, 0], s.radius, s.size)
    over = np.asarray(COLOURS[str(draw.rng.choice(list(COLOURS)))])
    video = s.video() / 255
    return Forgery("company", to_bytes(video + other[..., None] * (over - video)), s.claim)


def swapped(draw: Draw) -> Forgery:
    """Two objects, with one attribute exchanged between them."""
    first, second = draw.sketch(str(draw.rng.choice(["up", "down", "grow"]))), draw.sketch(str(draw.rng.choice(["up", "down", "shrink"])))
    while second.shape == first.shape or second.colour == first.colour or second.motion == first.motion:
        second = draw.sketch(str(draw.rng.choice(["up", "down", "shrink"])))
    first.place, second.place = first.place * [0.5, 1] + [0.02 * first.size, 0], second.place * [0.5, 1] + [0.48 * second.size, 0]
    first.radius, second.radius = first.radius * 0.75, second.radius * 0.75
    base = first.video() / 255
    video = to_bytes(base + second.cover()[..., None] * (np.asarray(COLOURS[second.colour]) - base))
    one, two = first.claim.objects[0], second.claim.objects[0]
    field = str(draw.rng.choice(["shape", "colour", "motion"]))
    a, b = [one.shape, one.colour, one.motion], [two.shape, two.colour, two.motion]
    place = ["shape", "colour", "motion"].index(field)
    a[place], b[place] = b[place], a[place]
    return Forgery(f"swapped {field}", video, Claim((Attributes(*a), Attributes(*b)), first.background))


def nothing(draw: Draw) -> Forgery:
    """Noise, coarse noise, or an empty background."""
    s = draw.sketch()
    choice = draw.rng.integers(3)
    if choice == 0:
        video = draw.rng.integers(0, 256, (draw.frames, s.size, s.size, 3), dtype=np.uint8)
    elif choice == 1:
        video = draw.rng.integers(0, 256, (draw.frames, s.size // 8, s.size // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    else:
        video = s.video(np.zeros((draw.frames, s.size, s.size), np.float32))
    return Forgery("nothing", video, s.claim)


KINDS: tuple[Callable[[Draw], Forgery], ...] = (
    blob, trail, dented, ring, between, stretched, morphing, wrong, frozen, creeping, returning, shuffled, jumping, flickering, pulsing,
    vanishing, recoloured, moving_ground, company, swapped, nothing,
)  # fmt: skip


def forgeries(count: int, seed: int = 0, frames: int = 17, size: int = 64) -> Iterator[Forgery]:
    """`count` forgeries, all kinds in turn: a function of (seed, place)."""
    for place in range(count):
        yield KINDS[place % len(KINDS)](Draw(generator(seed, Stream.WORLD, place, len(KINDS)), frames, size))
