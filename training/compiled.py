"""Blocks are compiled one by one, from outside: their weights keep their names, and no shape runs uncompiled in silence."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from models.kernels import GRAPHS  # of one block; beyond, torch would fall back to running uncompiled, which fullgraph makes an error


def compile_blocks(networks: Mapping[str, nn.Module], backend: str = "inductor") -> None:
    """Compile the `shard_units` of each network, in place: blocks of one kind share a graph, and each shape of batch gets its own.

    A graph for all shapes would depend on which came first, so that a resumed run would not be the run that went on.

    Args:
        backend: of torch.compile; aot_eager makes the graphs and no kernels.
    Raises: ValueError if a network does not list its blocks.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, 8 * GRAPHS)
    for name, network in networks.items():
        units = getattr(network, "shard_units", None)
        if units is None:
            raise ValueError(f"trainer.compile=blocks: the {type(network).__name__} '{name}' lists no blocks. Set trainer.compile=none.")
        for unit in units():
            unit.compile(fullgraph=True, dynamic=False, backend=backend)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled blocks as they are written: a validation or a picture is over before its shapes were compiled a second time, without gradients.

    FlexAttention, which would fill the memory with scores, stays compiled.
    """
    with torch.compiler.set_stance("force_eager"):
        yield
