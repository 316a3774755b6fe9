"""What the latents of a VAE depend on: its encoder, its whitening and its config's values, never the decoder or the file that they lie in."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.vae import VideoVAE
from runtime.config import Config

# Keys of a VAE's config that only decoding hears of. All others count, so that one that is new is never overlooked.
DECODER_KEYS = ("decoder_depths", "decoder_look_back")


def encoding_facts(vae: VideoVAE, config: Config) -> dict[str, str]:
    """All that encoding depends on, by name: values of the config, and shape, dtype and sha256 of every tensor outside `vae.decoding()`.

    Args:
        config: the constructor of `vae`; what it leaves out counts as the default.
    """
    tensors = vae.state_dict()
    return {**encoding_config(vae, config), **{name: _digest(tensors[name]) for name in encoding_names(vae)}}


def encoding_config(vae: VideoVAE, config: Mapping[str, Any]) -> dict[str, str]:
    """The part of `encoding_facts` that a config tells, of `vae` or of another of its class."""
    defaults = {name: _node(parameter.default) for name, parameter in inspect.signature(type(vae)).parameters.items()}
    values = {key: value for key, value in {**defaults, **config}.items() if key not in DECODER_KEYS}
    return {f"config.{key}": json.dumps(value, sort_keys=True) for key, value in values.items()}


def encoding_names(vae: VideoVAE) -> list[str]:
    """Every tensor outside `vae.decoding()`."""
    names = {module: name for name, module in vae.named_modules()}
    decoding = tuple(f"{names[module]}." for module in vae.decoding())
    return [name for name in vae.state_dict() if not name.startswith(decoding)]


def encoding_key(facts: Mapping[str, str]) -> str:
    """One sha256 of all of them: VAEs of equal keys make equal latents."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def unlike(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which parts differ: values of the config as 'look_back=1, now 2', tensors by the layer or tower that they are of."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    values = [f"{name.removeprefix('config.')}={before.get(name)}, now {now.get(name)}" for name in names if name.startswith("config.")]
    return values + list(dict.fromkeys(name.partition(".")[0] for name in names if not name.startswith("config.")))


def _node(default: Any) -> Any:
    """A default as a config would hold it."""
    plain = isinstance(default, int | float | str | tuple) or default is None
    return default if plain else {"_target_": f"{type(default).__module__}.{type(default).__qualname__}"}


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().reshape(-1)  # flat: a scalar cannot be viewed as bytes
    return f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.sha256(values.view(torch.uint8).numpy().data).hexdigest()}"
