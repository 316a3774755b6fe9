"""What this device reaches in the operations that the networks spend their time on: the rates that predictions divide by."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from accounting.roofline import Hardware
from bench.contenders import Size
from bench.measure import Call, Meter
from models.attention import Fastest
from models.layers import linear

BACKEND = "sdpa"  # whichever kernel torch takes


def of_transformers(size: Size, dtypes: Sequence[torch.dtype], device: str, meter: Meter, rounds: int) -> list[dict[str, Any]]:
    """Per dtype: FLOP/s of the MLP's linear layer and of attention (by head width, forward and backward), bytes/s of a copy.

    The best of `rounds`. Products and attention twice: by the kernels that ours chooses here, and by torch's own, which peers call.
    """
    rows = []
    for dtype in dtypes:
        source = torch.ones(2**26, dtype=torch.uint8, device=device)
        target = source.clone()  # there already: taking new memory from the system costs more than the copy
        bytes_s = 2 * source.numel() / _seconds(lambda target=target, source=source: target.copy_(source), meter, rounds)
        row: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "bytes_s": bytes_s, "matmul_flop_s": {}, "attention_flop_s": {}}
        for side in ("ours", "peer"):
            row["matmul_flop_s"][side] = _linear_rate(size, side, device, dtype, meter, rounds)
            widths = (size.head_width, 2 * size.head_width)
            row["attention_flop_s"][side] = {str(width): _attention_rates(size, width, side, device, dtype, meter, rounds) for width in widths}
        rows.append(row)
    return rows


def of_autoencoders(device: str, meter: Meter, rounds: int) -> dict[str, float]:
    """FLOP/s of a 3x3x3 convolution of 96 channels (the peers' work) and of a linear layer of 192 (ours), float32."""
    with torch.no_grad():
        x, kernel = torch.randn(1, 96, 5, 64, 64, device=device), torch.randn(96, 96, 3, 3, 3, device=device)
        convolution = 2 * 96 * 96 * 27 * 3 * 64 * 64 / _seconds(lambda: F.conv3d(x, kernel, padding=(0, 1, 1)), meter, rounds)
        rows, layer = torch.randn(16384, 192, device=device), linear(192, 192).to(device).requires_grad_(False)
        return {"convolution_flop_s": convolution, "matmul_flop_s": 2 * 16384 * 192 * 192 / _seconds(lambda: layer(rows), meter, rounds)}


def hardware(row: dict[str, Any], side: str) -> Hardware:
    """A row of `of_transformers` as hardware for one side: its peak is what its products reach."""
    matmul = row["matmul_flop_s"][side]
    attention = {(BACKEND, int(width)): (rates[0], rates[1]) for width, rates in row["attention_flop_s"][side].items()}
    return Hardware("as measured", matmul, matmul, attention, row["bytes_s"])


def _linear_rate(size: Size, side: str, device: str, dtype: torch.dtype, meter: Meter, rounds: int) -> float:
    tokens = size.video_tokens * size.samples
    x, layer = torch.randn(tokens, size.width, device=device).to(dtype), linear(size.width, 4 * size.width).to(device, dtype).requires_grad_(False)
    work = layer if side == "ours" else partial(F.linear, weight=layer.weight, bias=layer.bias)
    return 8 * tokens * size.width**2 / _seconds(lambda: work(x), meter, rounds)


def _attention_rates(size: Size, head_width: int, side: str, device: str, dtype: torch.dtype, meter: Meter, rounds: int) -> list[float]:
    shape = (size.samples, size.video_tokens, size.width // head_width, head_width)  # as a projection leaves them
    own = side == "ours"  # it is given float32 and told of the precision by autocast
    q, k, v = (torch.randn(shape, device=device).to(torch.float32 if own else dtype).transpose(1, 2).requires_grad_() for _ in range(3))
    kernel = Fastest().batch if own else F.scaled_dot_product_attention
    lower = torch.autocast(torch.device(device).type, dtype, enabled=own and dtype != torch.float32)

    def forward() -> None:
        with torch.no_grad(), lower:
            kernel(q, k, v)

    def both() -> None:
        with lower:
            out = kernel(q, k, v)
        out.backward(torch.ones_like(out))

    flop = 4 * size.video_tokens**2 * size.width * size.samples
    seconds = _seconds(forward, meter, rounds)
    return [flop / seconds, 2.5 * flop / max(1e-9, _seconds(both, meter, rounds) - seconds)]


def _seconds(call: Call, meter: Meter, rounds: int) -> float:
    call()
    return min(meter.seconds(call) for _ in range(rounds))  # a ceiling: neighbours only ever slow it down
