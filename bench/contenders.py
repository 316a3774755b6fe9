"""Diffusion transformers of one common size, with random weights: ours in the shape of each peer, and diffusers' peers as they come."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.dit import DiT
from models.geometry import Layout, moments, token_grid
from models.mixing import Cross, Double, Joint, Mixing
from models.modulation import Shared
from models.patterns import Factorised, Pattern
from models.text import Text


@dataclass(frozen=True, slots=True)
class Size:
    """What all contenders of a comparison share.

    Args:
        latents: (c, f, h, w) of each sample.
        head_width: width / head_width heads.
    """

    width: int
    depth: int
    head_width: int
    latents: tuple[int, int, int, int]
    text_tokens: int
    text_width: int
    samples: int = 1

    @property
    def heads(self) -> int:
        """Of each attention."""
        return self.width // self.head_width

    @property
    def video_tokens(self) -> int:
        """Of one sample, at 1 x 2 x 2 latents a token."""
        _, f, h, w = self.latents
        return f * (h // 2) * (w // 2)

    @property
    def layout(self) -> Layout:
        """The tokens of all samples."""
        _, f, h, w = self.latents
        return Layout.batch(self.samples, token_grid((f, h, w), (1, 2, 2)), self.text_tokens)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The same for everybody: latents b c f h w, text b l d; t in [0, 1] per latent frame for ours, one of 1,000 steps for the peers."""

    latents: Tensor
    text: Tensor
    t: Tensor
    step: Tensor
    moments: Tensor

    @classmethod
    def of(cls, size: Size, device: str, dtype: torch.dtype) -> "Inputs":
        """Drawn from a fixed seed."""
        draw = torch.Generator().manual_seed(1)
        latents = torch.randn(size.samples, *size.latents, generator=draw).to(device, dtype)
        text = torch.randn(size.samples, size.text_tokens, size.text_width, generator=draw).to(device, dtype)
        t = torch.rand(size.samples, size.latents[1], generator=draw).to(device)
        ends = moments(size.latents[1], torch.full((size.samples,), 24.0, device=device), stride_t=4)
        return cls(latents, text, t, torch.full((size.samples,), 500, device=device), ends)


def without_zeros(network: nn.Module) -> nn.Module:
    """Random weights also where training begins at zero: a block that is silent is no fair work, and its tiles agree with anything."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in network.parameters():
            if not weights.any():
                weights.copy_(0.02 * torch.randn(weights.shape, generator=draw))  # drawn on the CPU, wherever they lie
    return network


@dataclass(frozen=True, slots=True)
class Contender:
    """A network to be, and how it is called."""

    size: Size
    build: Callable[[Size], nn.Module]
    run: Callable[[Any, Size, Inputs], Tensor]

    def network(self, device: str) -> nn.Module:
        """With random weights."""
        torch.manual_seed(0)
        return without_zeros(self.build(self.size)).to(device)


def ours(size: Size, mixing: Mixing, pattern: Pattern | None = None) -> Contender:
    """Ours: one flow time per latent frame, modulation by one shared layer and a row per block."""

    def build(size: Size) -> DiT:
        return DiT(
            size.latents[0],
            size.width,
            size.depth,
            size.heads,
            size.text_width,
            rope_theta=1000.0,
            mixing=mixing,
            modulation=Shared(),
            pattern=pattern,
            registers=0,  # as the peers have none
        )

    def run(network: DiT, size: Size, inputs: Inputs) -> Tensor:
        return network(inputs.latents, inputs.t, Text(inputs.text, inputs.text.mean(dim=1)), inputs.moments)

    return Contender(size, build, run)


def wan(size: Size) -> Contender:
    """Self-attention, cross-attention, MLP; modulation by a table."""

    def build(size: Size) -> nn.Module:
        from diffusers import WanTransformer3DModel  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        channels = size.latents[0]
        return WanTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_width,
            in_channels=channels,
            out_channels=channels,
            text_dim=size.text_width,
            ffn_dim=4 * size.width,
            num_layers=size.depth,
        )

    return Contender(size, build, lambda network, size, inputs: network(inputs.latents, inputs.step, inputs.text, return_dict=False)[0])


def ltx(size: Size) -> Contender:
    """As Wan, on tokens that come patched."""

    def build(size: Size) -> nn.Module:
        from diffusers import LTXVideoTransformer3DModel  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        values = 4 * size.latents[0]
        return LTXVideoTransformer3DModel(
            in_channels=values,
            out_channels=values,
            num_attention_heads=size.heads,
            attention_head_dim=size.head_width,
            cross_attention_dim=size.width,
            num_layers=size.depth,
            caption_channels=size.text_width,
        )

    def run(network: Any, size: Size, inputs: Inputs) -> Tensor:
        _, f, h, w = size.latents
        tokens = inputs.latents.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)  # b n (c 2 2)
        every = torch.ones(inputs.text.shape[:2], dtype=torch.long, device=tokens.device)
        return network(tokens, inputs.text, inputs.step, every, f, h // 2, w // 2, return_dict=False)[0]

    return Contender(size, build, run)


def cogvideox(size: Size) -> Contender:
    """One sequence of text and video."""
    tables: dict[torch.device, Any] = {}

    def build(size: Size) -> nn.Module:
        from diffusers import CogVideoXTransformer3DModel  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        channels, f, h, w = size.latents
        return CogVideoXTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_width,
            in_channels=channels,
            out_channels=channels,
            time_embed_dim=128,
            text_embed_dim=size.text_width,
            num_layers=size.depth,
            sample_width=w,
            sample_height=h,
            sample_frames=1 + 4 * (f - 1),
            max_text_seq_length=size.text_tokens,
            use_rotary_positional_embeddings=True,
        )

    def run(network: Any, size: Size, inputs: Inputs) -> Tensor:
        from diffusers.models.embeddings import get_3d_rotary_pos_embed  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        device, (_, f, h, w) = inputs.latents.device, size.latents
        if device not in tables:
            grid = (h // 2, w // 2)
            tables[device] = get_3d_rotary_pos_embed(size.head_width, ((0, 0), grid), grid, f, device=device)
        video = inputs.latents.transpose(1, 2)  # b f c h w
        return network(video, inputs.text, inputs.step, image_rotary_emb=tables[device], return_dict=False)[0]

    return Contender(size, build, run)


def two_streams(size: Size) -> int:
    """Hunyuan's share of blocks that have weights of their own for text."""
    return max(1, size.depth // 3)


def hunyuan(size: Size) -> Contender:
    """A third of the blocks with weights of their own for text and video, the others with common ones; one attention for both."""
    pooled = 256

    def build(size: Size) -> nn.Module:
        from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        channels, two = size.latents[0], two_streams(size)
        spatial = 3 * size.head_width // 8
        return HunyuanVideoTransformer3DModel(
            in_channels=channels,
            out_channels=channels,
            num_attention_heads=size.heads,
            attention_head_dim=size.head_width,
            num_layers=two,
            num_single_layers=size.depth - two,
            num_refiner_layers=1,
            text_embed_dim=size.text_width,
            pooled_projection_dim=pooled,
            rope_axes_dim=(size.head_width - 2 * spatial, spatial, spatial),
        )

    def run(network: Any, size: Size, inputs: Inputs) -> Tensor:
        text = inputs.text
        every = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        scale = torch.full((len(text),), 6000.0, device=text.device, dtype=text.dtype)
        return network(inputs.latents, inputs.step, text, every, text.new_zeros(len(text), pooled), guidance=scale, return_dict=False)[0]

    return Contender(size, build, run)


def latte(size: Size) -> Contender:
    """Blocks in space and blocks in time by turns."""

    def build(size: Size) -> nn.Module:
        from diffusers import LatteTransformer3DModel  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        channels, f, h, _ = size.latents
        return LatteTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_width,
            in_channels=channels,
            out_channels=channels,
            num_layers=size.depth // 2,
            cross_attention_dim=size.width,
            attention_bias=True,
            sample_size=h,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=size.text_width,
            video_length=f,
        )

    return Contender(size, build, lambda network, size, inputs: network(inputs.latents, inputs.step, inputs.text, return_dict=False)[0])


@dataclass(frozen=True, slots=True)
class Match:
    """Ours against a peer of the same FLOP, or the nearest to it that ours can be built to."""

    ours: Contender
    theirs: Contender


def matches(size: Size) -> dict[str, Match]:
    """By name. `wan128` has heads of 128 on both sides; in `wan64` ours alone has them, its default, at the same width and FLOP."""
    wide = replace(size, head_width=2 * size.head_width)
    cross, joint, wide_cross = ours(size, Cross()), ours(size, Joint()), ours(wide, Cross())
    double = ours(size, Double(two_streams(size)))
    return {
        "wan": Match(cross, wan(size)),
        "wan128": Match(wide_cross, wan(wide)),
        "wan64": Match(wide_cross, wan(size)),
        "ltx": Match(cross, ltx(size)),
        "hunyuan": Match(double, hunyuan(size)),
        "cogvideox": Match(joint, cogvideox(size)),
        "latte": Match(ours(size, Cross(), Factorised()), latte(size)),
    }
