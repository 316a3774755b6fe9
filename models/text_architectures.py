"""What the config.json of a local Hugging Face folder says of its text encoder; a folder that could not be read safely is refused here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config.json says of an encoder.

    Args:
        model: its class in transformers.
        inner: width of its attention, all heads together.
        weights: in the matrices of all layers.
        longest: tokens that it has positions for; None: any number.
        attention: transformers' implementation; `eager` where scores are capped, which no fused kernel does.
    """

    model: str
    width: int
    layers: int
    inner: int
    weights: int
    longest: int | None
    attention: Literal["sdpa", "eager"] = "sdpa"


def _t5(config: Mapping[str, Any], model: str, feed_forward: str) -> Architecture:
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    matrices = 3 if str(config.get("feed_forward_proj", feed_forward)).startswith("gated") else 2
    weights = config["num_layers"] * width * (4 * inner + matrices * config["d_ff"])
    return Architecture(model, width, config["num_layers"], inner, weights, None)


def _clip(config: Mapping[str, Any]) -> Architecture:
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    weights = layers * width * (4 * width + 2 * config["intermediate_size"])
    return Architecture("CLIPTextModel", width, layers, width, weights, config["max_position_embeddings"])


def _gemma(config: Mapping[str, Any], model: str) -> Architecture:
    width, layers, head = config["hidden_size"], config["num_hidden_layers"], config["head_dim"]
    inner, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    weights = layers * width * (2 * inner + 2 * keys + 3 * config["intermediate_size"])
    # an absent cap is none, but for Gemma 2, where transformers' default is 50
    capped = config.get("attn_logit_softcapping", 50.0 if model == "Gemma2Model" else None) is not None
    return Architecture(model, width, layers, inner, weights, config["max_position_embeddings"], "eager" if capped else "sdpa")


# By config.json's model_type. What an absent feed_forward_proj means is transformers' own default.
SUPPORTED: dict[str, Callable[[Mapping[str, Any]], Architecture]] = {
    "t5": lambda config: _t5(config, "T5EncoderModel", "relu"),
    "umt5": lambda config: _t5(config, "UMT5EncoderModel", "gated-gelu"),
    "clip_text_model": _clip,
    "clip": lambda config: _clip(config["text_config"]),
    "gemma": lambda config: _gemma(config, "GemmaModel"),
    "gemma2": lambda config: _gemma(config, "Gemma2Model"),
    "gemma3_text": lambda config: _gemma(config, "Gemma3TextModel"),
}


def read_architecture(path: Path) -> Architecture:
    """Raises: ValueError if the folder holds no encoder that can be used, naming the file."""
    if not path.is_dir():
        raise ValueError(
            f"path={str(path)!r} is not a folder; a local Hugging Face model is needed, as nothing is downloaded. Set objective.text.path."
        )
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = config["model_type"]
        if kind not in SUPPORTED:
            raise ValueError(f"model_type={kind!r} is not supported, only {', '.join(SUPPORTED)}")
        architecture = SUPPORTED[kind](config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path / 'config.json'} describes no text encoder that can be used ({what}). Set objective.text.path.") from error
    if not (path / "tokenizer.json").is_file():  # without it transformers makes an empty one, and every word is the unknown word
        raise ValueError(
            f"{path} has no tokenizer.json. If it has a tokenizer in an older format, AutoTokenizer.from_pretrained(path).save_pretrained(path) "
            "of transformers writes one."
        )
    if not any(path.glob("*.safetensors")):
        pickled = ", ".join(sorted(file.name for file in path.glob("*.bin")))
        held = f"only {pickled}, which may run any code when opened" if pickled else "no weights"
        raise ValueError(
            f"{path} holds {held}; wanted *.safetensors. Where you trust the files, transformers writes them: "
            f"{architecture.model}.from_pretrained(path).save_pretrained(path)."
        )
    return architecture
