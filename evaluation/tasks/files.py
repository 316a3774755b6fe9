"""What the suite of tasks found, as files: the table, all figures, and clips for the page that shows them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data.writer import write_mp4, write_png_strip
from evaluation.tasks.outcome import Outcome, slug
from evaluation.tasks.rows import Row, shown, table
from runtime.files import write_text


def write_tasks(out: Path, outcomes: Iterable[Outcome], protocol: Mapping[str, Any], fps: float) -> Iterator[str]:
    """<out>/tasks.json, tasks.md and tasks/, written anew after each part, so that a stopped measurement keeps what it has; yields what to tell."""
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    for outcome in outcomes:
        rows += outcome.rows
        figures[outcome.name] = outcome.figures
        save_examples(out / "tasks", outcome, fps)
        content = {"protocol": protocol, "rows": [row.as_dict() for row in rows], "figures": figures}
        write_text(out / "tasks.json", json.dumps(content, indent=1) + "\n")
        write_text(out / "tasks.md", table(rows) + "\n")
        for row in outcome.rows:
            mark = {None: "", True: "  met", False: "  MISSED"}[row.met]
            yield f"{row.task}: {row.measure}: {shown(row.figure['value'], row.unit)}{mark}"
    yield f"{out / 'tasks.md'}, {out / 'tasks.json'}, {out / 'tasks'}/"


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
