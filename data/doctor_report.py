"""The doctor's findings as plain data, for other programs: the set as a whole, and every row of it with its shape or its fault."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.doctor import Findings, Validation
from data.files.faults import Fault


def each_clip(findings: Findings) -> Iterator[dict[str, Any]]:
    """All rows in order as plain data, the bad ones with their reason; `clip` counts from 0 as the rows of the index."""
    clips, facts = findings.clips, findings.facts
    faults = {fault.row: fault for fault in clips.faults}
    done: dict[int, list[str]] = {}
    for name, places in findings.treated.items():
        for place in places.tolist():
            done.setdefault(place, []).append(name)
    places = {row: place for place, row in enumerate(facts.rows.tolist())}
    for number, row in enumerate(clips.index.rows):
        named = {"clip": number, "path": clips.index.name(number), "start_s": row.start_s, "end_s": row.end_s, "weight": row.weight}
        if number in faults:
            yield named | {"fault": faults[number].kind, "detail": faults[number].detail}
            continue
        found, place = clips.probe(number), places[number]
        yield (
            named
            | {name: getattr(found, name) for name in ("kind", "width", "height", "rotation", "frames", "variable", "container", "codec")}
            | {"pixel_format": found.pixel_format, "audio": found.audio, "bytes": found.bytes, "odd": found.odd, "whole": found.sound}
            | {"fps": _rounded(facts.rates[place]), "seconds": _rounded(facts.seconds[place])}
            | {"captions": {kind: len(texts) for kind, texts in row.captions.items()}, "boxes": len(row.boxes), "shots": len(row.shots)}
            | {"shape": str(findings.shapes[facts.shapes[place]].bucket), "kept": _rounded(facts.kept[place])}
            | {"scale": _rounded(facts.scales[place]), "starts": int(facts.starts[place]), "shown": int(facts.shown[place]), "done": done[place]}
        )


def report(findings: Findings, validation: Validation) -> dict[str, Any]:
    """The whole set as plain data; what holds of single clips is in `each_clip`."""
    index, ledger, texts = findings.clips.index, findings.ledger, findings.texts
    return {
        "source": index.source,
        "clips": len(index),
        "usable": len(findings.facts),
        "lost": findings.lost + len(validation.faults),
        "decoded": findings.decoded,
        "faults": [_fault(fault) for fault in findings.clips.faults],
        "ignored": [{"what": item.what, "count": item.count, "names": list(item.names)} for item in index.ignored],
        "duplicates": [list(rows) for rows in findings.duplicates],
        "files": {"count": len(findings.files), "bytes": sum(found.bytes for found, _ in findings.files)},
        "seconds": _rounded(findings.facts.seconds.sum()),
        "captions": {"none": texts.none, "kinds": dict(texts.kinds), "words": spread(texts.words), "bytes": spread(texts.sizes)},
        "shapes": [
            {"shape": str(shape.bucket), "clips": shape.clips, "samples": shape.samples, "tokens": shape.tokens, "at_once": shape.at_once}
            for shape in findings.shapes
        ],
        "done": {name: len(places) for name, places in findings.treated.items()},
        "epoch": None
        if ledger is None
        else {
            "samples": int(ledger.step_samples.sum()),
            "steps": len(ledger.step_samples),
            "tokens_a_step": spread(ledger.step_tokens),
            "once": ledger.once,
            "weighted": ledger.weighted,
            "never": ledger.never,
            "wrong": list(ledger.wrong),
        },
        "validation": {
            "rows": validation.rows,
            "looked_at": validation.looked_at,
            "shared": validation.shared,
            "faults": [_fault(fault) for fault in validation.faults],
        },
    }


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Least, middle, mean and most of a column; None if it is empty."""
    if not len(values):
        return None
    return {"least": _rounded(values.min()), "middle": _rounded(np.median(values)), "mean": _rounded(values.mean()), "most": _rounded(values.max())}


def _fault(fault: Fault) -> dict[str, Any]:
    return {"clip": fault.row, "path": fault.path, "kind": fault.kind, "detail": fault.detail}


def _rounded(value: Any) -> Any:
    return None if math.isnan(value) else round(float(value), 6)
