"""What was promised, beside what was measured: pass and fail are computed, never written by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.tables import Raw, dit_memory, dit_ratio, table
from bench.vae_tables import WAYS, growth, per_megapixel

OTHERS = ("wan128", "ltx", "hunyuan", "cogvideox", "latte")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and its bound.

    Args:
        value: from the raw figures; None where something was not measured.
        least: whether the bound is a lower one.
    """

    name: str
    bound: float
    value: Callable[[Raw], float | None]
    least: bool = False

    def row(self, raw: Raw) -> list[str]:
        """A line of the table."""
        value = self.value(raw)
        bound = f"{'>=' if self.least else '<='} {self.bound:g}"
        if value is None:
            return [self.name, bound, "not measured", "open"]
        met = value >= self.bound if self.least else value <= self.bound
        return [self.name, bound, f"{value:.2g}" if self.bound < 1e-2 else f"{value:.2f}", "**pass**" if met else "**fail**"]


def worst_peer(raw: Raw, stem: str, dtype: str, run: str) -> float | None:
    """The largest of our ratios to the other peers, per FLOP; None until all are there."""
    ratios = [dit_ratio(raw, stem, match, dtype, run, per_flop=True) for match in OTHERS]
    known = [ratio for ratio in ratios if ratio is not None]
    return max(known) if len(known) == len(ratios) else None


def train_figure(raw: Raw, samples: int, name: str) -> float | None:
    """Of the 1B's row on a GPU: its `mfu` or `start_s`."""
    rows = raw["train-cuda"]["figures"]["rows"] if "train-cuda" in raw else []
    for row in rows:
        if row["size"] == "1b" and row["samples"] == samples and row[name] is not None:
            return median(row[name]) if isinstance(row[name], list) else row[name]
    return None


def _worst(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _first(raw: Raw) -> str:
    return next(iter(raw["vae-cpu"]["figures"]["coders"])) if "vae-cpu" in raw else ""


TARGETS = (
    Target("DiT / Wan, CPU float32 forward + backward", 0.95, lambda raw: dit_ratio(raw, "dit-cpu", "wan", "float32", "train")),
    Target("DiT / Wan, CPU bfloat16 forward", 0.92, lambda raw: dit_ratio(raw, "dit-cpu", "wan", "bfloat16", "forward")),
    Target("DiT / Wan, peak memory of float32 forward + backward", 0.90, lambda raw: dit_memory(raw, "dit-cpu", "wan", "float32", "train")),
    Target("DiT / the best other peer per FLOP, float32 forward + backward", 1.0, lambda raw: worst_peer(raw, "dit-cpu", "float32", "train")),
    Target("DiT 1B, H200, MFU at 4 x 8,192 tokens", 0.44, lambda raw: train_figure(raw, 4, "mfu"), least=True),
    Target("DiT 1B, H200, MFU at 1 x 32,768 tokens", 0.40, lambda raw: train_figure(raw, 1, "mfu"), least=True),
    Target("DiT 1B, H200, compile start-up s", 20.0, lambda raw: train_figure(raw, 4, "start_s")),
    Target("VAE, encode TFLOP per frame-megapixel at 4x8x8", 2.5, lambda raw: per_megapixel(raw, "vae-cpu", _first(raw), "encode")),
    Target("VAE, decode TFLOP per frame-megapixel at 4x8x8", 4.5, lambda raw: per_megapixel(raw, "vae-cpu", _first(raw), "decode")),
    Target("VAE, memory of decoding 129 frames / 33", 1.05, lambda raw: growth(raw, "vae-cpu", "decode")),
    Target(
        "VAE, tiles / whole, largest difference in deviations",
        1e-4,
        lambda raw: _worst([raw["vae-cpu"]["figures"]["tiles"]["ours"][way] for way in WAYS]) if "vae-cpu" in raw else None,
    ),
)


def targets(raw: Raw) -> str:
    """All of them."""
    return table(["target", "bound", "measured", ""], [target.row(raw) for target in TARGETS])
