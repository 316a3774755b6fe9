"""Learning the video VAE: pixels as they were, latents near a unit normal; sums over pixel values, so parts of unlike size add up."""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from data.batch import Batch
from data.transforms import to_uint8
from models.vae import Posterior, VideoVAE
from runtime.seeding import Rng, Stream
from training.objective import Figures, Loss, Preview

# A channel that varies less than this carries next to nothing; whitening it fully would only blow its rounding up.
LEAST_STD = 1e-2


class VAEObjective:
    """Squared error + L1 + edges + KL of a video autoencoder, over clips or images of any size on its grid.

    Args:
        vae: trained from scratch.
        l1: weight of the absolute error; 1 is the weight of the squared error.
        edge: weight of the squared error of the differences between neighbouring pixels, which a blurred edge makes.
        kl: weight of the divergence from a unit normal, per latent value, beside the mean error per pixel value. Larger makes smoother
            latents that a diffusion model learns more easily, and worse pictures.
        preview_clips: clips on the pictures in <run>/samples.
    Raises: ValueError if a weight is negative.
    """

    def __init__(self, vae: VideoVAE, l1: float, edge: float, kl: float, preview_clips: int) -> None:
        for name, weight in (("l1", l1), ("edge", edge), ("kl", kl)):
            if not weight >= 0:
                raise ValueError(f"{name}={weight} rewards what it should punish: a weight must be >= 0. Set objective.{name}.")
        self.vae = vae
        self.l1, self.edge, self.kl = l1, edge, kl
        self.preview_clips = preview_clips

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"vae": self.vae}

    def to(self, device: str) -> None:
        self.vae.to(device)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        video = _video(batch)
        posterior = self.vae.posterior(video)
        raw = posterior.sample(_noise(posterior, batch, rng))
        return self._compare(video, self.vae.decode_posterior(raw), posterior)

    def validate(self, batch: Batch, rng: Rng) -> Figures:
        """The loss without posterior noise, and the PSNR of what a user gets: the mean over clips."""
        video = _video(batch)
        posterior = self.vae.posterior(video)
        result = self.vae.decode_posterior(posterior.mean)
        loss = self._compare(video, result, posterior)
        return {"loss": (loss.total, loss.count), **loss.logs, "psnr_db": (_psnr_db(video, result).sum(), len(batch))}

    def preview(self, batch: Batch, rng: Rng) -> Preview:
        """Source and reconstruction side by side."""
        video = _video(batch)[: self.preview_clips]
        result = self.vae.decode_posterior(self.vae.posterior(video).mean).clamp(-1, 1)
        figures = _psnr_db(video, result).tolist()
        return Preview(list(to_uint8(torch.cat([video, result], dim=-1)).cpu().numpy()), [f"source | {figure:.1f} dB" for figure in figures])

    @torch.no_grad()
    def refresh(self, batches: Sequence[Batch]) -> None:
        """Whiten by the mean and deviation of each latent channel on these clips."""
        if not batches:
            raise ValueError("the VAE's whitening is measured on the validation clips, and there are none. Set data.val and data.val_samples.")
        means = torch.cat([rearrange(self.vae.posterior(_video(batch)).mean, "b c f h w -> c (b f h w)") for batch in batches], dim=1)
        self.vae.set_statistics(means.mean(dim=1), means.std(dim=1).clamp(min=LEAST_STD))

    def flops(self, batch: Batch) -> int:
        """Backward counts twice the forward."""
        frames, height, width = batch.content.shape[2:]
        return 3 * len(batch) * sum(self.vae.flops(frames, height, width).values())

    def _compare(self, video: Tensor, result: Tensor, posterior: Posterior) -> Loss:
        error = result - video
        squared, absolute, divergence = error.square().sum(), error.abs().sum(), posterior.kl()
        # The weights are between means: over pixel values, and over latent values for the divergence.
        values, latent_values = video.numel(), divergence.numel()
        total = squared + self.l1 * absolute + self.kl * divergence.sum() * (values / latent_values)
        logs = {"mse": (squared.detach(), values), "l1": (absolute.detach(), values), "kl": (divergence.detach().sum(), latent_values)}
        if self.edge:
            edges = error.diff(dim=-1).square().sum() + error.diff(dim=-2).square().sum()
            total = total + self.edge * edges
            logs["edge"] = (edges.detach(), values)
        return Loss(total, values, logs)


def _video(batch: Batch) -> Tensor:
    assert batch.video is not None, "a VAE learns from pixels; data.latents is for a flow objective"
    return batch.video


def _noise(posterior: Posterior, batch: Batch, rng: Rng) -> Tensor:
    """Unit noise of the posterior's shape, b c f h w, from the sample numbers."""
    _, c, f, h, w = posterior.mean.shape
    drawn = rng.normal(Stream.POSTERIOR, batch.samples, f, (c, h, w))
    return rearrange(torch.from_numpy(drawn), "b f c h w -> b c f h w").to(posterior.mean.device)


def _psnr_db(video: Tensor, result: Tensor) -> Tensor:
    """Of each clip, (b,): peak 2, from -1 to 1; an error below a tenth of an 8-bit level counts as that."""
    error = (result.clamp(-1, 1) - video).square().flatten(1).mean(dim=1)
    return -10 * torch.log10(error.clamp(min=(0.2 / 255) ** 2) / 4)
