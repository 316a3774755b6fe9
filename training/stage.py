"""What a trained run makes of given frames and prompts, many clips at a time: the generator that evaluations and showcases ask."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flow.canvas import joined
from flow.generate import Generator, Prompt, Timed
from flow.noise import Coarse
from flow.rollout import Rollout
from tasks.given import planned
from tasks.make import Refine
from tasks.paint import kept_positions
from tasks.task import Files, Plan, Segment, Studio
from tasks.text import Loop
from training.inference import Networks, Shape, studio

Video = NDArray[np.uint8]  # t h w c
MARGIN = 1  # latent positions beside what is made anew that are made anew too: they hold most of what an encoder saw of it, or a decoder sees
LINK = 1 << 32  # between the sample numbers of links of a chain: far from all others


@dataclass(frozen=True, slots=True)
class Stage:
    """A run's networks, ready for any plan; see `evaluation.tasks.stage.Stage`.

    Args:
        generator: how samples are made.
        networks: behind it.
        seed: of all noise.
        rollout: by which long videos are made.
    """

    generator: Generator
    networks: Networks
    seed: int
    rollout: Rollout

    @property
    def frames(self) -> int:
        return self.networks.shape.frames

    @property
    def height(self) -> int:
        return self.networks.shape.height

    @property
    def width(self) -> int:
        return self.networks.shape.width

    @property
    def stride_t(self) -> int:
        return self.networks.vae.stride[0]

    def studio(self, shape: Shape | None = None) -> Studio:
        return studio(self.networks, shape or self.networks.shape, None)

    def words(self, prompts: Sequence[str], samples: Sequence[int], shape: tuple[int, int, int] | None = None) -> list[Video]:
        frames, height, width = shape or (self.frames, self.height, self.width)
        own = self.studio(Shape(frames, height, width, self.networks.shape.fps))
        return self._made([Plan(own.blank(frames), frames)] * len(prompts), prompts, samples)

    def around(
        self, given: Sequence[Sequence[tuple[int, Video]]], frames: int, prompts: Sequence[str], samples: Sequence[int]
    ) -> tuple[list[Video], list[Video]]:
        own = self.studio()
        plans = [planned(own, [Segment(start, video) for start, video in pieces], frames) for pieces in given]
        made = self._made(plans, prompts, samples)
        return [self._as_given(plan, video) for plan, video in zip(plans, made, strict=True)], made

    def _as_given(self, plan: Plan, made: Video) -> Video:
        shown = made.copy()
        for number, frame in plan.as_given(self.generator.frames).items():
            shown[number] = frame
        return shown

    def timed(self, prompts: Sequence[Sequence[str]], switches: Sequence[int], frames: int, samples: Sequence[int]) -> list[Video]:
        plan = Plan(self.studio().blank(frames), frames)
        latent = torch.arange(plan.canvas.shown)
        said: list[Prompt] = []
        for texts, switch in zip(prompts, switches, strict=True):
            after = (latent * self.stride_t >= switch).float()
            said.append(Timed(tuple(texts), torch.stack([1 - after, after])))
        return self._made([plan] * len(said), said, samples)

    def loops(self, frames: int, prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        plan = Loop().begin(Files(), replace(self.studio(), frames=frames))
        return self._made([plan] * len(prompts), prompts, samples)

    def remixed(self, videos: Sequence[Video], strength: float, prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        own = self.studio()
        plans = [Plan(own.blank(len(video)).begun(own.latents(video), strength), len(video)) for video in videos]
        return self._made(plans, prompts, samples)

    def painted(self, videos: Sequence[Video], kept: NDArray[np.bool_], prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        own = self.studio()
        positions = torch.from_numpy(self._positions(kept))
        plans = []
        for video in videos:
            canvas = own.blank(len(video))
            plans.append(Plan(canvas.painted(own.latents(video), positions[None, None].expand(1, canvas.shown, -1, -1)), len(video)))
        return self._made(plans, prompts, samples)

    def seen(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        step = self.networks.vae.stride[1]
        pixels = self._positions(kept).repeat(step, 0).repeat(step, 1)
        return kept_positions(pixels, step, MARGIN).repeat(step, 0).repeat(step, 1)

    def _positions(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return kept_positions(kept, self.networks.vae.stride[1], MARGIN)

    def drafted(self, prompts: Sequence[str], samples: Sequence[int], factor: int) -> list[Video]:
        return self._decoded(self._drafts(prompts, samples, factor), False)

    def refined(self, prompts: Sequence[str], samples: Sequence[int], factor: int, strength: float) -> list[Video]:
        refine = Refine(factor, strength)
        shape = Shape(self.frames, factor * self.height, factor * self.width, self.networks.shape.fps)
        full = Plan(self.studio(shape).blank(self.frames), self.frames)
        plans = [refine.second(full, draft[None]) for draft in self._drafts(prompts, samples, factor)]
        return self._made(plans, prompts, samples)

    def _drafts(self, prompts: Sequence[str], samples: Sequence[int], factor: int) -> list[Tensor]:
        small = copy(self.generator)
        small.noise = Coarse(factor, self.generator.noise)
        canvas = self.studio().blank(self.frames).take([0] * len(prompts))
        return list(small.paint(canvas, list(prompts), self.seed, list(samples)).cpu().unbind())

    def rolled_out(self, frames: int, prompts: Sequence[str], samples: Sequence[int]) -> Iterator[Video]:
        canvas = self.studio().blank(frames).take([0] * len(prompts))
        made = self.rollout.paint(self.generator, canvas, prompts, self.seed, samples)
        yield from (part.numpy() for part in self.generator.decoded(one for _, latents in made for one in latents.split(1, dim=2)))

    def chained(self, frames: int, prompts: Sequence[str], samples: Sequence[int]) -> Iterator[Video]:
        done, last = 0, None
        while done < frames:
            numbers = [sample + done * LINK for sample in samples]
            if last is None:
                videos = self.words(prompts, numbers)
            else:
                videos, _ = self.around([[(0, frame)] for frame in last], self.frames, prompts, numbers)
            whole = np.stack(videos)[:, 0 if last is None else 1 :][:, : frames - done]
            yield whole
            done, last = done + whole.shape[1], [video[-1:] for video in videos]

    def reconstructed(self, videos: Sequence[Video]) -> list[Video]:
        own = self.studio()
        return self._decoded([own.latents(video)[0] for video in videos], False)

    def _made(self, plans: Sequence[Plan], prompts: Sequence[Prompt], samples: Sequence[int]) -> list[Video]:
        """Clips of one length; what may be made together is, a batch at a time."""
        made: dict[int, Tensor] = {}
        shapes = [plan.canvas.shape for plan in plans]
        for shape in dict.fromkeys(shapes):
            own = [place for place, other in enumerate(shapes) if other == shape]
            for start in range(0, len(own), self.generator.batch_size):
                part = own[start : start + self.generator.batch_size]
                canvas = joined([plans[place].canvas for place in part])
                found = self.generator.paint(canvas, [prompts[place] for place in part], self.seed, [samples[place] for place in part])
                made |= dict(zip(part, found.cpu().unbind(), strict=True))
        return self._decoded([made[place] for place in range(len(plans))], plans[0].canvas.cyclic)

    def _decoded(self, latents: Sequence[Tensor], cyclic: bool) -> list[Video]:
        size = self.generator.batch_size
        parts = (torch.stack(list(latents[start : start + size])) for start in range(0, len(latents), size))
        return [video for part in parts for video in torch.cat(list(self.generator.frames(part, cyclic)), dim=1).numpy()]
