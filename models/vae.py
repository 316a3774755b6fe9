"""The causal video VAE: 1 + k * stride_t frames become 1 + k whitened latent frames and back, as one clip or as a stream."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from models.geometry import Grid, latent_grid
from models.vae_blocks import Mixing, Shift, norm
from models.vae_stems import Patches, Stem, blend, blend_flop, frames, patches
from models.vae_tower import State, decoder, encoder, linear_flop, reach

SHIFT = Shift()
PATCHES = Patches()


@dataclass(frozen=True, slots=True)
class Posterior:
    """A Gaussian per latent value, raw (not whitened): mean and logvar, both b c f h w float32."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A latent of this posterior, from unit normal `noise` of the same shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """Divergence from a unit normal in nats, per latent value."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)


class VideoVAE(nn.Module):
    """A video autoencoder of spacetime patches, blocks that mix 3x3 positions, and changes of resolution by 2x2; strictly causal in time.

    The first frame is repeated to fill its own temporal patch, so one image is one latent frame and is coded exactly as the first
    frame of a video is.

    Args:
        stride_t: frames per latent frame.
        stride_s: pixels per latent position, in height and in width.
        latent_channels: channels of a latent.
        widths: channels of each level, fine to coarse; each level halves the resolution of the one before. Multiples of 8. The finest level has
            patches of stride_s / 2 ** (levels - 1) px; only their mean colours are blended, so give as many levels as make them 2 px.
        encoder_depths, decoder_depths: blocks of each level, fine to coarse.
        look_back: latent frames that the encoder sees before the one it makes (R); that many of its last blocks look back one frame.
        decoder_look_back: the same for the decoder; its first (coarsest) blocks look back.
        expand: hidden channels of a block in units of its width.
        mixing: how a block mixes its neighbourhood: `Shift` by one matrix product, `Convolution` by a full kernel.
        stem: what a patch is to the first and last layer: its pixels (`Patches`) or their `Haar` coefficients.
    Raises: ValueError if the sizes do not fit each other.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        stride_t: int = 4,
        stride_s: int = 8,
        latent_channels: int = 16,
        widths: Sequence[int] = (128, 256),
        encoder_depths: Sequence[int] = (1, 2),
        decoder_depths: Sequence[int] = (2, 2),
        look_back: int = 1,
        decoder_look_back: int = 2,
        expand: int = 1,
        mixing: Mixing = SHIFT,
        stem: Stem = PATCHES,
    ) -> None:
        super().__init__()
        _check(stride_t, stride_s, latent_channels, widths, encoder_depths, decoder_depths, look_back, decoder_look_back)
        self.stride: Grid = (stride_t, stride_s, stride_s)
        self.latent_channels = latent_channels
        self.depths = (tuple(encoder_depths), tuple(decoder_depths))
        self.patching = stem
        self.patch: Grid = (stride_t, stride_s >> (len(widths) - 1), stride_s >> (len(widths) - 1))
        values = 3 * self.patch[0] * self.patch[1] * self.patch[2]

        self.stem = nn.Linear(values, widths[0])
        self.encoder = encoder(widths, encoder_depths, look_back, expand, mixing)
        self.to_posterior = nn.Linear(widths[-1], 2 * latent_channels)
        self.from_latents = nn.Linear(latent_channels, widths[-1])
        self.decoder = decoder(widths, decoder_depths, decoder_look_back, expand, mixing)
        self.head = nn.Linear(widths[0], values)
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @property
    def look_back(self) -> int:
        """R: latent frame f depends on the pixel frames of latent frames f - R to f and on no other."""
        return self.encoder.look_back

    @property
    def decoder_look_back(self) -> int:
        """The pixel frames of latent frame f depend on latent frames f - decoder_look_back to f and on no other."""
        return self.decoder.look_back

    @property
    def halo(self) -> tuple[int, int]:
        """Latent positions around a tile, in height and in width, that encoding it and decoding it depend on; no value depends on more."""
        return reach(self.depths[0], window=0), reach(self.depths[1], window=1, head=int(self.patch[1] > 1))

    def posterior(self, video: Tensor) -> Posterior:
        """The raw posterior of a clip, b 3 t h w in [-1, 1]."""
        self._check_video(video)
        return self._posterior(self._lead(video), None)[0]

    def decode_posterior(self, raw: Tensor) -> Tensor:
        """Pixels of raw latents (a posterior's mean or sample), not clamped: what a loss compares."""
        self._check_latents(raw)
        return self._pixels(raw, None)[0]

    def encode(self, video: Tensor) -> Tensor:
        """Whitened latents b c f h w of a clip b 3 t h w in [-1, 1]: the posterior's mean, mean 0 and deviation 1 per channel."""
        return self._whiten(self.posterior(video).mean)

    def decode(self, latents: Tensor) -> Tensor:
        """The clip b 3 t h w in [-1, 1] of whitened latents b c f h w."""
        self._check_latents(latents)
        return self.decode_posterior(self._colour(latents)).clamp(-1, 1)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode a clip that arrives in pieces of any length, b 3 t h w each; yields one latent frame, b c 1 h w, as soon as its frames are there.

        Frames pass one latent frame at a time, so cutting the clip otherwise changes no bit; equal to `encode` of the whole up to kernel
        rounding. Memory holds one chunk, `look_back` frames of features and less than one patch, whatever the length.
        Raises: ValueError if a piece has another size than the first, or, at the end, if the clip had not 1 + k * stride_t frames.
        """
        for posterior in self.posterior_stream(chunks):
            yield self._whiten(posterior.mean)

    def posterior_stream(self, chunks: Iterable[Tensor]) -> Iterator[Posterior]:
        """The raw posterior, a latent frame at a time; as `encode_stream`."""
        state: State | None = None
        frames = 0
        size = (self.stride[1], self.stride[2])
        for video in _regroup(chunks, 1, self.stride[0]):
            first, frames, size = frames == 0, frames + video.shape[2], (video.shape[3], video.shape[4])
            if first:
                self._check_video(video)
                video = self._lead(video)
            if video.shape[2] == self.stride[0]:
                posterior, state = self._posterior(video, state)
                yield posterior
        latent_grid(frames, *size, self.stride)

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decode whitened latents that arrive in pieces of any length, b c f h w each; yields the frames of one latent frame at a time.

        Latents pass one frame at a time, so cutting them otherwise changes no bit; equal to `decode` of the whole up to kernel rounding.
        The first yields one frame b 3 1 h w, each later one stride_t. Memory holds one chunk and `decoder_look_back` frames of features.
        Raises: ValueError if a piece has another size than the first.
        """
        state: State | None = None
        for latents in _regroup(chunks, 1, 1):
            self._check_latents(latents)
            video, state = self._pixels(self._colour(latents), state)
            yield video.clamp(-1, 1)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the layer that paints the pixels: where an adaptive loss weight compares gradients."""
        weight = self.head.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def decoding(self) -> list[nn.Module]:
        """What only decoding runs: training these alone leaves every latent as it is."""
        return [self.from_latents, self.decoder, self.head]

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Fix the whitening: raw mean and standard deviation of each latent channel, measured on real clips.

        Raises: ValueError if they are not finite, or not one positive deviation per channel.
        """
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.latent_channels,) or not torch.isfinite(values).all():
                raise ValueError(f"latent {name} must be {self.latent_channels} finite numbers, got shape {tuple(values.shape)}: {values.tolist()}.")
        if (std <= 0).any():
            raise ValueError(f"latent std must be positive, got {std.tolist()}: a channel that never changes cannot be whitened.")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def flops(self, frames: int, height: int, width: int) -> dict[str, int]:
        """FLOP to encode and to decode one clip, two per multiply-add; norms and activations are left out."""
        grid = latent_grid(frames, height, width, self.stride)
        latents = grid[0] * grid[1] * grid[2]
        fine = latents * (self.stride[1] // self.patch[1]) ** 2
        return {
            "encode": linear_flop(self.stem, fine) + self.encoder.flops(fine) + linear_flop(self.to_posterior, latents),
            "decode": linear_flop(self.from_latents, latents)
            + self.decoder.flops(latents)
            + linear_flop(self.head, fine)
            + fine * blend_flop(self.patch),
        }

    def _lead(self, video: Tensor) -> Tensor:
        """Repeat the first frame in front, so that it fills a temporal patch by itself."""
        first = video[:, :, :1].expand(-1, -1, self.stride[0] - 1, -1, -1)
        return torch.cat([first, video], dim=2)  # b 3 (f stride_t) h w

    def _posterior(self, video: Tensor, state: State | None) -> tuple[Posterior, State]:
        x = self.stem(self.patching.values(patches(video, self.patch), self.patch))
        x, after = self.encoder(x, state)
        x = self.to_posterior(norm(x)).float()
        mean, logvar = rearrange(x, "b f h w (k c) -> k b c f h w", k=2)
        return Posterior(mean, logvar.clamp(-20, 10)), after

    def _pixels(self, raw: Tensor, state: State | None) -> tuple[Tensor, State]:
        x = self.from_latents(rearrange(raw, "b c f h w -> b f h w c"))
        x, after = self.decoder(x, state)
        pixels = self.patching.pixels(self.head(norm(x)), self.patch)
        video = frames(blend(pixels, self.patch), self.patch)
        return (video if state is not None else video[:, :, self.stride[0] - 1 :]).float(), after  # the first patch shows its last frame alone

    def _whiten(self, raw: Tensor) -> Tensor:
        return (raw - per_channel(self.latent_mean)) / per_channel(self.latent_std)

    def _colour(self, latents: Tensor) -> Tensor:
        return latents * per_channel(self.latent_std) + per_channel(self.latent_mean)

    def _check_video(self, video: Tensor) -> None:
        if video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(f"the VAE encodes b 3 t h w (an image has t = 1), got shape {tuple(video.shape)}.")
        frames, height, width = video.shape[2:]
        latent_grid(frames, height, width, self.stride)

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(f"the VAE decodes b {self.latent_channels} f h w, got shape {tuple(latents.shape)}.")


def _regroup(chunks: Iterable[Tensor], first: int, size: int) -> Iterator[Tensor]:
    """Pieces along the frame axis become pieces of `first`, then of `size` frames each; the last one may be short. Each is a copy of its own, so that
    neither its strides nor its life depend on how the frames arrived."""
    parts: list[Tensor] = []
    want, kept = first, None
    for chunk in chunks:
        start, kept = 0, chunk.shape if kept is None else kept
        check_piece(chunk.shape, kept)
        while chunk.shape[2] - start >= want:
            yield torch.cat([*parts, chunk[:, :, start : start + want]], dim=2).contiguous()
            start, parts, want = start + want, [], size
        if start < chunk.shape[2]:
            parts.append(chunk[:, :, start:].clone())
            want -= chunk.shape[2] - start
        del chunk  # else it would live on while the next one is made
    if parts:
        yield torch.cat(parts, dim=2)


def check_piece(got: Sequence[int], first: Sequence[int]) -> None:
    """Refuse a piece of a stream that is not of one clip with the first one: they are b c t h w and differ in t alone.

    Raises: ValueError if it is not.
    """
    if len(got) != 5:
        raise ValueError(f"a stream takes pieces b c t h w, got shape {tuple(got)}. Give a batch axis to what has none.")
    if (*got[:2], *got[3:]) != (*first[:2], *first[3:]):
        what = f"got b {got[0]}, {got[1]} channels, {got[3]} x {got[4]} after b {first[0]}, {first[1]} channels, {first[3]} x {first[4]}"
        raise ValueError(f"the pieces of a stream differ in length alone: {what}. Give each clip, and each size, a stream of its own.")


def per_channel(values: Tensor) -> Tensor:
    """(c,) as a factor of b c f h w."""
    return values[:, None, None, None]  # c 1 1 1


def _check(
    stride_t: int,
    stride_s: int,
    channels: int,
    widths: Sequence[int],
    encoder_depths: Sequence[int],
    decoder_depths: Sequence[int],
    look_back: int,
    decoder_look_back: int,
) -> None:
    if channels < 1:
        raise ValueError(f"latent_channels={channels} leaves nothing to decode: at least 1 is needed. Set latent_channels.")
    if stride_t not in (1, 2, 4, 8):
        raise ValueError(f"stride_t={stride_t} is not supported: it must be 1, 2, 4 or 8. Set stride_t.")
    if stride_s not in (4, 8, 16, 32) or stride_s % 2 ** (len(widths) - 1):
        raise ValueError(
            f"stride_s={stride_s} with {len(widths)} levels is not supported: it must be 4, 8, 16 or 32 and divisible by {2 ** (len(widths) - 1)} "
            "(each level after the first halves the resolution). Set stride_s or widths."
        )
    if not widths or any(width < 8 or width % 8 for width in widths):
        raise ValueError(f"widths={list(widths)} must be positive multiples of 8: each of eight neighbours gives an eighth. Set widths.")
    for name, depths, looks in (("encoder", encoder_depths, look_back), ("decoder", decoder_depths, decoder_look_back)):
        if len(depths) != len(widths) or min(depths) < 0:
            raise ValueError(f"{name}_depths={list(depths)} must give a number of blocks for each of {len(widths)} widths. Set {name}_depths.")
        if not 0 <= looks <= sum(depths):
            key = "look_back" if name == "encoder" else "decoder_look_back"
            raise ValueError(f"{key}={looks} needs as many {name} blocks, but there are {sum(depths)}; give 0 to {sum(depths)}. Set {key}.")
