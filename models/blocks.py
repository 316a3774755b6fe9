"""Transformer blocks; with the modulation at zero, as it starts, a block is the identity but for what it reads in cross attention."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.attention import Context, CrossAttention, Kernel, Segments, SelfAttention, attend, check_heads, project
from models.geometry import Layout
from models.heads import QkNorm
from models.layers import FeedForward, Norm, gated_sum, linear, linear_flops, modulated_norm
from models.modulation import Modulation
from models.packing import Groups, interleave
from models.patterns import Pattern
from models.recompute import Recompute


@dataclass(frozen=True, slots=True)
class Setting:
    """What a block is told about its tokens in one forward pass.

    Args:
        conditions: r k, one row per latent frame (and per sample, where tokens without flow time are part of the sequence).
        groups: which tokens stand under which row.
        table: rope angles of the tokens, n d/2.
        layout: of the attention; its text counts what stands there beside the video.
        segments: who attends to whom, in this block.
        context: text beside the sequence, where it is not part of it.
        still: groups of the tokens without flow time, where they are a stream of their own.
    """

    conditions: Tensor
    groups: Groups
    table: Tensor
    layout: Layout
    segments: Segments
    context: Context | None = None
    still: Groups | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a block's FLOP depend on, as in `Setting`: also rows of conditions, tokens of the sequence, and which of them look at which text."""

    segments: Segments
    layout: Layout
    rows: int
    tokens: int
    cross: Segments


@dataclass(frozen=True, slots=True)
class Stack:
    """The sizes of a stack of blocks and the parts they are built from."""

    width: int
    depth: int
    heads: int
    hidden: int
    modulation: Modulation
    mlp: FeedForward
    pattern: Pattern
    kernel: Kernel
    qk_norm: QkNorm
    recompute: Recompute
    registers: int


class Block(nn.Module):
    """Self-attention, then an MLP, each on a modulated norm and behind a gate.

    Args:
        context: width of text tokens that serve as further keys; 0 for none.
    """

    def __init__(self, stack: Stack, context: int = 0) -> None:
        super().__init__()
        self.modulation = stack.modulation.own(stack.width, 6)
        self.attention = SelfAttention(stack.width, stack.heads, stack.kernel, context, qk_norm=stack.qk_norm)
        self.mlp = stack.mlp.build(stack.width, stack.hidden)

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """The segments as this block's back end takes them."""
        return self.attention.kernel.ready(segments, device)

    def forward(self, x: Tensor, setting: Setting) -> Tensor:
        """Tokens x (n d) -> n d."""
        groups = setting.groups
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = spread(self.modulation(setting.conditions), groups, x)
        x = gated_sum(x, gate, self.attention(modulated_norm(x, shift, scale, groups), setting.segments, setting.table, setting.context), groups)
        x = self.look(x, setting)
        return gated_sum(x, mlp_gate, self.mlp(modulated_norm(x, mlp_shift, mlp_scale, groups)), groups)

    def look(self, x: Tensor, setting: Setting) -> Tensor:
        """What stands between attention and MLP: nothing here."""
        return x

    def flops(self, work: Work) -> int:
        """Forward FLOP."""
        attention = self.attention.flops(work.segments, sum(work.layout.text) if self.attention.context is not None else 0)
        return linear_flops(self.modulation, work.rows) + attention + self.mlp.flops(work.tokens)


class CrossBlock(Block):
    """A block that looks at the text between its self-attention and its MLP (Wan, PixArt); that part has no gate and starts silent."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.norm = Norm(stack.width)
        self.cross = CrossAttention(stack.width, stack.heads, stack.kernel, stack.width, stack.qk_norm)

    def look(self, x: Tensor, setting: Setting) -> Tensor:
        """x plus what its sample's text says."""
        assert setting.context is not None, "cross attention needs a context"
        return x + self.cross(self.norm(x), setting.context).to(x.dtype)

    def flops(self, work: Work) -> int:
        """Forward FLOP."""
        return super().flops(work) + self.cross.flops(work.cross)


def spread(rows: Tensor, groups: Groups, x: Tensor) -> tuple[Tensor, ...]:
    """Rows of modulation (r kd) as k tensors (g 1 d) for groups of tokens, in the precision of the stream x (n d)."""
    return groups.spread(rows).to(x.dtype).unflatten(1, (-1, 1, x.shape[1])).unbind(1)


def apart(sequence: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """The inverse of `interleave`: video tokens (n ...) and text tokens (m ...) of all samples."""
    if layout.uniform:
        parts = sequence.unflatten(0, (len(layout.grids), -1)).split((layout.tokens[0], layout.text[0]), dim=1)  # b l ...
        return parts[0].flatten(0, 1), parts[1].flatten(0, 1)
    parts = sequence.split([length for pair in zip(layout.tokens, layout.text, strict=True) for length in pair])
    return torch.cat(parts[0::2]), torch.cat(parts[1::2])


class Stream(nn.Module):
    """The layers of one of two streams that meet in the attention alone."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.modulation = stack.modulation.own(stack.width, 6)
        self.attention = SelfAttention(stack.width, stack.heads, stack.kernel, qk_norm=stack.qk_norm)
        self.mlp = stack.mlp.build(stack.width, stack.hidden)

    def project(self, x: Tensor, table: Tensor | None) -> tuple[Tensor, ...]:
        """Tokens (n d) to queries, keys and values (n h d)."""
        return project(x, self.attention.qkv, self.attention.heads, 3, table)

    def close(self, x: Tensor, attended: Tensor, rows: tuple[Tensor, ...], groups: Groups) -> Tensor:
        """Tokens (n d) with what they attended to (n d), through the MLP."""
        _, _, gate, shift, scale, mlp_gate = rows
        x = gated_sum(x, gate, self.attention.out(attended), groups)
        return gated_sum(x, mlp_gate, self.mlp(modulated_norm(x, shift, scale, groups)), groups)

    def flops(self, rows: int, tokens: int) -> int:
        """Forward FLOP of all but the attention's products."""
        return linear_flops(self, tokens) - linear_flops(self.modulation, tokens) + linear_flops(self.modulation, rows)


class LastText(nn.Module):
    """The last block's stream of text: it is looked at and goes no further."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.modulation = stack.modulation.own(stack.width, 2)  # shift and scale: no gate follows
        head_width = check_heads(stack.width, stack.heads)
        self.qkv = linear(stack.width, 3 * stack.width, bias=False)
        self.heads = stack.qk_norm.heads(stack.heads, head_width, (head_width**-0.5, 1.0))

    def project(self, x: Tensor, table: Tensor | None) -> tuple[Tensor, ...]:
        """As in `Stream`."""
        return project(x, self.qkv, self.heads, 3, table)

    def close(self, x: Tensor, attended: Tensor, rows: tuple[Tensor, ...], groups: Groups) -> Tensor:
        """The tokens as they came: nothing reads them."""
        return x

    def flops(self, rows: int, tokens: int) -> int:
        """As in `Stream`."""
        return linear_flops(self.qkv, tokens) + linear_flops(self.modulation, rows)


class DoubleBlock(nn.Module):
    """Video and text with layers of their own that meet in one softmax (Esser et al. 2024, MM-DiT).

    Args:
        last: whether nothing reads the text afterwards, so that its output layer and MLP are left out.
    """

    def __init__(self, stack: Stack, last: bool) -> None:
        super().__init__()
        self.video = Stream(stack)
        self.text = LastText(stack) if last else Stream(stack)

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """The segments as this block's back end takes them."""
        return self.video.attention.kernel.ready(segments, device)

    def forward(self, x: Tensor, setting: Setting) -> Tensor:
        """Video tokens, then text tokens (n + m d), to the same."""
        layout, groups, still = setting.layout, setting.groups, setting.still
        assert still is not None, "two streams need groups for each"
        frames = sum(layout.frames)
        video, text = x.split((sum(layout.tokens), sum(layout.text)))
        rows = spread(self.video.modulation(setting.conditions[:frames]), groups, x)
        text_rows = spread(self.text.modulation(setting.conditions[frames:]), still, x)
        ours = self.video.project(modulated_norm(video, rows[0], rows[1], groups), setting.table)
        theirs = self.text.project(modulated_norm(text, text_rows[0], text_rows[1], still), None)
        q, k, v = (interleave(*pair, layout) for pair in zip(ours, theirs, strict=True))
        attended = attend(q, k, v, setting.segments, self.video.attention.kernel).flatten(1)
        seen, read = apart(attended, layout)
        return torch.cat([self.video.close(video, seen, rows, groups), self.text.close(text, read, text_rows, still)])

    def flops(self, work: Work) -> int:
        """Forward FLOP."""
        layout = work.layout
        sides = self.video.flops(sum(layout.frames), sum(layout.tokens)) + self.text.flops(len(layout.grids), sum(layout.text))
        return sides + 4 * work.segments.pairs * self.video.attention.width
