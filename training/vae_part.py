"""Which part of a VAE learns: all of it, or the decoder alone, which leaves every latent that was ever made of it valid."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from models.vae import Posterior, VideoVAE


@runtime_checkable
class Part(Protocol):
    """What of a VAE is trained, and on which latents."""

    @property
    def whitens(self) -> bool:
        """Whether the latents' statistics follow the training; else they stay as they are."""
        ...

    def prepare(self, vae: VideoVAE) -> None:
        """Say which parameters are trained."""
        ...

    def latents(self, vae: VideoVAE, video: Tensor, noise: Callable[[Posterior], Tensor]) -> tuple[Tensor, Posterior | None]:
        """Raw latents to decode, and the posterior if its divergence is part of the loss.

        Args:
            noise: unit normal, of a posterior's shape.
        """
        ...

    def flops(self, forward: Mapping[str, int]) -> int:
        """FLOP of forward and backward, from those to "encode" and to "decode"."""
        ...


class Whole:
    """Encoder and decoder learn together, through a sample of the posterior."""

    whitens = True

    def prepare(self, vae: VideoVAE) -> None:
        vae.requires_grad_(True)

    def latents(self, vae: VideoVAE, video: Tensor, noise: Callable[[Posterior], Tensor]) -> tuple[Tensor, Posterior | None]:
        posterior = vae.posterior(video)
        return posterior.sample(noise(posterior)), posterior

    def flops(self, forward: Mapping[str, int]) -> int:
        return 3 * sum(forward.values())


class DecoderOnly:
    """The decoder learns; encoder, posterior and whitening stay bit for bit, so latents and flow models made with them stay valid.

    Args:
        noise: deviations of the posterior's noise that are added to its mean: 0 decodes what an encoder gives, 1 what the whole VAE was trained
            with, which also steadies the decoder against what a flow model gets slightly wrong.
    Raises: ValueError if the noise is negative.
    """

    whitens = False

    def __init__(self, noise: float) -> None:
        if not 0 <= noise < float("inf"):
            raise ValueError(f"noise={noise} must be a finite number >= 0. Set objective.part.noise.")
        self.noise = noise

    def prepare(self, vae: VideoVAE) -> None:
        vae.requires_grad_(False)
        for module in vae.decoding():
            module.requires_grad_(True)

    def latents(self, vae: VideoVAE, video: Tensor, noise: Callable[[Posterior], Tensor]) -> tuple[Tensor, Posterior | None]:
        with torch.no_grad():
            posterior = vae.posterior(video)
            return posterior.sample(self.noise * noise(posterior)) if self.noise else posterior.mean, None

    def flops(self, forward: Mapping[str, int]) -> int:
        return forward["encode"] + 3 * forward["decode"]
