"""What is said of a clip: one prompt, or several, each for a part of its time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flow.canvas import Canvas


@dataclass(frozen=True, slots=True)
class Timed:
    """Several prompts of one clip, each for a part of its time.

    Args:
        texts: k of them.
        weights: (k, f), how much of each latent frame's velocity is that under each text; the columns sum to 1.
    """

    texts: tuple[str, ...]
    weights: Tensor

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or len(self.weights) != len(self.texts) or not self.texts:
            raise ValueError(f"{len(self.texts)} prompts want weights (prompts, latent frames), got {tuple(self.weights.shape)}.")
        if not torch.allclose(self.weights.sum(dim=0), torch.ones(self.weights.shape[1]), atol=1e-5):
            raise ValueError("the weights of a clip's prompts must sum to 1 in each latent frame.")


Prompt = str | Timed


@dataclass(frozen=True, slots=True)
class Script:
    """The prompts of b clips: the first text of each, the second of each..., and how much each text counts in each frame, (k, b, F)."""

    texts: list[str]
    weights: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Prompt], canvas: Canvas) -> "Script":
        """Raises: ValueError if a clip's weights are not of its latent frames."""
        k = max(len(prompt.texts) if isinstance(prompt, Timed) else 1 for prompt in prompts)
        frames = canvas.latents.shape[2]
        weights = torch.zeros(k, len(prompts), frames)
        texts = [[""] * len(prompts) for _ in range(k)]
        for place, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                texts[0][place], weights[0, place] = prompt, 1.0
                continue
            if prompt.weights.shape[1] != canvas.shown:
                count = prompt.weights.shape[1]
                raise ValueError(f"the weights of {len(prompt.texts)} prompts are of {count} latent frames, the clip has {canvas.shown}.")
            weights[0, place] = 1.0  # pictures behind the clip are not walked
            weights[: len(prompt.texts), place, : canvas.shown] = prompt.weights
            for number, text in enumerate(prompt.texts):
                texts[number][place] = text
        return cls([text for row in texts for text in row], weights)
