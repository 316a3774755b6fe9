"""What this device reaches in the operations that the networks spend their time on: the rates that predictions divide by."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from accounting.roofline import Hardware
from bench.contenders import Size
from bench.measure import Call, Meter
from models.attention import Fastest
from models.layers import linear
from models.vae import VideoVAE
from models.vae_blocks import CausalBlock, Convolution

BACKEND = "sdpa"  # whichever kernel torch takes


def of_transformers(size: Size, dtypes: Sequence[torch.dtype], device: str, meter: Meter, rounds: int) -> list[dict[str, Any]]:
    """Per dtype: FLOP/s of the MLP's linear layer and of attention (by head width, forward and backward), bytes/s of a copy.

    The best of `rounds`. Products and attention twice: by the kernels that ours chooses here, and by torch's own, which peers call.
    """
    rows = []
    for dtype in dtypes:
        tensor = size.video_tokens * size.samples * size.width * dtype.itemsize  # what one pass reads: it may stay in a cache
        bytes_s = max(copy_rate(number, device, meter, rounds) for number in (tensor, 2**26))
        row: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "bytes_s": bytes_s, "matmul_flop_s": {}, "attention_flop_s": {}}
        for side in ("ours", "peer"):
            row["matmul_flop_s"][side] = _linear_rate(size, side, device, dtype, meter, rounds)
            widths = (size.head_width, 2 * size.head_width)
            row["attention_flop_s"][side] = {str(width): _attention_rates(size, width, side, device, dtype, meter, rounds) for width in widths}
        rows.append(row)
    return rows


def of_autoencoders(name: str, vae: VideoVAE, clip: Sequence[int], device: str, meter: Meter, rounds: int) -> dict[str, Any]:
    """FLOP/s in float32: of 3x3x3 convolutions of 96 to 384 channels (the peers' work), and of what ours, `name`, mixes its neighbourhoods with.

    The best of all widths. Ours: a 3x3 convolution or a linear layer of the inputs and outputs of its own blocks, on the latent frames of the clip.

    Args:
        clip: frames, height, width in pixels.
    """
    frames, height, width = clip
    with torch.no_grad():
        peers = max(_convolution_rate(channels, 64 * 96 // channels, device, meter, rounds) for channels in (96, 192, 384))
        positions = (1 + (frames - 1) // vae.stride[0], height // vae.patch[1], width // vae.patch[2])
        blocks = {(part.mix.in_features, part.mix.out_features): part for part in vae.modules() if isinstance(part, CausalBlock)}
        own = max(_block_rate(block, positions, device, meter, rounds) for block in blocks.values())
    return {"peer_flop_s": peers, "own_flop_s": {name: own}}


def copy_rate(number: int, device: str, meter: Meter, rounds: int) -> float:
    """Bytes/s, read and written, of copying so many bytes to where there is memory already: taking it from the system costs more than the copy."""
    source = torch.ones(number, dtype=torch.uint8, device=device)
    target = source.clone()
    return 2 * number / _seconds(lambda: target.copy_(source), meter, rounds)


def hardware(row: dict[str, Any], side: str) -> Hardware:
    """A row of `of_transformers` as hardware for one side: its peak is what its products reach."""
    matmul = row["matmul_flop_s"][side]
    attention = {(BACKEND, int(width)): (rates[0], rates[1]) for width, rates in row["attention_flop_s"][side].items()}
    return Hardware("as measured", matmul, matmul, attention, row["bytes_s"])


def _convolution_rate(channels: int, side: int, device: str, meter: Meter, rounds: int) -> float:
    x, kernel = torch.randn(1, channels, 5, side, side, device=device), torch.randn(channels, channels, 3, 3, 3, device=device)
    return 2 * channels**2 * 27 * 3 * side**2 / _seconds(lambda: F.conv3d(x, kernel, padding=(0, 1, 1)), meter, rounds)


def _block_rate(block: CausalBlock, positions: tuple[int, int, int], device: str, meter: Meter, rounds: int) -> float:
    inputs, outputs, number = block.mix.in_features, block.mix.out_features, positions[0] * positions[1] * positions[2]
    if isinstance(block.mixing, Convolution):
        x = torch.randn(positions[0], inputs // 9, *positions[1:], device=device).to(memory_format=torch.channels_last)
        kernel = torch.randn(outputs, inputs // 9, 3, 3, device=device).to(memory_format=torch.channels_last)
        return 2 * inputs * outputs * number / _seconds(lambda: F.conv2d(x, kernel, padding=1), meter, rounds)
    rows, layer = torch.randn(number, inputs, device=device), nn.Linear(inputs, outputs, device=device)
    return 2 * inputs * outputs * number / _seconds(lambda: layer(rows), meter, rounds)


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
