"""Stories: one attribute changes at a known frame and everything else goes on, so that what happens when can be asked for and measured."""

from dataclasses import replace
from functools import cache

import numpy as np

from data.world.sampling import ALONE, LEVELS, MARGIN, compose, draw_body, draw_scene
from data.world.scene import Body, Clip, Scene, Story, Straight, tracks
from data.world.splits import DIFFICULTIES, SPLITS, Triple, by_kind, check_difficulty, seen_weights
from data.world.vocabulary import COLOURS, EASY_MOTIONS, PLAIN_BACKGROUNDS, SHAPES
from runtime.seeding import Stream, generator

CHANGES = ("shape", "colour", "motion", "background")
STORIES = "stories"  # the part of a world that holds nothing else, of combinations that training shows
PARTS = (*SPLITS, STORIES)
GROUP = 4  # frames that a latent frame stands for: a shot ends with the last of one
LEAST_FRAMES = 17  # two latent frames of 4 frames in each shot, and the first frame's own
SHOT = 0.4  # of the clip that each shot lasts at least: its motion must cover enough to be told
_OWN_NUMBERS = 1 << 40  # beyond every scene's number


def check_stories(difficulty: str, frames: int) -> None:
    """Raises: ValueError if clips of this level and length hold no stories."""
    check_difficulty(difficulty)
    if not LEVELS[difficulty].stories:
        having = ", ".join(name for name, level in LEVELS.items() if level.stories)
        raise ValueError(f"the level {difficulty!r} has no stories; {having} has. Set stories=0 or difficulty.")
    if frames < LEAST_FRAMES:
        raise ValueError(f"frames={frames} is too short for two shots: a story has at least {LEAST_FRAMES}. Set stories=0 or frames.")


def draw_clip(seed: int, number: int, difficulty: str = "easy", split: str = "train", aspect: float = 1.0, frames: int = 17) -> Clip:
    """Clip `number` of a part of a world: what `draw_scene` gives, or a story.

    Args:
        split: "train" holds stories where its level has any, "stories" nothing else, "val" and "heldout" none.
        frames: of the clip, for which a story's switch falls on the first frame of a latent frame.
    """
    if split == STORIES:
        check_stories(difficulty, frames)
    elif split != "train" or frames < LEAST_FRAMES or not LEVELS[difficulty].stories:
        return draw_scene(seed, number, difficulty, split, aspect)
    level = LEVELS[difficulty]
    rng = generator(seed, Stream.WORLD, number + _OWN_NUMBERS, PARTS.index(split), DIFFICULTIES.index(difficulty))
    if split != STORIES and rng.random() >= level.stories:
        return draw_scene(seed, number, difficulty, split, aspect)
    open_, change = replace(level, posts=replace(level.posts, share=0.0)), str(rng.choice(CHANGES))
    switch = float(rng.choice(switches(frames)))
    while True:  # ends: most scenes can change in every way, and a background always can
        scene = compose(rng, open_, difficulty, None, aspect)
        second = _changed(rng, scene, change, switch, difficulty)
        story = None if second is None else _placed(rng, Story(scene, second, change, switch))
        if story is not None:
            return story


def switches(frames: int) -> list[float]:
    """Where a clip of `frames` frames may change, as shares of it: half a frame before the first frame of a latent frame, near the middle."""
    whole = frames - 1
    places = [(first - 0.5) / whole for first in range(1 + 2 * GROUP, frames, GROUP)]
    return [place for place in places if SHOT <= place <= 1 - SHOT]


def _changed(rng: np.random.Generator, scene: Scene, change: str, switch: float, difficulty: str) -> Scene | None:
    """The scene with another value of one attribute; None if there is none that training may show."""
    (body,) = scene.objects
    if body.motion not in EASY_MOTIONS:
        return None  # half an orbit is no circle
    if change == "background":
        colour = str(rng.choice([name for name in PLAIN_BACKGROUNDS if name != scene.background.colour]))
        return replace(scene, background=replace(scene.background, colour=colour))
    names = {"shape": SHAPES, "colour": tuple(COLOURS), "motion": EASY_MOTIONS}[change]
    others = [replace(body, **{change: name}) for name in names if name != getattr(body, change)]
    others = [other for other in others if (other.shape, other.colour, other.motion) in _odds(difficulty)]
    if not others:
        return None
    odds = np.asarray([_odds(difficulty)[other.shape, other.colour, other.motion] for other in others])
    other = others[int(rng.choice(len(others), p=odds / odds.sum()))]
    return replace(scene, objects=(_turned(rng, body, other, switch, scene) if change == "motion" else other,))


@cache
def _odds(difficulty: str) -> dict[Triple, float]:
    """How often each combination is drawn: what lost some of its company to the held-out ones would else be rare in stories."""
    return dict(zip(by_kind(difficulty)[None], seen_weights(difficulty).tolist(), strict=True))


def _turned(rng: np.random.Generator, before: Body, after: Body, switch: float, stage: Scene) -> Body:
    """`after` sets out at the switch, from where and as large as `before` is then, as far in a clip as its motion goes."""
    fresh = draw_body(rng, after.shape, after.colour, after.motion, ALONE, stage)
    assert isinstance(before.path, Straight), "the easy motions go straight on"
    assert isinstance(fresh.path, Straight), "the easy motions go straight on"
    factor = fresh.radius[1] / fresh.radius[0]
    radius = before.radius[0] * (before.radius[1] / before.radius[0]) ** switch
    (place,), step = before.path.at(np.asarray([switch])), np.asarray(fresh.path.step)
    x, y = place - switch * step
    return replace(
        after,
        size=before.size if factor == 1 else None,
        path=Straight((float(x), float(y)), fresh.path.step),
        radius=(radius * factor**-switch, radius * factor ** (1 - switch)),
    )


def _placed(rng: np.random.Generator, story: Story) -> Story | None:
    """The story, placed evenly over all places where both shots stay in the frame; None if there are none."""
    boxes = []
    for scene, start, end in ((story.first, 0.0, story.switch), (story.second, story.switch, 1.0)):
        (track,) = tracks(scene, np.linspace(start, end, 17))
        boxes.append(track.bounds(scene.objects[0].shape))
    half = np.asarray(story.first.extent) / 2 - MARGIN
    low, high = -half - np.min([low.min(axis=0) for low, _ in boxes], axis=0), half - np.max([high.max(axis=0) for _, high in boxes], axis=0)
    if (low > high).any():
        return None
    way = rng.uniform(low, high)
    return replace(story, first=_shifted(story.first, way), second=_shifted(story.second, way))


def _shifted(scene: Scene, way: np.ndarray) -> Scene:
    (body,) = scene.objects
    assert isinstance(body.path, Straight), "the easy motions go straight on"
    x, y = np.asarray(body.path.start) + way
    return replace(scene, objects=(replace(body, path=replace(body.path, start=(float(x), float(y)))),))
