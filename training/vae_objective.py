"""Learning the video VAE: pixels as they were, latents near a unit normal; sums over pixel values, so parts of unlike size add up."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from data.batch import Batch
from data.transforms import to_uint8
from models.vae import Posterior, VideoVAE
from runtime.checkpoint import Checkpoints
from runtime.config import ConfigError, differences
from runtime.run_folder import RunFolder
from runtime.seeding import Rng, Stream
from training.adversary import Adversary
from training.objective import Figures, Loss, Preview
from training.perceptual import Perceptual
from training.vae_part import Part, Whole

# A channel that varies less than this carries next to nothing; whitening it fully would only blow its rounding up.
LEAST_STD = 1e-2
# Below it a channel is counted as dead: its mean varies with a hundredth of the unit normal's variance (Burda et al. 2016, active units).
DEAD_STD = 0.1
WEIGHTS_KEY = "objective.perceptual.sha256"  # the key that says which weights a perceptual distance has


class VAEObjective:
    """Squared error + L1 + edges + KL of a video autoencoder, over clips or images of any size on its grid; a perceptual distance and a
    discriminator on top if asked for.

    Args:
        vae: trained from scratch, or from where `init_from` left it.
        l1: weight of the absolute error; 1 is the weight of the squared error.
        edge: weight of the squared error of the differences between neighbouring pixels, which a blurred edge makes.
        kl: weight of the divergence from a unit normal, per latent value, beside the mean error per pixel value. Larger makes smoother
            latents that a diffusion model learns more easily, and worse pictures.
        preview_clips: clips on the pictures in <run>/samples.
        perceptual: a distance that asks for texture, beside those of pixels.
        adversary: a discriminator that joins late.
        part: which part of the VAE learns; None: all of it.
    Raises: ValueError if a weight is negative.
    """

    def __init__(
        self,
        vae: VideoVAE,
        l1: float,
        edge: float,
        kl: float,
        preview_clips: int,
        perceptual: Perceptual | None = None,
        adversary: Adversary | None = None,
        part: Part | None = None,
    ) -> None:
        for name, weight in (("l1", l1), ("edge", edge), ("kl", kl)):
            if not weight >= 0:
                raise ValueError(f"{name}={weight} rewards what it should punish: a weight must be >= 0. Set objective.{name}.")
        self.vae = vae
        self.l1, self.edge, self.kl = l1, edge, kl
        self.preview_clips = preview_clips
        self.perceptual, self.adversary, self.part = perceptual, adversary, part or Whole()
        self.part.prepare(vae)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"vae": self.vae} | ({"discriminator": self.adversary.discriminator} if self.adversary else {})

    @property
    def sides(self) -> Sequence[Sequence[nn.Module]]:
        """The discriminator plays against the VAE: however loud it is, it must not make the VAE's step smaller."""
        return [[network] for network in self.networks.values()]

    def begin(self, folder: RunFolder, allow_drift: Sequence[str] = ()) -> None:
        """As in `Objective`; leaves the fact "perceptual_sha256".

        Raises: ConfigError if the decoder alone is to learn and the encoder never has, or the weights of the perceptual distance are others
            than at the run's first start and `allow_drift` does not cover objective.perceptual.sha256.
        """
        begun = bool(Checkpoints(folder.checkpoints).published())
        if not begun and not self.part.whitens and bool((self.vae.latent_mean == 0).all() and (self.vae.latent_std == 1).all()):
            raise ConfigError("the decoder alone is trained, but its encoder never was. Set init_from=<a VAE run>, or objective/part=whole.")
        sha256 = self.perceptual.sha256 if self.perceptual else None
        before = folder.fact("perceptual_sha256")
        # A distance that is left out, or has no weights, was let go of by the config's own check.
        if begun and before and sha256 and differences({WEIGHTS_KEY: before}, {WEIGHTS_KEY: sha256}, allow_drift):
            what = f"the perceptual distance's weights have the sha256 {sha256}, and the run began with {before}"
            choices = f"begin a new run (run=...), or go on with these: allow_drift=[{WEIGHTS_KEY}]"
            raise ConfigError(f"{what}. Put those back where objective.perceptual says, {choices}.")
        if sha256 != before:
            folder.remember("perceptual_sha256", sha256)

    def to(self, device: str) -> None:
        for network in (*self.networks.values(), *([self.perceptual] if self.perceptual else [])):
            network.to(device)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        video = _video(batch)
        raw, posterior = self.part.latents(self.vae, video, partial(_noise, batch=batch, rng=rng))
        result = self.vae.decode_posterior(raw)
        late = self.adversary.late(batch.samples) if self.adversary else []
        loss = self._contested(self.adversary, video, result, batch.samples, late) if self.adversary and late else self._compare(video, result)
        return self._with_divergence(loss, posterior)

    def validate(self, batch: Batch, rng: Rng) -> Figures:
        """The loss without posterior noise and discriminator, the PSNR of what a user gets (the mean over clips), and the latents' deviations."""
        video = _video(batch)
        posterior = self.vae.posterior(video)
        result = self.vae.decode_posterior(posterior.mean)
        loss = self._with_divergence(self._compare(video, result), posterior if self.part.whitens else None)
        std = self.vae.latent_std  # of these very clips, where `refresh` measures it
        statistics = {"latent_std_least": (std.min(), 1), "latent_std_most": (std.max(), 1), "dead_channels": ((std < DEAD_STD).sum(), 1)}
        return {"loss": (loss.total, loss.count), **loss.logs, "psnr_db": (_psnr_db(video, result).sum(), len(batch)), **statistics}

    def preview(self, batch: Batch, rng: Rng) -> Preview:
        """Source and reconstruction side by side."""
        video = _video(batch)[: self.preview_clips]
        result = self.vae.decode_posterior(self.vae.posterior(video).mean).clamp(-1, 1)
        figures = _psnr_db(video, result).tolist()
        return Preview(list(to_uint8(torch.cat([video, result], dim=-1)).cpu().numpy()), [f"source | {figure:.1f} dB" for figure in figures])

    @torch.no_grad()
    def refresh(self, batches: Sequence[Batch]) -> None:
        """Whiten by the mean and deviation of each latent channel on these clips; where the encoder is frozen, leave the whitening alone."""
        if not self.part.whitens:
            return
        if not batches:
            raise ValueError("the VAE's whitening is measured on the validation clips, and there are none. Set data.val and data.val_samples.")
        means = torch.cat([rearrange(self.vae.posterior(_video(batch)).mean, "b c f h w -> c (b f h w)") for batch in batches], dim=1)
        self.vae.set_statistics(means.mean(dim=1), means.std(dim=1).clamp(min=LEAST_STD))

    def flops(self, batch: Batch) -> int:
        """Backward counts twice the forward; a discriminator counts for the samples that it sees."""
        size = batch.content.shape[2:]
        total = len(batch) * (self.part.flops(self.vae.flops(*size)) + (self.perceptual.flops(*size) if self.perceptual else 0))
        return total + (self.adversary.flops(batch.samples, *size) if self.adversary else 0)

    def _compare(self, video: Tensor, result: Tensor) -> Loss:
        """What the pixels are punished for. The weights are between means: sums are brought to the number of pixel values."""
        error, values = result - video, video.numel()
        squared, absolute = error.square().sum(), error.abs().sum()
        total = squared + self.l1 * absolute
        logs = {"mse": (squared.detach(), values), "l1": (absolute.detach(), values)}
        if self.edge:
            edges = error.diff(dim=-1).square().sum() + error.diff(dim=-2).square().sum()
            total = total + self.edge * edges
            logs["edge"] = (edges.detach(), values)
        if self.perceptual:
            distances = self.perceptual(video, result)
            total = total + self.perceptual.weight * distances.sum() * (values / len(distances))
            logs["perceptual"] = (distances.detach().sum(), len(distances))
        return Loss(total, values, logs)

    def _with_divergence(self, loss: Loss, posterior: Posterior | None) -> Loss:
        if posterior is None:
            return loss
        divergence = posterior.kl()
        values = divergence.numel()
        total = loss.total + self.kl * divergence.sum() * (loss.count / values)
        return Loss(total, loss.count, {**loss.logs, "kl": (divergence.detach().sum(), values)})

    def _contested(self, adversary: Adversary, video: Tensor, result: Tensor, samples: Sequence[int], late: list[int]) -> Loss:
        """`_compare`, and a round against the discriminator for the samples at the places `late`.

        The gradient by the reconstruction is computed here, in two parts whose balance at the last layer can be struck; what is handed out
        has that gradient and the values of the losses, both with each sample's share of the weight.
        """
        shown = result.detach().requires_grad_()
        loss = self._compare(video, shown)
        (pull,) = torch.autograd.grad(loss.total, shown)
        seen = result[late]
        said = adversary.play(video[late], seen)
        scale = adversary.scale(seen, self.vae.last_layer, pull[late], said.push)
        weights = adversary.weight * scale * adversary.shares([samples[place] for place in late]).to(result)  # of each late sample
        gradient = pull.clone()
        gradient[late] += weights[:, None, None, None, None] * said.push
        value = loss.total.detach() + (weights * said.fooled).sum()
        return Loss(
            _with_gradient(value, result, gradient) + said.loss,
            loss.count,
            {**loss.logs, **said.logs, "adversary_scale": (scale * len(late), len(late))},
        )


def _with_gradient(value: Tensor, tensor: Tensor, gradient: Tensor) -> Tensor:
    """A scalar of this value whose gradient by `tensor` is the one given."""
    product = (tensor * gradient).sum()
    return value.detach() + (product - product.detach())


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
