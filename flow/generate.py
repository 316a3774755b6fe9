"""The Generator: prompts and known frames to latents to video; every task is a choice of which frames are known at which times."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from flow.guidance import Guidance, Point, Velocity
from flow.noise import unit_noise
from flow.path import interpolate
from flow.solvers import Solver, integrate
from flow.timesteps import grid as time_grid
from models.geometry import Grid
from runtime.seeding import Rng, Stream


class Generator:
    """Samples video. A sample depends on its prompt, seed, number and known frames; how calls are cut into batches does not matter.

    Args:
        velocity: the network, (noisy, t, text, fps) -> velocity.
        encode_text: prompts -> whatever `velocity` takes as text; called once per batch, not per step.
        decode: latent frames, b c 1 h w one after another -> their pixel frames, b 3 t h w in [-1, 1], each as soon as it is made.
        latent_channels: of the latents.
        solver: how to walk flow time.
        guidance: how to weigh the prompt.
        steps: solver steps.
        shift: of flow time; must be the one the network was trained with.
        batch_size: samples made at once; bounds memory.
        device: where the network is.
    """

    def __init__(
        self,
        velocity: Velocity,
        encode_text: Callable[[Sequence[str]], Any],
        decode: Callable[[Iterable[Tensor]], Iterator[Tensor]],
        latent_channels: int,
        solver: Solver,
        guidance: Guidance,
        steps: int,
        shift: float,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} makes no samples, it must be >= 1. Set batch_size.")
        self.grid = time_grid(steps, shift)
        self._velocity, self._encode_text, self._decode = velocity, encode_text, decode
        self.latent_channels, self.solver, self.guidance = latent_channels, solver, guidance
        self.steps, self.shift, self.batch_size, self.device = steps, shift, batch_size, torch.device(device)

    def latents(
        self,
        prompts: Sequence[str],
        grid: Grid,
        fps: float | Sequence[float] | Tensor,
        seed: int,
        samples: Sequence[int],
        known_latents: Tensor | None = None,
        known_mask: Tensor | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Tensor:
        """Clean latents of one clip per prompt.

        Args:
            prompts: one per clip; "" is unconditional.
            grid: latent frames, height, width.
            fps: frames per second, one for all or one per clip.
            seed, samples: the noise of clip i is a function of (seed, samples[i]).
            known_latents: b c f h w, read where known_mask is True; those frames come back bit for bit.
            known_mask: (b, f) bool.
            progress: told (steps done, steps in all) after every solver step.
        Returns: b c f h w, float32, on the generator's device.
        Raises: ValueError if the arguments disagree about the number of clips or their shape.
        """
        b, f = len(prompts), grid[0]
        if len(samples) != b:
            raise ValueError(f"got {b} prompts and {len(samples)} sample numbers: every clip needs one of each.")
        shape = (b, self.latent_channels, *grid)
        known_latents, known_mask = _known(known_latents, known_mask, shape)
        rate = _rates(fps, b)
        chunks = [slice(start, min(start + self.batch_size, b)) for start in range(0, b, self.batch_size)]
        meter = _Meter(self.steps * len(chunks), progress)
        parts = []
        for chunk in chunks:
            noise = unit_noise(Rng(seed), list(samples[chunk]), self.latent_channels, grid, stream=Stream.SAMPLING)
            mask = torch.zeros(len(noise), f, dtype=torch.bool) if known_mask is None else known_mask[chunk]
            noisy = noise if known_latents is None else torch.where(mask[:, None, :, None, None], known_latents[chunk], noise)
            parts.append(self.walk(noisy, self.times(mask), list(prompts[chunk]), rate[chunk], noise, meter.tick))
        return torch.cat(parts) if parts else torch.zeros(shape)

    def times(self, known: Tensor) -> Tensor:
        """Flow times (steps + 1, b, f), float64: the grid where a frame is to be made, 0 throughout where it is known (b, f)."""
        return torch.where(known.cpu()[None], 0.0, self.grid[:, None, None])

    @torch.no_grad()
    def walk(
        self, noisy: Tensor, times: Tensor, prompts: Sequence[str], fps: Tensor, noise: Tensor, after_step: Callable[[], None] | None = None
    ) -> Tensor:
        """Carry one batch along any flow times under its prompts: what every task comes down to.

        Args:
            noisy: b c f h w at times[0].
            times: (steps + 1, b, f), on the CPU.
            prompts: b of them.
            fps: (b,).
            noise: b c f h w, under which guidance may hide given frames (those whose time is 0 throughout).
            after_step: called after every solver step.
        Returns: b c f h w at times[-1], on the generator's device.
        """
        given = (times == 0).all(dim=0)  # b f
        some = bool(given.any())
        text = self._encode_text(self.guidance.prompts(prompts, some))
        fps, given, noise = fps.to(self.device), given.to(self.device), noise.to(self.device)

        def field(latents: Tensor, t: Tensor) -> Tensor:
            point = Point(latents, t)
            hidden = _hidden(point, given, noise) if some else None
            return self.guidance.velocity(self._velocity, point, hidden, text, fps).to(latents.dtype)

        return integrate(field, noisy.to(self.device), times, self.solver, after_step)

    @torch.no_grad()
    def videos(self, latents: Tensor) -> Tensor:
        """Decoded clips, uint8 b t h w 3, on the CPU."""
        return torch.cat([torch.cat(list(self.frames(part)), dim=1) for part in latents.split(self.batch_size)])

    @torch.no_grad()
    def frames(self, latents: Tensor) -> Iterator[Tensor]:
        """The same, a latent frame's worth at a time: uint8 b t h w 3 on the CPU, in memory that does not grow with the clip.

        Args:
            latents: b c f h w, all decoded side by side; `batch_size` does not cut them.
        """
        for video in self._decode(part.to(self.device) for part in latents.split(1, dim=2)):
            yield to_uint8(video).cpu()


def to_uint8(video: Tensor) -> Tensor:
    """Video b 3 t h w in [-1, 1] as uint8 b t h w 3, rounded to the nearest and cut at both ends."""
    levels = (video.float() + 1).mul_(127.5).round_().clamp_(0, 255)  # in place: a frame at 1080p is 25 MB
    return rearrange(levels.to(torch.uint8), "b c t h w -> b t h w c")


def _hidden(point: Point, given: Tensor, noise: Tensor) -> Point:
    """The same moment with the given frames (b f) as noisy as the sample's noisiest frame."""
    t = torch.where(given, point.t.amax(dim=1, keepdim=True), point.t)
    return Point(torch.where(given[:, None, :, None, None], interpolate(point.noisy, noise, t), point.noisy), t)


class _Meter:
    def __init__(self, total: int, progress: Callable[[int, int], object] | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def tick(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _rates(fps: float | Sequence[float] | Tensor, b: int) -> Tensor:
    rate = torch.as_tensor(fps, dtype=torch.float32).cpu()
    rate = rate.expand(b) if rate.ndim == 0 else rate
    if rate.shape != (b,) or not bool((rate > 0).all()):
        raise ValueError(f"fps={fps} does not fit {b} clips: give one number > 0, or one per clip. Set fps.")
    return rate


def _known(latents: Tensor | None, mask: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    if (latents is None) != (mask is None):
        raise ValueError("known_latents and known_mask go together: one was given without the other.")
    if latents is None or mask is None:
        return None, None
    if tuple(latents.shape) != shape or tuple(mask.shape) != (shape[0], shape[2]) or mask.dtype != torch.bool:
        raise ValueError(
            f"known frames want latents {shape} and a bool mask {(shape[0], shape[2])}, "
            f"got {tuple(latents.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    return latents.cpu().float(), mask.cpu()
