"""How long a network's work must take on a piece of hardware, from FLOP and bytes alone: what a measurement is held against."""

from collections.abc import Mapping
from dataclasses import dataclass

# Reads and writes of a tokens x width tensor that one block's training step needs besides matrix products and attention, every chain of
# elementwise operations being one kernel; written as separate operations, it takes 2.5 times as many.
FUSED_PASSES = 94
EAGER = 2.5
FORWARD_SHARE = 1 / 3  # of a training step's matrix products and passes


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a device reaches on large inputs.

    Args:
        name: as the device names itself.
        peak_flop_s: the maker's figure for dense 16-bit products, which MFU is counted against.
        matmul_flop_s: matrix products of a transformer's shapes.
        attention_flop_s: by (back end, head width): forward, and backward with its recomputed scores counted.
        bytes_s: elementwise operations, reads and writes together.
    """

    name: str
    peak_flop_s: float
    matmul_flop_s: float
    attention_flop_s: Mapping[tuple[str, int], tuple[float, float]]
    bytes_s: float


# Matrix products at 0.82 of the 790 TFLOP/s of a bare 8192^3 product; attention as published for the H100, whose cores are the same, at
# 8k to 16k tokens, not causal (Shah et al. 2024, FlashAttention-3); 85 % of 4.3 TB/s.
H200 = Hardware(
    name="NVIDIA H200",
    peak_flop_s=989e12,
    matmul_flop_s=650e12,
    attention_flop_s={
        ("flash", 64): (322e12, 287e12),
        ("flash", 128): (370e12, 318e12),
        ("cudnn", 64): (412e12, 432e12),
        ("cudnn", 128): (600e12, 518e12),
        ("flash3", 64): (496e12, 472e12),
        ("flash3", 128): (646e12, 559e12),
    },
    bytes_s=0.85 * 4.3e12,
)


@dataclass(frozen=True, slots=True)
class Work:
    """One forward pass: FLOP of its matrix products and of its attention, two per multiply-add; bytes of a training step's fused passes."""

    matmul_flop: float
    attention_flop: float
    train_bytes: float

    @property
    def train_flop(self) -> float:
        """Forward and backward: three times the forward, the recomputed scores of attention's backward not counted."""
        return 3 * (self.matmul_flop + self.attention_flop)


def passes_bytes(tokens: int, width: int, depth: int, value_bytes: int) -> float:
    """Bytes that the fused passes of a training step move: `tokens` of all samples, `value_bytes` each value."""
    return FUSED_PASSES * tokens * width * depth * value_bytes


def dit_work(width: int, depth: int, tokens: int, samples: int, matrices: int = 16, value_bytes: int = 2) -> Work:
    """A DiT of `depth` blocks with `matrices` width x width weights each (4 self, 4 cross, 8 MLP), all applied to every token.

    Args:
        tokens: of each sample, which attend to each other.
    """
    matmul = 2 * matrices * width**2 * depth * tokens * samples
    attention = 4 * tokens**2 * width * depth * samples
    return Work(matmul, attention, passes_bytes(tokens * samples, width, depth, value_bytes))


@dataclass(frozen=True, slots=True)
class Floor:
    """Seconds that each kind of work needs; nothing overlaps, and launches, the optimiser and the loader cost nothing."""

    matmul_s: float
    attention_s: float
    elementwise_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.matmul_s + self.attention_s + self.elementwise_s


def forward_floor(work: Work, hardware: Hardware, backend: str, head_width: int, spread: float = 1.0) -> Floor:
    """A forward pass.

    Args:
        spread: passes in units of the fused ones; EAGER for separate operations.
    """
    forward, _ = _attention(hardware, backend, head_width)
    moved = spread * work.train_bytes * FORWARD_SHARE / hardware.bytes_s
    return Floor(work.matmul_flop / hardware.matmul_flop_s, work.attention_flop / forward, moved)


def train_floor(work: Work, hardware: Hardware, backend: str, head_width: int, spread: float = 1.0) -> Floor:
    """Forward and backward; attention's backward does five products where its forward does two."""
    forward, backward = _attention(hardware, backend, head_width)
    attention_s = work.attention_flop / forward + 2.5 * work.attention_flop / backward
    return Floor(3 * work.matmul_flop / hardware.matmul_flop_s, attention_s, spread * work.train_bytes / hardware.bytes_s)


def mfu(train_flop: float, seconds: float, hardware: Hardware) -> float:
    """Model FLOP utilisation: the step's FLOP (attention's backward counted as twice its forward) over what the peak does in that time."""
    return train_flop / seconds / hardware.peak_flop_s


def known_hardware(name: str) -> Hardware | None:
    """The row of a device by the name that it gives itself; None if there is none."""
    return H200 if "H200" in name else None


def _attention(hardware: Hardware, backend: str, head_width: int) -> tuple[float, float]:
    rates = hardware.attention_flop_s.get((backend, head_width))
    if rates is None:
        known = ", ".join(f"{name} x {width}" for name, width in hardware.attention_flop_s)
        raise ValueError(f"attention by {backend} with heads of {head_width} has no rate for {hardware.name}: only {known}.")
    return rates
