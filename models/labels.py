"""Class labels as prompts: a closed list of names, each with learnt vectors of its own, and one more for no label at all."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from models.text import Text


class ClassLabels(nn.Module):
    """A text encoder that knows whole labels, nothing in them: a prompt is the name of a class, in any case; the empty one is none.

    The names are part of the config, so a run's own config.yaml says which row is which class and the run can be sampled anywhere; a file
    of names could change under it.

    Args:
        labels: names of the classes; none at all makes an encoder of the empty prompt, for unconditional models.
        width: of the tokens.
        tokens: vectors per class. `pooled`, which steers every block along with flow time, is their mean.
    Source: the label embedding of DiT (Peebles and Xie 2023), which Latte takes over.
    """

    def __init__(self, labels: Sequence[str], width: int, tokens: int) -> None:
        super().__init__()
        if width < 1 or tokens < 1:
            raise ValueError(f"width={width}, tokens={tokens} leave no room for a label: both must be at least 1. Set objective.text.")
        self.labels, self.width, self.max_tokens = tuple(labels), width, tokens
        self.rows = {_key(label): row for row, label in enumerate(labels, 1)}
        if "" in self.rows or len(self.rows) < len(labels):
            odd = sorted({label for row, label in enumerate(labels, 1) if not _key(label) or self.rows[_key(label)] != row})
            raise ValueError(f"labels must be names that differ in more than case, and not be empty; look at {odd[:5]}. Set objective.text.labels.")
        self.rows[""] = 0
        self.embedding = nn.Embedding(len(labels) + 1, tokens * width)
        nn.init.normal_(self.embedding.weight)  # as loud as the other encoders, which end in a layer norm

    def row(self, prompt: str) -> int:
        """Which row of the table a prompt is.

        Raises: ValueError with the nearest names if it is no label.
        """
        row = self.rows.get(_key(prompt))
        if row is None:
            near = get_close_matches(_key(prompt)[:200], filter(None, self.rows), n=3, cutoff=0.4)
            names = "; near it: " + ", ".join(self.labels[self.rows[key] - 1] for key in near) if near else ""
            raise ValueError(
                f"{prompt[:60]!r} is none of the {len(self.labels)} labels that this model knows{names}. "
                "Give one of objective.text.labels, or an empty prompt for no label."
            )
        return row

    def cut(self, prompts: Sequence[str]) -> list[str]:
        """No label is ever cut."""
        return []

    def forward(self, prompts: Sequence[str]) -> Text:
        """Encode b prompts.

        Raises: ValueError if one is no label.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a list of at least one string, got {prompts!r:.60}.")
        rows = torch.tensor([self.row(prompt) for prompt in prompts], device=self.embedding.weight.device)
        tokens: Tensor = self.embedding(rows).unflatten(1, (self.max_tokens, self.width))  # b l d
        return Text(tokens, tokens.mean(dim=1))

    def shard_units(self) -> list[nn.Module]:
        """None: a table of vectors has no blocks."""
        return []

    def flops(self, prompts: int) -> int:
        """None: vectors are looked up."""
        return 0


def _key(label: str) -> str:
    return label.strip().casefold()
