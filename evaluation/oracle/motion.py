"""Names the motion of a track by robust slopes of position and log radius; whatever stands still, jumps or turns half-way gets no name."""

import numpy as np

from data.world.vocabulary import DIRECTIONS

# Distances are shares of the shorter side of the frame, growth is in log radius, both over the whole clip.
LEAST_SPAN = 0.55  # of the clip must be seen
LEAST_DISTANCE = 0.15
LEAST_GROWTH = 0.25
LEAST_TURN = np.pi / 3
LEAST_ORBIT = 0.08  # its radius
LEAST_BOUNCE = 0.7  # the whole way
STILL_DISTANCE = 0.05
STILL_GROWTH = 0.12
# A direction is named within half of the angle between two of them.
WITHIN = np.cos(np.pi / 8)


def slope(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Theil-Sen: the median of the slopes of all pairs; a quarter of wrong frames does not move it. values: (t, k) -> (k,)."""
    first, second = np.triu_indices(len(times), 1)
    return np.median((values[second] - values[first]) / (times[second] - times[first])[:, None], axis=0)


def advances(progress: np.ndarray, times: np.ndarray) -> bool:
    """Whether a quantity that should go from 0 to 1 does so all the way: in every third of the clip, seldom backwards, without a jump.

    Args:
        progress: (t,), 0 at the beginning and 1 at the end of the clip.
        times: (t,) in [0, 1], increasing.
    """
    span = times[-1] - times[0]
    progress, times = (progress - progress[0]) / span, (times - times[0]) / span
    steps = np.diff(progress)
    third = np.interp([0, 1 / 3, 2 / 3, 1], times, progress)
    backwards = float(-steps[steps < 0].sum())
    # An even pace is one step of `gap`; three times that and a little room for noise is a jump.
    even = bool((steps < 3 * np.diff(times) + 0.08).all())
    return even and bool(np.diff(third).min() > 0.12) and backwards < 0.15 and bool(0.7 < progress[-1] < 1.5)


def name_motion(times: np.ndarray, centroid: np.ndarray, area: np.ndarray, angle: np.ndarray, side_px: float) -> str | None:
    """The motion's name, or None where no name fits.

    Args:
        times: (t,) the frames in which the object was found, as shares of the clip's length.
        centroid: (t, 2) in pixels. area: (t,) in pixels.
        angle: (t,) radians, unwrapped; constant for shapes whose turning cannot be seen.
        side_px: the shorter side of the frame.
    """
    if len(times) < 4 or times[-1] - times[0] < LEAST_SPAN:
        return None
    place = centroid / side_px
    growth = np.log(np.maximum(area, 1)) / 2
    rate = slope(times, np.concatenate([place, growth[:, None], angle[:, None]], 1))
    travel, grown, turned = rate[:2], float(rate[2]), float(rate[3])
    distance = float(np.hypot(*travel))
    resting = np.abs(place - np.median(place, 0)).max() < STILL_DISTANCE
    constant = abs(grown) < STILL_GROWTH and np.abs(growth - np.median(growth)).max() < 0.25
    if constant and distance >= LEAST_DISTANCE and _straight(place, times, travel):
        return direction(travel / distance)
    if abs(grown) >= LEAST_GROWTH and distance < min(0.1, 0.3 * abs(grown)) and advances((growth - growth[0]) / grown, times):
        return "grow" if grown > 0 else "shrink"
    if resting and constant:
        if abs(turned) >= LEAST_TURN and advances((angle - angle[0]) / turned, times):
            return "rotate"
        return "still" if abs(turned) < LEAST_TURN / 3 else None
    if constant and _circles(place, times):
        return "circle_around"
    return "bounce" if constant and _bounces(place, times) else None


def _straight(place: np.ndarray, times: np.ndarray, travel: np.ndarray) -> bool:
    distance = np.hypot(*travel)
    along = (place - place[0]) @ travel / distance**2
    across = (place - place[0]) @ np.array([-travel[1], travel[0]]) / distance
    return advances(along, times) and bool(np.abs(across - np.median(across)).max() < max(0.12 * distance, 0.04))


def _circles(place: np.ndarray, times: np.ndarray) -> bool:
    # The algebraic circle through all places: x^2 + y^2 = 2 a x + 2 b y + c.
    matrix = np.column_stack([2 * place, np.ones(len(place))])
    a, b, c = np.linalg.lstsq(matrix, (place**2).sum(1), rcond=None)[0]
    radius = np.sqrt(max(c + a * a + b * b, 0))
    if not LEAST_ORBIT < radius < 0.5:
        return False
    around = place - (a, b)
    swept = np.unwrap(np.arctan2(around[:, 1], around[:, 0]))
    total = swept[-1] - swept[0]
    even = np.abs(np.hypot(*around.T) - radius).max() < 0.2 * radius
    # A whole round counts as one at five sixths; a jump cannot hide, as the sweep must be even.
    return bool(even and abs(total) > 5 / 3 * np.pi * (times[-1] - times[0]) and advances((swept - swept[0]) / total, times))


def _bounces(place: np.ndarray, times: np.ndarray) -> bool:
    # Along each axis the speed is constant but for its sign; a step in which the object turns back is shorter.
    velocity = np.diff(place, axis=0) / np.diff(times)[:, None]
    speed = np.quantile(np.abs(velocity), 0.6, axis=0)
    whole = float(np.hypot(*speed))
    if whole < LEAST_BOUNCE:
        return False
    room = 0.12 * whole + 0.05
    turns = 0
    for axis in range(2):
        going = np.abs(velocity[:, axis])
        if (going > speed[axis] + 2 * room).any() or (np.abs(going - speed[axis]) < room).mean() < 0.6:
            return False
        signs = np.sign(velocity[going > room, axis])
        turns += int((np.diff(signs) != 0).sum())
    return 1 <= turns <= 8


def direction(unit: np.ndarray) -> str | None:
    """The name of a direction on the screen, or None between two of them."""
    for name, way in DIRECTIONS.items():
        if unit @ np.asarray(way) / np.hypot(*way) > WITHIN:
            return name
    return None
