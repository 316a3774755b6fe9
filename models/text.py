"""Prompts as vectors: any string is legal, the empty one means "no text", and nothing depends on the other prompts of a batch."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from models.attention import Fastest, Kernel, Segments, SelfAttention, check_heads
from models.layers import MLP, linear


@dataclass(frozen=True, slots=True)
class Text:
    """Encoded prompts.

    Args:
        tokens: b l d; every place holds a vector (a learnt one where the prompt is over), so no mask is needed.
        pooled: b d.
    """

    tokens: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "Text":
        """The encoding of a part of the prompts."""
        return Text(self.tokens[rows], self.pooled[rows])


class TextEncoder(Protocol):
    """Turns prompts into `max_tokens` vectors of `width` each, and one for the whole."""

    width: int
    max_tokens: int

    def __call__(self, prompts: Sequence[str]) -> Text: ...

    def cut(self, prompts: Sequence[str]) -> list[str]:
        """A note for each prompt that is too long."""
        ...

    def flops(self, prompts: int) -> int:
        """Forward FLOP for a number of prompts."""
        ...


class Tokenizer(Protocol):
    """Splits a prompt into tokens, each a fixed number of ids."""

    ids_per_token: int
    vocabulary: int

    def tokens(self, prompt: str, limit: int) -> list[tuple[int, ...]]:
        """The ids, each in [0, vocabulary), of the first `limit` tokens."""
        ...


# runs of letters and digits (with the marks that belong to them), or any other character that is not a space
_WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+|\S")


@lru_cache(maxsize=1 << 16)
def _word_ids(word: str, buckets: int) -> tuple[int, int]:
    # a cryptographic hash is the same in every process and for ever (hash() is not) and its halves are independent (crc32's were not)
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    first, second = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
    return first % buckets, buckets + second % buckets


class WordTokenizer:
    """Words and punctuation marks by hash: no vocabulary file, any alphabet.

    A word is two ids, one in each half of the table; two words are confused only if both agree (1 in buckets squared). Case and Unicode
    compatibility forms do not count. A script without spaces makes one word of a whole phrase: use bytes there.

    Args:
        buckets: ids per hash.
    """

    ids_per_token = 2

    def __init__(self, buckets: int = 2048) -> None:
        if buckets < 2:
            raise ValueError(f"buckets={buckets} cannot tell words apart: at least 2 are needed. Set tokenizer.buckets.")
        self.buckets = buckets
        self.vocabulary = 2 * buckets

    def tokens(self, prompt: str, limit: int) -> list[tuple[int, ...]]:
        """Two ids for each of the first `limit` words."""
        prompt = unicodedata.normalize("NFKC", prompt.casefold())
        return [_word_ids(match.group(), self.buckets) for match in islice(_WORD.finditer(prompt), limit)]


class ByteTokenizer:
    """The bytes of the prompt in UTF-8: any language, long sequences."""

    ids_per_token = 1
    vocabulary = 256

    def tokens(self, prompt: str, limit: int) -> list[tuple[int, ...]]:
        """One id for each of the first `limit` bytes."""
        return [(byte,) for byte in prompt[:limit].encode("utf-8", "surrogatepass")[:limit]]


def cut_note(number: int, prompt: str, limit: int) -> str:
    """What `TextEncoder.cut` says of a prompt that is too long."""
    start = prompt[:60].encode("utf-8", "backslashreplace").decode()
    return f"prompt {number} ({start!r}...) is longer than the {limit} tokens that the text encoder reads: it was cut. Shorten it or set max_tokens."


class TextBlock(nn.Module):
    """Pre-norm attention and MLP, both silent at the start."""

    def __init__(self, width: int, heads: int, kernel: Kernel) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, kernel, gain=0)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, gain=0)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Tokens (m d) -> m d."""
        x = x + self.attention(self.attention_norm(x), segments, None)
        return x + self.mlp(self.mlp_norm(x))


class TextTransformer(nn.Module):
    """A small bidirectional transformer over words or bytes, trained together with the DiT.

    It always returns `max_tokens` tokens. Places after the end hold a learnt null token, which takes part in the attention like a word, so
    no mask is needed. An empty prompt is all null; that is what "unconditional" means here.

    Args:
        tokenizer: words or bytes.
        width: of the tokens.
        depth: number of blocks.
        heads: must divide width.
        max_tokens: longer prompts are cut; see `cut`. A common factor with the DiT's tokens per frame makes joint attention cheaper.
        kernel: the attention backend.
    """

    def __init__(self, tokenizer: Tokenizer, width: int, depth: int, heads: int, max_tokens: int, kernel: Kernel | None = None) -> None:
        super().__init__()
        check_heads(width, heads)
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} leaves no room for text: at least 1 is needed. Set max_tokens.")
        self.tokenizer, self.width, self.max_tokens = tokenizer, width, max_tokens
        self.null = tokenizer.vocabulary  # the id after the last
        self.embedding = nn.Embedding(tokenizer.vocabulary + 1, width)
        self.position = nn.Embedding(max_tokens, width)
        self.blocks = nn.ModuleList(TextBlock(width, heads, kernel or Fastest()) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.pool = linear(width, width)
        self.empty = nn.Parameter(torch.zeros(width))
        # words must be told apart from the first step; positions a little quieter than words, but loud enough for "left to right"
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.position.weight, std=0.3)

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Ids (b l ids_per_token) on the CPU, null where a prompt is over."""
        blank = (self.null,) * self.tokenizer.ids_per_token
        rows = [self.tokenizer.tokens(prompt, self.max_tokens) for prompt in prompts]
        return torch.tensor([row + [blank] * (self.max_tokens - len(row)) for row in rows]).reshape(len(rows), self.max_tokens, -1)

    def cut(self, prompts: Sequence[str]) -> list[str]:
        """A note for each prompt that does not fit."""
        limit = self.max_tokens
        return [cut_note(i, prompt, limit) for i, prompt in enumerate(prompts) if len(self.tokenizer.tokens(prompt, limit + 1)) > limit]

    def forward(self, prompts: Sequence[str]) -> Text:
        """Encode b prompts."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a list of at least one string, got {prompts!r:.60}.")
        ids = self.ids(prompts).to(self.position.weight.device)  # b l i
        x = (self.embedding(ids).sum(dim=2) + self.position.weight).flatten(0, 1)  # m d
        segments = Segments((self.max_tokens,) * len(prompts), (self.max_tokens,) * len(prompts))
        for block in self.blocks:
            x = block(x, segments)
        tokens = self.norm(x).unflatten(0, (len(prompts), -1))  # b l d
        used = (ids[:, :, :1] != self.null).to(tokens.dtype)  # b l 1
        count = used.sum(dim=1)  # b 1
        mean = (tokens * used).sum(dim=1) / count.clamp(min=1) + self.empty * (count == 0)  # b d
        return Text(tokens, self.pool(mean))

    def shard_units(self) -> list[nn.Module]:
        """The modules to shard, compile or checkpoint one by one, in the order in which they run."""
        return list(self.blocks)

    def flops(self, prompts: int) -> int:
        """Forward FLOP for a number of prompts."""
        segments = Segments((self.max_tokens,) * prompts, (self.max_tokens,) * prompts)
        total = 2 * prompts * self.pool.weight.numel()
        for block in self.blocks:
            assert isinstance(block, TextBlock)
            total += block.attention.flops(segments) + block.mlp.flops(prompts * self.max_tokens)
        return total
