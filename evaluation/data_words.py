"""What the doctor found in a set, in words: label and text, the same on the terminal and on the page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.clips import Clips
from data.doctor import Findings, Validation
from data.files.faults import Fault
from evaluation.markup import listed

Line = tuple[str, str]
SHOWN = 4  # values of a kind that are named
# What to do about a bad file, by the kind of its fault.
ADVICE = {
    "missing": "not there: mend the path in the index, or take the row out",
    "not_a_file": "not a video file: take it out",
    "empty": "0 bytes: copy or download it again",
    "unreadable": "no video that FFmpeg knows, or broken off: copy it again, or take it out",
    "no_video": "holds no pictures: take it out",
    "too_large": "larger than any frame that is read: scale it down first",
    "too_short": "too short for a clip: see start_s and end_s, lower data.shape.min_frames, raise data.fps, or take it out",
    "damaged": "damaged inside: copy it again; else ffmpeg -i IN -c:v libx264 OUT keeps what can be decoded",
    "timeline": "time stamps that contradict each other: ffmpeg -i IN -c:v libx264 OUT writes new ones",
    "hung": "took longer than data.file_budget_s: take it out, or raise that",
    "crashed": "kills the decoder: take it out",
}


def headline(findings: Findings) -> str:
    """In one line."""
    usable, rows = len(findings.facts), len(findings.clips)
    what = f"all {count(rows, 'clip')}" if usable == rows > 1 else f"{usable} of {count(rows, 'clip')}"
    return f"{plain(findings.clips.index.source)}: {what} can be used"


def lost(findings: Findings, validation: Validation) -> str:
    """What training would never see; empty if nothing."""
    bad, unclaimed = len(findings.clips.faults) + len(validation.faults), findings.unclaimed
    wrong = len(findings.ledger.wrong) if findings.ledger else 0
    parts = [
        count(bad, "bad file") if bad else "",
        f"{count(unclaimed, 'caption')} without a video" if unclaimed else "",
        f"{count(wrong, 'row')} that the plan shows too often or too rarely" if wrong else "",
    ]
    return listed([part for part in parts if part])


def found(findings: Findings) -> list[Line]:
    """What the set holds."""
    index, facts = findings.clips.index, findings.facts
    probes = [probe for probe, _ in findings.files]
    lines = [("clips", f"{len(facts)} of {count(len(index), 'row')}: {_kinds(findings)}")] if len(facts) else []
    lines += _parts(findings)
    if not len(facts):
        return [*lines, *_aside(findings)]
    moving = facts.seconds[facts.seconds > 0]
    lines.append(("sizes", tops(Counter(map(_size, facts.widths.tolist(), facts.heights.tolist()))) + " (width x height)"))
    if len(moving):
        rates = Counter(f"{rate:.4g}" for rate in facts.rates[facts.seconds > 0].tolist())
        lines.append(("frame rates", tops(rates) + ", in frames a second"))
        lines.append(("durations", _spread(moving, "s")))
    lines.append(("codecs", tops(Counter(probe.codec for probe in probes))))
    lines.append(("pixel formats", tops(Counter(probe.pixel_format for probe in probes))))
    lines.append(("containers", tops(Counter(probe.container.partition(",")[0] for probe in probes))))
    if sound := sum(probe.audio for probe in probes):
        lines.append(("sound", f"in {count(sound, 'file')}; it is not used"))
    if turned := sum(probe.rotation > 0 for probe in probes):
        lines.append(("rotated", f"{count(turned, 'file')}; shown upright"))
    if odd := Counter(probe.odd for probe in probes if probe.odd and probe.kind == "video"):
        lines.append(("not plain", f"{tops(odd)}; read by PyAV, which gets these right"))
    lines += _captions(findings)
    if findings.decoded:
        lines.append(("decoded", f"{count(len(probes), 'file')} to the end, each frame whole"))
    return [*lines, *_aside(findings)]


def faults_by_kind(faults: Sequence[Fault]) -> list[tuple[int, str, str]]:
    """(how many, kind, what to do), the most common first."""
    return [(number, kind, ADVICE.get(kind, "")) for kind, number in Counter(fault.kind for fault in faults).most_common()]


def bad_file(clips: Clips, fault: Fault) -> str:
    """Its name, and which stretch of it."""
    row = clips.index.rows[fault.row]
    return plain(fault.path) + (f" from {row.start_s:g} s" if row.start_s or row.end_s is not None else "")


def done(findings: Findings) -> list[tuple[str, int, str]]:
    """What is done to clips: (name, how many clips, words)."""
    facts, places = findings.facts, findings.treated
    fps = f"{findings.clips.fps:g}"
    lines = [
        ("cut at the edges", places["cropped"], _cropped(findings)),
        ("scaled down", places["shrunk"], _scaled(findings, "shrunk")),
        ("enlarged", places["enlarged"], _scaled(findings, "enlarged")),
        ("frames left out", places["thinned"], f"faster than data.fps={fps}: {_rates(findings, 'thinned')}"),
        ("frames repeated", places["repeated"], f"slower than data.fps={fps}: {_rates(findings, 'repeated')}; data.fps may be too high"),
        ("uneven in time", places["variable"], "variable frame rate: each moment takes the frame on screen then"),
        ("shortened", places["shortened"], f"too short for the full length: {_lengths(findings, places['shortened'])}"),
        ("one part of a file", places["windowed"], _windowed(findings)),
        ("left as they are", places["untouched"], "same size, rate and length"),
    ]
    return [(name, len(there), words if len(there) else "") for name, there, words in lines if len(there) and len(facts)]


def shapes(findings: Findings) -> list[tuple[str, ...]]:
    """(frames x height x width, clips, samples an epoch, tokens of a clip, clips at once)."""
    return [(str(shape.bucket), *(str(n) for n in (shape.clips, shape.samples, shape.tokens, shape.at_once))) for shape in findings.shapes]


def epoch(findings: Findings, validation: Validation, settings: Mapping[str, Any]) -> list[Line]:
    """How training would go through the set.

    Args:
        settings: `batch_size`, `batch_tokens` and `crop` of the data group.
    """
    ledger = findings.ledger
    if ledger is None:
        return [("samples", "none: there is no clip to show")]
    steps, tokens = len(ledger.step_tokens), ledger.step_tokens
    limits = [f"data.{key}={settings[key]}" for key in ("batch_size", "batch_tokens") if settings[key] is not None]
    lines = [
        ("samples", f"{int(ledger.step_samples.sum())} in {count(steps, 'step')} of {_range(ledger.step_samples)} (at most {' and '.join(limits)})"),
        ("tokens a step", _range(tokens) + (f", {tokens.mean():.0f} on average" if tokens.min() < tokens.max() else "")),
        ("ledger", _ledger(findings)),
    ]
    if findings.unclaimed:
        lines.append(("", f"{count(findings.unclaimed, 'caption')} without a video: never seen"))
    if settings["crop"] is not None:
        crop = ", ".join(f"{key} {value}" for key, value in settings["crop"].items() if key != "_target_")
        lines.append(("crop", f"of each training clip, a part of its picture: {crop}"))
    own = "training clips: set data.val or data.hold_out for others" if validation.clips is None else ""
    whole = f" of {validation.rows}" if validation.looked_at < validation.rows else ""
    bad = f"{len(validation.faults)} of them bad" if validation.faults else ""
    shared = f"{validation.shared} of them in files that are trained on too" if validation.clips is not None and validation.shared else ""
    notes = "; ".join(note for note in (own, bad, shared) if note)
    return [*lines, ("validation", f"{count(validation.looked_at, 'clip')}{whole}{f' ({notes})' if notes else ''}")]


def _kinds(findings: Findings) -> str:
    probes = [probe for probe, _ in findings.files]
    pictures = sum(probe.kind == "picture" for probe in probes)
    folders = sum(probe.kind == "pictures" for probe in probes)
    videos = len(probes) - pictures - folders
    parts = [
        f"{count(videos, 'video file')}" if videos else "",
        f"{count(pictures, 'picture')}" if pictures else "",
        f"{count(folders, 'folder')} of pictures" if folders else "",
        lasting(findings.facts.seconds.sum()) if videos or folders else "",
        size(sum(probe.bytes for probe in probes)),
    ]
    return ", ".join(part for part in parts if part)


def _parts(findings: Findings) -> list[Line]:
    """The sets of a mixture."""
    index = findings.clips.index
    if not index.parts:
        return []
    edges = [part.start for part in index.parts]
    own = np.searchsorted(edges, findings.facts.rows, side="right") - 1
    usable, shown = (np.bincount(own, weights=weights, minlength=len(edges)).astype(int) for weights in (None, findings.facts.shown))
    stops = [*edges[1:], len(index)]
    return [
        ("set", f"{plain(part.source)}: {count(stop - part.start, 'row')}, {usable[number]} usable, {count(int(shown[number]), 'sample')} an epoch")
        for number, (part, stop) in enumerate(zip(index.parts, stops, strict=True))
    ]


def _captions(findings: Findings) -> list[Line]:
    texts, facts = findings.texts, findings.facts
    rows = [findings.clips.index.rows[row] for row in facts.rows.tolist()]
    counts = {"boxes": sum(len(row.boxes) > 0 for row in rows), "shots": sum(len(row.shots) > 0 for row in rows)}
    more = [(what, f"{count(number, 'clip')} with") for what, number in counts.items() if number]
    if texts.none == len(facts):
        return [("captions", "no clip has one as a whole" if counts["shots"] else "no clip has one: training is unconditional"), *more]
    words = f"{count(len(facts) - texts.none, 'clip')} with, {texts.none} without"
    words += f"; {_spread(texts.words, 'words')}; up to {texts.sizes.max()} bytes"
    lines = [("captions", words)]
    if set(texts.kinds) != {"caption"} or len(texts.words) > len(facts):
        lines.append(("caption kinds", f"{tops(texts.kinds)}; {count(len(texts.words), 'text')} in all"))
    return [*lines, *more]


def _aside(findings: Findings) -> list[Line]:
    """What is known to stand in the source and plays no part, or plays it twice."""
    index, facts = findings.clips.index, findings.facts
    lines: list[Line] = []
    if weighted := int((facts.weights != 1).sum()):
        lines.append(("weights", f"{count(weighted, 'clip')} of another weight than 1: from {facts.weights.min():g} to {facts.weights.max():g}"))
    if findings.duplicates:
        first = findings.duplicates[0]
        extra = sum(len(rows) - 1 for rows in findings.duplicates)
        named = f"rows {listed([str(row + 1) for row in first[:SHOWN]])} are {plain(index.name(first[0]))}"
        lines.append(("duplicates", f"{count(extra, 'row')} more than files or stretches: {named}"))
    for item in index.ignored:
        names = ", ".join(plain(name) for name in item.names) + (", ..." if item.count > len(item.names) else "")
        lines.append(("not used", f"{item.what}: {item.count} ({names})"))
    return lines


def _cropped(findings: Findings) -> str:
    facts, places = findings.facts, findings.treated["cropped"]
    if not len(places):
        return ""
    worst = places[np.argmin(facts.kept[places])]
    mean, least = share(float(facts.kept[places].mean())), share(float(facts.kept[worst]))
    return f"{mean} of the picture stays on average; least of {_named(findings, worst)}, {least}"


def _scaled(findings: Findings, name: str) -> str:
    facts, places = findings.facts, findings.treated[name]
    if not len(places):
        return ""
    factors = facts.scales[places] if name == "enlarged" else 1 / facts.scales[places]
    most = places[np.argmax(factors)]
    return f"{factors.mean():.3g} times on average; most {_named(findings, most)}, {factors.max():.3g} times"


def _rates(findings: Findings, name: str) -> str:
    return "from " + tops(Counter(f"{rate:.4g}" for rate in findings.facts.rates[findings.treated[name]].tolist()))


def _lengths(findings: Findings, places: np.ndarray) -> str:
    lengths = Counter(findings.shapes[shape].bucket.frames for shape in findings.facts.shapes[places].tolist())
    return "to " + tops({f"{frames}": number for frames, number in sorted(lengths.items(), reverse=True)}) + " frames"


def _windowed(findings: Findings) -> str:
    facts, places = findings.facts, findings.treated["windowed"]
    if not len(places):
        return ""
    clip = np.array([shape.bucket.frames / findings.clips.fps for shape in findings.shapes])[facts.shapes[places]]
    seconds = facts.seconds[places]
    part = share(float(np.minimum(clip, seconds).sum() / seconds.sum()))
    return f"{part} of their time; a random part each epoch, always the middle in a cache of latents"


def _ledger(findings: Findings) -> str:
    ledger = findings.ledger
    assert ledger is not None
    parts = [
        f"each of {count(ledger.once, 'clip')} of weight 1 exactly once" if ledger.once else "",
        f"{count(ledger.weighted, 'clip')} as often as the weight says" if ledger.weighted else "",
        f"{count(ledger.never, 'clip')} of weight 0 never" if ledger.never else "",
        f"{count(len(ledger.wrong), 'row')} NOT as the weight says" if ledger.wrong else "",
        f"{count(len(findings.clips.faults), 'bad row')} never" if findings.clips.faults else "",
    ]
    return ", ".join(part for part in parts if part)


def _named(findings: Findings, place: int) -> str:
    return plain(findings.clips.index.name(int(findings.facts.rows[place])))


def _size(width: int, height: int) -> str:
    return f"{width}x{height}"


def _range(values: np.ndarray) -> str:
    return f"{values.min()}" if values.min() == values.max() else f"{values.min()} to {values.max()}"


def _spread(values: np.ndarray, unit: str) -> str:
    least, middle, most = (f"{value:.4g}" for value in (values.min(), np.median(values), values.max()))
    return f"{least} {unit}" if least == most else f"{least} to {most} {unit}, half of them up to {middle}"


def tops(counts: Mapping[str, int]) -> str:
    """'a (5), b (3) and 4 others', the most common first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) == 1:
        return ordered[0][0]
    named = [f"{plain(name)} ({number})" for name, number in ordered[:SHOWN]]
    return ", ".join(named) + (f" and {len(ordered) - SHOWN} others" if len(ordered) > SHOWN else "")


def count(number: int, what: str) -> str:
    """'1 clip', '2 clips'."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def share(value: float) -> str:
    return f"{100 * value:.3g} %"


def lasting(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


def size(number: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number} bytes"


def plain(text: str) -> str:
    """A name without what would move a terminal's cursor, turn its writing direction or fail to be written: such characters as \\x1b."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode("ascii") for letter in text)
