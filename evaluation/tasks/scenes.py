"""What the tasks are tried on: fresh scenes of the world, drawn by number, with their truth and captions that name only what they may."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as counted
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from data.world.captions import captions, facts, said
from data.world.render import render
from data.world.sampling import LEVELS, draw_scene
from data.world.scene import Scene, Story, shares, tracks
from data.world.splits import motions as motions_of
from data.world.stories import GROUP, STORIES, draw_clip
from data.world.truth import truth
from data.world.vocabulary import EASY_MOTIONS, Claim
from evaluation.tasks.course import Course, true_course
from evaluation.tasks.switches import middle

Video = NDArray[np.uint8]  # t h w c
STEADY = tuple(motion for motion in EASY_MOTIONS if motion not in ("grow", "shrink"))
ROUND = "circle_around"  # comes back to where it was: what loops and long videos can ask for
# Of a story: of 17 frames the change lies at 9 alone, of 33 at 9, 17 and 25. Nearer to the middle one latent frame of tolerance would let
# pass who always changes there.
LEAST_SHOT, LEAST_OFF = 0.23, 2 * GROUP
_MARK = 1 << 41  # captions of these scenes hang on numbers of their own


@dataclass(frozen=True, slots=True)
class World:
    """What the scenes are drawn from.

    Args:
        frames, height, width: px, of the clips.
    """

    difficulty: str
    seed: int
    frames: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Source:
    """A real clip.

    Args:
        claim: all facts. course: its truth, in the frames of `video`.
        short, motion: captions; the second names the motion alone.
    """

    video: Video
    scene: Scene
    claim: Claim
    course: Course
    short: str
    motion: str

    @property
    def short_claim(self) -> Claim:
        """What the short caption says."""
        return said(self.claim, "short")

    def velocity(self, made: Sequence[range]) -> np.ndarray | None:
        """Of the truth over some spans, (3,) per frame; None where the motion has none."""
        return self.course.velocity_in(made) if self.scene.objects[0].motion in EASY_MOTIONS else None


def sources(world: World, count: int, motions: tuple[str, ...] = EASY_MOTIONS, posts: bool = False) -> list[Source]:
    """Clips of one object under a camera that stands still, which training did not show, of combinations that it did.

    Raises: ValueError if the world's level has none of these motions, or no posts.
    """
    return [source(world, number, scene) for number, scene in islice(_drawn(world, motions, posts), count)]


def source(world: World, number: int, scene: Scene) -> Source:
    """A scene with its clip, truth and captions."""
    texts = captions(scene, world.seed, number + _MARK, ("short", "motion"))
    states = truth(scene, world.frames, world.height, world.width)
    video = render(scene, world.frames, world.height, world.width)
    return Source(video, scene, facts(scene), true_course(states, min(world.height, world.width)), texts["short"][0], texts["motion"][0])


def _drawn(world: World, motions: tuple[str, ...], posts: bool) -> Iterator[tuple[int, Scene]]:
    if (posts and not has_posts(world)) or not set(motions) & set(motions_of(world.difficulty)):
        raise ValueError(f"the level {world.difficulty!r} has no clip of {', '.join(motions)}{' behind a post' if posts else ''}. Set tasks.parts.")
    for number in counted():
        scene = draw_scene(world.seed, number, world.difficulty, "val", world.width / world.height)
        alone = len(scene.objects) == 1 and scene.camera.name == "static"
        if alone and scene.objects[0].motion in motions and (scene.occluder is not None) == posts:
            yield number, scene


def has_posts(world: World) -> bool:
    return LEVELS[world.difficulty].posts.share > 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two clips of objects alike, at unlike places: what a connection has to bring together."""

    first: Source
    second: Source


def pairs(world: World, count: int) -> list[Pair]:
    """Steady motions alone, whose ends are as large as their beginnings; of those that come next, the first whose way suits the object."""
    found, drawn = [], _drawn(world, STEADY, False)
    while len(found) < count:
        one = source(world, *next(drawn))
        number, alike = next((number, alike) for number, other in drawn if _inside(alike := _alike(one.scene, other)))
        found.append(Pair(one, source(world, number, alike)))
    return found


def _alike(one: Scene, other: Scene) -> Scene:
    """The other clip's way, gone by the first one's object on the first one's ground."""
    (body,), (way,) = one.objects, other.objects
    return replace(one, objects=(replace(body, path=way.path, motion=way.motion),))


def _inside(scene: Scene) -> bool:
    """Whether the object stays in the picture: a way that a small one goes may be too near to the edge for a large one."""
    (track,), half = tracks(scene, shares(2)), np.asarray(scene.extent) / 2  # straight ways: the ends tell
    low, high = track.bounds(scene.objects[0].shape)
    return bool((low >= -half).all() and (high <= half).all())


@dataclass(frozen=True, slots=True)
class Change:
    """A story: what is asked until frame `switch` and from it on."""

    video: Video
    before: Claim
    after: Claim
    prompts: tuple[str, str]
    switch: int


def changes(world: World, count: int) -> list[Change]:
    """Stories that training did not show; in longer clips they change at unlike times, or one who always changes in the middle would be right."""
    found = []
    for number in range(count):
        story = draw_clip(world.seed, number, world.difficulty, STORIES, world.width / world.height, world.frames)
        assert not isinstance(story, Scene), "this part of a world holds stories alone"
        story = _moved(story, number, world.frames)
        first, second = story.first, story.second
        switch = round(story.switch * (world.frames - 1) + 0.5)
        texts = [captions(scene, world.seed, number + _MARK, ("short",))["short"][0] for scene in (first, second)]
        claims = [said(facts(scene), "short") for scene in (first, second)]
        video = render(story, world.frames, world.height, world.width)
        found.append(Change(video, claims[0], claims[1], (texts[0], texts[1]), switch))
    return found


def _moved(story: Story, number: int, frames: int) -> Story:
    """The story with its change at another latent frame, where both of its scenes allow any; another motion sets out from where the first one is."""
    if story.change == "motion" or not (_inside(story.first) and _inside(story.second)):
        return story
    firsts = [first for first in range(1, frames, GROUP) if not 0 < abs(first - middle(frames)) < LEAST_OFF]
    times = [(first - 0.5) / (frames - 1) for first in firsts]
    places = [share for share in times if LEAST_SHOT <= share <= 1 - LEAST_SHOT]
    return replace(story, switch=places[number % len(places)])
