"""What the tasks are tried on: fresh scenes of the world, drawn by number, with their truth and captions that name only what they may."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.world.captions import captions, facts, said
from data.world.render import render
from data.world.sampling import draw_scene
from data.world.scene import Scene
from data.world.stories import STORIES, draw_clip
from data.world.truth import truth
from data.world.vocabulary import EASY_MOTIONS, Claim
from evaluation.tasks.course import Course, true_course

Video = NDArray[np.uint8]  # t h w c
STEADY = tuple(motion for motion in EASY_MOTIONS if motion not in ("grow", "shrink"))
ROUND = "circle_around"  # comes back to where it was: what loops and long videos can ask for
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

    def velocity(self, made: range) -> np.ndarray | None:
        """Of the truth over some frames, (3,) per frame; None where the motion has none."""
        return self.course.cut(made.start, made.stop).velocity() if self.scene.objects[0].motion in EASY_MOTIONS else None


def sources(world: World, count: int, motions: tuple[str, ...] = EASY_MOTIONS, posts: bool = False) -> list[Source]:
    """Clips of one object that training did not show, of combinations that it did."""
    return [source(world, number, scene) for number, scene in _drawn(world, count, motions, posts)]


def source(world: World, number: int, scene: Scene) -> Source:
    """A scene with its clip, truth and captions."""
    texts = captions(scene, world.seed, number + _MARK, ("short", "motion"))
    states = truth(scene, world.frames, world.height, world.width)
    video = render(scene, world.frames, world.height, world.width)
    return Source(video, scene, facts(scene), true_course(states, min(world.height, world.width)), texts["short"][0], texts["motion"][0])


def _drawn(world: World, count: int, motions: tuple[str, ...], posts: bool) -> Iterator[tuple[int, Scene]]:
    number = found = 0
    while found < count:
        scene = draw_scene(world.seed, number, world.difficulty, "val", world.width / world.height)
        number += 1
        if scene.objects[0].motion in motions and (scene.occluder is not None) == posts:
            found += 1
            yield number - 1, scene


@dataclass(frozen=True, slots=True)
class Pair:
    """Two clips of objects alike, at unlike places: what a connection has to bring together."""

    first: Source
    second: Source


def pairs(world: World, count: int) -> list[Pair]:
    """Steady motions alone, whose ends are as large as their beginnings."""
    found = sources(world, 2 * count, STEADY)
    return [Pair(one, _alike(world, one, other, 2 * place + 1)) for place, (one, other) in enumerate(zip(found[::2], found[1::2], strict=True))]


def _alike(world: World, one: Source, other: Source, number: int) -> Source:
    """The other clip's way, gone by the first one's object on the first one's ground."""
    (body,), (way,) = one.scene.objects, other.scene.objects
    moved = replace(body, path=way.path, motion=way.motion)
    return source(world, number, replace(one.scene, objects=(moved,)))


@dataclass(frozen=True, slots=True)
class Change:
    """A story: what is asked until frame `switch` and from it on."""

    video: Video
    before: Claim
    after: Claim
    prompts: tuple[str, str]
    switch: int


def changes(world: World, count: int) -> list[Change]:
    """Stories that training did not show."""
    found = []
    for number in range(count):
        story = draw_clip(world.seed, number, world.difficulty, STORIES, world.width / world.height, world.frames)
        assert not isinstance(story, Scene), "this part of a world holds stories alone"
        first, second = story.first, story.second
        switch = round(story.switch * (world.frames - 1) + 0.5)
        texts = [captions(scene, world.seed, number + _MARK, ("short",))["short"][0] for scene in (first, second)]
        claims = [said(facts(scene), "short") for scene in (first, second)]
        video = render(story, world.frames, world.height, world.width)
        found.append(Change(video, claims[0], claims[1], (texts[0], texts[1]), switch))
    return found
