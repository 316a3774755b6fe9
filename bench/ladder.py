"""Part `ladder`: what a training step of each shipped size asks of a device, counted without memory for a single weight."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accounting.roofline import passes_bytes
from bench.measure import count_flop, parameters
from bench.train import Load
from models.dit import DiT
from models.kernels import Batched
from models.text import Text

ACTIVATIONS = 34  # stored values per token, block and width, without recomputation


def count(build: Callable[[], DiT], loads: Sequence[Load]) -> list[dict[str, Any]]:
    """Forward FLOP by kind of one network for each load, bytes of its passes and of its stored activations in 16-bit values."""
    with torch.device("meta"):
        network = build()
    for part in network.modules():
        if hasattr(part, "kernel"):
            part.kernel = _Plain()  # pyright: ignore[reportArgumentType]  # the shipped one asks autocast, which knows no meta device
    rows = []
    for load in loads:
        layout = load.layout(network.patch)
        tokens, depth = sum(layout.tokens), len(network.shard_units())
        flop = count_flop(lambda load=load: _forward(network, load))
        size = {"parameters": parameters(network), "width": network.width, "depth": depth, "head_width": sum(network.rope.axes)}
        work = {"matmul_flop": flop.matmul, "attention_flop": flop.attention, "train_bytes": passes_bytes(tokens, network.width, depth, 2)}
        stored = ACTIVATIONS * tokens * network.width * depth * 2
        rows.append({**size, "samples": load.samples, "tokens": layout.tokens[0], **work, "stored_bytes": stored})
    return rows


class _Plain(Batched):
    def batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def _forward(network: DiT, load: Load) -> None:
    with torch.device("meta"):
        noisy = torch.zeros(load.samples, network.latent_channels, *load.latents)
        words = torch.zeros(load.samples, load.text_tokens, network.text_width)
        t = torch.zeros(load.samples, load.latents[0])
        network(noisy, t, Text(words, words[:, 0]), torch.zeros_like(t))
