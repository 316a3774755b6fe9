"""What autoencoders keep against what they spend: figures of many runs become one table, one chart and one answer, nothing rounded before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.statistics import Mean, bootstrap, paired_bootstrap

Evaluation = Mapping[str, Any]  # the content of a VAE run's evaluation.json
FRECHET = "random-conv-64"
HEAD = (
    "autoencoder",
    "stride",
    "ch",
    "values ratio",
    "bits / px",
    "PSNR, dB [95 %]",
    "SSIM",
    "flicker",
    f"Frechet {FRECHET}, x 1e4",
    "seams patch / stride",
    "TFLOP / fMP enc + dec",
    "weights, M",
    "steps",
    "training TFLOP",
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One autoencoder under every seed.

    Args:
        peer: built by others, for comparison.
        evaluations: of each seed's run, on the same clips in the same order.
        steps: optimiser steps of a run.
        training_flop: forward and backward, of a run.
    """

    name: str
    peer: bool
    evaluations: Sequence[Evaluation]
    steps: int
    training_flop: int

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise ValueError(f"arm {self.name} has no evaluation. Run it under at least one seed: set seeds.")

    @property
    def psnr_db_of(self) -> list[float]:
        """Of each clip, the mean over seeds."""
        return np.mean([evaluation["vae"]["psnr_db_of"] for evaluation in self.evaluations], axis=0).tolist()

    @property
    def psnr_db(self) -> Mean:
        return bootstrap(self.psnr_db_of, 0)

    @property
    def tokenizer(self) -> Mapping[str, Any]:
        return self.evaluations[0]["tokenizer"]

    def mean(self, *path: str) -> float | None:
        """The mean over seeds of a figure; None if a run has none."""
        values: list[Any] = [_at(evaluation, path) for evaluation in self.evaluations]
        return None if any(value is None for value in values) else float(np.mean(values))


def table(arms: Sequence[Arm]) -> str:
    """Markdown, one line an arm."""
    lines = [f"| {' | '.join(HEAD)} |", f"|---|---|{'---:|' * (len(HEAD) - 2)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(arm))} |" for arm in arms)])


def verdict(arms: Sequence[Arm], seed: int = 0) -> str:
    """Every arm of ours against the best peer of its latent size, clip by clip; the best on these very clips, which is in its favour."""
    lines = []
    for size in dict.fromkeys(_size(arm) for arm in arms if arm.peer):
        peers = [arm for arm in arms if arm.peer and _size(arm) == size]
        best = max(peers, key=lambda arm: arm.psnr_db.value)
        for own in (arm for arm in arms if not arm.peer and _size(arm) == size):
            gap = paired_bootstrap(own.psnr_db_of, best.psnr_db_of, seed)
            levels = f"{own.name} {own.psnr_db.value:.2f} dB, {best.name} {best.psnr_db.value:.2f} dB (the best of {len(peers)})"
            lines.append(f"- {levels} at the same training FLOP: {gap.value:+.2f} dB [{gap.low:+.2f}, {gap.high:+.2f}], {gap.n} clips")
    return "\n".join(lines)


def chart(arms: Sequence[Arm], path: Path) -> None:
    """PSNR over bits per pixel; peers hollow, one colour a stride."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    strides = sorted({tuple(arm.tokenizer["stride"]) for arm in arms})
    for arm in arms:
        psnr, bits = arm.psnr_db, arm.mean("tokenizer", "bits_per_pixel") or 0.0
        colour = f"C{strides.index(tuple(arm.tokenizer['stride']))}"
        spread = [[psnr.value - psnr.low], [psnr.high - psnr.value]]
        axes.errorbar([bits], [psnr.value], yerr=spread, fmt="o", color=colour, markerfacecolor="white" if arm.peer else colour, capsize=3)
        axes.annotate(arm.name, (bits, psnr.value), xytext=(6, 4), textcoords="offset points", fontsize=8)
    for number, stride in enumerate(strides):
        axes.plot([], [], "o", color=f"C{number}", label="x".join(map(str, stride)))
    axes.set(xscale="log", xlabel="bits per pixel of the latents (upper bound)", ylabel="PSNR on held-out clips, dB")
    axes.grid(alpha=0.3)
    axes.legend(title="stride")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def between(page: str, name: str, content: str) -> str:
    """The page with `content` between the lines <!-- name --> and <!-- end name -->.

    Raises: ValueError if it does not hold both, once each and in this order.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page must hold the lines {begin.strip()} and {end} once each, in this order. Put them where the table belongs.")
    return page[: page.index(begin) + len(begin)] + content.strip("\n") + "\n" + page[page.index(end) :]


def _cells(arm: Arm) -> list[str]:
    tokenizer, psnr, distance = arm.tokenizer, arm.psnr_db, arm.mean("vae", "frechet", FRECHET, "value")
    seams = (arm.mean("vae", "edge_ratio", name) for name in ("patch", "stride"))
    return [
        arm.name,
        "x".join(map(str, tokenizer["stride"])),
        str(tokenizer["latent_channels"]),
        f"{tokenizer['values_ratio']:.1f}",
        f"{arm.mean('tokenizer', 'bits_per_pixel'):.3g}",
        f"{psnr.value:.2f} [{psnr.low:.2f}, {psnr.high:.2f}]",
        f"{arm.mean('vae', 'ssim'):.4f}",
        f"{arm.mean('vae', 'flicker'):.2f}",
        "–" if distance is None else f"{1e4 * distance:.3g}",
        " / ".join("–" if ratio is None else f"{ratio:.2f}" for ratio in seams),
        f"{tokenizer['encode_tflop']:.3g} + {tokenizer['decode_tflop']:.3g}",
        f"{tokenizer['parameters'] / 1e6:.2f}",
        str(arm.steps),
        f"{arm.training_flop / 1e12:.2f}",
    ]


def _size(arm: Arm) -> tuple[Any, ...]:
    return (*arm.tokenizer["stride"], arm.tokenizer["latent_channels"])


def _at(node: Any, path: Sequence[str]) -> Any:
    for key in path:
        node = node.get(key)
        if node is None:
            return None
    return node
