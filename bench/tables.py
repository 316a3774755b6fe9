"""Raw figures as tables: each row comes from a measurement or a formula, and one that is not there says so."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from accounting.roofline import EAGER, H200, Floor, Work, dit_work, forward_floor, mfu, passes_bytes, train_floor
from bench.ceilings import BACKEND, hardware
from bench.measure import paired_ratio

Raw = Mapping[str, Any]  # by name of the file without its ending: dit-cpu, vae-cuda...
NAMES = {"wan": "Wan", "ltx": "LTX-Video", "hunyuan": "HunyuanVideo", "cogvideox": "CogVideoX", "latte": "Latte"}
NAMES |= {"wan128": "Wan", "wan64": "Wan"}
NONE = "-"
BELOW = " (below its floor)"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def not_measured(stem: str) -> str:
    """What stands in the place of a table whose raw file is not there."""
    part, device = stem.split("-")
    why = "no GPU at hand" if device == "cuda" else "not run yet"
    return f"*Not measured: {why} (`python scripts/bench_model.py what=[{part}] device={device}`).*"


def conditions(raw: Raw, stem: str) -> str:
    """The machine, versions and settings of a part."""
    if stem not in raw:
        return not_measured(stem)
    found = raw[stem]
    place = found["machine"]["gpu"] or f"{found['machine']['cpu']}, {found['arguments']['threads']} thread"
    packages = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    clock = f"{found['arguments']['clock']} clock"
    if found["device"].startswith("cuda"):
        clock = "CUDA events; TF32 " + ", ".join(f"{'on' if on else 'off'} in {where}" for where, on in found["tf32"].items())
    return f"{place}; {packages}; {clock}; {found['arguments']['pairs']} pairs."


def over_floor(took: float, needed: float) -> str:
    """Measured over predicted seconds; less than 1 is marked, as a prediction is a floor."""
    return f"{took / needed:.2f}" + (BELOW if took < needed else "")


def apart(sides: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """In words, how far the medians of each side are from their floors: pairs of measured and predicted seconds by the side's name."""
    said = []
    for name, pairs in sides.items():
        shares = [took / needed for took, needed in pairs]
        if shares:
            said.append(f"{name} takes {min(shares):.2f} to {max(shares):.2f} of its floor, {median(shares):.2f} at the median")
    every = [took < needed for pairs in sides.values() for took, needed in pairs]
    if not any(every):
        return f"Measured over predicted: {'; '.join(said)}. None of {len(every)} times is below its floor."
    return f"Measured over predicted: {'; '.join(said)}. **{sum(every)} of {len(every)} times are below their floors**: those rates are no ceilings."


def dit_apart(raw: Raw, stem: str) -> str:
    """`apart` of every match, precision and pass."""
    if stem not in raw:
        return not_measured(stem)
    sides: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for row in raw[stem]["figures"]["rows"]:
        for case in row["cases"]:
            for side, floor in floors(raw, stem, row, case).items():
                sides["ours" if side == "ours" else "theirs"].append((median(case["seconds"][side]), floor.seconds))
    return apart(sides)


def ceilings(raw: Raw, stem: str) -> str:
    """What the device reached in products, attention and copies."""
    if stem not in raw:
        return not_measured(stem)
    rows = []
    for row in raw[stem]["figures"]["ceilings"]:
        for side, name in (("ours", "ours"), ("peer", "torch's")):
            for width, (forward, backward) in row["attention_flop_s"][side].items():
                rates = [f"{rate / 1e9:,.0f}" for rate in (row["matmul_flop_s"][side], forward, backward, row["bytes_s"])]
                rows.append([row["dtype"], name, width, *rates])
    return table(["precision", "kernels", "head width", "linear GFLOP/s", "attention GFLOP/s", "its backward", "copy GB/s"], rows)


def floors(raw: Raw, stem: str, row: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Floor]:
    """What each side needs at the rates measured beside it; ours in fused passes, a peer's as separate operations."""
    figures, size = raw[stem]["figures"], raw[stem]["arguments"]["dit"]
    rates = next(each for each in figures["ceilings"] if each["dtype"] == case["dtype"])
    _, f, h, w = size["latents"]
    moved = passes_bytes(f * (h // 2) * (w // 2) * size["samples"], size["width"], size["depth"], 4 if case["dtype"] == "float32" else 2)
    floor = forward_floor if case["run"] == "forward" else train_floor
    return {
        side: floor(
            Work(row[side]["flop"]["matmul"], row[side]["flop"]["attention"], moved), hardware(rates, side), BACKEND, row[side]["head_width"], spread
        )
        for side, spread in (("ours", 1.0), ("peer", EAGER))
        if side in row
    }


def flop_of(side: Mapping[str, Any], run: str) -> float:
    """FLOP of a forward pass or of forward and backward."""
    return (side["flop"]["matmul"] + side["flop"]["attention"]) * (1 if run == "forward" else 3)


def dit_ratio(raw: Raw, stem: str, match: str, dtype: str, run: str, per_flop: bool = False) -> float | None:
    """Ours over theirs in time; None where it was not measured."""
    found = _case(raw, stem, match, dtype, run)
    if found is None or "peer" not in found[0]:
        return None
    row, case = found
    ratio = paired_ratio(case["seconds"]["ours"], case["seconds"]["peer"])
    return ratio * flop_of(row["peer"], run) / flop_of(row["ours"], run) if per_flop else ratio


def dit_memory(raw: Raw, stem: str, match: str, dtype: str, run: str) -> float | None:
    """Ours over theirs in peak memory."""
    found = _case(raw, stem, match, dtype, run)
    peaks = found[1]["peak_mb"] if found else {}
    return peaks["ours"] / peaks["peer"] if peaks.get("ours") and peaks.get("peer") else None


def _case(raw: Raw, stem: str, match: str, dtype: str, run: str) -> tuple[Any, Any] | None:
    rows = raw[stem]["figures"]["rows"] if stem in raw else []
    for row in rows:
        for case in row["cases"]:
            if (row["match"], case["dtype"], case["run"]) == (match, dtype, run):
                return row, case
    return None


def dit(raw: Raw, stem: str, dtype: str, run: str) -> str:
    """One precision and pass: prediction beside measurement, match by match."""
    if stem not in raw:
        return not_measured(stem)
    rows = []
    for row in raw[stem]["figures"]["rows"]:
        found = _case(raw, stem, row["match"], dtype, run)
        if found is not None:
            rows.append(_dit_row(raw, stem, row, found[1]))
    if not rows:
        return f"*Not measured: [{dtype}, {run}] was not among dit.cases.*"
    head = ["beside", "head width, ours / theirs", "GFLOP", "predicted ms", "predicted ratio", "measured ms", "**ratio** (pairs)", "per FLOP"]
    return table([*head, "over floor", "peak MB", "ratio"], rows)


def _dit_row(raw: Raw, stem: str, row: Mapping[str, Any], case: Mapping[str, Any]) -> list[str]:
    sides = [side for side in ("ours", "peer") if side in row]
    needed, times, peaks = floors(raw, stem, row, case), case["seconds"], case["peak_mb"]
    run, both = case["run"], len(sides) == 2
    ratios = [a / b for a, b in zip(times["ours"], times.get("peer", []), strict=False)]
    memory = peaks["ours"] / peaks["peer"] if both and peaks.get("ours") and peaks.get("peer") else None
    return [
        NAMES[row["match"]] if both else row["left_out"],
        " / ".join(str(row[side]["head_width"]) for side in sides),
        " / ".join(f"{flop_of(row[side], run) / 1e9:,.1f}" for side in sides),
        " / ".join(f"{1e3 * needed[side].seconds:,.0f}" for side in sides),
        f"{needed['ours'].seconds / needed['peer'].seconds:.2f}" if both else NONE,
        " / ".join(f"{1e3 * median(times[side]):,.0f}" for side in sides),
        f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})" if both else NONE,
        f"{median(ratios) * flop_of(row['peer'], run) / flop_of(row['ours'], run):.2f}" if both else NONE,
        " / ".join(over_floor(median(times[side]), needed[side].seconds) for side in sides),
        " / ".join(f"{peaks[side]:,.0f}" if peaks.get(side) is not None else NONE for side in sides),
        f"{memory:.2f}" if memory is not None else NONE,
    ]


def roofline() -> str:
    """The H200's training steps as modelled: speed.md's, of blocks with 16 width x width matrices."""
    rows = []
    for name, width, depth in (("300M (1024 wide, 18 blocks)", 1024, 18), ("1B (1536 wide, 28 blocks)", 1536, 28)):
        for samples, tokens in ((4, 8192), (1, 32768)):
            for backend, head_width in (("flash", 64), ("cudnn", 64), ("cudnn", 128), ("flash3", 128)):
                work = dit_work(width, depth, tokens, samples)
                floor, eager = (train_floor(work, H200, backend, head_width, spread) for spread in (1.0, EAGER))
                parts = [f"{1e3 * part:,.0f}" for part in (floor.matmul_s, floor.attention_s, floor.elementwise_s)]
                shares = [f"{mfu(work.train_flop, each.seconds, H200):.2f}" for each in (floor, eager)]
                rows.append([name, f"{samples} x {tokens:,}", backend, str(head_width), " + ".join(parts), *shares])
    head = ["model", "tokens", "attention", "head width", "products + attention + elementwise ms", "MFU, fused", "MFU, separate operations"]
    return table(head, rows)


def ladder(raw: Raw, stem: str) -> str:
    """Our own sizes on an H200, from their counted FLOP: cuDNN's attention, fused passes, no recomputation."""
    if stem not in raw:
        return not_measured(stem)
    rows = []
    for row in raw[stem]["figures"]["rows"]:
        work = Work(row["matmul_flop"], row["attention_flop"], row["train_bytes"])
        load = [f"{row['size']} ({row['parameters'] / 1e6:,.0f} M)", f"{row['samples']} x {row['tokens']:,}", f"{work.train_flop / 1e12:,.0f}"]
        floor = train_floor(work, H200, "cudnn", row["head_width"])
        parts = [f"{1e3 * part:,.0f}" for part in (floor.matmul_s, floor.attention_s, floor.elementwise_s)]
        rows.append([*load, " + ".join(parts), f"{mfu(work.train_flop, floor.seconds, H200):.2f}", f"{row['stored_bytes'] / 2**30:,.0f}"])
    return table(["model", "tokens", "TFLOP a step", "products + attention + elementwise ms", "MFU", "activations GiB"], rows)


def training(raw: Raw, stem: str) -> str:
    """Measured training steps."""
    if stem not in raw:
        return not_measured(stem)
    rows = []
    for row in raw[stem]["figures"]["rows"]:
        share = f"{median(row['mfu']):.2f}" if row["mfu"] else NONE
        rate, peak = f"{row['flop'] / median(row['seconds']) / 1e12:,.2f}", f"{row['peak_mb']:,.0f}" if row["peak_mb"] is not None else NONE
        load = f"{row['samples']} x {row['tokens']:,}"
        size = f"{row['size']} ({row['parameters'] / 1e6:,.0f} M, {row['width']} wide)"
        rows.append([size, load, row["attention"], f"{1e3 * median(row['seconds']):,.0f}", rate, share, peak, f"{row['start_s']:.1f}"])
    return table(["model", "tokens", "attention", "step ms", "TFLOP/s", "**MFU**", "peak MB", "compile start-up s"], rows)


Render = Callable[[Raw], str]
