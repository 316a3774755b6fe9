"""Raw figures of the autoencoders as tables; what was not measured says so."""

from statistics import median
from typing import Any

from bench.measure import paired_ratio
from bench.tables import NAMES, NONE, Raw, apart, not_measured, over_floor, table

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
    head = ["beside", "", "predicted s/fMP, ours / theirs", "measured s/fMP", "**ratio** (pairs)", "over floor", "peak MB"]
    return table(head, rows)


def vae_apart(raw: Raw, stem: str) -> str:
    """`apart` of every match and way."""
    if stem not in raw:
        return not_measured(stem)
    figures, sides = raw[stem]["figures"], {"ours": [], "theirs": []}
    for match in figures["matches"]:
        for way in WAYS:
            for side, needed in _floors(figures, match, way).items():
                sides["ours" if side == "ours" else "theirs"].append((median(match[way]["seconds"][side]), needed))
    return apart(sides)


def _sides(match: Any) -> dict[str, str]:
    return {"ours": match["ours"], "peer": match["peer"]} if match["peer"] else {"ours": match["ours"]}


def _floors(figures: Any, match: Any, way: str) -> dict[str, float]:
    """Seconds for the clip, at the best rate of each side's own kind of layer."""
    rates = {"ours": figures["ceilings"]["own_flop_s"][match["ours"]], "peer": figures["ceilings"]["peer_flop_s"]}
    return {side: figures["coders"][name]["flop"][way] / rates[side] for side, name in _sides(match).items()}


def _row(figures: Any, match: Any, way: str) -> list[str]:
    sides, times, needed, pixels = _sides(match), match[way]["seconds"], _floors(figures, match, way), figures["megapixels"]
    took = {side: median(times[side]) for side in sides}
    both = len(sides) == 2
    ratios = [a / b for a, b in zip(times["ours"], times.get("peer", []), strict=False)]
    return [
        NAMES[match["peer"]] if both else figures["left_out"],
        way,
        " / ".join(f"{needed[side] / pixels:,.2f}" for side in sides),
        " / ".join(f"{took[side] / pixels:,.2f}" for side in sides),
        f"**{paired_ratio(times['ours'], times['peer']):.3f}** ({min(ratios):.3f} to {max(ratios):.3f})" if both else NONE,
        " / ".join(over_floor(took[side], needed[side]) for side in sides),
        " / ".join(_peak(figures["coders"][name]["peak_mb"][way], 0) for name in sides.values()),
    ]


def _peak(peaks: list[float | None], digits: int) -> str:
    known = [peak for peak in peaks if peak is not None]
    return f"{median(known):,.{digits}f}" if known else NONE


def growth(raw: Raw, stem: str, way: str) -> float | None:
    """Peak memory of the longest stream over that of the shortest, medians of processes; None where it was not measured."""
    if stem not in raw:
        return None
    peaks = list(raw[stem]["figures"]["memory"][way].values())
    return None if any(not each or None in each for each in peaks) else median(peaks[-1]) / median(peaks[0])


def memory(raw: Raw, stem: str) -> str:
    """Peak of streaming, by length."""
    if stem not in raw:
        return not_measured(stem)
    found = raw[stem]["figures"]["memory"]
    rows = []
    for way in WAYS:
        ratio = growth(raw, stem, way)
        cells = [*(_peak(peaks, 1) for peaks in found[way].values()), f"{found['kept_mb']:,.1f}"]
        rows.append([f"{found['preset']}, {way}, {found['height']} x {found['width']}", *cells, f"{ratio:.2f}" if ratio is not None else NONE])
    lengths = [f"MB at {length} frames" for length in found["lengths"]]
    return table(["ours, streamed", *lengths, "MB that kept frames would add", "longest / shortest"], rows)


def tiles(raw: Raw, stem: str) -> str:
    """Largest difference of tiled from untiled."""
    if stem not in raw:
        return not_measured(stem)
    rows = []
    for name, row in raw[stem]["figures"]["tiles"].items():
        number = " / ".join(str(row["tiles"][way]) for way in WAYS) if "tiles" in row else NONE  # a peer does not tell
        clip = " x ".join(map(str, row["clip"]))
        rows.append([NAMES.get(name, name), clip, str(row["tile"]), number, *(f"{row[way]:.1e}" for way in WAYS)])
    return table(["autoencoder", "clip", "tile px", "tiles, encode / decode", "encode, largest difference / deviation", "decode"], rows)
