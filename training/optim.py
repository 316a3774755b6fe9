"""Which optimiser moves which weights, with a state that is nothing but named tensors."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from math import sqrt
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from runtime.checkpoint import CheckpointError
from training.muon import StackedMuon, ratio
from training.width import Reach, Unscaled, WidthScaling


class Optimizers:
    """Optimisers that step together. Their learning rates are base rates times one factor of the step, never state.

    Args:
        optimizers: by name; every trained parameter is in exactly one.
        networks: where the parameters' names come from.
    """

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer], networks: Mapping[str, nn.Module]) -> None:
        self.optimizers = dict(optimizers)
        named = [(f"{network}.{name}", p) for network, module in networks.items() for name, p in module.named_parameters()]
        self._names: dict[Tensor, str] = {p: name for name, p in named if p.requires_grad}
        covered = [p for optimizer in self.optimizers.values() for group in optimizer.param_groups for p in group["params"]]
        assert len(covered) == len(set(covered)), "a parameter belongs to two optimisers"
        assert set(covered) == set(self._names), "a trained parameter belongs to no optimiser"
        self._base = {name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in self.optimizers.items()}

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters."""
        return list(self._names)

    def step(self, factor: float) -> None:
        """One update of every parameter at `factor` times the base rates."""
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base[name], strict=True):
                group["lr"] = base * factor
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def lr(self, factor: float) -> float:
        """The first optimiser's rate at that factor, for the log."""
        return next(iter(self._base.values()))[0] * factor

    def tensors(self) -> dict[str, Tensor]:
        """The state, as '<optimiser>/<quantity>/<parameter>'."""
        return {
            f"{name}/{quantity}/{self._names[p]}": value
            for name, optimizer in self.optimizers.items()
            for p, state in optimizer.state.items()
            for quantity, value in state.items()
        }

    def scalars(self) -> dict[str, list[dict[str, object]]]:
        """Settings of each group, for the manifest: what to read, not what to restore (they follow from the config)."""
        plain = int | float | str | bool | None
        return {
            name: [{key: value for key, value in group.items() if isinstance(value, plain)} for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take over a saved state.

        Raises: CheckpointError if it names a parameter that its optimiser does not hold, or has another shape.
        """
        held = {
            f"{name}/{self._names[p]}": (optimizer, p)
            for name, optimizer in self.optimizers.items()
            for group in optimizer.param_groups
            for p in group["params"]
        }
        for key, tensor in saved.items():
            name, quantity, parameter = key.split("/", 2) if key.count("/") >= 2 else (key, "", "")
            if f"{name}/{parameter}" not in held:
                raise CheckpointError(f"the optimizer state holds {key}, but here {name or 'no optimiser'} does not move {parameter or key}.")
            optimizer, p = held[f"{name}/{parameter}"]
            if tensor.ndim and tensor.shape != p.shape:
                raise CheckpointError(f"the optimizer state {key} has shape {tuple(tensor.shape)}, the weights have {tuple(p.shape)}. Use a new run.")
            # AdamW counts its steps in a scalar on the CPU, whatever device the weights are on.
            optimizer.state[p][quantity] = tensor.clone() if not tensor.ndim else tensor.to(p.device, copy=True)


class Recipe(Protocol):
    """Makes the optimisers of a run."""

    @property
    def width_scaling(self) -> WidthScaling:
        """What width does to the rates; its `prepare` is called with the fresh networks first."""
        ...

    def optimizers(self, networks: Mapping[str, nn.Module]) -> Optimizers: ...


class AdamW:
    """AdamW for every weight; weight decay on those of layers that multiply or look up, not on gains, biases and learnt tokens.

    Args:
        lr: base rate, per update.
        betas: decay of the two moments.
        weight_decay: on the weights of linear layers, convolutions and embeddings.
        eps: added to the root of the second moment.
        width_scaling: what width does to the rates; None: nothing.
    """

    def __init__(self, lr: float, betas: tuple[float, float], weight_decay: float, eps: float, width_scaling: WidthScaling | None = None) -> None:
        self.lr, self.betas, self.weight_decay, self.eps = lr, betas, weight_decay, eps
        self.width_scaling = width_scaling or Unscaled()

    def optimizers(self, networks: Mapping[str, nn.Module]) -> Optimizers:
        every = [p for n in networks.values() for p in n.parameters() if p.requires_grad]
        return Optimizers({"adamw": self.over(every, networks, self.width_scaling)}, networks)

    def over(self, parameters: Sequence[nn.Parameter], networks: Mapping[str, nn.Module], scaling: WidthScaling) -> torch.optim.AdamW:
        """An AdamW over some parameters of the networks: weights of layers in groups of one rate each, then the rest."""
        decayed = layer_weights(networks)
        groups = _by_rate([p for p in parameters if p in decayed], self.lr, self.weight_decay, scaling, _adamw_reach)
        groups += _by_rate([p for p in parameters if p not in decayed], self.lr, 0.0, scaling, _adamw_reach)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps)


class Muon:
    """Muon for the matrices of linear layers, AdamW for the rest: embeddings, vectors, gains, and layers named in `adamw_layers`.

    Args:
        lr: base rate of Muon.
        momentum: of Muon, Nesterov's.
        weight_decay: of Muon, decoupled.
        adjust: how the rate depends on a matrix's shape. Muon's update of an A x B matrix has a root mean square of 1 / sqrt(max(A, B)).
            match_rms_adamw multiplies it by 0.2 sqrt(max(A, B)), so every matrix moves by 0.2 lr a step, as under AdamW; original multiplies by
            sqrt(max(1, A / B)), so a wide layer moves less: at width 128 it is 2.3 times gentler for the same lr.
        rest: the AdamW of all other weights.
        adamw_layers: shell patterns of parameter names, '<network>.<name>', whose matrices AdamW moves: "dit.head.*".
        width_scaling: what width does to the rates, of AdamW too; None: nothing.
    """

    def __init__(
        self,
        lr: float,
        momentum: float,
        weight_decay: float,
        adjust: Literal["match_rms_adamw", "original"],
        rest: AdamW,
        adamw_layers: Sequence[str],
        width_scaling: WidthScaling | None = None,
    ) -> None:
        if not isinstance(rest.width_scaling, Unscaled):
            raise ValueError("optim.rest.width_scaling is set: one scaling rules both optimisers. Set optim/width_scaling instead.")
        self.lr, self.momentum, self.weight_decay, self.adjust = lr, momentum, weight_decay, adjust
        self.rest, self.adamw_layers = rest, list(adamw_layers)
        self.width_scaling = width_scaling or Unscaled()

    def optimizers(self, networks: Mapping[str, nn.Module]) -> Optimizers:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        linear = {p for p in layer_weights(networks, but=(nn.Embedding,)) if p.ndim == 2}
        for network, module in networks.items():
            for name, p in module.named_parameters():
                if not p.requires_grad:
                    continue
                named = any(fnmatchcase(f"{network}.{name}", pattern) for pattern in self.adamw_layers)
                (matrices if p in linear and not named else others).append(p)
        made: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            groups = _by_rate(matrices, self.lr, self.weight_decay, self.width_scaling, partial(ratio, self.adjust))
            made["muon"] = StackedMuon(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, adjust_lr_fn=self.adjust)
        if others:
            made["adamw"] = self.rest.over(others, networks, self.width_scaling)
        return Optimizers(made, networks)


def layer_weights(networks: Mapping[str, nn.Module], but: tuple[type[nn.Module], ...] = ()) -> set[nn.Parameter]:
    """What layers multiply by or look up, `weight` of two dimensions or more: a table of gains per head has two as well, and is none.

    Args:
        but: kinds of layers that are left out.
    """
    layers = (layer for network in networks.values() for layer in network.modules() if not isinstance(layer, but))
    weights = (getattr(layer, "weight", None) for layer in layers)
    return {weight for weight in weights if isinstance(weight, nn.Parameter) and weight.ndim >= 2}


def _adamw_reach(rows: int, columns: int) -> float:
    """Every value moves by about the rate, all of them in a direction of low rank."""
    return sqrt(rows * columns)


def _by_rate(parameters: Sequence[nn.Parameter], lr: float, weight_decay: float, scaling: WidthScaling, reach: Reach) -> list[dict[str, Any]]:
    """Parameter groups of one rate each, the base rate first; decay is a share of the weights a step, whatever the rate's factor."""
    groups: dict[float, list[nn.Parameter]] = {}
    for p in parameters:
        groups.setdefault(scaling.factor(p, reach), []).append(p)
    order = sorted(groups, key=lambda factor: (factor != 1, -factor))
    return [{"params": groups[factor], "lr": lr * factor, "weight_decay": weight_decay / factor} for factor in order]
