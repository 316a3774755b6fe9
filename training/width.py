"""Rates and first weights as functions of width (muP), so that what is tuned at one width holds at all: a size ladder is tuned once."""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Protocol

import torch
from torch import nn

from runtime.config import ConfigError, build

# Spectral norm, up to a constant, of what an optimiser adds to a matrix of (rows, columns) at a rate of 1.
Reach = Callable[[int, int], float]


class WidthScaling(Protocol):
    """What a width does to rates and first weights."""

    def prepare(self, networks: Mapping[str, nn.Module], objective: Mapping[str, Any]) -> None:
        """Look at freshly built networks and set the deviation of their first weights; before weights are loaded.

        Args:
            objective: the config that they were built from.
        """
        ...

    def factor(self, parameter: nn.Parameter, reach: Reach) -> float:
        """What the rate of a parameter is multiplied by."""
        ...


class Unscaled:
    """Every width has the same rates."""

    def prepare(self, networks: Mapping[str, nn.Module], objective: Mapping[str, Any]) -> None:
        """Nothing changes."""

    def factor(self, parameter: nn.Parameter, reach: Reach) -> float:
        """1."""
        return 1.0


class Scaled:
    """Rates and first weights of a DiT follow its width so that a step changes every layer's output by what it does at the base width.

    The change of an A x B matrix must have a spectral norm proportional to sqrt(A / B). AdamW's changes have one proportional to sqrt(A B), so
    hidden and output layers get lr / width and layers that read a fixed number of channels keep theirs: muP. Muon's have 1 times what its option
    `adjust` says: `original` already is right for hidden layers, `match_rms_adamw` needs 1 / sqrt(width). Ends of
    C channels, more than the base width, get sqrt(min(C, width) / base width) times the rate of others. Which axes grow with the width shows in a
    twin of the base width. Vectors, embeddings and the text encoder, whose width is its own, are left alone.

    The layers' first weights are Xavier's, which is right for hidden layers; those that read a fixed number of channels get the deviation that
    they have at the base width.

    Source: Yang et al. 2022 (Tensor Programs V), table 3; Yang, Simon and Bernstein 2023 (A spectral condition for feature learning).

    Args:
        base_width: width of the DiT at which lr was tuned; there nothing changes.
    """

    def __init__(self, base_width: int) -> None:
        if base_width < 1:
            raise ValueError(f"base_width={base_width} is no width: at least 1. Set optim.width_scaling.base_width.")
        self.base_width = base_width
        self._base: dict[torch.Tensor, tuple[int, int]] = {}  # (rows, columns) at the base width

    def prepare(self, networks: Mapping[str, nn.Module], objective: Mapping[str, Any]) -> None:
        """Compare the DiT with its twin.

        Raises: ConfigError if there is no DiT, or heads of its width do not divide the base width.
        """
        if "dit" not in networks:
            raise ConfigError(f"optim/width_scaling=scaled is for a DiT, and this run trains {', '.join(networks)}. Set optim/width_scaling=none.")
        own = {name: layer for name, layer in networks["dit"].named_modules() if isinstance(layer, nn.Linear)}
        twin = {name: layer for name, layer in self._twin(objective["dit"]).named_modules() if isinstance(layer, nn.Linear)}
        assert own.keys() == twin.keys(), "a twin of another width has the same layers"
        for name, layer in own.items():
            base = twin[name].out_features, twin[name].in_features
            self._base[layer.weight] = base
            with torch.no_grad():
                layer.weight.mul_(_first(layer.out_features, layer.in_features, *base))

    def factor(self, parameter: nn.Parameter, reach: Reach) -> float:
        """1 at the base width, for vectors and embeddings."""
        assert self._base, "rates are asked for before the networks were looked at"
        rows, columns = base = self._base.get(parameter, (0, 0))
        if not rows or parameter.shape == base:
            return 1.0
        wide = sqrt(parameter.shape[0] / parameter.shape[1]) / reach(*parameter.shape)
        return round(wide / (sqrt(rows / columns) / reach(rows, columns)), 12)

    def _twin(self, config: Mapping[str, Any]) -> nn.Module:
        """The same DiT at the base width with heads of the same size, without memory."""
        width, heads = config["width"], config["heads"]
        if self.base_width * heads % width:
            head = width // heads
            raise ConfigError(f"optim.width_scaling.base_width={self.base_width} is no multiple of the {head} channels of a head. Set one of them.")
        with torch.device("meta"):
            return build({**config, "width": self.base_width, "heads": self.base_width * heads // width})


def _first(rows: int, columns: int, base_rows: int, base_columns: int) -> float:
    """What Xavier's deviation, sqrt(2 / (rows + columns)), is multiplied by to keep its value at the base width as muP has it."""
    if rows == base_rows or columns != base_columns:
        return 1.0  # as it was, an output (zero at the start), or a hidden layer, where Xavier's own 1 / sqrt(width) is right
    return sqrt((rows + columns) / (base_rows + base_columns))
