"""The frozen networks beside a DiT and the caches of what they make of a set: one way to both, so that a cache fits whoever asks for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.cache.store import Store
from data.cache.texts import Texts, cache_texts
from data.index import Index
from data.videos import Encoder
from models.text_frozen import HuggingFaceText
from models.vae import VideoVAE
from models.vae_tiles import encode_tiled
from runtime.config import Config, load_run_config
from runtime.device import autocast
from training.vae_bundle import bundle_folder, bundle_vae, load_vae
from training.vae_encoding import encoding_facts, encoding_key

# Pixels of a clip, all frames, up to which it is encoded at once; a larger one goes a latent frame at a time and in tiles, in bounded memory.
WHOLE_PX = 2**22


def frozen_vae(vae_run: str | None, config: Config, folder: Path, device: str, precision: str) -> tuple[VideoVAE, Encoder]:
    """The copy of a run's VAE in <folder>/vae, made if it is not there, as the objective and as the data see it.

    Args:
        config: of the VAE.
    Raises: ConfigError as `bundle_vae` and `load_vae`.
    """
    bundle_vae(vae_run, config, folder)
    vae, _ = load_vae(folder)
    key = encoding_key(encoding_facts(vae, load_run_config(bundle_folder(folder))))  # a cache outlives the decoder
    vae.to(device)

    def encode(video: Tensor) -> Tensor:
        with autocast(precision, device):
            if video[0, 0].numel() <= WHOLE_PX:
                return vae.encode(video.to(device)).float().cpu()
            pieces = (piece.to(device) for piece in video.split(vae.stride[0], dim=2))
            return torch.cat([latents.float().cpu() for latents in encode_tiled(vae, pieces)], dim=2)

    # Latents of another precision differ in their last digits: they are another cache. It stands first, as a refusal shows the beginning.
    return vae, Encoder(encode, f"{precision}-{key}", vae.stride)


def captions(indexes: Iterable[Index]) -> Iterable[str]:
    """Every text of every clip and of its shots."""
    return (text for index in indexes for row in index.rows for text in row.texts)


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
