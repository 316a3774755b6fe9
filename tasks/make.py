"""From a plan to latents: at once, in windows, or first small and then large."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from flow.canvas import joined
from flow.generate import Generator, Prompt
from flow.rollout import Rollout
from runtime.build import ConfigError
from tasks.task import Plan

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Job:
    """Clips to make at once: what is said of each, the numbers that its noise hangs on, and what it is to be led away from."""

    prompts: Sequence[Prompt]
    samples: Sequence[int]
    seed: int
    negatives: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AsTrained:
    """Windows of the length that a run was trained on, for clips that are much longer. A straight motion goes on from window to window until it has
    left the picture; made at once, it takes the time that there is.

    Args:
        overlap: latent frames that are handed on; None: half of a window.
        level: flow time of what is handed on.
        at_once: times the length of training up to which a clip is made at once.
    Raises: ValueError if `at_once` is below 1.
    """

    overlap: int | None = None
    level: float = 0.0
    at_once: float = 2.0

    def __post_init__(self) -> None:
        if not self.at_once >= 1:
            raise ConfigError(f"rollout.at_once={self.at_once} is less than the clips of training: it must be at least 1. Set rollout.at_once.")

    def rollout(self, trained: int, frames: int) -> Rollout | None:
        """Args:
            trained: latent frames of the clips of training.
            frames: latent frames of the clip to be made.
        Returns: None for a clip that is made at once, and if those of training were too short to hand anything on.
        """
        window = trained - 1
        if window < 2 or frames - 1 <= self.at_once * window:
            return None
        return Rollout(window, window // 2 if self.overlap is None else self.overlap, self.level)


def in_windows(plan: Plan, rollout: Rollout | None) -> bool:
    """Whether a plan is made window by window."""
    return rollout is not None and plan.windows and plan.canvas.shown > rollout.window + 1


def latents(
    generator: Generator, plans: Sequence[Plan], job: Job, rollout: Rollout | None = None, progress: Progress | None = None
) -> Iterator[Tensor]:
    """Latent frames b c k h w in order, each as soon as it is made where windows go forwards.

    Args:
        plans: one per clip, of one shape.
        rollout: by which plans that may be made in windows are made where they are longer than one of them; None: at once.
    """
    plan = plans[0]
    same = all(other is plan for other in plans)  # then what is given takes no memory twice
    canvas = plan.repeated(len(plans)) if same else joined([other.canvas for other in plans])
    if rollout is None or not in_windows(plan, rollout):
        yield generator.paint(canvas, job.prompts, job.seed, job.samples, 0, job.negatives, progress)
        return
    found = rollout.paint(generator, canvas, job.prompts, job.seed, job.samples, plan.begin, job.negatives, progress)
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

    def draft_size(self, height: int, width: int, stride: int) -> tuple[int, int]:
        """Height and width of the draft, px.

        Args:
            stride: of the VAE, px.
        Raises: ConfigError if the VAE has no latents of that size.
        """
        for key, size in (("height", height), ("width", width)):
            step = self.factor * stride
            if size % step:
                near = max(step, round(size / step) * step)
                raise ConfigError(f"{key}={size} has no draft of 1/{self.factor} of it: it must be a multiple of {step}. Set {key}={near}.")
        return height // self.factor, width // self.factor


def refined(
    draft: tuple[Generator, Sequence[Plan]],
    full: tuple[Generator, Sequence[Plan]],
    refine: Refine,
    job: Job,
    rollout: Rollout | None = None,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """As `latents`, in two stages.

    Args:
        draft, full: the generators, which differ in their noise, and the plans in each size.
    """
    small = torch.cat(list(latents(*draft, job, rollout, progress)), dim=2)
    plans = [refine.second(plan, own) for plan, own in zip(full[1], small.split(1), strict=True)]
    yield from latents(full[0], plans, job, rollout, progress)
