"""What the suite of tasks found, as files: the table, all figures, and clips for the page that shows them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from data.writer import write_mp4, write_png_strip
from evaluation.report import read_json
from evaluation.tasks.outcome import Outcome, rank, slug
from evaluation.tasks.rows import Row, shown, table
from runtime.files import write_text

# Of a protocol, what changes no figure: where the weights lie, whose digest is there, and what computed with them.
BESIDE = ("run", "machine", "versions")


def write_tasks(out: Path, outcomes: Iterable[Outcome], protocol: Mapping[str, Any], fps: float) -> Iterator[str]:
    """<out>/tasks.json, tasks.md and tasks/, written anew after each part, so that a stopped measurement keeps what it has; yields what to tell.

    Parts that were measured before under the same protocol stay, but for those that are measured now. An earlier measurement under
    another one is moved to <out>/tasks-1/, -2/ and so on.
    """
    before = read_json(out / "tasks.json")
    unlike = _unlike(before, protocol) if before else []
    every = [Row.of(row) for row in before["rows"]] if before and not unlike else []
    figures: dict[str, Any] = dict(before["figures"]) if every else {}
    rows = {name: [row for row in every if row.task == name] for name in figures}
    for number, outcome in enumerate(outcomes):
        if not number and before:  # only now: what is refused moves nothing
            alike = f"{out / 'tasks.json'} was measured alike: its parts that are not measured now stay"
            yield f"the earlier measurement, with another {', '.join(unlike)}, is now in {_aside(out)}/" if unlike else alike
        rows[outcome.name], figures[outcome.name] = list(outcome.rows), outcome.figures
        save_examples(out / "tasks", outcome, fps)
        names = sorted(rows, key=rank)
        told = [row for name in names for row in rows[name]]
        content = {"protocol": protocol, "rows": [row.as_dict() for row in told], "figures": {name: figures[name] for name in names}}
        write_text(out / "tasks.json", json.dumps(content, indent=1) + "\n")
        write_text(out / "tasks.md", table(told) + "\n")
        for row in outcome.rows:
            mark = row.verdict.replace("missed", "MISSED")
            yield f"{row.task}: {row.measure}: {shown(row.figure['value'], row.unit)}{'  ' if mark else ''}{mark}"
    yield f"{out / 'tasks.md'}, {out / 'tasks.json'}, {out / 'tasks'}/"


def _unlike(before: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    """The keys by which an earlier measurement belongs to another table."""
    if not {"protocol", "rows", "figures"} <= set(before):
        return ["form"]
    now, told = json.loads(json.dumps(protocol)), before["protocol"]  # both as they come back from a file
    return [key for key in (now | told) if key not in BESIDE and now.get(key) != told.get(key)]


def _aside(out: Path) -> Path:
    """Moves a measurement into a folder of its own, which a page can be made of as well."""
    folder = next(folder for number in count(1) if not (folder := out / f"tasks-{number}").exists())
    folder.mkdir()
    for name in ("tasks", "tasks.md", "tasks.json"):
        if (out / name).exists():
            (out / name).rename(folder / name)
    return folder


def save_examples(folder: Path, outcome: Outcome, fps: float) -> None:
    """<folder>/<part>/000.mp4, its source's clip beside it, a strip of both, and index.json with what they are."""
    own = folder / slug(outcome.name)
    listed = []
    for number, example in enumerate(outcome.examples):
        stem = own / f"{number:03d}"
        entry = {"caption": example.caption, "note": example.note, "video": f"{stem.name}.mp4", "video_still": f"{stem.name}.png"}
        write_mp4(f"{stem}.mp4", example.video, fps)
        write_png_strip(f"{stem}.png", example.video, count=9)
        if example.given is not None:
            entry["given"] = example.given.tolist()
        if example.source is not None:
            write_mp4(f"{stem}-source.mp4", example.source, fps)
            write_png_strip(f"{stem}-source.png", example.source, count=9)
            entry |= {"source": f"{stem.name}-source.mp4", "source_still": f"{stem.name}-source.png"}
        listed.append(entry)
    rows = [row.as_dict() for row in outcome.rows]
    write_text(own / "index.json", json.dumps({"name": outcome.name, "fps": fps, "rows": rows, "examples": listed}, indent=1) + "\n")
