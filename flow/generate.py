"""The Generator: canvases and prompts to latents to video; every task is a choice of what is given and from when to when a frame is walked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import gcd
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from flow.canvas import Canvas
from flow.guidance import Guidance
from flow.limits import Point, Velocity
from flow.noise import Noise, Own
from flow.path import interpolate, per_frame, velocity
from flow.script import Prompt, Script, Timed
from flow.solver_noise import solver_noise
from flow.solvers import Solver, integrate
from flow.timesteps import grid as time_grid
from models.geometry import Grid, moments
from runtime.seeding import Rng, Stream

OWN = Own()
__all__ = ["OWN", "Generator", "Prompt", "Timed", "to_uint8"]


class Generator:
    """Samples video. A sample depends on its prompt, seed, number and canvas; how calls are cut into batches does not matter.

    Args:
        velocity: the network, (noisy, t, text, moments) -> velocity.
        encode_text: prompts -> whatever `velocity` takes as text; called once per batch, not per step.
        decode: latent frames, b c 1 h w one after another -> their pixel frames, b 3 t h w in [-1, 1], each as soon as it is made.
        latent_channels: of the latents.
        solver: how to walk flow time.
        guidance: how to weigh the prompt.
        steps: solver steps.
        shift: of flow time; must be the one the network was trained with.
        stride_t: pixel frames per latent frame.
        warm_up: latent frames that decoding one looks back on.
        batch_size: samples made at once; bounds memory.
        device: where the network is.
        noise: what samples begin with.
        span_s: what the clips of training last, from the end of the first latent frame to that of the last one, in seconds: longer clips are
            brought into it, see `Canvas.within`. None: they are shown as long as they are.
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
        stride_t: int = 4,
        warm_up: int = 2,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
        noise: Noise = OWN,
        span_s: float | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} makes no samples, it must be >= 1. Set batch_size.")
        self.grid = time_grid(steps, shift)
        self._velocity, self._encode_text, self._decode = velocity, encode_text, decode
        self.latent_channels, self.solver, self.guidance = latent_channels, solver, guidance
        self.steps, self.shift, self.stride_t, self.warm_up = steps, shift, stride_t, warm_up
        self.batch_size, self.device, self.noise, self.span_s = batch_size, torch.device(device), noise, span_s

    def blank(self, b: int, grid: Grid, fps: float | Sequence[float] | Tensor) -> Canvas:
        """b clips of which nothing is given.

        Args:
            grid: latent frames, height, width.
            fps: frames per second, one for all or one per clip.
        """
        return Canvas.blank(self.latent_channels, grid, moments(grid[0], _rates(fps, b), self.stride_t))

    def latents(
        self,
        prompts: Sequence[Prompt],
        grid: Grid,
        fps: float | Sequence[float] | Tensor,
        seed: int,
        samples: Sequence[int],
        known_latents: Tensor | None = None,
        known_mask: Tensor | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Tensor:
        """Clean latents of one clip per prompt, on blank canvases or on some whose first frames, say, are known; otherwise as `paint`.

        Args:
            known_latents: b c f h w, read where known_mask is True; those frames come back bit for bit.
            known_mask: (b, f) bool.
        """
        if (known_latents is None) != (known_mask is None):
            raise ValueError("known_latents and known_mask go together: one was given without the other.")
        canvas = self.blank(len(prompts), grid, fps)
        if known_latents is not None and known_mask is not None:
            canvas = canvas.keep(known_latents.cpu(), known_mask.cpu())
        return self.paint(canvas, prompts, seed, samples, progress=progress)

    def paint(
        self,
        canvas: Canvas,
        prompts: Sequence[Prompt],
        seed: int,
        samples: Sequence[int],
        first_frame: int = 0,
        negatives: Sequence[str] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> Tensor:
        """Clean latents of the clips of a canvas.

        Args:
            prompts: one per clip; "" is unconditional.
            seed, samples: the noise of clip i is a function of (seed, samples[i]).
            first_frame: the number of the first latent frame, which its noise hangs on, where the clip is a piece of a longer video.
            negatives: what each clip is to be led away from; empty: the empty prompt.
            progress: told (steps done, steps in all) after every solver step.
        Returns: b c f h w, float32, on the generator's device; pictures left out, given frames and positions bit for bit.
        Raises: ValueError if the arguments disagree about the number of clips.
        """
        b = len(prompts)
        if len(samples) != b or len(canvas) != b or len(negatives) not in (0, b):
            found = f"got {b} prompts, {len(samples)} sample numbers, {len(negatives)} negatives and a canvas of {len(canvas)}"
            raise ValueError(f"{found}: every clip needs one of each, negatives may be left out.")
        canvas = canvas if self.span_s is None else canvas.within(self.span_s)
        chunks = [slice(start, min(start + self.batch_size, b)) for start in range(0, b, self.batch_size)]
        meter = _Meter(self.steps * len(chunks), progress)
        parts = [
            self._painted(canvas.take(chunk), prompts[chunk], seed, list(samples[chunk]), first_frame, list(negatives[chunk]), meter.tick)
            for chunk in chunks
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.latent_channels, *canvas.grid)

    def _painted(
        self,
        canvas: Canvas,
        prompts: Sequence[Prompt],
        seed: int,
        samples: Sequence[int],
        first_frame: int,
        negatives: Sequence[str],
        after_step: Callable[[], None],
    ) -> Tensor:
        f, h, w = canvas.latents.shape[2:]
        noise = self.noise.draw(seed, samples, self.latent_channels, (f, h, w), first_frame)
        if bool(canvas.given.any()):  # handed on by a window, a frame was made from its own noise: under that one it would not be hidden
            apart = self.noise.draw(seed, samples, self.latent_channels, (f, h, w), first_frame, Stream.GIVEN)
            noise = torch.where(per_frame(canvas.given), apart, noise)
        begun = interpolate(canvas.latents, noise, canvas.start)
        noisy = torch.where(per_frame(canvas.start) == 1, noise, begun)
        renewed = solver_noise(Rng(seed), samples, self.latent_channels, (f, h, w), first_frame)
        made = self.walk(canvas, noisy, prompts, noise, negatives, after_step, renewed)
        fixed = per_frame(canvas.given) if canvas.mask is None else per_frame(canvas.given) | canvas.mask[:, None]
        return torch.where(fixed.to(made.device), canvas.latents.to(made.device), made)[:, :, : canvas.shown]

    def times(self, canvas: Canvas) -> Tensor:
        """Flow times (steps + 1, b, F), float64, each clip's steps spread from its latest start down to 0."""
        latest = torch.where(canvas.given, 0.0, canvas.start.double()).amax(dim=1)  # b
        grids = [self.grid if begin == 1 else time_grid(self.steps, self.shift, begin) for begin in latest.tolist()]
        return canvas.times(torch.stack(grids, dim=1))

    @torch.no_grad()
    def walk(
        self,
        canvas: Canvas,
        noisy: Tensor,
        prompts: Sequence[Prompt],
        noise: Tensor,
        negatives: Sequence[str] = (),
        after_step: Callable[[], None] | None = None,
        renewed: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """Carry one batch along the flow times of its canvas under its prompts: what every task comes down to.

        Args:
            noisy: b c F h w at the canvas's start.
            noise: b c F h w that it began with.
            negatives: see `paint`.
            after_step: called after every solver step.
            renewed: number of a step -> the noise b c F h w that a stochastic solver adds in it.
        Returns: b c F h w at the canvas's stop, on the generator's device.
        """
        script = Script.of(prompts, canvas)
        texts, k, some = script.texts, len(script.weights), bool(canvas.given.any())
        text = self.guidance.encode(self._encode_text, texts, some, list(negatives) * k)
        given, noise, source = (part.to(self.device) for part in (canvas.given, noise, canvas.latents))
        when = canvas.moments.repeat(k, 1).to(self.device)  # (k b) F
        weights = script.weights.to(self.device)[:, :, None, :, None, None]  # k b 1 F 1 1
        fixed = None if canvas.mask is None else canvas.mask[:, None].to(self.device)  # b 1 F h w
        turn = _Turn(canvas.shown if canvas.cyclic else 0)

        def field(latents: Tensor, t: Tensor) -> Tensor:
            if fixed is not None:  # a solver that renews noise leaves the straight path
                latents = torch.where(fixed, interpolate(source, noise, t), latents)
            turned, by = turn.next(latents)
            point = Point(turned, _rolled(t, by, 1), ~_rolled(given, by, 1) if some else None)
            hidden = _hidden(point, _rolled(given, by, 1), _rolled(source, by, 2), _rolled(noise, by, 2)) if some else None
            point, hidden = _copies(point, k), None if hidden is None else _copies(hidden, k)
            found = self.guidance.velocity(self._velocity, point, hidden, text, when).to(latents.dtype)
            if k > 1:
                found = (found.unflatten(0, (k, -1)) * _rolled(weights, by, 3)).sum(dim=0)
            found = _rolled(found, -by, 2)
            return found if fixed is None else torch.where(fixed, velocity(source, noise), found)

        return integrate(field, noisy.to(self.device), self.times(canvas), self.solver, after_step, renewed)

    @torch.no_grad()
    def videos(self, latents: Tensor) -> Tensor:
        """Decoded clips, uint8 b t h w 3, on the CPU."""
        return torch.cat([torch.cat(list(self.frames(part)), dim=1) for part in latents.split(self.batch_size)])

    @torch.no_grad()
    def frames(self, latents: Tensor, cyclic: bool = False) -> Iterator[Tensor]:
        """The same, a latent frame's worth at a time: uint8 b t h w 3 on the CPU, in memory that does not grow with the clip.

        Args:
            latents: b c f h w, all decoded side by side; `batch_size` does not cut them.
            cyclic: whether the last is followed by the first: then each, the first too, is a whole latent frame, stride_t pixel frames long.
        """
        before = max(1, self.warm_up) if cyclic else 0
        turned = [(place - before) % latents.shape[2] for place in range(before + latents.shape[2])]
        yield from self.decoded((latents[:, :, place : place + 1] for place in turned), before)

    @torch.no_grad()
    def decoded(self, latents: Iterable[Tensor], skip: int = 0) -> Iterator[Tensor]:
        """Pixel frames of latent frames b c 1 h w as they come, those of the first `skip` left out."""
        for number, video in enumerate(self._decode(part.to(self.device) for part in latents)):
            if number >= skip:
                yield to_uint8(video).cpu()


def to_uint8(video: Tensor) -> Tensor:
    """Video b 3 t h w in [-1, 1] as uint8 b t h w 3, rounded to the nearest and cut at both ends."""
    levels = (video.float() + 1).mul_(127.5).round_().clamp_(0, 255)  # in place: a frame at 1080p is 25 MB
    return rearrange(levels.to(torch.uint8), "b c t h w -> b t h w c")


def _hidden(point: Point, given: Tensor, latents: Tensor, noise: Tensor) -> Point:
    """The same moment with the given frames (b F) of latents b c F h w as noisy as the sample's noisiest frame."""
    t = torch.where(given, point.t.amax(dim=1, keepdim=True), point.t)
    return Point(torch.where(per_frame(given), interpolate(latents, noise, t), point.noisy), t, point.made)


def _copies(point: Point, k: int) -> Point:
    if k == 1:
        return point
    return Point(point.noisy.repeat(k, 1, 1, 1, 1), point.t.repeat(k, 1), None if point.made is None else point.made.repeat(k, 1))


class _Turn:
    """Turns a loop before each look at it, each time by another angle, so that it has no first frame.

    Args:
        frames: on the circle; 0 for what is no loop.
    """

    def __init__(self, frames: int) -> None:
        self.frames, self.looks = frames, 0

    def next(self, latents: Tensor) -> tuple[Tensor, int]:
        """The latents turned, and by how many frames."""
        by = 0 if not self.frames else self.looks * _stride(self.frames) % self.frames
        self.looks += 1
        return _rolled(latents, by, 2), by


def _rolled(tensor: Tensor, by: int, dim: int) -> Tensor:
    """Turned along an axis; by 0 it is no copy."""
    return tensor.roll(by, dims=dim) if by else tensor


def _stride(frames: int) -> int:
    """A step that visits all angles of a circle and comes back to near ones late: next to the golden section and prime to `frames`."""
    return min((step for step in range(1, frames + 1) if gcd(step, frames) == 1), key=lambda step: abs(step - 0.618 * frames))


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
