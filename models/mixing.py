"""How text and video meet: each way builds the stack of blocks in which they do; samples never meet."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from models.attention import Context, Kernel, Segments, SelfAttention
from models.blocks import Block, CrossBlock, DoubleBlock, Setting, Stack, Work
from models.geometry import Layout
from models.layers import linear_flops
from models.packing import Groups, interleave, video_part
from models.patterns import Where


@lru_cache(maxsize=48)
def groups_of(layout: Layout, of: Literal["video", "text", "joint"], device: torch.device) -> Groups:
    """Groups of the video's tokens, of the text's, or of both interleaved; made once per layout."""
    with torch.inference_mode(False):  # kept for later passes, which may need gradients
        if of == "text":
            return Groups.runs(layout.text, range(len(layout.text)), device)
        return Groups.joint(layout, device) if of == "joint" else Groups.video(layout, device)


class Sharper:
    """A back end that multiplies the scores first: the temperature that goes with some scalings of rope."""

    def __init__(self, kernel: Kernel, factor: float) -> None:
        self.kernel, self.factor = kernel, factor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """As in `Kernel`."""
        return self.kernel(q * self.factor, k, v, segments)

    def ready(self, segments: Segments, device: torch.device) -> Segments:
        """As in `Kernel`."""
        return self.kernel.ready(segments, device)

    def check(self, device: torch.device, head_width: int, dtype: torch.dtype) -> None:
        """As in `Kernel`."""
        self.kernel.check(device, head_width, dtype)


class Trunk(nn.Module):
    """Blocks over one sequence of video and, in some ways of mixing, of tokens without flow time: text and registers.

    This one has no text: what the prompt says comes through the modulation alone.

    Args:
        blocks: applied in turn.
        stack: what they were built from.
    """

    def __init__(self, blocks: Sequence[Block | DoubleBlock], stack: Stack) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.shared = stack.modulation.shared(stack.width, 6)
        self.pattern, self.recompute = stack.pattern, stack.recompute
        self.registers = nn.Parameter(torch.randn(stack.registers, stack.width)) if stack.registers else None

    @property
    def extra(self) -> int:
        """Registers of each sample."""
        return 0 if self.registers is None else len(self.registers)

    @property
    def where(self) -> Where:
        """Where the still tokens stand in the attention."""
        return "tokens" if self.extra else "none"

    def inside(self, layout: Layout) -> Layout:
        """The attention's layout: its text counts what stands there beside the video."""
        return Layout(layout.grids, (self.extra,) * len(layout.grids))

    def still(self, words: Tensor | None, layout: Layout) -> Tensor | None:
        """Tokens (m d) of the sequence that are not the video's."""
        return None if self.registers is None else self.registers.repeat(len(layout.grids), 1)

    def context(self, words: Tensor | None, layout: Layout) -> Context | None:
        """Tokens that are looked at, beside the sequence."""
        return None

    def beside(self, words: Tensor | None, layout: Layout) -> Tensor:
        """Each sample's words, then the registers: m d."""
        assert words is not None, "this trunk reads the text"
        if self.registers is None:
            return words
        samples = len(layout.grids)
        parts = words.unflatten(0, (samples, layout.text[0])), self.registers.to(words.dtype).expand(samples, -1, -1)
        return torch.cat(parts, dim=1).flatten(0, 1)

    def forward(self, video: Tensor, words: Tensor | None, frames: Tensor, prompts: Tensor, layout: Layout, table: Tensor) -> Tensor:
        """Video tokens (n d) to n d.

        Args:
            words: text tokens, m d, the same number for each sample; None where no text comes in.
            frames, prompts: conditions per latent frame (F d) and per sample (b d).
            table: rope angles of the video tokens.
        """
        inside, still, context = self.inside(layout), self.still(words, layout), self.context(words, layout)
        every = range(len(self.blocks))
        if still is None:
            return self.run(every, video, self.shared(frames), groups_of(inside, "video", video.device), table, inside, context)
        conditions, groups = self.shared(torch.cat([frames, prompts])), groups_of(inside, "joint", video.device)
        x = interleave(video, still.to(video.dtype), inside)
        return video_part(self.run(every, x, conditions, groups, turned(table, inside), inside, context), inside)

    def segments(self, number: int, inside: Layout) -> Segments:
        """Who attends to whom in a block."""
        return self.pattern.at(number).segments(inside, self.where)

    def run(
        self,
        numbers: range,
        x: Tensor,
        conditions: Tensor,
        groups: Groups,
        table: Tensor,
        inside: Layout,
        context: Context | None = None,
        still: Groups | None = None,
    ) -> Tensor:
        """Some of the blocks in turn, each with its own segments; the other arguments are those of `Setting`."""
        for number in numbers:
            block = self.blocks[number]
            assert isinstance(block, Block | DoubleBlock), "a trunk is made of blocks"
            segments = block.ready(self.segments(number, inside), x.device)  # here, as a compiler would do it again for each shape
            x = self.recompute(block, x, Setting(conditions, groups, table, inside, segments, context, still))
        return x

    def sharpen(self, factor: float) -> None:
        """Multiply all scores of self-attention by `factor` from now on."""
        for part in self.modules():
            if isinstance(part, SelfAttention):
                plain = part.kernel.kernel if isinstance(part.kernel, Sharper) else part.kernel
                part.kernel = plain if factor == 1 else Sharper(plain, factor)

    def flops(self, layout: Layout) -> int:
        """Forward FLOP."""
        inside, joined = self.inside(layout), self.where == "tokens"
        lengths = inside.joint if joined else inside.tokens
        rows = sum(layout.frames) + (len(layout.grids) if joined else 0)
        total = linear_flops(self.shared, rows)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block | DoubleBlock), "a trunk is made of blocks"
            total += block.flops(Work(self.segments(number, inside), inside, rows, sum(lengths), Segments(lengths, layout.text)))
        return total


def turned(table: Tensor, layout: Layout) -> Tensor:
    """The rope table of a whole sequence: text and registers are not turned."""
    return interleave(table, torch.ones_like(table[:1]).expand(sum(layout.text), -1), layout)


@lru_cache(maxsize=64)
def _across(layout: Layout) -> Segments:
    """Each sample's tokens look at its text alone."""
    return Segments(layout.tokens, layout.text)


class CrossTrunk(Trunk):
    """Blocks that look at the text beside the sequence, in an attention of its own."""

    def context(self, words: Tensor | None, layout: Layout) -> Context:
        """The text; each sample's sequence counts as one grid that looks at it."""
        assert words is not None, "this trunk reads the text"
        inside = self.inside(layout)
        beside = Layout(tuple((1, 1, length) for length in inside.joint), layout.text)
        first = self.blocks[0]
        assert isinstance(first, CrossBlock), "a trunk of cross attention is made of cross blocks"
        return Context(words, beside, first.cross.kernel.ready(_across(beside), words.device))  # the blocks of a stack share their back end


class PrefixTrunk(Trunk):
    """Blocks for which text and registers are further keys of the video's own attention."""

    @property
    def where(self) -> Where:
        """As keys of the video's queries."""
        return "keys"

    def inside(self, layout: Layout) -> Layout:
        """With each sample's text and registers as keys."""
        return Layout(layout.grids, tuple(length + self.extra for length in layout.text))

    def still(self, words: Tensor | None, layout: Layout) -> None:
        """Nothing: what stands beside the video is not changed."""

    def context(self, words: Tensor | None, layout: Layout) -> Context:
        """Text and registers."""
        return Context(self.beside(words, layout), self.inside(layout))


class JointTrunk(Trunk):
    """Blocks over one sequence of video, text and registers, the latter two under conditions of their own that know no flow time."""

    @property
    def where(self) -> Where:
        """In the sequence."""
        return "tokens"

    def inside(self, layout: Layout) -> Layout:
        """With each sample's text and registers as tokens."""
        return Layout(layout.grids, tuple(length + self.extra for length in layout.text))

    def still(self, words: Tensor | None, layout: Layout) -> Tensor:
        """Text and registers."""
        return self.beside(words, layout)


class DoubleTrunk(JointTrunk):
    """Blocks of two streams, then blocks of one; the text comes last while there are two."""

    def forward(self, video: Tensor, words: Tensor | None, frames: Tensor, prompts: Tensor, layout: Layout, table: Tensor) -> Tensor:
        """As in `Trunk`."""
        inside, device = self.inside(layout), video.device
        double = sum(isinstance(block, DoubleBlock) for block in self.blocks)
        conditions = self.shared(torch.cat([frames, prompts]))
        groups, still = groups_of(inside, "video", device), groups_of(inside, "text", device)
        x = torch.cat([video, self.beside(words, layout).to(video.dtype)])
        x = self.run(range(double), x, conditions, groups, table, inside, still=still)
        video, text = x.split((len(video), sum(inside.text)))
        if double == len(self.blocks):
            return video
        groups, one = groups_of(inside, "joint", device), range(double, len(self.blocks))
        return video_part(self.run(one, interleave(video, text, inside), conditions, groups, turned(table, inside), inside), inside)


class Mixing(Protocol):
    """How text and video meet: builds the trunk in which they do."""

    @property
    def words(self) -> bool:
        """Whether the text's tokens come into the trunk; if not, the prompt is its pooled vector alone."""
        ...

    @property
    def placeless(self) -> bool:
        """Whether text tokens stand in the video's own attention. They have no place, and rope alone tells distances: only beside something
        without a place does a token know where it stands itself.
        """
        ...

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        ...


class Joint:
    """One sequence of video and text, all layers shared (single stream): text is transformed along with the video."""

    words = True
    placeless = True

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        return JointTrunk([Block(stack) for _ in range(stack.depth)], stack)


class Double:
    """One softmax over video and text with layers of their own (Esser et al. 2024, MM-DiT); blocks after these share them.

    Args:
        double_blocks: how many of the first blocks have two streams, which cost twice the parameters; None for all.
    """

    words = True
    placeless = True

    def __init__(self, double_blocks: int | None = None) -> None:
        self.double_blocks = double_blocks

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them. Raises: ValueError if there are fewer blocks than double ones."""
        double = stack.depth if self.double_blocks is None else self.double_blocks
        if not 0 <= double <= stack.depth:
            raise ValueError(f"double_blocks={double} must lie between 0 and depth={stack.depth}. Set mixing.double_blocks or depth.")
        blocks = [DoubleBlock(stack, last=number == stack.depth - 1) if number < double else Block(stack) for number in range(stack.depth)]
        return DoubleTrunk(blocks, stack)


class Hybrid:
    """Two streams first, then one (FLUX, HunyuanVideo).

    Args:
        share: of the blocks that have two streams; a third in both models.
    """

    words = True
    placeless = True

    def __init__(self, share: float = 1 / 3) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share={share:g} of double blocks must lie between 0 and 1. Set mixing.share.")
        self.share = share

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        return Double(round(self.share * stack.depth)).trunk(stack)


class Prefix:
    """Text as further keys and values of the self-attention, in the same softmax; its tokens stay what the text encoder made of them.

    A fifth fewer FLOP than `Joint` at 80 video and 24 text tokens.
    """

    words = True
    placeless = True

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        return PrefixTrunk([Block(stack, context=stack.width) for _ in range(stack.depth)], stack)


class Cross:
    """A cross-attention of its own between self-attention and MLP (Wan, PixArt)."""

    words = True
    placeless = False

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        return CrossTrunk([CrossBlock(stack) for _ in range(stack.depth)], stack)


class Pooled:
    """No text tokens in the blocks: pooled text steers the modulation and nothing else, as a class label does in the first DiT."""

    words = False
    placeless = False

    def trunk(self, stack: Stack) -> Trunk:
        """The blocks and what feeds them."""
        return Trunk([Block(stack) for _ in range(stack.depth)], stack)
