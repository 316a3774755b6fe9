"""Weights that are the same thing in another size: how one is made from the other, or None where they do not fit."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dit import DiT
from training.ema import network_state

Resize = Callable[[Tensor, Tensor], Tensor | None]  # (saved, fresh) -> what the network gets; None: it does not fit


def either_end(name: str) -> str:
    """A tensor's name, the same whether its block's text goes further or not.

    In the last of a stack of double blocks it is looked at and goes no further: its attention lacks an output and a level of names, its
    modulation the gates.
    """
    return name.replace(".text.attention.", ".text.")


def resizes(before: Mapping[str, Any], networks: Mapping[str, nn.Module], held: Mapping[str, Tensor]) -> dict[str, Resize]:
    """How to make tensors of these networks from ones of another size, by name.

    Args:
        before: config of the objective that the others were trained with.
        held: the others.
    """
    rules = _text_ends(held, network_state(networks))
    if (before.get("text") or {}).get("max_tokens") not in (None, getattr(networks.get("text"), "max_tokens", None)):
        rules["text.position.weight"] = partial(_overlap, axis=0)
    dit, was = networks.get("dit"), before.get("dit") or {}
    if not isinstance(dit, DiT) or "patch" not in was:
        return rules
    patch, channels = tuple(was["patch"]), was["latent_channels"]
    if (patch, channels) != (tuple(dit.patch), dit.latent_channels):
        reading, writing = _patch_maps(patch, dit.patch)
        own = dit.latent_channels

        def reader(saved: Tensor, fresh: Tensor) -> Tensor | None:
            weight = saved.double().unflatten(1, (channels, -1)) @ reading  # d c p
            made = _overlap(weight, fresh.unflatten(1, (own, -1)), axis=1)
            return None if made is None else made.flatten(1)

        def writer(saved: Tensor, fresh: Tensor) -> Tensor | None:
            weight = torch.einsum("qp,cp...->cq...", writing, saved.double().unflatten(0, (channels, -1)))
            made = _overlap(weight, fresh.unflatten(0, (own, -1)), axis=0)
            return None if made is None else made.flatten(0, 1)

        rules |= {"dit.video_in.weight": reader, "dit.head.weight": writer, "dit.head.bias": writer}
    return rules


def _text_ends(held: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Resize]:
    """Modulation of a text that goes further on one side alone: shift and scale stand first in both, gates start as they were drawn.

    Of another width, they would stand elsewhere: queries, keys and values tell.
    """
    rules: dict[str, Resize] = {}
    theirs = {either_end(name): name for name in held}
    for name, fresh in targets.items():
        there = theirs.get(either_end(name), name)
        if there != name and name.endswith(".qkv.weight") and held[there].shape == fresh.shape:
            modulation = either_end(name).removesuffix("qkv.weight") + "modulation."
            resized = [own for own in targets if own.startswith(modulation) and own in held and held[own].shape != targets[own].shape]
            rules |= dict.fromkeys(resized, partial(_overlap, axis=0))
    return rules


def _enlarged(before: int, now: int) -> Tensor:
    """The bilinear map from `before` pixels in a row to `now`, (now, before), float64."""
    pixels = torch.eye(before, dtype=torch.float64)[:, None, None]  # a picture of one row for each
    return F.interpolate(pixels, size=(1, now), mode="bilinear", antialias=True).flatten(1).T


def _patch_maps(before: tuple[int, ...], now: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """What weights that read a patch are multiplied by (before, now), and weights that write one (now, before), pixels of both axes.

    An enlarged patch is read as it was before it was enlarged, by the pseudo-inverse; a smaller one as if it were enlarged.
    Source: Beyer et al. 2023 (FlexiViT), section 3.4.
    """
    readers = [torch.linalg.pinv(_enlarged(b, n)) if n >= b else _enlarged(n, b) for b, n in zip(before[1:], now[1:], strict=True)]
    return torch.kron(*readers), torch.kron(*(_enlarged(b, n) for b, n in zip(before[1:], now[1:], strict=True)))


def _overlap(made: Tensor, fresh: Tensor, axis: int) -> Tensor | None:
    """`fresh` with as much of `made` along an axis as both have; None if they differ along another."""
    kept, out = min(made.shape[axis], fresh.shape[axis]), fresh.detach().clone()
    if made.narrow(axis, 0, kept).shape != out.narrow(axis, 0, kept).shape:
        return None
    out.narrow(axis, 0, kept).copy_(made.narrow(axis, 0, kept))
    return out
