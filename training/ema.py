"""An average of the weights over training, in float32 whatever the weights are: in bfloat16 small updates round away."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average of parameters; buffers are copied, because an average of statistics belongs to no weights.

    The decay is a function of the step, min(decay, (1 + step) / (10 + step)), so that the random start is soon forgotten.

    Args:
        networks: the trained networks by name.
        decay: in [0, 1); 0.995 averages over some 200 steps.
        ramp: whether early steps use the smaller decay.
    Raises: ValueError if the decay is out of range.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float, ramp: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay={decay} must lie in [0, 1). Set trainer.ema_decay.")
        self.networks, self.decay, self.ramp = networks, decay, ramp
        # Float64 weights keep float64; everything narrower is averaged in float32.
        self.averages = {name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for name, p in self._parameters()}

    def at(self, step: int) -> float:
        """The decay after the update that ends step `step`."""
        return min(self.decay, (1 + step) / (10 + step)) if self.ramp else self.decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they stand after the update that ends step `step`."""
        share = 1 - self.at(step)
        for name, p in self._parameters():
            average = self.averages[name]
            average.lerp_(p.to(average.dtype), share)

    def state(self) -> dict[str, Tensor]:
        """The networks' state with averaged parameters and their present buffers: what samples are made with."""
        return {name: self.averages.get(name, tensor) for name, tensor in network_state(self.networks).items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the networks, and the exact weights back; buffers changed meanwhile stay changed."""
        kept = [p.detach().clone() for _, p in self._parameters()]
        with torch.no_grad():
            for name, p in self._parameters():
                p.copy_(self.averages[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for (_, p), weights in zip(self._parameters(), kept, strict=True):
                    p.copy_(weights)

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for network, module in self.networks.items():
            for name, parameter in module.named_parameters(remove_duplicate=False):  # tied weights keep every name they are saved under
                yield f"{network}.{name}", parameter


def network_state(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers of all networks, named '<network>.<name>'."""
    return {f"{network}.{name}": tensor for network, module in networks.items() for name, tensor in module.state_dict().items()}
