"""A frozen text encoder from a local folder: read when a prompt first needs it, no part of any checkpoint, and never taken for another."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from models.text import Text, cut_note
from models.text_architectures import read_architecture
from runtime.local_weights import digest, only_safetensors, read_frozen

READ = (".json", ".safetensors", ".txt", ".model")  # endings of the files that an encoder and its tokenizer consist of


class Known(Protocol):
    """Prompts whose vectors are there already; a dict is one."""

    def __len__(self) -> int: ...

    def get(self, prompt: str, /) -> Tensor | None:
        """What `encode` gives for the prompt, in any floating dtype on any device; None if it is not there."""
        ...


class HuggingFaceText(nn.Module):
    """A frozen T5, UMT5, CLIP or Gemma from a local folder (extra [hf]); nothing is downloaded, no code and no pickle is run.

    Places after a prompt's end hold a learnt null token, the only weight; the pooled vector is the mean over the prompt's tokens. A blank
    prompt is all null and is not encoded. The encoder computes in the dtype that its weights are stored in, whatever autocast says, so
    that a prompt's vectors are the same from a cache and in every run. It is no submodule: it follows the null token's device.

    CLIP and Gemma (1, 2, and 3's text models; the trunk of the language model, without its head) are causal: a token knows what stands
    before it, the last one alone the whole prompt. The mean that is pooled is over all tokens all the same, with those that the tokenizer
    adds (Gemma's <bos>, which has seen nothing).

    Args:
        path: a folder in Hugging Face's format: config.json, tokenizer.json, *.safetensors.
        width: of the model, so that a config can say it before anything is read.
        max_tokens: longer prompts are cut.
        cache: folder in which train.py keeps the vectors of all captions; None encodes them in every step.
        cache_dtype: of the vectors in it.
        layer: which hidden state is taken, as transformers counts them: -1 the last, after the final norm (Sana); -2 what the last block is
            given (Lumina, with Gemma; often CLIP); 0 the embeddings.
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
        layer: int = -1,
    ) -> None:
        super().__init__()
        self.path, self.width, self.max_tokens, self.cache, self.cache_dtype = Path(path), width, max_tokens, cache, cache_dtype
        self.architecture = read_architecture(self.path)
        only_safetensors(self.path, "objective.text.path")
        own = self.architecture.width
        if own != width:
            raise ValueError(f"the text encoder in {path} is {own} wide, the config says width={width}. Set objective.text.width={own}.")
        longest = self.architecture.longest
        if max_tokens < 1 or (longest is not None and max_tokens > longest):
            limit = "at least 1" if longest is None else f"1 to {longest} with the encoder in {path}"
            raise ValueError(f"max_tokens={max_tokens} cannot be read: {limit}. Set objective.text.max_tokens.")
        states = self.architecture.layers + 1
        if not -states <= layer < states:
            held = f"the encoder in {path} has hidden states {-states} to {states - 1}"
            raise ValueError(f"layer={layer} is not there: {held}. Set objective.text.layer.")
        self.layer = layer % states - states  # from the end, so that two names of one state are one
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
        """sha256 over the content of the folder's files, and over `layer` if it is not the last: the same wherever they lie."""
        found = digest(self.path, READ)
        if self.layer != -1:
            found.update(f"layer {self.layer}\n".encode())
        return found.hexdigest()

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
            options = {"dtype": "auto", "attn_implementation": self.architecture.attention}
            self._held.append(read_frozen(self.path, self.architecture.model, options, "objective.text.path"))
        with torch.autocast(device.type, enabled=False):
            out = self._held[0].to(device)(input_ids=ids, attention_mask=used, output_hidden_states=self.layer != -1)
            hidden = (out.last_hidden_state if self.layer == -1 else out.hidden_states[self.layer]).float()  # b l d
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
                f"(files {self.key:.12}). Put the files and objective.text.layer back that it was trained with."
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
