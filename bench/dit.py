"""Part `dit`: our transformer and each peer by turns, at equal FLOP, width and head width; each match is measured by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from bench.contenders import Contender, Inputs, Size, matches
from bench.measure import Call, Meter, count_flop, parameters, take_turns

PASSES = ("forward", "train")  # without gradients; forward and backward
INSTALL = "not measured: diffusers is not installed (pip install -e '.[bench]')"


@dataclass(frozen=True, slots=True)
class Case:
    """A precision and what is timed."""

    dtype: torch.dtype
    run: str

    @classmethod
    def read(cls, written: Sequence[str]) -> "Case":
        """From [float32 or bfloat16, forward or train]. Raises: ValueError."""
        if len(written) != 2 or written[0] not in ("float32", "bfloat16") or written[1] not in PASSES:
            raise ValueError(f"case {list(written)} is not [float32 or bfloat16, forward or train]. Set dit.cases.")
        return cls(getattr(torch, written[0]), written[1])


def measure(size: Size, names: Sequence[str], cases: Sequence[Case], pairs: int, device: str, meter: Meter, memory: bool) -> list[dict[str, Any]]:
    """One row per match: what each side is (FLOP, parameters), and per case every time of both and their peak memory.

    Without diffusers the rows have our side alone, once for each of our shapes, and say what to install.
    Raises: ValueError if a name is no peer's.
    """
    known = matches(size)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"peers {', '.join(unknown)} are not known, only {', '.join(known)}. Set dit.peers.")
    here = find_spec("diffusers") is not None
    if here:
        from diffusers.utils import logging  # pyright: ignore[reportMissingImports]

        logging.set_verbosity_error()  # it warns of every whole cast
    rows, seen = [], set()
    for name in names:
        match = known[name]
        if not here and match.ours in seen:
            continue
        seen.add(match.ours)
        sides = {"ours": match.ours} | ({"peer": match.theirs} if here else {})
        rows.append({"match": name, **({} if here else {"left_out": INSTALL}), **_row(sides, cases, pairs, device, meter, memory)})
        print(f"{name}: measured", flush=True)
    return rows


def _row(sides: dict[str, Contender], cases: Sequence[Case], pairs: int, device: str, meter: Meter, memory: bool) -> dict[str, Any]:
    row: dict[str, Any] = {}
    networks = {}
    for side, contender in sides.items():
        networks[side] = contender.network(device)
        flop = _count(contender, networks[side], device)
        row[side] = {"head_width": contender.size.head_width, "parameters": parameters(networks[side]), "flop": flop}
    row["cases"] = []
    for case in cases:
        calls = {side: _call(contender, networks[side], case, device) for side, contender in sides.items()}
        times = take_turns(calls, pairs, meter)
        peaks = {side: meter.peak_mb(call) for side, call in calls.items()} if memory else {}
        row["cases"].append({"dtype": str(case.dtype).removeprefix("torch."), "run": case.run, "seconds": times, "peak_mb": peaks})
    return row


def _count(contender: Contender, network: nn.Module, device: str) -> dict[str, int]:
    inputs = Inputs.of(contender.size, device, torch.float32)
    flop = count_flop(lambda: contender.run(network, contender.size, inputs))
    return {"matmul": flop.matmul, "attention": flop.attention}


def _call(contender: Contender, network: nn.Module, case: Case, device: str) -> Call:
    """Ours keeps float32 weights under autocast, as it trains and samples; a peer is cast whole, its fastest way."""
    own = hasattr(network, "shard_units")
    inputs = Inputs.of(contender.size, device, torch.float32 if own else case.dtype)
    if not own:
        network = _cast(contender, network, case, device)
    lower = torch.autocast(torch.device(device).type, case.dtype, enabled=own and case.dtype != torch.float32)

    def forward() -> None:
        with torch.no_grad(), lower:
            contender.run(network, contender.size, inputs)

    def train() -> None:
        with lower:
            loss = contender.run(network, contender.size, inputs).float().square().mean()
        loss.backward()
        network.zero_grad(set_to_none=True)

    return forward if case.run == "forward" else train


def _cast(contender: Contender, network: nn.Module, case: Case, device: str) -> nn.Module:
    return network if case.dtype == torch.float32 else contender.network(device).to(case.dtype)
