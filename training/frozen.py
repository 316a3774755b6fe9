"""The frozen networks beside a DiT and the caches of what they make of a set: one way to both, so that a cache fits whoever asks for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from data.cache.store import Store
from data.cache.texts import Texts, cache_texts
from data.index import Index
from data.videos import Encoder
from models.text_frozen import HuggingFaceText
from models.vae import VideoVAE
from runtime.config import Config
from runtime.device import autocast
from training.vae_bundle import bundle_vae, load_vae


def frozen_vae(vae_run: str | None, config: Config, folder: Path, device: str, precision: str) -> tuple[VideoVAE, Encoder]:
    """The copy of a run's VAE in <folder>/vae, made if it is not there, as the objective and as the data see it.

    Args:
        config: of the VAE.
    Raises: ConfigError as `bundle_vae` and `load_vae`.
    """
    bundle_vae(vae_run, config, folder)
    vae, key = load_vae(folder)
    vae.to(device)

    def encode(video: Tensor) -> Tensor:
        with autocast(precision, device):
            return vae.encode(video.to(device)).float().cpu()

    # Latents of another precision differ in their last digits: they are another cache. It stands first, as a refusal shows the beginning.
    return vae, Encoder(encode, f"{precision}-{key}", vae.stride)


def captions(indexes: Iterable[Index]) -> Iterable[str]:
    """Every text of every clip."""
    return (text for index in indexes for row in index.rows for texts in row.captions.values() for text in texts)


def with_known_texts(text: Any, indexes: Iterable[Index], device: str, memory_bytes: int, rank: int = 0, ranks: int = 1) -> Store | None:
    """Give a frozen text encoder the vectors of every caption, which are encoded if they are not in its cache; None if it is not to have one.

    The encoder's weights are let go of afterwards: only another prompt reads them again.

    Args:
        memory_bytes: of the vectors that are held in memory, at most; else they are read from disk.
    Raises: ValueError naming what differs if the cache is of another encoder or other captions.
    """
    if not isinstance(text, HuggingFaceText) or text.cache is None:
        return None
    text.to(device)
    store = cache_texts(captions(indexes), text.encode, text.cache, text.key, text.max_tokens, text.cache_dtype, rank, ranks)
    text.unload()
    text.known = Texts(store, memory_bytes)
    return store
