"""The cache of text embeddings: every caption of a set encoded once, and refused if the encoder, its limit or the captions changed."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data.cache.build import Part, build
from data.cache.latents import DTYPES
from data.cache.stopwatch import Stopwatch
from data.cache.store import Identity, Store

SHARD_TEXTS = 1024  # 2 GiB at 128 tokens of 4096 float32 each
PART_TEXTS = 32  # encoded at once: no setting, since a vector's last bits depend on what it is encoded with

Encode = Callable[[Sequence[str]], Sequence[Tensor]]
_REASONS = {
    "encoder": "another text encoder (files {0:.12}, now {1:.12})",
    "max_tokens": "another length (max_tokens={0}, now {1})",
    "dtype": "another dtype ({0}, now {1})",
    "captions": "other captions ({0}; now {1})",
}


def unique(captions: Iterable[str]) -> list[str]:
    """Each text once, blank ones left out, like lengths together, so that little is padded: a function of the set of texts."""
    return sorted({caption for caption in captions if caption.strip()}, key=lambda text: (len(text), text))


def key_of(text: str) -> str:
    """sha256 of the text, whatever stands in it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def identity(keys: Sequence[str], encoder: str, max_tokens: int, dtype: str) -> Identity:
    """Everything that the vectors of these texts depend on."""
    captions = f"{len(keys)} texts, {hashlib.sha256(' '.join(keys).encode()).hexdigest():.12}"
    facts = {"encoder": encoder, "max_tokens": str(max_tokens), "dtype": dtype, "captions": captions}
    return Identity("text embedding", "objective.text.cache", facts, _REASONS)


def cache_texts(
    captions: Iterable[str],
    encode: Encode,
    folder: str | Path,
    encoder: str,
    max_tokens: int,
    dtype: str = "float32",
    rank: int = 0,
    ranks: int = 1,
) -> Store:
    """Encode what is missing of a cache and return it; a complete one is only looked at. See data.cache.build.build.

    A set with one caption more is another set, as with latents: what is encoded beside a text decides its last bits.

    Args:
        captions: in any order, any number of times.
        encode: texts -> their vectors (l d), l <= max_tokens.
        encoder: hash of what is behind `encode`.
    Raises: ValueError naming what differs if the folder holds the cache of another encoder, length, dtype or set of captions.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} cannot be stored, wanted one of {', '.join(DTYPES)}. Set objective.text.cache_dtype.")
    texts = {key_of(text): text for text in unique(captions)}
    keys = list(texts)
    make = _Maker(texts, encode, DTYPES[dtype])
    store = build(folder, identity(keys, encoder, max_tokens, dtype), division(keys), make, rank, ranks)
    if make.watch.spent_s:
        print(f"texts       {make.done} of {len(keys)} captions encoded in {make.watch}", file=sys.stderr)
    return store


def division(keys: Sequence[str]) -> list[list[Part]]:
    """Shards of parts that are encoded at once."""
    shards = [keys[start : start + SHARD_TEXTS] for start in range(0, len(keys), SHARD_TEXTS)]
    return [[tuple(shard[start : start + PART_TEXTS]) for start in range(0, len(shard), PART_TEXTS)] for shard in shards]


class _Maker:
    def __init__(self, texts: Mapping[str, str], encode: Encode, dtype: torch.dtype) -> None:
        self.texts, self.encode, self.dtype = texts, encode, dtype
        self.watch, self.done = Stopwatch(), 0

    def __call__(self, parts: Iterator[Part]) -> Iterator[tuple[Mapping[str, Tensor], Sequence[Mapping[str, Any]]]]:
        with tqdm(total=len(self.texts), initial=self.done, desc="encoding captions", unit="text", dynamic_ncols=True, disable=None) as bar:
            for part in parts:
                self.watch.lap(None)
                vectors = self._encoded(part)
                self.watch.lap("encoding")
                yield vectors, []
                self.watch.lap("writing")
                self.done += len(part)
                bar.update(len(part))

    def _encoded(self, part: Part) -> dict[str, Tensor]:
        texts = [self.texts[key] for key in part]
        vectors = [vector.to("cpu", self.dtype) for vector in self.encode(texts)]  # l d
        for text, vector in zip(texts, vectors, strict=True):
            if not torch.isfinite(vector).all():
                start = text[:60].encode("utf-8", "backslashreplace").decode()
                raise RuntimeError(
                    f"the text encoder's vectors of {start!r}... are not finite in {self.dtype}: its weights are broken, or the numbers are too "
                    "large for float16. Set objective.text.path, or objective.text.cache_dtype=bfloat16."
                )
        return dict(zip(part, vectors, strict=True))


class Texts:
    """Vectors by text, from a cache.

    Args:
        store: as `cache_texts` returns it.
        memory_bytes: the cache is held in memory if it fits, its hashes checked; else it is mapped and only its sizes are checked.
    Raises: ValueError if a shard is not the one that was written.
    """

    def __init__(self, store: Store, memory_bytes: int = 0) -> None:
        self.in_memory = store.bytes <= memory_bytes
        self._store = store
        self._vectors = store.load() if self.in_memory else None

    def __len__(self) -> int:
        return len(self._store)

    def get(self, text: str) -> Tensor | None:
        """The text's vectors (l d), dtype as stored; None if it is not in the cache."""
        key = key_of(text)
        if self._vectors is not None:
            return self._vectors.get(key)
        return self._store.get(key) if key in self._store else None
