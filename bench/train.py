"""Part `train`: whole training steps of our DiT (forward, backward, optimiser), in model FLOP per second of the device's peak."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from accounting.roofline import known_hardware, mfu
from bench.contenders import without_zeros
from bench.measure import Meter, parameters
from models.dit import DiT
from models.geometry import Grid, Layout, moments, token_grid
from models.text import Text


@dataclass(frozen=True, slots=True)
class Load:
    """A batch: samples of latents (f, h, w) with text tokens each."""

    samples: int
    latents: Grid
    text_tokens: int

    def layout(self, patch: Grid) -> Layout:
        """Its tokens."""
        return Layout.batch(self.samples, token_grid(self.latents, patch), self.text_tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """One training step on one batch; weights and optimiser in float32, products in `dtype`."""

    network: DiT
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype
    noisy: Tensor
    t: Tensor
    text: Text
    moments: Tensor

    @classmethod
    def of(cls, network: DiT, load: Load, device: str, dtype: torch.dtype) -> "Step":
        """With AdamW, fused where there is a GPU."""
        draw, samples = torch.Generator().manual_seed(1), load.samples
        words = torch.randn(samples, load.text_tokens, network.text_width, generator=draw).to(device)
        noisy = torch.randn(samples, network.latent_channels, *load.latents, generator=draw).to(device)
        t = torch.rand(samples, load.latents[0], generator=draw).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device.startswith("cuda"))
        ends = moments(load.latents[0], torch.full((samples,), 24.0, device=device), stride_t=4)
        return cls(network, optimizer, dtype, noisy, t, Text(words, words.mean(dim=1)), ends)

    def velocity(self) -> Tensor:
        """Forward."""
        with torch.autocast(self.noisy.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.network(self.noisy, self.t, self.text, self.moments)

    def __call__(self) -> None:
        """Forward, backward, update."""
        self.velocity().float().square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class _Seen(TorchDispatchMode):
    """Notes which attention operations torch runs, whoever chose them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        if "attention" in name or "attn" in name:
            self.names.add(name.strip("_"))
        return func(*args, **(kwargs or {}))


def attention_of(step: Step, wanted: str | None) -> str:
    """The attention operations of a forward pass with gradients, as torch names them: what really runs, not what was asked for.

    Nothing is kept for a backward pass, which would need more memory here than in the blocks when they are compiled.

    Raises: RuntimeError if one of them is not `wanted`.
    """
    with torch.enable_grad(), saved_tensors_hooks(lambda _: None, lambda _: torch.empty(0)), _Seen() as seen:
        step.velocity()
    ran = ", ".join(sorted(seen.names)) or "products"
    if wanted is not None and (not seen.names or any(wanted not in name for name in seen.names)):
        raise RuntimeError(f"attention runs as {ran}, wanted {wanted} everywhere: torch fell back. Set train.kernel, or train.attention=null.")
    return ran


def measure(
    network: DiT, load: Load, steps: int, dtype: torch.dtype, compiled: bool, attention: str | None, device: str, meter: Meter, memory: bool
) -> dict[str, Any]:
    """Every step's seconds and what they come from; the first step, which compiles, apart.

    `start_s` is the wall time of the first step beyond a usual one. MFU is null where the device's peak is not known.

    Args:
        compiled: block by block: blocks are alike, so that one graph serves all.
        attention: part of the name that torch's attention operation must have; None for any.
    """
    without_zeros(network).to(device)
    step = Step.of(network, load, device, dtype)
    ran = attention_of(step, attention)
    if compiled:
        torch.compiler.reset()  # what an earlier row compiled would take part of the start-up away, and count towards the limit of recompilations
        for unit in network.shard_units():
            unit.compile()
    first = _wall(step, device)
    step()  # the optimiser's state is there now
    seconds = [meter.seconds(step) for _ in range(steps)]
    layout = load.layout(network.patch)
    flop = 3 * network.flops(layout)
    hardware = known_hardware(torch.cuda.get_device_name()) if device.startswith("cuda") else None
    return {
        "samples": load.samples,
        "tokens": layout.tokens[0],
        "text_tokens": load.text_tokens,
        "width": network.width,
        "depth": len(network.shard_units()),
        "parameters": parameters(network),
        "flop": flop,
        "attention": ran,
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": compiled,
        "seconds": seconds,
        "mfu": [mfu(flop, each, hardware) for each in seconds] if hardware else None,
        "start_s": max(0.0, first - _wall(step, device)),
        "peak_mb": meter.peak_mb(step) if memory else None,
    }


def _wall(step: Step, device: str) -> float:
    begun = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun
