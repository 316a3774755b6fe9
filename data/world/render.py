"""Scenes to pixels: analytic coverage, so edges are antialiased at any size, and no randomness, so the same scene is the same video."""

import numpy as np

from data.world.scene import Background, Body, Clip, Scene, Track, magnification, pixels_per_unit, shots, tracks, viewpoint
from data.world.vocabulary import COLOURS, NIGHT, OCCLUDER, PLAIN_BACKGROUNDS

# How far a texture's tones lie from its base colour: plain enough to tell from objects, strong enough for H.264 to keep.
CONTRAST = 0.07


def render(clip: Clip, frames: int, height: int, width: int) -> np.ndarray:
    """The clip as uint8 RGB, frames height width 3.

    Args:
        frames: >= 1, spread evenly over the clip, first and last moment included; the fps only says how fast to play them.
    """
    return np.concatenate([_pictures(scene, share, height, width) for scene, share in shots(clip, frames)])


def masks(clip: Clip, frames: int, height: int, width: int) -> np.ndarray:
    """How much of each pixel each object fills as seen: behind other objects and the post it fills less. Float32, objects frames h w."""
    return np.concatenate([masks_at(scene, share, height, width) for scene, share in shots(clip, frames)], axis=1)


def _pictures(scene: Scene, share: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = pixels_per_unit(scene, height, width)
    picture = np.empty((len(share), height, width, 3), np.float32)
    picture[:] = _background(scene, share, height, width)
    for body, track in zip(scene.objects, tracks(scene, share), strict=True):
        _paint(picture, _coverage(body, track, scale, height, width), COLOURS[body.colour])
    post = _post(scene, share, scale, width)
    if post is not None:
        _paint(picture, np.broadcast_to(post, picture.shape[:-1]), OCCLUDER)
    if scene.light == "night":
        picture *= np.asarray(NIGHT, np.float32)
    picture *= 255
    picture += 0.5  # the conversion below cuts off
    return picture.astype(np.uint8)


def masks_at(scene: Scene, share: np.ndarray, height: int, width: int) -> np.ndarray:
    """The masks of one scene at moments of one's own choice."""
    scale, shape = pixels_per_unit(scene, height, width), (len(share), height, width)
    post = _post(scene, share, scale, width)
    free = np.ones(shape, np.float32) if post is None else np.broadcast_to(1 - post, shape)
    seen = []
    for body, track in reversed(list(zip(scene.objects, tracks(scene, share), strict=True))):
        cover = _coverage(body, track, scale, height, width)
        seen.append(cover * free)
        free = free * (1 - cover)
    return np.stack(seen[::-1])


def _paint(picture: np.ndarray, cover: np.ndarray, colour: tuple[float, float, float]) -> None:
    rows, columns = np.flatnonzero(cover.max(axis=(0, 2))), np.flatnonzero(cover.max(axis=(0, 1)))
    if not len(rows):
        return
    window = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part = picture[window]
    part += cover[window][..., None] * (np.asarray(colour, np.float32) - part)


def _axes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres as distances from the centre of the picture: a row of x and a column of y, in pixels."""
    x = np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2)
    y = np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2)
    return x[None, None, :], y[None, :, None]


def _coverage(body: Body, track: Track, scale: float, height: int, width: int) -> np.ndarray:
    """The share of each pixel inside the shape, float32 f h w: half a pixel from the edge it has fallen to 0 or risen to 1."""
    x, y = _axes(height, width)
    centre = (track.centre * scale).astype(np.float32)
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]  # f 1 w, f h 1
    radius = (track.radius * scale).astype(np.float32)[:, None, None]
    if body.shape == "circle":
        return np.clip(radius + np.float32(0.5) - np.sqrt(dx * dx + dy * dy), 0, 1)
    if body.shape == "square" and not np.any(track.angle):
        half = radius * np.float32(np.sqrt(np.pi) / 2)
        return _band(dx, half) * _band(dy, half)
    corners = ((track.corners(body.shape) - track.centre[:, None]) * scale).astype(np.float32)  # f k 2, clockwise
    depths = []
    for a, b in zip(corners.swapaxes(0, 1), np.roll(corners, -1, axis=1).swapaxes(0, 1), strict=True):
        edge = b - a
        edge /= np.maximum(np.linalg.norm(edge, axis=1, keepdims=True), 1e-12)
        # Depth behind this edge: the cross product of the edge with the way from its beginning to the pixel.
        shift = (edge[:, 1] * a[:, 0] - edge[:, 0] * a[:, 1])[:, None, None]
        depths.append(edge[:, 0, None, None] * dy + (shift - edge[:, 1, None, None] * dx))
    return np.clip(np.minimum.reduce(depths) + np.float32(0.5), 0, 1)


def _band(distance: np.ndarray, half: np.ndarray) -> np.ndarray:
    """The share of a pixel inside a band of half width `half`: exact along one axis, also when the band is thinner than a pixel."""
    return np.clip(np.minimum(distance + 0.5, half) - np.maximum(distance - 0.5, -half), 0, 1)


def _post(scene: Scene, share: np.ndarray, scale: float, width: int) -> np.ndarray | None:
    """Coverage of the post, f 1 w, or None where there is none."""
    if scene.occluder is None:
        return None
    zoom = magnification(scene, share)[:, None, None]
    x, _ = _axes(1, width)
    centre = (scene.occluder.centre - viewpoint(scene, share)[:, 0, None, None]) * zoom * scale
    return _band(x - centre, scene.occluder.width / 2 * zoom * scale).astype(np.float32)


def _background(scene: Scene, share: np.ndarray, height: int, width: int) -> np.ndarray:
    """The world behind the objects, float32 in [0, 1], broadcastable to f h w 3."""
    ground = scene.background
    base = np.asarray(PLAIN_BACKGROUNDS[ground.colour], np.float32)
    if ground.kind == "plain":
        return base
    if scene.camera.name == "static":
        share = share[:1]
    zoom, view = magnification(scene, share)[:, None, None], viewpoint(scene, share)
    per_pixel = 1 / (zoom * pixels_per_unit(scene, height, width))  # world units in a pixel
    x, y = _axes(height, width)
    world_x, world_y = x * per_pixel + view[:, 0, None, None], y * per_pixel + view[:, 1, None, None]  # f 1 w, f h 1
    along = world_x * np.cos(ground.angle) + world_y * np.sin(ground.angle)
    if ground.kind == "gradient":
        reach = abs(np.cos(ground.angle)) * scene.extent[0] + abs(np.sin(ground.angle)) * scene.extent[1]
        mix = np.clip(along / reach + 0.5, 0, 1)[..., None].astype(np.float32)
        return base + mix * (np.asarray(PLAIN_BACKGROUNDS[ground.second or ground.colour], np.float32) - base)
    if ground.kind == "stripes":
        tone = _wave(along, ground.scale, per_pixel)
    elif ground.kind == "checks":
        tone = _wave(world_x, ground.scale, per_pixel) * _wave(world_y, ground.scale, per_pixel)
    else:
        tone = _speckles(ground, world_x, world_y, per_pixel)
    return np.clip(base + np.float32(CONTRAST) * tone[..., None].astype(np.float32), 0, 1)


def _wave(position: np.ndarray, width: float, pixel: np.ndarray) -> np.ndarray:
    """+1 and -1 in turns, each `width` wide, with a pixel's slope between."""
    to_edge = width / 2 - np.abs(np.mod(position, 2 * width) - width)  # > 0 in the middle half of a period
    return np.clip(2 * to_edge / pixel, -1, 1)


def _speckles(ground: Background, x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Lighter and darker dots, one in each cell of a lattice and wholly inside it, so a pixel asks its own cell alone."""
    column, row = np.floor(x / ground.scale), np.floor(y / ground.scale)
    code = column.astype(np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + row.astype(np.int64).astype(np.uint64) * np.uint64(
        0xC2B2AE3D27D4EB4F
    )
    code = _mix(code + np.uint64(ground.seed))
    number = [((code >> np.uint64(16 * k)) & np.uint64(0xFFFF)) / 65536 for k in range(4)]
    radius = ground.scale * (0.22 + 0.16 * number[0])
    room = ground.scale / 2 - radius
    across = x - (column + 0.5) * ground.scale - room * (2 * number[1] - 1)
    down = y - (row + 0.5) * ground.scale - room * (2 * number[2] - 1)
    cover = np.clip((radius - np.hypot(across, down)) / pixel + 0.5, 0, 1)
    return cover * np.where(number[3] < 0.5, -1.0, 1.0)


def _mix(code: np.ndarray) -> np.ndarray:
    """Scatters the bits of unsigned 64-bit integers."""
    code = (code ^ (code >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    code = (code ^ (code >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return code ^ (code >> np.uint64(31))
