"""What a trained run makes of plans and prompts, many clips at a time: the generator that evaluations and showcases ask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flow.canvas import joined
from flow.generate import Generator, Prompt
from flow.rollout import Rollout
from tasks.given import planned
from tasks.task import Plan, Segment, Studio
from training.inference import Networks, Shape, make_generator, studio

Video = NDArray[np.uint8]  # t h w 3


@dataclass(frozen=True, slots=True)
class Stage:
    """A run's networks, ready for any plan.

    Args:
        generator: how samples are made.
        studio: what plans are made with.
        seed: of all noise.
    """

    generator: Generator
    studio: Studio
    seed: int

    @classmethod
    def of(cls, networks: Networks, sampling: Mapping[str, Any], shape: Shape, seed: int, device: torch.device | str = "cpu") -> "Stage":
        """Args:
        sampling: the keys solver and guidance (config nodes), steps and batch_size.
        """
        return cls(make_generator(networks, sampling, device), studio(networks, shape, None), seed)

    def around(self, given: Sequence[Sequence[Segment]], frames: int) -> list[Plan]:
        """Plans of clips of so many frames around given segments."""
        return [planned(self.studio, segments, frames) for segments in given]

    def latents(self, plans: Sequence[Plan], prompts: Sequence[Prompt], samples: Sequence[int]) -> list[Tensor]:
        """c f h w of each plan; those of one shape are made together, a batch at a time."""
        made: dict[int, Tensor] = {}
        shapes = [(tuple(plan.canvas.latents.shape[1:]), plan.canvas.shown, plan.canvas.cyclic) for plan in plans]
        for shape in dict.fromkeys(shapes):
            own = [place for place, other in enumerate(shapes) if other == shape]
            size = self.generator.batch_size
            for part in (own[start : start + size] for start in range(0, len(own), size)):
                canvas = joined([plans[place].canvas for place in part])
                spoken = [plans[place].script(prompt) if isinstance(prompt := prompts[place], str) else prompt for place in part]
                found = self.generator.paint(canvas, spoken, self.seed, [samples[place] for place in part]).cpu()
                made |= dict(zip(part, found.unbind(), strict=True))
        return [made[place] for place in range(len(plans))]

    def videos(self, plans: Sequence[Plan], prompts: Sequence[Prompt], samples: Sequence[int]) -> list[Video]:
        """uint8 t h w 3 of each plan."""
        found = self.latents(plans, prompts, samples)
        return [self.decoded(latents, plan.canvas.cyclic) for latents, plan in zip(found, plans, strict=True)]

    def decoded(self, latents: Tensor, cyclic: bool = False) -> Video:
        """uint8 t h w 3 of latents c f h w."""
        return torch.cat(list(self.generator.frames(latents[None], cyclic)), dim=1)[0].numpy()

    def reconstructed(self, video: Video) -> Video:
        """A clip through the VAE and back: what no generator behind it can better."""
        return self.decoded(self.studio.latents(video)[0])

    def rolled_out(self, frames: int, prompts: Sequence[Prompt], samples: Sequence[int], rollout: Rollout) -> Iterator[Video]:
        """Clips of so many frames in windows, b t h w 3 uint8 at a time as they are made, in memory that does not grow with them."""
        canvas = self.studio.blank(frames).take([0] * len(prompts))
        made = rollout.paint(self.generator, canvas, prompts, self.seed, samples)
        yield from (part.numpy() for part in self.generator.decoded(one for _, latents in made for one in latents.split(1, dim=2)))

    def chained(self, frames: int, prompts: Sequence[Prompt], samples: Sequence[int]) -> Iterator[Video]:
        """The same by naive chaining, the control of rollouts: the last frame of each clip, encoded again, is the first of the next."""
        usual, made = self.studio.usual, 0
        plans = [Plan(self.studio.blank(usual), usual) for _ in prompts]
        while made < frames:
            # Noise of its own for each link: numbers far from all other samples'.
            numbers = [sample + (made // (usual - 1) << 32) for sample in samples]
            videos = np.stack(self.videos(plans, prompts, numbers))  # b t h w 3
            fresh = videos[:, 1 if made else 0 :]
            yield fresh[:, : frames - made]
            made += fresh.shape[1]
            plans = self.around([[Segment(0, video[-1:])] for video in videos], usual)

    def in_size(self, height: int, width: int) -> "Stage":
        """The same in another size of picture."""
        return replace(self, studio=replace(self.studio, height=height, width=width))
