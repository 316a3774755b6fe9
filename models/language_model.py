"""A causal language model from a local folder that writes a prompt out: read when first asked, greedy or drawn by seed, nothing downloaded."""

import json
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime.local_weights import digest, only_safetensors, read_frozen
from runtime.seeding import Stream, generator, text_counter

KEY = "expander.path"  # of the config, for messages
READ = (".json", ".safetensors", ".jinja")  # endings of the files that the model, its tokenizer and its chat template consist of


class LanguageModel:
    """Expands prompts with a causal transformer in Hugging Face's format (extra [hf]); no code and no pickle of the folder is run.

    The model is given the instruction and the prompt: as one message of a user in its chat template, or, if it has none, as plain text
    that ends with "Prompt: ... Caption:". Its answer is put on one line; one that max_tokens cuts off ends with its last whole sentence.

    Args:
        path: a folder with config.json, tokenizer.json and *.safetensors.
        instruction: what is asked of the model; the prompt follows.
        max_tokens: the longest answer.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn by seed.
        top_p: drawn among the likeliest tokens that together have this probability.
        device: where it computes: cpu, cuda, cuda:1...; auto: on a GPU if there is one.
    Raises: ValueError naming the file or key if the folder holds no such model; RuntimeError without transformers.
    """

    def __init__(
        self, path: str, instruction: str, max_tokens: int = 200, temperature: float = 0.0, top_p: float = 1.0, device: str = "auto"
    ) -> None:
        if find_spec("transformers") is None:
            raise RuntimeError("expanding prompts with a language model needs transformers: pip install -e '.[hf]', or choose expander=none.")
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} leaves no room for an answer: wanted 1 or more. Set expander.max_tokens.")
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature={temperature} is none: wanted 0 (the likeliest token) or more. Set expander.temperature.")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p={top_p} is no share of the probability: wanted above 0 and at most 1. Set expander.top_p.")
        self.path, self.instruction, self.max_tokens = Path(path), instruction.strip(), max_tokens
        self.temperature, self.top_p = temperature, top_p
        self.device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        _check_folder(self.path)
        self._held: list[Any] = []  # the model once it is read

    @cached_property
    def key(self) -> str:
        """sha256 over the content of the folder's files, the same wherever they lie."""
        return digest(self.path, READ).hexdigest()

    def unload(self) -> None:
        """Let go of the weights; the next prompt reads them again."""
        self._held.clear()

    def expand(self, prompt: str, seed: int) -> str:
        """The model's caption for a prompt, a function of (prompt, seed); a blank prompt stays as it is.

        Raises: ValueError if the prompt is longer than the model reads, or the answer is empty.
        """
        if not prompt.strip():
            return prompt
        asked = self._tokens(prompt)
        rng = generator(seed, Stream.EXPANSION, text_counter(prompt))
        tokens, whole = self._answer(asked, rng)
        answer = " ".join(self._tokenizer.decode(tokens, skip_special_tokens=True).split())
        if not whole and ". " in answer:
            answer = answer[: answer.rindex(". ") + 1]
        if answer.count('"') == 2 and answer[0] == answer[-1] == '"':
            answer = answer[1:-1].strip()
        if not answer:
            raise ValueError(f"the language model in {self.path} answered prompt {prompt!r:.120} with nothing. Set expander.instruction.")
        return answer

    @torch.no_grad()
    def _answer(self, asked: list[int], rng: np.random.Generator) -> tuple[list[int], bool]:
        """The tokens of the answer without its end, and whether the model came to an end."""
        model = self._model()
        ends = self._ends(model)
        given, past, tokens = torch.tensor([asked], device=self.device), None, []  # b l
        for _ in range(self.max_tokens):
            out = model(input_ids=given, past_key_values=past, use_cache=True)
            past = out.past_key_values
            token = self._next(out.logits[0, -1], rng)
            if token in ends:
                return tokens, True
            tokens.append(token)
            given = torch.tensor([[token]], device=self.device)
        return tokens, False

    def _next(self, logits: Tensor, rng: np.random.Generator) -> int:
        """The next token of logits (vocabulary,)."""
        if self.temperature == 0:
            return int(logits.argmax())
        # On the CPU in float64 and from a counter's number: the same draw on every machine, as far as its logits are the same.
        likely, order = (logits.double().cpu() / self.temperature).softmax(dim=0).sort(descending=True, stable=True)
        kept = int((likely.cumsum(dim=0) - likely < self.top_p).sum())
        sums = likely[:kept].cumsum(dim=0)
        return int(order[min(int((sums <= rng.random() * sums[-1]).sum()), kept - 1)])

    def _model(self) -> Any:
        if not self._held:
            self._held.append(read_frozen(self.path, "AutoModelForCausalLM", {"dtype": "auto"}, KEY).to(self.device))
        return self._held[0]

    def _ends(self, model: Any) -> set[int]:
        """The tokens that end an answer: chat models end a turn with another token than a text."""
        named = (getattr(one, "eos_token_id", None) for one in (self._tokenizer, model.config.get_text_config(), model.generation_config))
        return {token for one in named if one is not None for token in (one if isinstance(one, list) else [one])}

    def _tokens(self, prompt: str) -> list[int]:
        # A lone surrogate, which no tokenizer takes, becomes U+FFFD; a pair becomes its character.
        prompt = prompt.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        tokenizer = self._tokenizer
        if tokenizer.chat_template:
            message = [{"role": "user", "content": f"{self.instruction}\n\n{prompt}"}]
            # Models that think first are asked not to; templates of others do not know the word.
            try:
                text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=False)
            except Exception as error:  # jinja2's own, or what a template raises
                raise ValueError(f"the chat template in {self.path} cannot be used ({' '.join(str(error).split()):.200}). Set {KEY}.") from error
            tokens = tokenizer(text, add_special_tokens=False).input_ids
        else:
            tokens = tokenizer(f"{self.instruction}\n\nPrompt: {prompt}\nCaption:").input_ids
        longest = getattr(self._model().config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and len(tokens) + self.max_tokens > longest:
            raise ValueError(
                f"prompt {prompt!r:.60} and the instruction are {len(tokens)} tokens; with expander.max_tokens={self.max_tokens} that is more "
                f"than the {longest} that the language model in {self.path} reads. Shorten the prompt, or set expander.max_tokens."
            )
        return tokens

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast  # pyright: ignore[reportMissingImports]
        from transformers.utils import logging  # pyright: ignore[reportMissingImports]

        logging.set_verbosity_error()
        try:  # not AutoTokenizer: this class reads tokenizer.json alone, whatever code the folder names
            return PreTrainedTokenizerFast.from_pretrained(self.path, local_files_only=True)
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"{self.path / 'tokenizer.json'} cannot be read ({' '.join(str(error).split()):.200}). Set {KEY}.") from error


def _check_folder(path: Path) -> None:
    """Raises: ValueError naming what is missing, before anything is read."""
    if not path.is_dir():
        raise ValueError(f"path={str(path)!r} is not a folder; a local Hugging Face model is needed, as nothing is downloaded. Set {KEY}.")
    for name in ("config.json", "tokenizer.json"):  # without the latter transformers makes an empty one, and every word is the unknown word
        if not (path / name).is_file():
            raise ValueError(f"{path} has no {name}: wanted a causal language model as save_pretrained of transformers writes it. Set {KEY}.")
    try:
        kind = json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path / 'config.json'} describes no model ({error!r:.200}). Set {KEY}.") from None
    if not any(path.glob("*.safetensors")):
        pickled = ", ".join(sorted(file.name for file in path.glob("*.bin")))
        held = f"only {pickled}, which may run any code when opened" if pickled else "no weights"
        raise ValueError(f"{path} holds {held} for its {kind}: wanted *.safetensors. Set {KEY}.")
    only_safetensors(path, KEY)
