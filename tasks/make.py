"""From a plan to latents: at once, in windows, or first small and then large."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from flow.generate import Generator
from flow.rollout import Rollout
from runtime.build import ConfigError
from tasks.task import Plan, Task

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Job:
    """Clips to make from one plan: prompts, the numbers that their noise hangs on, and what they are to be led away from."""

    prompts: Sequence[str]
    samples: Sequence[int]
    seed: int
    negatives: Sequence[str] = ()


def latents(generator: Generator, plan: Plan, job: Job, rollout: Rollout | None = None, progress: Progress | None = None) -> Iterator[Tensor]:
    """Latent frames b c k h w in order, each as soon as it is made where windows go forwards.

    Args:
        rollout: by which a plan that may be made in windows is made where it is longer than one of them; None: at once.
    """
    prompts, canvas = [plan.script(prompt) for prompt in job.prompts], plan.repeated(len(job.prompts))
    if rollout is None or not plan.windows or canvas.shown <= rollout.window + 1:
        yield generator.paint(canvas, prompts, job.seed, job.samples, 0, job.negatives, progress)
        return
    found = rollout.paint(generator, canvas, prompts, job.seed, job.samples, plan.begin, job.negatives, progress)
    if plan.begin == 0:
        yield from (part for _, part in found)
        return
    parts = {frames.start: part for frames, part in found}
    yield torch.cat([parts[start] for start in sorted(parts)], dim=2)


@dataclass(frozen=True, slots=True)
class Refine:
    """A small draft first; then, begun from it, the clip in full size: the large model need not find the layout again.

    Args:
        factor: by which the full size is larger than the draft, whole, at least 2.
        strength: flow time that the enlarged draft is noised to.
    Raises: ValueError if one is out of range.
    Source: Meng et al. 2022 (SDEdit), on latents that are enlarged by interpolation.
    """

    factor: int
    strength: float

    def __post_init__(self) -> None:
        if type(self.factor) is not int or self.factor < 2:
            raise ConfigError(
                f"refine.factor={self.factor!r} must be a whole number of at least 2: the full size over the draft's. Set refine.factor."
            )
        if not 0 < self.strength <= 1:
            raise ConfigError(f"refine.strength={self.strength} must be above 0 and at most 1. Set refine.strength.")

    def enlarged(self, draft: Tensor) -> Tensor:
        """Latents b c f h w in `factor` times the size."""
        flat = rearrange(draft, "b c f h w -> (b f) c h w")
        large = interpolate(flat, scale_factor=self.factor, mode="bicubic", align_corners=False)
        return rearrange(large, "(b f) c h w -> b c f h w", b=len(draft))

    def second(self, full: Plan, draft: Tensor) -> Plan:
        """The plan of one clip in full size, begun from its draft 1 c f h w."""
        return full.with_canvas(full.canvas.begun(self.enlarged(draft.cpu()), self.strength))


def missing(task: Task, conditioning: Mapping[str, Any]) -> list[str]:
    """Which patterns a run's training did not show that a task relies on, in words; empty if it showed all.

    Args:
        conditioning: the run's objective.conditioning.
    """
    weights = conditioning.get("weights", {})
    lacking = [" or ".join(names) for names in task.needs if not any(weights.get(name, 0) > 0 for name in names)]
    found = [f"objective.conditioning.weights has no {names}" for names in lacking]
    if task.windows_needed and not conditioning.get("windows", 0) > 0:
        found.append("objective.conditioning.windows is 0: it never saw a piece of a longer video")
    return found
