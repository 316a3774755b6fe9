"""diffusers' AutoencoderKLWan behind the interface of our VAE: a yardstick that the same commands train, measure and pay for."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.geometry import Grid, latent_grid
from models.vae import Posterior, per_channel


class WanVAE(nn.Module):
    """A randomly initialised Wan 2.1 video VAE, 4x8x8: causal 3x3x3 convolutions, run latent frame by latent frame, gradients included.

    Args:
        base_dim: channels at full resolution; 96 is the published width (126.9 M weights).
        latent_channels: channels of a latent; 16 in the published one.
    Raises: ImportError if the extra [bench] is not installed.
    """

    latent_mean: Tensor
    latent_std: Tensor
    stride: Grid = (4, 8, 8)
    patch: Grid = (1, 1, 1)
    halo = (2**20, 2**20)  # its middle block looks at the whole frame: no tile is exact

    def __init__(self, base_dim: int = 96, latent_channels: int = 16) -> None:
        super().__init__()
        self.base_dim, self.latent_channels = base_dim, latent_channels
        self.wan = _wan(base_dim, latent_channels)
        self._flops: dict[Grid, dict[str, int]] = {}
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def posterior(self, video: Tensor) -> Posterior:
        """As `VideoVAE.posterior`."""
        frames, height, width = video.shape[2:]
        latent_grid(frames, height, width, self.stride)
        found = self.wan.encode(video).latent_dist
        return Posterior(found.mean.float(), found.logvar.float())

    def decode_posterior(self, raw: Tensor) -> Tensor:
        """As `VideoVAE.decode_posterior`. Its own `decode` clamps, which would stop the gradient of what lies outside [-1, 1]."""
        wan = self.wan
        x, parts = wan.post_quant_conv(raw), []
        wan.clear_cache()
        for frame in range(x.shape[2]):
            wan._conv_idx = [0]
            parts.append(wan.decoder(x[:, :, frame : frame + 1], feat_cache=wan._feat_map, feat_idx=wan._conv_idx, first_chunk=frame == 0))
        wan.clear_cache()
        return torch.cat(parts, dim=2).float()

    @property
    def last_layer(self) -> nn.Parameter:
        """As `VideoVAE.last_layer`."""
        return self.wan.decoder.conv_out.weight

    def decoding(self) -> list[nn.Module]:
        """As `VideoVAE.decoding`."""
        return [self.wan.post_quant_conv, self.wan.decoder]

    def encode(self, video: Tensor) -> Tensor:
        """As `VideoVAE.encode`."""
        return (self.posterior(video).mean - per_channel(self.latent_mean)) / per_channel(self.latent_std)

    def decode(self, latents: Tensor) -> Tensor:
        """As `VideoVAE.decode`."""
        return self.decode_posterior(latents * per_channel(self.latent_std) + per_channel(self.latent_mean)).clamp(-1, 1)

    def posterior_stream(self, chunks: Iterable[Tensor]) -> Iterator[Posterior]:
        """The whole clip at once."""
        yield self.posterior(torch.cat(list(chunks), dim=2))

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The whole clip at once."""
        yield self.encode(torch.cat(list(chunks), dim=2))

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The whole clip at once."""
        yield self.decode(torch.cat(list(chunks), dim=2))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """As `VideoVAE.set_statistics`."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def flops(self, frames: int, height: int, width: int) -> dict[str, int]:
        """As `VideoVAE.flops`, counted by torch on tensors without memory."""
        from torch.utils.flop_counter import FlopCounterMode

        shape = (frames, height, width)
        if shape not in self._flops:
            with torch.device("meta"), torch.no_grad():
                twin = WanVAE(self.base_dim, self.latent_channels)
                with FlopCounterMode(display=False) as encode:
                    raw = twin.posterior(torch.empty(1, 3, *shape)).mean
                with FlopCounterMode(display=False) as decode:
                    twin.decode_posterior(raw)
            self._flops[shape] = {"encode": encode.get_total_flops(), "decode": decode.get_total_flops()}
        return self._flops[shape]


def _wan(base_dim: int, latent_channels: int) -> Any:
    try:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    except ImportError as error:
        raise ImportError(f"models.vae_wan needs diffusers ({error}). Install it with: pip install -e '.[bench]'") from None
    return AutoencoderKLWan(base_dim=base_dim, z_dim=latent_channels, latents_mean=[0.0] * latent_channels, latents_std=[1.0] * latent_channels)
