"""Follows the objects through the clip: which pixels are whose, and what each object looks like and does."""

from dataclasses import dataclass, replace

import numpy as np

from data.world.vocabulary import COLOURS, SHAPES
from evaluation.oracle.background import Background, nearest, squared
from evaluation.oracle.camera import CameraPath
from evaluation.oracle.motion import name_motion, slope
from evaluation.oracle.occlusion import LEAST_SEEN, complete, lasting_area
from evaluation.oracle.segment import Region, coverage, dilate, regions
from evaluation.oracle.shapes import Fit, fit

# An object's colour must lie this near to a named one; the named ones are at least 0.5 apart.
COLOUR_WITHIN = 0.3
# Smaller regions are no objects: 10 pixels of a 64 x 64 frame.
LEAST_SHARE = 0.0025
# A colour is an object's if it is seen in this share of the frames.
LASTING = 0.4
# Where a part is hidden, the place counts if the rest agrees with the shape this well.
LEAST_AGREEMENT = 0.75
# In so many frames an object must be seen whole for its size to be read from them.
LEAST_WHOLE = 4
_NAMES = tuple(COLOURS)
_PALETTE = np.array([COLOURS[name] for name in _NAMES], np.float32)
_OTHER = len(_NAMES)


@dataclass(frozen=True, slots=True)
class Track:
    """One object through the clip; per-frame fields are (t, ...) and mean nothing where `found` is False."""

    found: np.ndarray  # t, bool
    whole: np.ndarray  # t, bool: found, and touched by no other object and no post
    placed: np.ndarray  # t, bool: place and area are certain: whole, or what is seen of it leaves no doubt
    colours: tuple[str | None, ...]  # t: the nearest named colour, None where none is near
    fit: Fit
    radius: np.ndarray  # t: area radius in pixels, as a camera that stands still would see it
    at_edge: np.ndarray  # t: how many pixels along the picture's edge it fills by more than half
    motion: str | None


@dataclass(slots=True)
class Piece:
    """The part of one region that has one colour."""

    colour: int
    region: Region
    mask: np.ndarray | None  # h w; None: the whole region
    area: int


def read_tracks(pixels: np.ndarray, ground: Background, camera: CameraPath) -> tuple[tuple[Track, ...], np.ndarray]:
    """All objects, and how many were seen in each frame.

    Args:
        pixels: (t, h, w, 3) in daylight.
    """
    frames, height, width = pixels.shape[:3]
    least_px = max(3, round(LEAST_SHARE * height * width))
    found = regions(ground.strong, least_px)
    if sum(map(len, found)) > 12 * frames:  # noise, no scene
        return (), np.array([len(frame) for frame in found])
    pieces = [_joined([piece for region in frame for piece in split(pixels, ground, region, least_px)]) for frame in found]
    if ground.post.any():
        pieces = [[piece for piece in frame if not _sliver(piece, ground.post)] for frame in pieces]
    counts = np.array([_count(frame, bool(ground.post.any())) for frame in pieces])
    lasting = [colour for colour in range(_OTHER + 1) if np.mean([any(p.colour == colour for p in frame) for frame in pieces]) >= LASTING]
    masks = []
    if np.median(counts) <= 1:
        # One object: its largest region, whatever its colour does.
        masks.append(_chain(pixels.shape[:3], [_largest(frame, bool(ground.post.any())) for frame in pieces]))
    else:
        for colour in lasting:
            masks.append(_gather(pixels.shape[:3], pieces, colour))
    if not any(mask.any((1, 2)).mean() > 0.25 for mask in masks):
        return (), counts
    tracks = [_track(pixels, ground, camera, mask, [other for other in masks if other is not mask]) for mask in masks]
    return tuple(tracks), counts


def split(pixels: np.ndarray, ground: Background, region: Region, least_px: int) -> list[Piece]:
    """A region by colour: objects of unlike colours may touch. Each pixel goes to the nearest colour that is well represented."""
    rows, columns = region.pixels()
    colours = pixels[region.frame, rows, columns]
    distance = squared(colours[:, None] - _PALETTE)  # n k
    best = distance.argmin(1)
    close = distance[np.arange(len(best)), best] < COLOUR_WITHIN**2 / 2
    amounts = np.bincount(best[close], minlength=_OTHER)
    present = np.flatnonzero(amounts >= max(least_px, 0.08 * len(best)))
    if len(present) == 0:
        return [Piece(_OTHER, region, None, len(best))]
    if len(present) == 1:
        colour = int(present[0]) if amounts[present[0]] > 0.25 * len(best) else _OTHER
        return [Piece(colour, region, None, len(best))]
    owner = present[distance[:, present].argmin(1)]
    result = []
    for colour in present:
        mask = np.zeros(pixels.shape[1:3], bool)
        mask[rows[owner == colour], columns[owner == colour]] = True
        result.append(Piece(int(colour), region, mask, int((owner == colour).sum())))
    return sorted(result, key=lambda piece: -piece.area)


def _joined(pieces: list[Piece]) -> list[Piece]:
    # Half-resolution chroma can part a line of rim pixels, of no named colour, from its object: it is given back.
    kept: list[Piece] = []
    for piece in pieces:
        owner = next((one for one in kept if one.mask is None and piece.area < 0.2 * one.area and one.region.touches(piece.region, 2)), None)
        if piece.colour == _OTHER and piece.mask is None and owner is not None:
            owner.region = owner.region.joined(piece.region)
            owner.area += piece.area
        else:
            kept.append(piece)
    return kept


def _sliver(piece: Piece, post: np.ndarray) -> bool:
    # The post's own rim, of no named colour, where the codec smeared it.
    columns = post[piece.region.frame, max(0, piece.region.starts.min() - 2) : piece.region.stops.max() + 2]
    return piece.colour == _OTHER and bool(columns.any())


def _count(pieces: list[Piece], parted: bool) -> int:
    # A post may part an object in two, so pieces of one colour are one object where a post stands.
    return len({piece.colour for piece in pieces}) if parted else len(pieces)


def _largest(pieces: list[Piece], parted: bool) -> Region | None:
    # The largest piece, where a post stands with the pieces of its colour on the other side.
    if not pieces:
        return None
    first = max(pieces, key=lambda piece: piece.area)
    region = first.region
    for other in pieces if parted else ():
        if other is not first and other.colour == first.colour and other.region is not region:
            region = region.joined(other.region)
    return region


def _chain(shape: tuple[int, ...], chain: list[Region | None]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for region in chain:
        if region is not None:
            region.paint(mask)
    return mask


def _gather(shape: tuple[int, ...], pieces: list[list[Piece]], colour: int) -> np.ndarray:
    # All pieces of a colour: a post or another object in front may part it.
    mask = np.zeros(shape, bool)
    for frame, several in enumerate(pieces):
        for piece in several:
            if piece.colour != colour:
                continue
            if piece.mask is None:
                piece.region.paint(mask)
            else:
                mask[frame] |= piece.mask
    return mask


def _track(pixels: np.ndarray, ground: Background, camera: CameraPath, own: np.ndarray, others: list[np.ndarray]) -> Track:
    frames, height, width = pixels.shape[:3]
    found: np.ndarray = own.max((1, 2))
    names, contrast = _colours(pixels, ground, own, found)
    near, around = dilate(own, 1), dilate(own, 2)
    hidden = np.zeros_like(own)
    if ground.post.any():
        hidden |= dilate(np.broadcast_to(ground.post[:, None], own.shape), 1)
    for other in others:
        hidden |= dilate(other, 1) & ~own
    blocked = (near & hidden).max((1, 2))
    alpha = coverage(ground.difference, contrast) * (around & (own | ~hidden))
    shape = fit(alpha)
    whole = found & ~blocked
    magnification = camera.magnification(frames)
    used = whole
    if (found & blocked).any():
        trend, used = None, whole.copy()
        if ground.post.any() and not others and whole.sum() < LEAST_WHOLE and not np.ptp(magnification):
            trend = lasting_area(alpha[found], hidden[found], shape.centroid[found])
        if trend is None:
            trend, intact = _trend(shape.area / magnification**2, found, whole)
            used |= intact
        guessed = found & ~used
        shape, placed = _completed(shape, alpha, hidden, trend * magnification**2, guessed, used)
        used |= placed
    area = shape.area / magnification**2
    motion = None
    if used.any():
        place = camera.to_world(shape.centroid, height, width)
        times = np.flatnonzero(used) / max(1, frames - 1)
        motion = name_motion(times, place[used], area[used], _unwrapped(shape, used), min(height, width))
    return Track(found, whole, used, names, shape, np.sqrt(area / np.pi), _at_edge(alpha), motion)


def _at_edge(alpha: np.ndarray) -> np.ndarray:
    # (t,): where two sides meet, the corner pixel counts once.
    filled = alpha > 0.5
    return filled[:, [0, -1]].sum((1, 2)) + filled[:, 1:-1, [0, -1]].sum((1, 2))


def _colours(pixels: np.ndarray, ground: Background, own: np.ndarray, found: np.ndarray) -> tuple[tuple[str | None, ...], np.ndarray]:
    # The name of the object's colour in each frame, and how it differs from the background: (t, 3).
    names: list[str | None] = [None] * len(own)
    contrast = np.zeros((len(own), 3), np.float32)
    for frame in np.flatnonzero(found):
        inside = ground.difference[frame][own[frame]]
        strength = squared(inside)
        # The stronger half: the rim is a mixture with the background.
        strong = strength >= np.median(strength)
        contrast[frame] = np.median(inside[strong], axis=0)
        names[frame] = nearest(np.median(pixels[frame][own[frame]][strong], axis=0), COLOURS, COLOUR_WITHIN)
    return tuple(names), contrast


def _trend(area: np.ndarray, found: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # The area that the object would have with nothing before it, and the frames in which it has it.
    size = np.log(np.maximum(area, 1))
    level = np.quantile(size[found], 0.85)
    close = found & (np.abs(size - level) < 0.1)
    # What grows or shrinks passes a level in three frames of 17; a cover that comes or goes must not look like growth.
    if close.sum() >= max(4, 0.25 * found.sum()):
        return np.full(len(area), np.exp(np.median(size[close]))), close
    times = np.arange(len(area))
    trend, close = size, whole if whole.sum() >= 3 else found
    for _ in range(2):
        chosen = np.flatnonzero(close)
        if len(chosen) < 2:
            break
        rate = slope(chosen, size[chosen][:, None])[0]
        trend = np.quantile(size[chosen] - rate * chosen, 0.7) + rate * times
        close = found & (np.abs(size - trend) < 0.12)
    return np.exp(trend), close


def _completed(shape: Fit, alpha: np.ndarray, hidden: np.ndarray, area: np.ndarray, guessed: np.ndarray, used: np.ndarray) -> tuple[Fit, np.ndarray]:
    # Place, area and overlaps in the frames in which a part is hidden, and in which of them the place is certain.
    frames = np.flatnonzero(guessed)
    found = complete(alpha[frames], hidden[frames], area[frames], shape.centroid[frames])
    column = int(np.argmax(np.concatenate([shape.upright[used], found.overlap]).mean(0)))
    certain = (found.overlap[:, column] >= LEAST_AGREEMENT) & (found.seen[:, column] >= LEAST_SEEN)
    upright, centroid, areas = shape.upright.copy(), shape.centroid.copy(), shape.area.copy()
    upright[frames] = np.where(found.seen >= 0.5, found.overlap, 0)
    centroid[frames[certain]] = found.centroid[certain, column]
    areas[frames[certain]] = area[frames[certain]]
    placed = np.zeros_like(guessed)
    placed[frames[certain]] = True
    return replace(shape, upright=upright, centroid=centroid, area=areas), placed


def _unwrapped(shape: Fit, used: np.ndarray) -> np.ndarray:
    # The angle of the best fitting shape over the used frames; 0 for a circle, whose turning cannot be seen.
    name = SHAPES[int(np.argmax(np.bincount(np.argmax(shape.turned[used], 1), minlength=len(SHAPES))))]
    if name == "circle":
        return np.zeros(int(used.sum()))
    order = 3 if name == "triangle" else 4
    return np.unwrap(shape.angle[used, order - 3], period=2 * np.pi / order)
