"""What the network is shown of a training batch: windows, pictures, noise and flow times, in groups of as many latent frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.batch import Batch, Captions, Shot
from flow.conditioning import Given, KnownFrames
from flow.given import Rule
from flow.noise import unit_noise
from flow.path import interpolate
from flow.timesteps import Law, PerFrame, shift
from runtime.seeding import Rng, Stream
from training.captions import CaptionPolicy, Shows


@dataclass(frozen=True, slots=True)
class Shown:
    """Samples of as many latent frames each, pictures behind those of the clip: latents and noise b c F h w, flow times and moments (b, F), and
    in which frames the loss counts, (b, F) bool."""

    latents: Tensor
    noise: Tensor
    counts: Tensor
    t: Tensor
    moments: Tensor
    prompts: Sequence[str]

    @property
    def noisy(self) -> Tensor:
        return interpolate(self.latents, self.noise, self.t)


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws it, from sample numbers alone.

    Args:
        conditioning: what is given of each sample.
        timesteps, shift_by: law of flow time, and its move towards noise.
        captions: which text a sample is shown.
        rule: what a late segment gives under the VAE.
    """

    conditioning: KnownFrames
    timesteps: Law
    shift_by: float
    captions: CaptionPolicy
    rule: Rule

    def given(self, rng: Rng, batch: Batch, frames: int) -> list[Given]:
        """What is given of each sample of a batch of so many latent frames.

        Raises: ValueError if late pictures are asked for and the data holds none.
        """
        stills = [] if batch.still_frames is None else batch.still_frames.tolist()
        if self.conditioning.pictures and frames > 1 and not stills:
            late = "objective.conditioning.weights give frames in the middle or at the end of a clip, which are shown as pictures"
            raise ValueError(f"{late}, and the data holds none. Set data.stills=2, or leave to conditioning none, first, first_n and independent.")
        return self.conditioning.draw(rng, batch.samples, frames, self.rule, stills)

    def __call__(self, rng: Rng, batch: Batch, latents: Tensor, stills: Callable[[Sequence[int], Sequence[int]], Tensor]) -> list[Shown]:
        """A batch of one shape with all that is random about it.

        Args:
            latents: b c f h w of the clips.
            stills: (places in the batch, places among that clip's stills) -> their latents k c h w.
        """
        frames = latents.shape[2]
        given = self.given(rng, batch, frames)
        captions, said = self._shots(rng, batch, given)
        prompts = self.captions.draw(rng, batch.samples, captions, [_table(one) for one in given])
        sizes = sorted({one.frames for one in given}, reverse=True)
        groups = [[place for place, one in enumerate(given) if one.frames == size] for size in sizes]
        return [self._group(rng, batch, latents, stills, places, [given[k] for k in places], prompts, said) for places in groups]

    def _group(
        self,
        rng: Rng,
        batch: Batch,
        latents: Tensor,
        stills: Callable[[Sequence[int], Sequence[int]], Tensor],
        places: Sequence[int],
        given: Sequence[Given],
        prompts: Sequence[str],
        said: Sequence[range | None],
    ) -> Shown:
        samples, device, total = [batch.samples[k] for k in places], latents.device, given[0].frames
        _, channels, _, h, w = latents.shape
        known = torch.tensor([[*one.known, *[not one.hidden] * len(one.pictures)] for one in given])  # b F
        spoken = [[*_within(one, said[k]), *[False] * len(one.pictures)] for k, one in zip(places, given, strict=True)]
        counts = ~known & torch.tensor(spoken)
        levels = torch.tensor([one.level for one in given])[:, None]
        t = torch.where(known, levels, shift(self._times(rng, samples, given, total), self.shift_by))
        step = self.rule.stride_t
        ends = torch.tensor([[*(step * k for k in one.window), *one.pictures] for one in given])  # pixel frames
        whole = len(places) == len(latents) and all(len(one.window) == latents.shape[2] and not one.pictures for one in given)
        parts = latents if whole else torch.stack([self._frames(batch, latents, stills, k, one) for k, one in zip(places, given, strict=True)])
        noise = unit_noise(rng, samples, channels, (total, h, w))
        fps = batch.fps[torch.tensor(places, device=batch.fps.device)]
        moments = ends.to(device) / fps[:, None].to(device)
        return Shown(parts, noise.to(device), counts.to(device), t.to(device), moments, [prompts[k] for k in places])

    def _frames(self, batch: Batch, latents: Tensor, stills: Callable[[Sequence[int], Sequence[int]], Tensor], place: int, given: Given) -> Tensor:
        """c F h w: the window, then the pictures."""
        own = latents[place, :, given.window.start : given.window.stop]
        if not given.pictures:
            return own
        assert batch.still_frames is not None
        numbers = batch.still_frames[place].tolist()
        chosen = [numbers.index(frame) for frame in given.pictures]
        return torch.cat([own, stills([place] * len(chosen), chosen).transpose(0, 1)], dim=1)

    def _times(self, rng: Rng, samples: Sequence[int], given: Sequence[Given], frames: int) -> Tensor:
        """(b, F) before the shift: one level for all frames of a sample, or one for each."""
        together = self.timesteps.draw(rng, samples, frames)
        alone = torch.tensor([one.independent for one in given])[:, None]
        if not alone.any():
            return together
        law = self.timesteps if isinstance(self.timesteps, PerFrame) else PerFrame(self.timesteps)  # pyright: ignore[reportArgumentType]
        return torch.where(alone, law.draw(rng, samples, frames), together)

    def _shots(self, rng: Rng, batch: Batch, given: Sequence[Given]) -> tuple[list[Captions], list[range | None]]:
        """What is said of each sample, and of which of its pixel frames; None for all."""
        captions, said = list(batch.captions), list[range | None]([None] * len(batch))
        if not any(batch.shots):
            return captions, said
        numbers = rng.uniform(Stream.CAPTION, batch.samples, 3)[:, 2]
        for place, shots in enumerate(batch.shots):
            open_ = [shot for shot in shots if any(_open(given[place], self._latents(shot)))]
            if open_:
                shot = open_[int(numbers[place] * len(open_))]
                captions[place], said[place] = shot.captions, self._latents(shot)
        return captions, said

    def _latents(self, shot: Shot) -> range:
        """The latent frames that show nothing else."""
        step = self.rule.stride_t
        return range(0 if shot.start == 0 else 1 + -(-(shot.start - 1) // step), 1 + (shot.stop - 1) // step)


def _open(given: Given, shot: range) -> list[bool]:
    """Which latent frames of the window are to be made and lie in the shot."""
    return [not known and frame in shot for frame, known in zip(given.window, given.known, strict=True)]


def _within(given: Given, said: range | None) -> list[bool]:
    return [said is None or frame in said for frame in given.window]


def _table(given: Given) -> Shows:
    return "known" if given.anything or given.hidden else "picture" if given.frames == 1 else "free"
