"""Raw figures of the autoencoders as tables; what was not measured says so."""

from statistics import median
from typing import Any

from bench.measure import paired_ratio
from bench.tables import NAMES, NONE, Raw, not_measured, table

WAYS = ("encode", "decode")


def per_megapixel(raw: Raw, stem: str, coder: str, way: str) -> float | None:
    """TFLOP per frame-megapixel; None where it was not counted."""
    figures = raw[stem]["figures"] if stem in raw else {"coders": {}}
    found = figures["coders"].get(coder)
    return None if found is None else found["flop"][way] / figures["megapixels"] / 1e12


def flop(raw: Raw, stem: str) -> str:
    """What each architecture costs, counted: no clock is in it."""
    if stem not in raw:
        return not_measured(stem)
    rows = []
    for name, coder in raw[stem]["figures"]["coders"].items():
        costs = [f"{cost:.{2 if cost >= 0.1 else 4}f}" for cost in (coder["flop"][way] / raw[stem]["figures"]["megapixels"] / 1e12 for way in WAYS)]
        shape = ["x".join(map(str, coder["stride"])), str(coder["channels"])] if coder["ours"] else [NONE, NONE]
        rows.append([f"ours, {name}" if coder["ours"] else NAMES[name], *shape, f"{coder['parameters'] / 1e6:,.1f}", *costs])
    return table(["autoencoder", "stride", "channels", "parameters M", "encode TFLOP/fMP", "decode TFLOP/fMP"], rows)


def seconds(raw: Raw, stem: str) -> str:
    """Ours beside each peer, encode and decode: prediction (FLOP over the core's rate), then measurement."""
    if stem not in raw:
        return not_measured(stem)
    figures = raw[stem]["figures"]
    rows = [_row(figures, match, way) for match in figures["matches"] for way in WAYS]
    head = ["beside", "", "predicted s/fMP, ours / theirs", "measured s/fMP", "**ratio** (pairs)", "over prediction", "peak MB"]
    return table(head, rows)


def _row(figures: Any, match: Any, way: str) -> list[str]:
    sides = {"ours": match["ours"], "peer": match["peer"]} if match["peer"] else {"ours": match["ours"]}
    rates = {"ours": figures["ceilings"]["matmul_flop_s"], "peer": figures["ceilings"]["convolution_flop_s"]}
    times, peaks = match[way]["seconds"], match[way]["peak_mb"]
    needed = {side: figures["coders"][name]["flop"][way] / rates[side] / figures["megapixels"] for side, name in sides.items()}
    took = {side: median(times[side]) / figures["megapixels"] for side in sides}
    both = len(sides) == 2
    ratios = [a / b for a, b in zip(times["ours"], times.get("peer", []), strict=False)]
    return [
        NAMES[match["peer"]] if both else figures["left_out"],
        way,
        " / ".join(f"{needed[side]:,.2f}" for side in sides),
        " / ".join(f"{took[side]:,.2f}" for side in sides),
        f"**{paired_ratio(times['ours'], times['peer']):.3f}** ({min(ratios):.3f} to {max(ratios):.3f})" if both else NONE,
        " / ".join(f"{took[side] / needed[side]:.2f}" for side in sides),
        " / ".join(f"{peaks[side]:,.0f}" if peaks[side] is not None else NONE for side in sides),
    ]


def growth(raw: Raw, stem: str, way: str) -> float | None:
    """Peak memory of the longest stream over that of the shortest; None where it was not measured."""
    if stem not in raw:
        return None
    peaks = list(raw[stem]["figures"]["memory"][way].values())
    return None if any(peak is None for each in peaks for peak in each) else median(peaks[-1]) / median(peaks[0])


def memory(raw: Raw, stem: str) -> str:
    """Peak of streaming, by length."""
    if stem not in raw:
        return not_measured(stem)
    found = raw[stem]["figures"]["memory"]
    rows = []
    for way in WAYS:
        ratio = growth(raw, stem, way)
        cells = [f"{median(peaks):,.1f}" if None not in peaks else NONE for peaks in found[way].values()]
        rows.append([f"{way}, {found['height']} x {found['width']}", *cells, f"{ratio:.2f}" if ratio is not None else NONE])
    return table(["ours, streamed", *[f"MB at {length} frames" for length in found["lengths"]], "longest / shortest"], rows)


def tiles(raw: Raw, stem: str) -> str:
    """Largest difference of tiled from untiled."""
    if stem not in raw:
        return not_measured(stem)
    found = raw[stem]["figures"]["tiles"]
    rows = [[NAMES.get(name, name), f"{row['tile']}", *(f"{row[way]:.1e}" for way in WAYS)] for name, row in found.items()]
    return table(["autoencoder", "tile px", "encode, largest difference / deviation", "decode"], rows)
