"""All ways of making video that a run promises, each measured: `scripts/evaluate.py suite=tasks`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from data.world.sampling import LEVELS
from data.world.splits import motions
from data.world.stories import LEAST_FRAMES
from evaluation.prompt_following import Prompt
from evaluation.suite import draw_prompts
from evaluation.tasks.around import around_given, behind_posts, connected, inside, left_part
from evaluation.tasks.drafts import drafts
from evaluation.tasks.outcome import Outcome
from evaluation.tasks.scenes import ROUND, World, has_posts
from evaluation.tasks.stage import Stage
from evaluation.tasks.whole import looped, remixes, rollouts, shapes, storyboards

# Sample numbers of each part begin here and there: unlike ranges, so that no two share noise, and none has any of the other suite's.
FIRST_SAMPLE, APART = 1_000_000, 1_000_000
LEAST_PX = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Args:
        clips: of each part.
        rollouts: long clips.
        times: how many times the trained length a long clip lasts.
        sizes: (height, width) besides the trained one.
        lengths: frames besides the trained count.
        parts: names of parts to measure; empty: all.
    """

    clips: int
    rollouts: int
    times: int
    sizes: Sequence[tuple[int, int]]
    lengths: Sequence[int]
    seed: int
    parts: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, least in (("clips", 4), ("rollouts", 4), ("times", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"tasks.{name}={value!r} measures nothing: a whole number of at least {least}. Set tasks.{name}.")
        for name, kind, count, least in (
            ("sizes", f"pairs of height and width in px, {LEAST_PX} or more, the least that the oracle can read", 2, LEAST_PX),
            ("lengths", "counts of frames", 0, 1),
        ):
            found = getattr(self, name)
            if not isinstance(found, list | tuple) or not all(_whole(each, count, least) for each in found):
                raise ValueError(f"tasks.{name}={found!r} must be a list of {kind}. Set tasks.{name}.")
        if not isinstance(self.parts, list | tuple):
            raise ValueError(f"tasks.parts={self.parts!r} must be a list of some of {', '.join(PARTS)}; empty for all. Set tasks.parts.")
        unknown = [part for part in self.parts if part not in list(PARTS)]
        if unknown:
            raise ValueError(f"tasks.parts has {unknown[0]!r}, which is none of {', '.join(PARTS)}. Set tasks.parts.")

    def shapes(self, frames: int, height: int, width: int) -> list[tuple[str, int, int, int]]:
        """Those besides the trained one: the key that names each, frames, height, width."""
        sizes = [("sizes", frames, *size) for size in self.sizes]
        return sizes + [("lengths", count, height, width) for count in self.lengths]


def _whole(value: object, count: int, least: int) -> bool:
    """Whether it is a whole number of at least `least`, or, where `count` is above 0, a list of so many."""
    numbers = value if count else [value]
    return isinstance(numbers, list | tuple) and len(numbers) == max(count, 1) and all(type(each) is int and each >= least for each in numbers)


def _shapes(stage: Stage, world: World, plan: Plan, first: int) -> list[Outcome]:
    prompts: list[Prompt] = draw_prompts(plan.clips, plan.seed, world.difficulty, "heldout")
    wanted = plan.shapes(stage.frames, stage.height, stage.width)
    return [shapes(stage, prompts, [(frames, height, width) for _, frames, height, width in wanted], first)]


def _storyboards(stage: Stage, world: World, plan: Plan, first: int) -> list[Outcome]:
    longer = replace(world, frames=2 * (world.frames - 1) + 1)  # where a switch at a random time would seldom be right
    return [storyboards(stage, each, plan.clips, first + 10_000 * number, plan.seed) for number, each in enumerate((world, longer))]


Part = Callable[[Stage, World, Plan, int], list[Outcome]]
PARTS: dict[str, Part] = {
    "around": lambda stage, world, plan, first: around_given(stage, world, plan.clips, first, plan.seed),
    "posts": lambda stage, world, plan, first: [behind_posts(stage, world, plan.clips, first, plan.seed)],
    "connect": lambda stage, world, plan, first: [connected(stage, world, plan.clips, first, plan.seed)],
    "inpaint": lambda stage, world, plan, first: [inside(stage, world, plan.clips, first, plan.seed)],
    "loop": lambda stage, world, plan, first: [looped(stage, world, plan.clips, first, plan.seed)],
    "remix": lambda stage, world, plan, first: [remixes(stage, world, plan.clips, first, plan.seed)],
    "storyboard": _storyboards,
    "shapes": _shapes,
    "draft": lambda stage, world, plan, first: [drafts(stage, draw_prompts(plan.clips, plan.seed, world.difficulty, "heldout"), first, plan.seed)],
    "rollout": lambda stage, world, plan, first: [rollouts(stage, world, plan.rollouts, first, plan.seed, plan.times)],
}


def measured(stage: Stage, world: World, plan: Plan) -> Iterator[Outcome]:
    """The parts' outcomes, each as soon as it is there.

    Raises: ValueError before anything is made if the clips are too short, or the world has nothing that a part asks for.
    """
    least = max(LEAST_FRAMES, 1 + 4 * stage.stride_t)
    if world.frames < least:
        raise ValueError(f"the run's clips of {world.frames} frames are too short for suite=tasks, which gives and makes parts of {least} or more.")
    asked, lacks = plan.parts or list(PARTS), _lacks(world)
    if "inpaint" in asked and not stage.seen(left_part(world)).any():
        lacks["inpaint"] = f"larger clips than {world.height}x{world.width} px"
    if lacks.keys() & set(asked):
        why = ", ".join(f"{name} asks for {what}" for name, what in lacks.items() if name in asked)
        left = ",".join(name for name in asked if name not in lacks)
        raise ValueError(f"the run's world, level {world.difficulty!r}, has not all that is asked for: {why}. Set tasks.parts=[{left}].")
    for number, (name, part) in enumerate(PARTS.items()):
        if name in asked:
            yield from part(stage, world, plan, FIRST_SAMPLE + APART * number)


def _lacks(world: World) -> dict[str, str]:
    """Parts that this world has nothing for, and what it is."""
    lacks = {} if has_posts(world) else {"posts": "posts"}
    if ROUND not in motions(world.difficulty):
        lacks |= dict.fromkeys(("loop", "rollout"), "what goes round")
    return lacks if LEVELS[world.difficulty].stories else lacks | {"storyboard": "stories"}
