"""The adversarial part of a VAE's training: one backward moves both players, and each of them by its own term alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.discriminator import PatchDiscriminator
from training.objective import Figures

TINY = 1e-12  # of the discriminator's pull on the last layer: below, it says nothing


@runtime_checkable
class Game(Protocol):
    """What the two players lose, by logit; above 0 means real."""

    def judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's loss on real clips and on reconstructions."""
        ...

    def fool(self, fake: Tensor) -> Tensor:
        """The decoder's loss."""
        ...


@dataclass(frozen=True, slots=True)
class Hinge:
    """Clips that are judged right by a margin of 1 teach the discriminator nothing more. Source: Lim and Ye 2017; VQGAN uses it."""

    def judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return F.relu(1 - real), F.relu(1 + fake)

    def fool(self, fake: Tensor) -> Tensor:
        return -fake


@dataclass(frozen=True, slots=True)
class NonSaturating:
    """Cross-entropy, with the decoder raising the chance of being taken for real. Source: Goodfellow et al. 2014, section 3."""

    def judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return F.softplus(-real), F.softplus(fake)

    def fool(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake)


@dataclass(frozen=True, slots=True)
class Round:
    """What a discriminator says about some clips.

    Args:
        loss: of the discriminator, a sum in units of pixel values; its gradient reaches the discriminator alone.
        fooled: loss of the decoder, likewise, of each clip (b,), without a gradient.
        push: the gradient of the sum of `fooled` by the reconstructions; no part of it is in `loss`.
        logs: figures of the discriminator.
    """

    loss: Tensor
    fooled: Tensor
    push: Tensor
    logs: Figures


class Adversary:
    """A discriminator that joins late in a run, when reconstructions are so near that what separates them from clips is their texture.

    From `from_sample` on its gradient is added to that of the other losses, scaled so that both pull equally at the decoder's last layer,
    times `weight`. The beginning is a sample number, not a share of the run: a run whose steps follow from a time budget does not know its
    end at first, and a number is the same however the run is resumed, extended or cut into micro-batches.

    Args:
        discriminator: trained beside the VAE.
        game: the losses of the two.
        weight: of the adversarial pull, in units of the reconstruction's.
        most: of the adaptive scale; limits a discriminator that says nearly nothing.
        r1: weight of half the squared gradient by real pixels, per logit; keeps the discriminator from overtaking the decoder. 0: none.
        from_sample: number of the first sample that it sees.
        ramp_samples: samples over which the weight rises from 0: the discriminator begins with random weights.
    Raises: ValueError if a number is out of range.
    """

    def __init__(
        self, discriminator: PatchDiscriminator, game: Game, weight: float, most: float, r1: float, from_sample: int, ramp_samples: int
    ) -> None:
        for name, value in (("weight", weight), ("most", most), ("r1", r1), ("from_sample", from_sample), ("ramp_samples", ramp_samples)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value} must be a finite number >= 0. Set objective.adversary.{name}.")
        self.discriminator, self.game = discriminator, game
        self.weight, self.most, self.r1 = weight, most, r1
        self.from_sample, self.ramp_samples = from_sample, ramp_samples

    def late(self, samples: Sequence[int]) -> list[int]:
        """The places in a batch of the samples that it sees."""
        return [place for place, sample in enumerate(samples) if sample >= self.from_sample]

    def shares(self, samples: Sequence[int]) -> Tensor:
        """Of its weight, by sample, (b,): 0 before `from_sample`, 1 after the ramp."""
        before = [sample - self.from_sample + 1 for sample in samples]
        return torch.tensor([0.0 if seen < 1 else min(1.0, seen / max(1, self.ramp_samples)) for seen in before])

    def play(self, video: Tensor, result: Tensor) -> Round:
        """Judge clips b 3 t h w against their reconstructions, which are taken without their history."""
        fake = result.detach().requires_grad_()
        real = video.detach().requires_grad_(self.r1 > 0)
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        logits, scale = fake_logits.numel(), video.numel() / fake_logits.numel()  # weights are between means: per logit, per pixel value
        fooled = self.game.fool(fake_logits).flatten(1).sum(dim=1) * scale  # b
        # The same logits serve both players, one forward for two: this takes the decoder's gradient and leaves the discriminator's alone.
        (push,) = torch.autograd.grad(fooled.sum(), fake, retain_graph=True)

        on_real, on_fake = self.game.judge(real_logits, fake_logits)
        judged = on_real.sum() + on_fake.sum()
        penalty = self._steepness(real, real_logits) if self.r1 else judged.new_zeros(())
        logs = {
            "discriminator": (judged.detach(), logits),
            "fooled": (fooled.detach().sum() / scale, logits),
            "logit_real": (real_logits.detach().sum(), logits),
            "logit_fake": (fake_logits.detach().sum(), logits),
            "r1": (penalty.detach(), logits),
        }
        return Round((judged + 0.5 * self.r1 * penalty) * scale, fooled.detach(), push, logs)

    def scale(self, result: Tensor, last_layer: nn.Parameter, pull: Tensor, push: Tensor) -> Tensor:
        """What makes the discriminator's push as strong at the last layer as the pull of the other losses; at most `most`.

        Args:
            result: of the samples that it sees and of no others, with its history: the pull of others has no push beside it.
            pull, push: gradients by the result.
        Source: Esser et al. 2021 (VQGAN), section 3.2.
        """
        sizes = [torch.autograd.grad(result, last_layer, way, retain_graph=True)[0].norm() for way in (pull, push)]
        return (sizes[0] / sizes[1].clamp(min=TINY)).clamp(max=self.most)

    def flops(self, samples: Sequence[int], frames: int, height: int, width: int) -> int:
        """Of one micro-batch: two forwards, the gradient by the reconstruction, two backwards; R1's gradient and its backward are four more."""
        return (11 if self.r1 else 7) * len(self.late(samples)) * self.discriminator.flops(frames, height, width)

    def _steepness(self, real: Tensor, logits: Tensor) -> Tensor:
        """Squared gradient of each sample's logits by its pixels, summed: grows with the number of logits, whatever the size."""
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        return gradient.square().sum()
