"""The networks that the shipped configs describe, by the names of their files; nothing of a run is needed."""

from typing import Any

from models.dit import DiT
from models.vae import VideoVAE
from runtime.config import ConfigError, build, compose


def vae(name: str) -> VideoVAE:
    """configs/objective/vae/<name>.yaml."""
    network = build(_composed(["objective=vae", f"objective/vae={name}"])["objective"]["vae"])
    if not isinstance(network, VideoVAE):
        raise ConfigError(f"objective/vae={name} is a {type(network).__name__}, wanted a VideoVAE. Set vae.presets.")
    return network


def dit(name: str, vae_name: str, text_width: int, kernel: str | None = None) -> DiT:
    """configs/objective/dit/<name>.yaml for the latents of a VAE preset.

    Args:
        text_width: of the text encoder that is taken to stand before it.
        kernel: the attention back end, a file of configs/objective/dit/kernel; None for the size's own.
    """
    coder = _composed(["objective=vae", f"objective/vae={vae_name}"])["objective"]["vae"]
    backend = [] if kernel is None else [f"objective/dit/kernel={kernel}"]
    config = _composed(["objective=flow", f"objective/dit={name}", *backend], coder)
    network = build({**config["objective"]["dit"], "text_width": text_width})
    if not isinstance(network, DiT):
        raise ConfigError(f"objective/dit={name} is a {type(network).__name__}, wanted a DiT. Set train.sizes.")
    return network


def _composed(overrides: list[str], vae_config: dict[str, Any] | None = None) -> dict[str, Any]:
    given = {} if vae_config is None else {"objective.vae": vae_config}
    return compose("train", ["run=none", "data=world", *overrides], lambda _: given)
