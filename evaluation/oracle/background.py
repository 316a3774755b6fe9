"""Reads what lies behind the objects: light, plain colour or kind of pattern, and how each pixel differs from the background."""

from dataclasses import dataclass

import numpy as np

from data.world.vocabulary import COLOURS, NIGHT, OCCLUDER, PLAIN_BACKGROUNDS
from evaluation.oracle.segment import dilate

_GREY = np.full(3, 1 / 3, np.float32)
_OBJECTS = np.array(list(COLOURS.values()), np.float32)
# Median colours must lie this near to a palette colour; a VAE's colour error is about 0.02.
NAMED = 0.16
# A clip's background colour may wander by this much in a channel, no more.
STEADY = 0.1
# An object's pixel differs by more than this from a plain background, from a textured one by more than that in chroma.
PLAIN_CONTRAST = 0.2
CHROMA_CONTRAST = 0.16
# A texture varies the grey level by 0.07 to both sides in a quarter of the ground or more; averaged over 3x3, noise stays below LEVEL.
LEVEL = 0.03
TEXTURED = 0.12
# The world's weakest texture has a deviation of 0.02 after codec and autoencoder.
FAINT = 0.015


@dataclass(frozen=True, slots=True)
class Background:
    """What lies behind, and the video without it.

    `names` are what a claim may call it: a plain colour and "plain", or the kind of pattern; none where no name fits.
    `difference` is (t, h, w, 3), the video minus the background; over a texture its grey part, which the texture disturbs, is left out.
    `image` broadcasts to the video and is what `difference` was taken from.
    `strong` is bool (t, h, w): pixels that cannot be background. `post` is bool (t, w): columns that an occluder covers.
    `texture` is (t, h, w), the grey level around its mean, or None over plain ground and gradients.
    """

    names: tuple[str, ...]
    steady: bool
    image: np.ndarray
    difference: np.ndarray
    strong: np.ndarray
    post: np.ndarray
    texture: np.ndarray | None


def light(pixels: np.ndarray) -> str:
    """Day or night of a (t, h, w, 3) float video: under which of them do more pixels look like objects.

    Without any object, by the tint: at night what is grey looks blue.
    """
    some = pixels[::2, ::2, ::2].reshape(-1, 3)
    by_day, by_night = (_painted(some / np.asarray(factor, np.float32)) for factor in ((1, 1, 1), NIGHT))
    if by_day != by_night:
        return "night" if by_night > by_day else "day"
    red, _, blue = np.median(some, axis=0)
    return "night" if blue > 1.2 * red + 0.01 else "day"


def _painted(colours: np.ndarray) -> int:
    # |a - b|^2 = |a|^2 - 2 a b + |b|^2, a matrix product instead of a large difference.
    distance = (_OBJECTS**2).sum(1) - 2 * colours @ _OBJECTS.T
    return int((distance.min(1) + (colours**2).sum(1) < 0.15**2).sum())


def daylight(pixels: np.ndarray, name: str) -> np.ndarray:
    """The video as it would look by day."""
    return pixels if name == "day" else pixels / np.asarray(NIGHT, np.float32)


def read_background(pixels: np.ndarray) -> Background:
    """The background of a (t, h, w, 3) daylight video, told from the ring of pixels at the border."""
    post = find_post(pixels)
    ring, rows, columns = border(pixels)  # t n 3
    free = ~post[:, columns]  # t n
    colour = np.zeros((len(ring), 3), np.float32)
    for frame, seen in enumerate(free):
        if seen.any():
            colour[frame] = np.median(ring[frame, seen], axis=0)
    slope = _plane(ring, free, rows, columns)
    if slope is not None:
        return _over_gradient(pixels, post, slope)
    off = np.sqrt(squared(ring - colour[:, None]))
    if np.median(off) < 0.15 and _varied(pixels, colour, post) > TEXTURED:
        return _over_texture(pixels, post, ring, free)
    whole = np.median(colour, axis=0)
    name = nearest(whole, PLAIN_BACKGROUNDS, NAMED)
    near = (off < 0.15) | ~free
    plain = bool(np.median(near.mean(1)) > 0.7)
    names = (name, "plain") if name is not None and plain else ()
    difference = pixels - colour[:, None, None]
    strong = squared(difference) > PLAIN_CONTRAST**2
    return Background(names, _steady(colour, whole), colour[:, None, None], difference, strong & ~post[:, None], post, None)


def squared(difference: np.ndarray) -> np.ndarray:
    """Squared length over the last axis; einsum, as numpy's own sum over three numbers is ten times slower."""
    return np.einsum("...c,...c->...", difference, difference)


def _varied(pixels: np.ndarray, colour: np.ndarray, post: np.ndarray) -> float:
    # The share of the ground that is lighter or darker than its base, from every fourth frame.
    full = pixels[::4] - colour[::4, None, None]
    grey = full @ _GREY
    object_ = squared(full - grey[..., None]) > CHROMA_CONTRAST**2
    hidden = dilate(object_ | (np.abs(grey) > 0.3) | post[::4, None], 2)
    ground = average(grey)[~hidden]
    return float((np.abs(ground - np.median(ground)) > LEVEL).mean()) if ground.size > hidden.size // 10 else 0.0


def average(image: np.ndarray) -> np.ndarray:
    """Each pixel of a (t, h, w) image averaged with its eight neighbours."""
    for axis in (1, 2):
        image = (np.roll(image, 1, axis) + image + np.roll(image, -1, axis)) / 3
    return image


def _steady(colour: np.ndarray, whole: np.ndarray) -> bool:
    return float(np.abs(colour - whole).max()) < STEADY


def _plane(ring: np.ndarray, free: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
    # A gradient is linear over the frame: (3, 3) coefficients of 1, x, y if the ring of all frames agrees with one, else None.
    colour = np.median(np.where(free[..., None], ring, np.median(ring, axis=1, keepdims=True)), axis=0)  # n 3
    basis = np.stack([np.ones(len(rows)), columns, rows], 1)
    seen = free.mean(0) > 0.5
    fitted = np.linalg.lstsq(basis[seen], colour[seen], rcond=None)[0]
    predicted = basis @ fitted
    error = np.sqrt(((colour - predicted)[seen] ** 2).mean())
    span = np.linalg.norm(predicted.max(0) - predicted.min(0))
    return fitted if span > 0.25 and error < 0.2 * span and error < 0.06 else None


def _over_gradient(pixels: np.ndarray, post: np.ndarray, fitted: np.ndarray) -> Background:
    frames, height, width = pixels.shape[:3]
    x, y = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    image = (fitted[0] + x * fitted[1] + y * fitted[2]).astype(np.float32)[None]
    difference = pixels - image
    strong = squared(difference) > PLAIN_CONTRAST**2
    ring = border(difference)[0]
    steady = _steady(np.median(ring, axis=1), np.zeros(3))
    return Background(("gradient",), steady, np.broadcast_to(image, (frames, height, width, 3)), difference, strong & ~post[:, None], post, None)


def _over_texture(pixels: np.ndarray, post: np.ndarray, ring: np.ndarray, free: np.ndarray) -> Background:
    base = np.stack([frame[seen].mean(0) if seen.any() else frame.mean(0) for frame, seen in zip(ring, free, strict=True)])  # t 3
    full = pixels - base[:, None, None]
    grey = full @ _GREY
    difference = full - grey[..., None]
    strong = (squared(difference) > CHROMA_CONTRAST**2) | (np.abs(grey) > 0.3)
    strong &= ~post[:, None]
    whole = np.median(base, axis=0)
    name = nearest(whole, PLAIN_BACKGROUNDS, NAMED)
    texture = np.where(strong | post[:, None], 0, grey)
    faint = average(texture)[~dilate(strong | post[:, None], 2)].std() < FAINT
    # Unevenness that hardly shows is a plain background's; a texture is none, whatever its base colour.
    names = ((name, "plain") if name is not None else ()) if faint else (_kind(texture, strong | post[:, None]),)
    return Background(names, _steady(base, whole), base[:, None, None], difference, strong, post, texture)


def _kind(texture: np.ndarray, hidden: np.ndarray) -> str:
    # Speckles leave most of the ground at its base level; stripes have edges in one direction, checks in two.
    shown = ~hidden
    levels = average(texture)[shown]
    middle = np.median(levels)
    if max((levels > middle + 0.025).mean(), (levels < middle - 0.025).mean()) < 0.3:
        return "speckles"
    both = shown[:, 1:-1, 1:-1] & shown[:, 1:-1, 2:] & shown[:, 2:, 1:-1] & shown[:, 1:-1, :-2] & shown[:, :-2, 1:-1]
    across = np.where(both, texture[:, 1:-1, 2:] - texture[:, 1:-1, :-2], 0)
    down = np.where(both, texture[:, 2:, 1:-1] - texture[:, :-2, 1:-1], 0)
    xx, yy, xy = (across**2).sum(), (down**2).sum(), (across * down).sum()
    return "stripes" if np.hypot(xx - yy, 2 * xy) > 0.6 * (xx + yy) else "checks"


def find_post(pixels: np.ndarray) -> np.ndarray:
    """Columns that are filled with the occluder's colour from top to bottom: bool (t, w)."""
    wide = max(1, pixels.shape[2] // 64)
    pink = squared(pixels - np.asarray(OCCLUDER, np.float32)) < 0.2**2
    post = pink.mean(1) > 0.85
    for _ in range(wide):  # its rim is a mixture
        post = post | np.pad(post, ((0, 0), (1, 0)))[:, :-1] | np.pad(post, ((0, 0), (0, 1)))[:, 1:]
    return post


def border(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The outermost pixels of every frame, (t, n, 3), and their rows and columns."""
    height, width = pixels.shape[1:3]
    wide = max(1, min(height, width) // 24)
    inner = np.zeros((height, width), bool)
    inner[wide:-wide, wide:-wide] = True
    rows, columns = np.nonzero(~inner)
    return pixels[:, rows, columns], rows, columns


def nearest(colour: np.ndarray, palette: dict[str, tuple[float, float, float]], limit: float) -> str | None:
    """The name of the nearest palette colour, if it is within `limit` and clearly nearer than the second."""
    distances = sorted((float(np.linalg.norm(colour - np.asarray(value))), name) for name, value in palette.items())
    (first, name), (second, _) = distances[:2]
    return name if first < limit and first < 0.7 * second else None
