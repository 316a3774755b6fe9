"""What of a training sample is given: a mixture of patterns, the same choices that sampling makes."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flow.given import Rule
from runtime.seeding import Rng, Stream

# Uniform numbers of a sample: one chooses the pattern, so many are the pattern's own, the last ones are window, level and hiding. A shorter draw
# is the beginning of a longer one, so patterns may come to use more of theirs without changing another.
PATTERN_NUMBERS = 8
WINDOW, LEVEL, HIDING = 1 + PATTERN_NUMBERS, 2 + PATTERN_NUMBERS, 3 + PATTERN_NUMBERS


@dataclass(frozen=True, slots=True)
class Given:
    """What one sample shows, and what of that is given.

    Args:
        window: the latent frames of the clip that it shows.
        known: which of them are given.
        pictures: pixel frames that are given as pictures of their own, see `Rule.split`.
        independent: whether each frame that is not given has a noise level of its own.
        level: flow time of what is given; 0 is clean.
        hidden: whether the pictures stand under as much noise as the frames that are to be made, and nothing is given.
    """

    window: range
    known: tuple[bool, ...]
    pictures: tuple[int, ...] = ()
    independent: bool = False
    level: float = 0.0
    hidden: bool = False

    @property
    def frames(self) -> int:
        """Latent frames that the network sees, pictures included."""
        return len(self.window) + len(self.pictures)

    @property
    def anything(self) -> bool:
        """Whether anything is given."""
        return any(self.known) or (bool(self.pictures) and not self.hidden)


@dataclass(frozen=True, slots=True)
class Stage:
    """What a pattern may choose from.

    Args:
        window: latent frames of the clip; one that does not begin with 0 stands for a piece of a longer video, whose neighbours are handed on as
            latents.
        rule: what a late segment of pixel frames gives.
        stills: pixel frames that there are pictures of.
    """

    window: range
    rule: Rule
    stills: tuple[int, ...] = ()

    def none(self) -> Given:
        return Given(self.window, (False,) * len(self.window))

    def latents(self, *spans: tuple[int, int]) -> Given:
        """Latent frames [start, stop) of the window, handed on as they are."""
        return Given(self.window, tuple(any(start <= k < stop for start, stop in spans) for k in range(len(self.window))))

    def spans(self, handed_on: bool, *spans: tuple[int, int]) -> Given:
        """Spans of the window as latents, or as the pixel frames from the last one of their first latent frame on. With what a piece of a longer
        video begins, the piece before ended: that is handed on in any case."""
        if handed_on:
            return self.latents(*spans)
        step, first = self.rule.stride_t, self.window.start
        before = [span for span in spans if first and span[0] == 0]
        segments = [((first + start) * step, (first + stop - 1) * step + 1) for start, stop in spans if (start, stop) not in before]
        known, pictures = self.rule.split(segments, 1 + step * (self.window.stop - 1))
        held = self.latents(*before).known
        return Given(self.window, tuple(a or b for a, b in zip(held, known[first:], strict=True)), pictures)


Pattern = Callable[[np.ndarray, Stage], Given]  # (uniform numbers (PATTERN_NUMBERS,), a stage of at least 2 latent frames) -> what is given


def none(numbers: np.ndarray, stage: Stage) -> Given:
    """Nothing is given: text to video, and with a window the loop."""
    return stage.none()


def first(numbers: np.ndarray, stage: Stage) -> Given:
    """The first latent frame, which is one picture: image to video."""
    return stage.latents((0, 1))


def first_n(numbers: np.ndarray, stage: Stage) -> Given:
    """A beginning of 1 to f - 1 latent frames, each length equally often: extension forwards."""
    return stage.latents((0, 1 + int(numbers[0] * (len(stage.window) - 1))))


def last_n(numbers: np.ndarray, stage: Stage) -> Given:
    """An end that begins with latent frame 1 to f - 1, each equally often: extension backwards."""
    f = len(stage.window)
    return stage.spans(bool(numbers[7] < 0.5), (1 + int(numbers[0] * (f - 1)), f))


def ends(numbers: np.ndarray, stage: Stage) -> Given:
    """A beginning and an end with at least one frame between them: first and last frame, connections."""
    f = len(stage.window)
    if f < 3:
        return first(numbers, stage)
    between = 1 + int(numbers[0] * (f - 2))
    start = 1 + int(numbers[1] * (f - between - 1))
    return stage.spans(bool(numbers[7] < 0.5), (0, start), (start + between, f))


def span(numbers: np.ndarray, stage: Stage) -> Given:
    """A stretch that leaves the first frame open: re-cuts, extension both ways."""
    f = len(stage.window)
    length = 1 + int(numbers[0] * (f - 1))
    start = 1 + int(numbers[1] * (f - length))
    return stage.spans(bool(numbers[7] < 0.5), (start, start + length))


def keyframes(numbers: np.ndarray, stage: Stage) -> Given:
    """Pictures at any times, with or without the first frame: as many as there are latent frames after the first, or fewer."""
    free = stage.latents((0, 1)) if numbers[0] < 0.5 else stage.none()
    if not stage.stills:
        return free
    even = tuple(stage.rule.stride_t * k for k in stage.window[1:])
    if numbers[1] < 0.25:  # every one of them: frames in between
        return Given(stage.window, free.known, even)
    one = int(numbers[2] * len(stage.stills))
    other = (one + 1 + int(numbers[3] * (len(stage.stills) - 1))) % len(stage.stills)
    chosen = {stage.stills[one]} if numbers[4] < 0.5 else {stage.stills[one], stage.stills[other]}
    return Given(stage.window, free.known, tuple(sorted(chosen)))


def picture(numbers: np.ndarray, stage: Stage) -> Given:
    """The first frame alone, nothing given: text to image."""
    return Given(range(1), (False,))


def independent(numbers: np.ndarray, stage: Stage) -> Given:
    """Nothing is given, and each frame has a noise level of its own: diffusion forcing (Chen et al. 2024)."""
    return Given(stage.window, (False,) * len(stage.window), independent=True)


PATTERNS: dict[str, Pattern] = {pattern.__name__: pattern for pattern in (none, first, first_n, last_n, ends, span, keyframes, picture, independent)}
LATE = ("last_n", "ends", "span", "keyframes")  # patterns that give pictures at later times


class KnownFrames:
    """Draws what each sample is given.

    Args:
        weights: how often each pattern comes up, relative to the others; names from PATTERNS.
        windows: share of the samples, single pictures aside, that show a piece of a longer video: all latent frames but the first, whose
            neighbours are handed on.
        noise: flow time up to which what is given is noised, evenly; 0 leaves it clean.
        hidden: share of the samples with pictures that are under as much noise as the clip: what guidance by given frames leads away from.
    Raises: ValueError for an unknown name, a negative weight, weights that are all 0, or a share or level out of range.
    """

    def __init__(self, weights: Mapping[str, float], windows: float = 0.0, noise: float = 0.0, hidden: float = 0.0) -> None:
        for name, weight in weights.items():
            if name not in PATTERNS:
                near = difflib.get_close_matches(name, PATTERNS, n=1, cutoff=0.0)[0]
                raise ValueError(f"'{name}' is no pattern of known frames ({', '.join(PATTERNS)}; did you mean '{near}'?). Set conditioning.weights.")
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of pattern '{name}' is {weight}, it must be a finite number >= 0. Set conditioning.weights.{name}.")
        if not sum(weights.values()) > 0:
            raise ValueError("no pattern of known frames has a weight > 0. Set conditioning.weights, for example {none: 1}.")
        for key, value in (("windows", windows), ("noise", noise), ("hidden", hidden)):
            if not 0 <= value < 1:
                raise ValueError(f"{key}={value} must be at least 0 and below 1. Set conditioning.{key}.")
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.windows, self.noise, self.hidden = windows, noise, hidden
        shares = np.cumsum(list(self.weights.values()))
        self._names, self._shares = list(self.weights), shares / shares[-1]

    @property
    def pictures(self) -> bool:
        """Whether some pattern gives pictures at later times, for which the data must hold them."""
        return any(name in LATE for name in self.weights)

    def draw(self, rng: Rng, samples: Sequence[int], frames: int, rule: Rule, stills: Sequence[Sequence[int]] = ()) -> list[Given]:
        """What each sample is given; at least one frame of it is to be made.

        Args:
            frames: latent frames of the clips.
            stills: of each sample, the pixel frames that there are pictures of.
        """
        numbers = rng.uniform(Stream.KNOWN, samples, 1 + HIDING)
        return [self._draw(row, frames, rule, tuple(stills[place]) if stills else ()) for place, row in enumerate(numbers)]

    def _draw(self, numbers: np.ndarray, frames: int, rule: Rule, stills: tuple[int, ...]) -> Given:
        if frames == 1:
            return Given(range(1), (False,))
        name = self._names[int(np.searchsorted(self._shares, numbers[0], side="right"))]
        later = numbers[WINDOW] < self.windows and frames > 2 and name != picture.__name__
        found = PATTERNS[name](numbers[1 : 1 + PATTERN_NUMBERS], Stage(range(int(later), frames), rule, stills))
        assert not all(found.known), f"the pattern {name} left no frame to learn from"
        if found.pictures and numbers[HIDING] < self.hidden:
            return Given(found.window, (False,) * len(found.window), found.pictures, hidden=True)
        level = self.noise * float(numbers[LEVEL]) if found.anything else 0.0
        return Given(found.window, found.known, found.pictures, found.independent, level)
