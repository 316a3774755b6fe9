"""Transformer blocks and the ways in which text enters them; a block is the identity at the start (adaLN-zero)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from models.attention import Context, CrossAttention, Kernel, Segments, SelfAttention
from models.geometry import Layout
from models.layers import MLP, gated_sum, linear, modulated_norm
from models.packing import Groups, interleave, video_part


def linear_flops(part: nn.Module, rows: int) -> int:
    """Forward FLOP of the linear layers inside `part` for `rows` rows."""
    return 2 * rows * sum(layer.weight.numel() for layer in part.modules() if isinstance(layer, nn.Linear))


class Modulation(Protocol):
    """How conditions (r d) become the shifts, scales and gates of each block: a part that blocks share and one of their own."""

    def shared(self, width: int, parts: int) -> nn.Module:
        """Applied once a forward to the conditions (r d)."""
        ...

    def own(self, width: int, parts: int) -> nn.Module:
        """Applied in each block to what `shared` made; returns r (parts d), zero at the start."""
        ...


class PerBlock:
    """adaLN-zero with a linear layer in each block (Peebles and Xie 2023): costs half as many parameters again, hardly any FLOP."""

    def shared(self, width: int, parts: int) -> nn.Module:
        """Nothing is shared."""
        return nn.Identity()

    def own(self, width: int, parts: int) -> nn.Module:
        """A linear layer."""
        return linear(width, parts * width, gain=0)


class Table(nn.Module):
    """Adds a learnt row to every row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor) -> Tensor:
        """r k -> r k."""
        return rows + self.row


class Shared:
    """adaLN-single (Chen et al. 2023, PixArt-alpha): one linear layer for all blocks and a learnt row for each; the choice for wide models."""

    def shared(self, width: int, parts: int) -> nn.Module:
        """The linear layer."""
        return linear(width, parts * width, gain=0)

    def own(self, width: int, parts: int) -> nn.Module:
        """The learnt row."""
        return Table(parts * width)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every block of one forward pass is told about its tokens.

    Args:
        conditions: r k, one row per latent frame (and per text, where text is part of the sequence).
        groups: which tokens stand under which row.
        segments: tokens of each sample.
        table: rope angles of the tokens, n d/2.
        context: text beside the sequence, where it is not part of it.
    """

    conditions: Tensor
    groups: Groups
    segments: Segments
    table: Tensor
    context: Context | None = None


class Block(nn.Module):
    """Self-attention, then an MLP, each on a modulated norm and behind a gate.

    Args:
        context: width of text tokens that serve as further keys; 0 for none.
    """

    def __init__(self, width: int, heads: int, hidden: int, modulation: Modulation, kernel: Kernel, context: int = 0) -> None:
        super().__init__()
        self.modulation = modulation.own(width, 6)
        self.attention = SelfAttention(width, heads, kernel, context)
        self.mlp = MLP(width, hidden)

    def forward(self, x: Tensor, setting: Setting) -> Tensor:
        """Tokens x (n d) -> n d."""
        groups = setting.groups
        rows = groups.spread(self.modulation(setting.conditions)).to(x.dtype).unflatten(1, (6, 1, -1))  # g 6 1 d
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = rows.unbind(1)
        x = gated_sum(x, gate, self.attention(modulated_norm(x, shift, scale, groups), setting.segments, setting.table, setting.context), groups)
        x = self.look(x, setting)
        return gated_sum(x, mlp_gate, self.mlp(modulated_norm(x, mlp_shift, mlp_scale, groups)), groups)

    def flops(self, rows: int, segments: Segments, layout: Layout) -> int:
        """Forward FLOP for tokens as in `segments`, under `rows` conditions."""
        context_tokens = sum(layout.text) if self.attention.context is not None else 0
        keys = layout.joint if self.attention.context is not None else segments.keys
        attention = self.attention.flops(Segments(segments.queries, keys), context_tokens)
        return linear_flops(self.modulation, rows) + attention + self.mlp.flops(sum(segments.queries))

    def look(self, x: Tensor, setting: Setting) -> Tensor:
        """What stands between attention and MLP: nothing here."""
        return x


class CrossBlock(Block):
    """A block that looks at the text between its self-attention and its MLP (Wan, PixArt); that part has no gate and starts silent."""

    def __init__(self, width: int, heads: int, hidden: int, modulation: Modulation, kernel: Kernel, context: int) -> None:
        super().__init__(width, heads, hidden, modulation, kernel)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.cross = CrossAttention(width, heads, kernel, context)

    def look(self, x: Tensor, setting: Setting) -> Tensor:
        """x plus what its sample's text says."""
        assert setting.context is not None, "cross attention needs a context"
        return x + self.cross(self.norm(x), setting.context).to(x.dtype)

    def flops(self, rows: int, segments: Segments, layout: Layout) -> int:
        """Forward FLOP."""
        return super().flops(rows, segments, layout) + self.cross.flops(Segments(layout.tokens, layout.text))


@dataclass(frozen=True, slots=True)
class Stack:
    """The sizes of a stack of blocks and the parts they are built from."""

    width: int
    depth: int
    heads: int
    hidden: int
    modulation: Modulation
    kernel: Kernel


class Trunk(nn.Module):
    """Blocks over video tokens, with text as context beside them.

    Args:
        blocks: applied in turn.
        shared: the part of the modulation that blocks share.
    """

    def __init__(self, blocks: list[Block], shared: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.shared = shared

    def forward(self, video: Tensor, text: Tensor, frames: Tensor, prompts: Tensor, layout: Layout, table: Tensor) -> Tensor:
        """Video tokens (n d) to n d.

        Args:
            text: m d.
            frames, prompts: conditions per latent frame (F d) and per sample's text (b d).
            table: rope angles of the video tokens.
        """
        groups = Groups.video(layout, video.device)
        setting = Setting(self.shared(frames), groups, Segments(layout.tokens, layout.tokens), table, Context(text, layout))
        for block in self.blocks:
            video = block(video, setting)
        return video

    def flops(self, layout: Layout) -> int:
        """Forward FLOP."""
        return self._flops(sum(layout.frames), layout.tokens, layout)

    def _flops(self, rows: int, tokens: tuple[int, ...], layout: Layout) -> int:
        segments, total = Segments(tokens, tokens), linear_flops(self.shared, rows)
        for block in self.blocks:
            assert isinstance(block, Block), "a trunk is made of blocks"
            total += block.flops(rows, segments, layout)
        return total


class JointTrunk(Trunk):
    """Blocks over one sequence of video and text, text under conditions of its own."""

    def forward(self, video: Tensor, text: Tensor, frames: Tensor, prompts: Tensor, layout: Layout, table: Tensor) -> Tensor:
        """As in `Trunk`; text tokens are not turned and know no flow time."""
        groups = Groups.joint(layout, video.device)
        still = torch.ones_like(table[:1]).expand(len(text), -1)
        conditions = self.shared(torch.cat([frames, prompts]))
        segments = Segments(layout.joint, layout.joint)
        setting = Setting(conditions, groups, segments, interleave(table, still, layout))
        x = interleave(video, text.to(video.dtype), layout)
        for block in self.blocks:
            x = block(x, setting)
        return video_part(x, layout)

    def flops(self, layout: Layout) -> int:
        """Forward FLOP."""
        return self._flops(sum(layout.frames) + len(layout.grids), layout.joint, layout)


class Mixing(Protocol):
    """How text and video meet: builds the trunk in which they do."""

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        ...


class Joint:
    """One sequence of video and text, all layers shared (single stream): text is transformed along with the video."""

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        blocks = [Block(stack.width, stack.heads, stack.hidden, stack.modulation, stack.kernel) for _ in range(stack.depth)]
        return JointTrunk(blocks, stack.modulation.shared(stack.width, 6))


class Prefix:
    """Text as further keys and values of the self-attention, in the same softmax; its tokens stay what the text encoder made of them.

    A fifth fewer FLOP than `Joint` at 80 video and 24 text tokens.
    """

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        size = (stack.width, stack.heads, stack.hidden, stack.modulation, stack.kernel)
        return Trunk([Block(*size, context=stack.width) for _ in range(stack.depth)], stack.modulation.shared(stack.width, 6))


class Cross:
    """A cross-attention of its own between self-attention and MLP."""

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        size = (stack.width, stack.heads, stack.hidden, stack.modulation, stack.kernel)
        return Trunk([CrossBlock(*size, context=stack.width) for _ in range(stack.depth)], stack.modulation.shared(stack.width, 6))
