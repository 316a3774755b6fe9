"""Flow matching as an objective: known frames, captions, times and noise are drawn here, so that the DiT knows none of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.batch import Batch, Packed
from flow.autoguidance import Autoguidance
from flow.conditioning import KnownFrames
from flow.generate import Generator
from flow.given import Rule
from flow.guidance import Guidance
from flow.loss import frame_errors, loss_by_time, values_per_frame
from flow.noise import unit_noise
from flow.path import velocity
from flow.prediction import Prediction, velocity_field
from flow.solvers import Solver
from flow.timesteps import Law
from models.dit import DiT
from models.geometry import Grid, Layout, bounds, latent_grid, moments, token_grid
from models.text import TextEncoder
from models.text_frozen import HuggingFaceText
from models.vae import VideoVAE
from runtime.run_folder import RunFolder
from runtime.seeding import Rng
from training.captions import CaptionPolicy
from training.objective import Figures, Loss, Preview
from training.shown import Draw, Shown

DRAWS = 256  # samples over which the cost of a mixture is averaged


class FlowObjective:
    """Trains a DiT and a text encoder to tell the velocity of latents, each latent frame at its own flow time.

    Args:
        dit: what `prediction` makes a velocity of, from noisy latents.
        text: captions to tokens; trained with the DiT.
        vae: frozen; makes latents of videos and videos of latents. Its weights come from the run in vae_run.
        timesteps: law of flow time.
        shift: moves flow time towards noise, > 0; sampling uses the same.
        prediction: what the DiT's output stands for; loss and sampling are of velocities, whatever it is.
        conditioning: which frames are known.
        captions: which text a sample is shown.
        bins: strata of flow time in validation, and bins of the logged loss.
        solver, guidance, preview_steps, preview_clips: how the pictures in <run>/samples are made.
    """

    def __init__(
        self,
        dit: DiT,
        text: TextEncoder,
        vae: VideoVAE,
        timesteps: Law,
        shift: float,
        prediction: Prediction,
        conditioning: KnownFrames,
        captions: CaptionPolicy,
        bins: int,
        solver: Solver,
        guidance: Guidance,
        preview_steps: int,
        preview_clips: int,
    ) -> None:
        if dit.latent_channels != vae.latent_channels:
            raise ValueError(
                f"the DiT takes {dit.latent_channels} latent channels, the VAE makes {vae.latent_channels}. "
                f"Set objective.dit.latent_channels={vae.latent_channels}."
            )
        if conditioning.pictures and not dit.trunk.pattern.whole:
            name = type(dit.trunk.pattern).__name__.lower()
            raise ValueError(
                f"late pictures stand behind the clip, where attention of the pattern {name} does not look. Set objective/dit/pattern=full, "
                "or leave to conditioning none, first, first_n and independent."
            )
        if isinstance(guidance, Autoguidance):
            raise ValueError("pictures of a training have no weaker network to lead away from. Set guidance@objective.guidance=classifier_free.")
        assert isinstance(text, nn.Module), "the text encoder is trained with the DiT, so it is a module"
        self.dit, self.text, self.vae = dit, text, vae.eval().requires_grad_(False)
        self.shift, self.conditioning, self.captions = shift, conditioning, captions
        self.draw = Draw(conditioning, timesteps, shift, captions, Rule(vae.stride[0], vae.look_back))
        self.prediction, self.bins, self.solver, self.guidance = prediction, bins, solver, guidance
        self.preview_steps, self.preview_clips = preview_steps, preview_clips
        self._flop: dict[Grid, int] = {}

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"dit": self.dit, "text": self.text}

    @property
    def sides(self) -> Sequence[Sequence[nn.Module]]:
        return [list(self.networks.values())]

    def begin(self, folder: RunFolder, allow_drift: Sequence[str] = ()) -> None:
        """Nothing: its VAE is a copy in the run, and whatever else decides is in the config."""

    def to(self, device: str) -> None:
        for network in (self.dit, self.text, self.vae):
            network.to(device)

    def loss(self, batch: Batch | Packed, rng: Rng) -> Loss:
        """What is drawn hangs on the sample numbers alone, so a Packed has the loss and the gradient of its parts, in one pass."""
        shown = [one for part in batch.parts for one in self._drawn(part, rng)]
        return _added([self._part_loss(one, velocity) for one, velocity in zip(shown, self._velocities(shown), strict=True)])

    def validate(self, batch: Batch, rng: Rng) -> Figures:
        """No known frames, times spread evenly over the bins; "loss_shuffled" is the same with each clip under another clip's caption."""
        latents = self._latents(batch)
        frames, device = latents.shape[2], latents.device
        counts = torch.ones(len(batch), frames, dtype=torch.bool, device=device)
        # Strata by sample number, with a fixed place inside: neighbours in the list fall into different bins.
        place = [(sample % self.bins + (sample // self.bins % 4 + 0.5) / 4) / self.bins for sample in batch.samples]
        t = torch.tensor(place, device=device)[:, None].expand(-1, frames)  # b f
        prompts = self.captions.fixed(batch.captions)
        shown = Shown(latents, self._noise(latents, batch, rng), counts, t, moments(frames, batch.fps, self.vae.stride[0]), prompts)
        errors, values = self._errors(shown, *self._velocities([shown])), values_per_frame(latents)
        figures = {"loss": (errors.sum(), counts.sum() * values), **self._by_time(errors, shown, values)}
        if len(batch) > 1:
            shuffled = replace(shown, prompts=prompts[1:] + prompts[:1])
            other = self._errors(shuffled, *self._velocities([shuffled]))
            figures["loss_shuffled"] = (other.sum(), counts.sum() * values)
        return figures

    def preview(self, batch: Batch, rng: Rng) -> Preview:
        clips = min(self.preview_clips, len(batch))
        prompts = self.captions.fixed(batch.captions[:clips])
        generator = Generator(
            velocity_field(self.dit, self.prediction),
            self.text,
            self.vae.decode_stream,
            self.vae.latent_channels,
            self.solver,
            self.guidance,
            steps=self.preview_steps,
            shift=self.shift,
            stride_t=self.vae.stride[0],
            warm_up=self.vae.decoder_look_back,
            device=batch.content.device,
        )
        f, h, w = self._latents(batch).shape[2:]
        latents = generator.latents(prompts, (f, h, w), batch.fps[:clips], rng.seed, batch.samples[:clips])
        return Preview([np.asarray(video) for video in generator.videos(latents)], prompts)

    def refresh(self, batches: Sequence[Batch]) -> None:
        """The frozen VAE carries its statistics; nothing follows from the weights."""

    def flops(self, batch: Batch | Packed) -> int:
        """Of what the mixture of known frames shows of such clips on average. Backward counts twice the forward; what frozen networks encode counts
        once, if they run at all; pictures that are encoded here are left out."""
        encoding, forward = 0, 0
        for part in batch.parts:
            t, h, w = part.content.shape[2:]
            if part.video is not None:
                encoding += len(part) * self.vae.flops(t, h, w)["encode"]
                t, h, w = latent_grid(t, h, w, self.vae.stride)
            forward += len(part) * self._sample_flop((t, h, w))
        text = self.text.flops(len(batch)) * (1 if isinstance(self.text, HuggingFaceText) else 3)
        return 3 * forward + text + encoding

    def _sample_flop(self, grid: Grid) -> int:
        """Forward FLOP of one sample of a latent grid, mean over what may be given of it."""
        if grid not in self._flop:
            f, h, w = grid
            step = self.vae.stride[0]
            frames = [tuple(step * k for k in range(1, f))] * DRAWS if self.conditioning.pictures else ()
            shown = Counter(one.frames for one in self.conditioning.draw(Rng(0), range(DRAWS), f, self.draw.rule, frames))
            layouts = {count: Layout.batch(1, token_grid((count, h, w), self.dit.patch), self.text.max_tokens) for count in shown}
            self._flop[grid] = round(sum(times * self.dit.flops(layouts[count]) for count, times in shown.items()) / DRAWS)
        return self._flop[grid]

    def _latents(self, batch: Batch) -> Tensor:
        """The batch's latents, whitened, float32; encoded here if the loader did not."""
        if batch.latents is not None:
            return batch.latents
        assert batch.video is not None
        with torch.no_grad(), torch.autocast(batch.video.device.type, enabled=False):
            return self.vae.encode(batch.video)

    def _noise(self, latents: Tensor, batch: Batch, rng: Rng) -> Tensor:
        _, channels, f, h, w = latents.shape
        return unit_noise(rng, batch.samples, channels, (f, h, w)).to(latents.device)

    def _drawn(self, batch: Batch, rng: Rng) -> list[Shown]:
        """A training batch of one shape with all that is random about it."""
        return self.draw(rng, batch, self._latents(batch), lambda clips, places: self._stills(batch, clips, places))

    def _stills(self, batch: Batch, clips: Sequence[int], places: Sequence[int]) -> Tensor:
        """Pictures of the batch's clips, encoded alone: k c h w."""
        if batch.stills is not None:
            return batch.stills[list(clips), :, list(places)]
        assert batch.video is not None, "pictures of clips that are no longer there"
        assert batch.still_frames is not None, "nobody said which pictures"
        frames = batch.still_frames[list(clips), list(places)].to(batch.video.device)
        pictures = batch.video[list(clips), :, frames][:, :, None]  # k 3 1 h w
        with torch.no_grad(), torch.autocast(batch.video.device.type, enabled=False):
            return self.vae.encode(pictures)[:, :, 0]

    def _velocities(self, shown: Sequence[Shown]) -> list[Tensor]:
        """The velocity that the network's answer to each stands for, b c F h w, in one pass."""
        noisy = [one.noisy for one in shown]
        answers = self._answers(shown, noisy)
        return [self.prediction.velocity(answer, latents, one.t) for answer, latents, one in zip(answers, noisy, shown, strict=True)]

    def _answers(self, shown: Sequence[Shown], noisy: Sequence[Tensor]) -> list[Tensor]:
        text = self.text([prompt for one in shown for prompt in one.prompts])
        if len(shown) == 1:
            return [self.dit(noisy[0], shown[0].t, text, shown[0].moments)]
        videos = [video for latents in noisy for video in latents.unbind()]
        t, when = (torch.cat([times.flatten() for times in each]) for each in ([one.t for one in shown], [one.moments for one in shown]))
        answers = self.dit.forward_packed(videos, t, text, when)
        return [torch.stack(answers[start:stop]) for start, stop in bounds([len(one.prompts) for one in shown])]

    def _errors(self, shown: Shown, predicted: Tensor) -> Tensor:
        """Squared errors per latent frame (b F)."""
        return frame_errors(predicted, velocity(shown.latents, shown.noise), shown.counts)

    def _part_loss(self, shown: Shown, predicted: Tensor) -> Loss:
        errors, values = self._errors(shown, predicted), values_per_frame(shown.latents)
        return Loss(errors.sum(), shown.counts.sum() * values, self._by_time(errors, shown, values))

    def _by_time(self, errors: Tensor, shown: Shown, values: int) -> dict[str, tuple[Tensor, Tensor]]:
        sums, counts = loss_by_time(errors, shown.counts, shown.t, values, self.bins)
        return {f"loss_t{number}of{self.bins}": (sums[number], counts[number]) for number in range(self.bins)}


def _added(losses: Sequence[Loss]) -> Loss:
    """The loss of all parts together; they have the same logs."""
    logs = {name: (_sum([loss.logs[name][0] for loss in losses]), _sum([loss.logs[name][1] for loss in losses])) for name in losses[0].logs}
    return Loss(_sum([loss.total for loss in losses]), _sum([loss.count for loss in losses]), logs)


def _sum(values: Sequence[Any]) -> Any:
    """Without a 0 to start from: one value stays what it is."""
    return reduce(add, values)
