"""The diffusion transformer: noisy latents, flow time and moment of each latent frame, and text in, velocity out."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Fastest, Kernel, check_heads
from models.blocks import Stack
from models.geometry import Grid, Layout, token_grid
from models.heads import PerHead, QkNorm
from models.layers import FeedForward, Gelu, TimeEmbedding, linear, linear_flops, modulated_norm
from models.mixing import Joint, Mixing, groups_of
from models.modulation import Modulation, PerBlock
from models.packing import patchify, unpatchify
from models.patterns import Full, Pattern
from models.recompute import Keep, Recompute
from models.rope import Rope, default_axes
from models.rope_scaling import RopeScaling
from models.text import Text

ANCHORS = 4  # registers where all else has a place: one clip is learnt to 0.02 of the first loss in 200 steps with them, to 0.14 to 0.19 without


class DiT(nn.Module):
    """A transformer over spacetime patches that predicts the velocity, or what `flow.prediction` takes it for; before training exactly 0.

    A frame that is given is a frame at t = 0: there is no mask channel. The network knows neither guidance nor text dropout.

    Args:
        latent_channels: of the VAE.
        width: of the tokens.
        depth: number of blocks.
        heads: must divide width; 128 channels a head are fastest where there are enough of them.
        text_width: of the text encoder's tokens.
        patch: latents per token (t, h, w); t must be 1, as flow time is per latent frame.
        mlp_ratio: hidden width of the MLP over width.
        rope_axes: channels of a head for (t, h, w), summing to width / heads; None for a quarter, three and three eighths.
        rope_theta: see `Rope`.
        mixing: how text and video meet.
        modulation: how flow time and pooled text steer the blocks.
        mlp: which MLP the blocks have, at equal parameters.
        pattern: which tokens may look at which.
        kernel: the attention back end.
        qk_norm: of queries and keys.
        recompute: which activations are kept for the backward pass.
        rope: for longer and larger than trained; `rescale` changes it in a network that is built.
        registers: learnt tokens that every sample's video can look at; null: 4 where nothing else in its own attention is without a place
            (see `Mixing.placeless`), else none.
    """

    def __init__(
        self,
        latent_channels: int,
        width: int,
        depth: int,
        heads: int,
        text_width: int,
        patch: Sequence[int] = (1, 2, 2),
        mlp_ratio: float = 4.0,
        rope_axes: Sequence[int] | None = None,
        rope_theta: float = 100.0,
        mixing: Mixing | None = None,
        modulation: Modulation | None = None,
        mlp: FeedForward | None = None,
        pattern: Pattern | None = None,
        kernel: Kernel | None = None,
        qk_norm: QkNorm | None = None,
        recompute: Recompute | None = None,
        rope: RopeScaling | None = None,
        registers: int | None = None,
    ) -> None:
        super().__init__()
        head_width = check_heads(width, heads)
        if registers is not None and registers < 0:
            raise ValueError(f"registers={registers} must be 0 (none) or more. Set registers.")
        if len(patch) != 3 or patch[0] != 1 or min(patch) < 1:
            raise ValueError(f"patch={tuple(patch)} cannot be used: it must be (1, h, w), as flow time is per latent frame. Set patch.")
        self.patch: Grid = (patch[0], patch[1], patch[2])
        self.latent_channels, self.width, self.text_width = latent_channels, width, text_width
        mixing = mixing or Joint()
        values = latent_channels * patch[0] * patch[1] * patch[2]
        self.rope = Rope(head_width, default_axes(head_width) if rope_axes is None else rope_axes, rope_theta)
        self.video_in = linear(values, width)
        self.text_in = linear(text_width, width) if mixing.words else None
        self.pooled_in = linear(text_width, width)
        self.time = TimeEmbedding(width)
        stack = Stack(
            width,
            depth,
            heads,
            int(mlp_ratio * width),
            modulation or PerBlock(),
            mlp or Gelu(),
            pattern or Full(),
            kernel or Fastest(),
            qk_norm or PerHead(),
            recompute or Keep(),
            (0 if mixing.placeless else ANCHORS) if registers is None else registers,
        )
        self.trunk = mixing.trunk(stack)
        self.head_modulation = linear(width, 2 * width, gain=0)
        self.head = linear(width, values, gain=0)
        if rope is not None:
            self.rescale(rope)

    def rescale(self, rope: RopeScaling) -> None:
        """Use other rope angles from now on, for videos longer or larger than the network was trained on."""
        self.rope.scaling = rope
        self.trunk.sharpen(rope.sharpness)

    def forward(self, noisy: Tensor, t: Tensor, text: Text, moments: Tensor) -> Tensor:
        """The velocity of a batch of one shape.

        Args:
            noisy: b c f h w, any h and w: a patch that sticks out is filled with zeros.
            t: (b, f) in [0, 1].
            text: of b prompts.
            moments: (b, f) seconds at which each latent frame ends, in float32, as `geometry.moments` makes them. Any finite numbers in any
                order: a picture of a later moment is one more latent frame.
        Returns: b c f h w.
        """
        if noisy.ndim != 5 or noisy.shape[1] != self.latent_channels:
            raise ValueError(f"noisy has shape {tuple(noisy.shape)}, wanted (b, {self.latent_channels}, f, h, w). Set latent_channels to the VAE's.")
        samples, _, f, h, w = noisy.shape
        if t.shape != (samples, f):
            raise ValueError(f"t has shape {tuple(t.shape)}, wanted {(samples, f)}: one flow time per sample and latent frame.")
        if moments.shape != (samples, f):
            raise ValueError(
                f"moments has shape {tuple(moments.shape)}, wanted {(samples, f)}: the second at which each latent frame of a sample ends. "
                "Make them of frame rates by models.geometry.moments."
            )
        layout = Layout.batch(samples, token_grid((f, h, w), self.patch), text.tokens.shape[1])
        velocity = self._velocity(patchify(noisy, self.patch), t.flatten(), text, moments, layout)
        return unpatchify(velocity, (f, h, w), self.patch)

    def forward_packed(self, noisy: Sequence[Tensor], t: Tensor, text: Text, moments: Tensor) -> list[Tensor]:
        """The velocities of videos of unlike shape, in one sequence; each as if it were alone.

        Args:
            noisy: c f h w each.
            t: (F,) in [0, 1], the latent frames of all samples in order.
            text: of one prompt per video.
            moments: (F,), otherwise as in `forward`.
        Returns: c f h w each.
        """
        wrong = [tuple(video.shape) for video in noisy if video.ndim != 4 or video.shape[0] != self.latent_channels]
        if wrong or not noisy:
            raise ValueError(f"noisy holds {wrong}, wanted at least one video of ({self.latent_channels}, f, h, w), as latent_channels says.")
        sizes: list[Grid] = [(video.shape[1], video.shape[2], video.shape[3]) for video in noisy]
        layout = Layout(tuple(token_grid(size, self.patch) for size in sizes), (text.tokens.shape[1],) * len(noisy))
        if t.shape != (sum(layout.frames),):
            raise ValueError(f"t has shape {tuple(t.shape)}, wanted {(sum(layout.frames),)}: one flow time per latent frame of all samples.")
        if moments.shape != t.shape:
            raise ValueError(f"moments has shape {tuple(moments.shape)}, wanted {tuple(t.shape)}: one second per latent frame of all samples.")
        tokens = torch.cat([patchify(video[None], self.patch) for video in noisy])
        velocity = self._velocity(tokens, t, text, moments, layout).split(layout.tokens)
        return [unpatchify(part, size, self.patch)[0] for part, size in zip(velocity, sizes, strict=True)]

    def _velocity(self, tokens: Tensor, t: Tensor, text: Text, moments: Tensor, layout: Layout) -> Tensor:
        self._check(t, text, moments, len(layout.grids))
        prompts = self.pooled_in(text.pooled).float()  # b d
        samples = zip(prompts.split(1), layout.frames, strict=True)
        frames = self.time(t).float() + torch.cat([row.expand(count, -1) for row, count in samples])  # F d
        conditions = F.silu(frames)
        words = None if self.text_in is None else self.text_in(text.tokens).flatten(0, 1)  # m d
        video = self.video_in(tokens).float()  # n d; the residual stream is float32
        video = self.trunk(video, words, conditions, F.silu(prompts), layout, self.rope.table(layout, moments))
        groups = groups_of(layout, "video", t.device)
        shift, scale = groups.spread(self.head_modulation(conditions)).float().unflatten(1, (2, 1, -1)).unbind(1)  # g 1 d
        return self.head(modulated_norm(video, shift, scale, groups)).float()

    def _check(self, t: Tensor, text: Text, moments: Tensor, samples: int) -> None:
        if len(text.tokens) != samples:
            raise ValueError(f"{samples} videos came with {len(text.tokens)} prompts: one per video is needed.")
        if text.tokens.shape[-1] != self.text_width:
            raise ValueError(f"the text is {text.tokens.shape[-1]} wide, the DiT was built for text_width={self.text_width}. Set text_width.")
        if self.text_in is not None and not text.tokens.shape[1]:
            raise ValueError("the prompts came with 0 text tokens, wanted at least 1 each. Set objective/dit/mixing=pooled, which reads none.")
        if t.device.type == "cpu":  # elsewhere looking at values would wait for the device
            if not bool(((t >= 0) & (t <= 1)).all()):
                raise ValueError(f"t must lie in [0, 1], got {float(t.min()):g} to {float(t.max()):g}; 0 is clean, 1 is noise.")
            if not bool(torch.isfinite(moments).all()):
                raise ValueError(f"moments must be finite seconds, got {float(moments[~torch.isfinite(moments)][0])} among them.")

    def shard_units(self) -> list[nn.Module]:
        """The modules to shard, compile or checkpoint one by one, in the order in which they run."""
        return list(self.trunk.blocks)

    def flops(self, layout: Layout) -> int:
        """Forward FLOP, 2 per multiply-add, linear layers and attention; backward costs twice as many."""
        frames, samples = sum(layout.frames), len(layout.grids)
        ends = linear_flops(self.video_in, sum(layout.tokens)) + linear_flops(self.head, sum(layout.tokens))
        words = linear_flops(self.pooled_in, samples) + (0 if self.text_in is None else linear_flops(self.text_in, sum(layout.text)))
        return ends + words + self.time.flops(frames) + linear_flops(self.head_modulation, frames) + self.trunk.flops(layout)
