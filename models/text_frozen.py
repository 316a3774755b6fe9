"""A frozen text encoder from a local folder: read when a prompt first needs it, no part of any checkpoint, and never taken for another."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from models.text import Text, cut_note

READ = (".json", ".safetensors", ".txt", ".model")  # endings of the files that an encoder and its tokenizer consist of


class Known(Protocol):
    """Prompts whose vectors are there already; a dict is one."""

    def __len__(self) -> int: ...

    def get(self, prompt: str, /) -> Tensor | None:
        """What `encode` gives for the prompt, in any floating dtype on any device; None if it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config.json says of an encoder.

    Args:
        model: its class in transformers.
        inner: width of its attention, all heads together.
        weights: in the matrices of all layers.
        longest: tokens that it has positions for; None: any number.
    """

    model: str
    width: int
    layers: int
    inner: int
    weights: int
    longest: int | None


def _t5(config: Mapping[str, Any], model: str, feed_forward: str) -> Architecture:
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    matrices = 3 if str(config.get("feed_forward_proj", feed_forward)).startswith("gated") else 2
    weights = config["num_layers"] * width * (4 * inner + matrices * config["d_ff"])
    return Architecture(model, width, config["num_layers"], inner, weights, None)


def _clip(config: Mapping[str, Any]) -> Architecture:
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    weights = layers * width * (4 * width + 2 * config["intermediate_size"])
    return Architecture("CLIPTextModel", width, layers, width, weights, config["max_position_embeddings"])


# By config.json's model_type. What an absent feed_forward_proj means is transformers' own default.
SUPPORTED: dict[str, Callable[[Mapping[str, Any]], Architecture]] = {
    "t5": lambda config: _t5(config, "T5EncoderModel", "relu"),
    "umt5": lambda config: _t5(config, "UMT5EncoderModel", "gated-gelu"),
    "clip_text_model": _clip,
    "clip": lambda config: _clip(config["text_config"]),
}


class HuggingFaceText(nn.Module):
    """A frozen T5, UMT5 or CLIP text encoder from a local folder (extra [hf]); nothing is downloaded, no code and no pickle is run.

    Places after a prompt's end hold a learnt null token, the only weight; the pooled vector is the mean over the prompt's tokens. A blank
    prompt is all null and is not encoded. The encoder computes in the dtype that its weights are stored in, whatever autocast says, so
    that a prompt's vectors are the same from a cache and in every run. It is no submodule: it follows the null token's device.

    Args:
        path: a folder in Hugging Face's format: config.json, tokenizer.json, *.safetensors.
        width: of the model, so that a config can say it before anything is read.
        max_tokens: longer prompts are cut.
        cache: folder in which train.py keeps the vectors of all captions; None encodes them in every step.
        cache_dtype: of the vectors in it.
    Attributes:
        known: prompts found there are not encoded.
    Raises: ValueError naming the file or number if the folder holds no such encoder; RuntimeError without transformers.
    """

    trained_with: Tensor

    def __init__(
        self,
        path: str,
        width: int,
        max_tokens: int,
        cache: str | None = None,
        cache_dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        super().__init__()
        self.path, self.width, self.max_tokens, self.cache, self.cache_dtype = Path(path), width, max_tokens, cache, cache_dtype
        self.architecture = _read_architecture(self.path)
        own = self.architecture.width
        if own != width:
            raise ValueError(f"the text encoder in {path} is {own} wide, the config says width={width}. Set objective.text.width={own}.")
        longest = self.architecture.longest
        if max_tokens < 1 or (longest is not None and max_tokens > longest):
            limit = "at least 1" if longest is None else f"1 to {longest} with the encoder in {path}"
            raise ValueError(f"max_tokens={max_tokens} cannot be read: {limit}. Set objective.text.max_tokens.")
        if find_spec("transformers") is None:
            raise RuntimeError("a Hugging Face text encoder needs transformers: pip install -e '.[hf]', or choose objective/text=words.")
        self.null = nn.Parameter(torch.zeros(width))
        # The key of the encoder that the network was trained with; it travels with the checkpoint. Zeros: none yet.
        self.register_buffer("trained_with", torch.zeros(32, dtype=torch.uint8))
        self.known: Known = {}
        self._held: list[Any] = []  # the encoder once it is read; in a list, as an attribute would be a submodule
        self._compared = False

    @cached_property
    def key(self) -> str:
        """sha256 over the content of the folder's files: the same wherever they lie, another if a byte of them differs."""
        digest = hashlib.sha256()
        for file in sorted(file for file in self.path.iterdir() if file.suffix in READ):
            with file.open("rb") as content:
                digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def cut(self, prompts: Sequence[str]) -> list[str]:
        """A note for each prompt that does not fit."""
        return [cut_note(i, prompt, self.max_tokens) for i, prompt in enumerate(prompts) if self._tokenized(prompt).overflowing]

    def flops(self, prompts: int) -> int:
        """Forward FLOP for a number of prompts of full length; 0 if the known ones are all that is asked for."""
        size = self.architecture
        return 0 if len(self.known) else 2 * prompts * self.max_tokens * (size.weights + 2 * size.layers * size.inner * self.max_tokens)

    def shard_units(self) -> list[nn.Module]:
        """None: nothing big is trained."""
        return []

    def unload(self) -> None:
        """Let go of the encoder's weights; the next prompt that is not known reads them again."""
        self._held.clear()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """The vectors (l d) of each prompt, l <= max_tokens, float32, on the device of the null token.

        What else is encoded beside a prompt changes its vectors by rounding alone.
        """
        rows = [self._tokenized(prompt).ids if prompt.strip() else [] for prompt in prompts]
        longest = max(map(len, rows), default=0)
        if not longest:
            return [self.null.new_zeros(0, self.width, dtype=torch.float32) for _ in prompts]
        device = self.null.device
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)  # b l
        used = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)  # b l
        if not self._held:
            self._held.append(_read_weights(self.path, self.architecture.model))
        with torch.autocast(device.type, enabled=False):
            hidden = self._held[0].to(device)(input_ids=ids, attention_mask=used).last_hidden_state.float()  # b l d
        return [vectors[: len(row)] for vectors, row in zip(hidden, rows, strict=True)]

    def forward(self, prompts: Sequence[str]) -> Text:
        """Encode b prompts.

        Raises: ValueError if the network was trained with another encoder than the one in the folder.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a list of at least one string, got {prompts!r:.60}.")
        self._compare()
        vectors = self._vectors([prompt for prompt in dict.fromkeys(prompts) if prompt.strip()])
        hidden = self.null.new_zeros(len(prompts), self.max_tokens, self.width)  # b l d
        lengths = torch.zeros(len(prompts), 1, dtype=torch.long)  # b 1
        for row, prompt in enumerate(prompts):
            if prompt in vectors:
                lengths[row] = len(vectors[prompt])
                hidden[row, : len(vectors[prompt])] = vectors[prompt].detach()
        lengths = lengths.to(hidden.device)
        used = (torch.arange(self.max_tokens, device=hidden.device) < lengths)[:, :, None]  # b l 1
        mean = hidden.sum(dim=1) / lengths.clamp(min=1)  # b d
        return Text(torch.where(used, hidden, self.null), torch.where(lengths > 0, mean, self.null))

    def _vectors(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        found = {prompt: vectors for prompt in prompts if (vectors := self.known.get(prompt)) is not None}
        missing = [prompt for prompt in prompts if prompt not in found]
        return found | dict(zip(missing, self.encode(missing), strict=True)) if missing else found

    def _compare(self) -> None:
        """Note which encoder this network is trained with, or see that it is still the one."""
        if self._compared:
            return
        now = torch.frombuffer(bytearray.fromhex(self.key), dtype=torch.uint8)
        then = self.trained_with.cpu()
        if not then.any():
            self.trained_with.copy_(now)
        elif not torch.equal(then, now):
            was = bytes(then.tolist()).hex()
            raise ValueError(
                f"this network was trained with another text encoder (files {was:.12}) than the one that {self.path} holds now "
                f"(files {self.key:.12}). Put the files back that it was trained with."
            )
        self._compared = True

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]

        try:
            tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"{self.path / 'tokenizer.json'} cannot be read ({error}). Set objective.text.path.") from error
        own = tokenizer.num_special_tokens_to_add(is_pair=False)
        if self.max_tokens <= own:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no room for text: {own} are the tokenizer's own. Set objective.text.max_tokens.")
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    def _tokenized(self, prompt: str) -> Any:
        # A lone surrogate, which no tokenizer takes, becomes U+FFFD; a pair becomes its character.
        return self._tokenizer.encode(prompt.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))


def _read_architecture(path: Path) -> Architecture:
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


def _read_weights(path: Path, model: str) -> Any:
    """The encoder, frozen, on the CPU. Raises: ValueError if the files cannot be read or a weight is missing."""
    import transformers  # pyright: ignore[reportMissingImports]
    from transformers.utils import logging  # pyright: ignore[reportMissingImports]

    logging.set_verbosity_error()  # what is left over (a decoder) is none of the user's business; what is missing is refused below
    logging.disable_progress_bar()
    wanted = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False, "attn_implementation": "sdpa", "dtype": "auto"}
    try:
        encoder, report = getattr(transformers, model).from_pretrained(path, output_loading_info=True, **wanted)
    except Exception as error:  # OSError, RuntimeError, ValueError, SafetensorError...
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights in {path} cannot be read as a {model} ({why}). Set objective.text.path.") from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would make them up
        raise ValueError(f"the weights in {path} lack {len(missing)} of a {model}'s tensors ({', '.join(missing[:3])}...). Set objective.text.path.")
    return encoder.requires_grad_(False).eval()
