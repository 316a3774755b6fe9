"""All ways of making video that a run promises, each measured: `scripts/evaluate.py suite=tasks`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from evaluation.prompt_following import Prompt
from evaluation.suite import draw_prompts
from evaluation.tasks.around import around_given, behind_posts, connected, inside
from evaluation.tasks.drafts import drafts
from evaluation.tasks.outcome import Outcome
from evaluation.tasks.scenes import World
from evaluation.tasks.stage import Stage
from evaluation.tasks.whole import looped, remixes, rollouts, shapes, storyboards

# Sample numbers of each part begin here and there: unlike ranges, so that no two share noise, and none has any of the other suite's.
FIRST_SAMPLE, APART = 1_000_000, 1_000_000


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
            if getattr(self, name) < least:
                raise ValueError(f"tasks.{name}={getattr(self, name)} measures nothing: at least {least}. Set tasks.{name}.")
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise ValueError(f"tasks.parts has {unknown[0]!r}, which is none of {', '.join(PARTS)}. Set tasks.parts.")


def _shapes(stage: Stage, world: World, plan: Plan, first: int) -> list[Outcome]:
    prompts: list[Prompt] = draw_prompts(plan.clips, plan.seed, world.difficulty, "heldout")
    wanted = [(stage.frames, height, width) for height, width in plan.sizes] + [(count, stage.height, stage.width) for count in plan.lengths]
    return [shapes(stage, prompts, wanted, first)]


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
    """The parts' outcomes, each as soon as it is there."""
    for number, (name, part) in enumerate(PARTS.items()):
        if not plan.parts or name in plan.parts:
            yield from part(stage, world, plan, FIRST_SAMPLE + APART * number)
