"""Which activations of a block are kept for the backward pass and which are made again; loss and gradients are the same bits either way."""

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, SelectiveCheckpointContext, checkpoint, create_selective_checkpoint_contexts


class Recompute(Protocol):
    """Runs a block."""

    def __call__(self, block: nn.Module, x: Tensor, setting: Any) -> Tensor:
        """What `block(x, setting)` returns."""
        ...


class Keep:
    """Everything is kept: the fastest, and the most memory."""

    def __call__(self, block: nn.Module, x: Tensor, setting: Any) -> Tensor:
        return block(x, setting)


class Everything:
    """A block's input alone is kept; the block runs again in the backward pass, which costs a third more FLOP."""

    def __call__(self, block: nn.Module, x: Tensor, setting: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return block(x, setting)
        return checkpoint(block, x, setting, use_reentrant=False)


class Selective:
    """The results of linear layers and of fused attention are kept; norms, activations, rotations and gates, which cost no FLOP, are made again.

    An attention written as two products runs again too: its scores would take more memory than all the rest. Weights that are used twice
    under one autocast get gradients that differ from `Keep`'s by rounding: each use casts them anew.
    """

    def __call__(self, block: nn.Module, x: Tensor, setting: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return block(x, setting)
        # What keeps and hands back results counts calls, and a compiled block makes none that it could see.
        if block._compiled_call_impl is not None:
            raise ValueError(
                "recompute=Selective cannot see into a compiled block, which makes norms and activations again by itself. "
                "Set objective/dit/recompute=keep or everything, or trainer.compile=none."
            )
        contexts = partial(create_selective_checkpoint_contexts, _policy)
        return checkpoint(_uncached, block, x, setting, use_reentrant=False, context_fn=contexts)


_LINEAR = ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise")  # the last is what models/products.py calls


def _policy(context: SelectiveCheckpointContext, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = operation.name()
    kept = name in _LINEAR or "attention" in name or "attn" in name
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _uncached(block: nn.Module, x: Tensor, setting: Any) -> Tensor:
    """The block, each cast of a weight made anew: a cast that autocast has at hand would be missing from the count when the block runs again."""
    device = x.device.type
    with torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device), cache_enabled=False):
        return block(x, setting)
