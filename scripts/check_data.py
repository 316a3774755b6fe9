"""Say what training would make of a set: python scripts/check_data.py data.train=my_videos [deep=true out=runs/check]; keys as of train.py.

Exit status 0 if nothing would be lost; 1 if there are bad files or captions whose video is missing, or a setting is wrong.
"""

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.clips import Clips
from data.doctor import Findings, Validation, check_validation, examine
from data.doctor_report import each_clip, report
from data.videos import Videos
from evaluation import data_words as words
from evaluation.data_page import page
from runtime.config import Config, ConfigError, build, check, entry
from runtime.files import write_text

COLUMNS = min(100, max(60, shutil.get_terminal_size((100, 24)).columns))
LABEL = 20
SHOWN = 20  # bad files, and shapes, that are named on the terminal


def data_alone(look: Callable[[str], Any]) -> Config:
    """The networks of a training config are not needed, nor the VAE that they would be made for."""
    return dict.fromkeys(("objective", "optim", "trainer", "tracking"))


@entry("check_data", data_alone)
def main(config: Config) -> None:
    if type(config["deep"]) is not bool:
        raise ConfigError(f"deep={config['deep']!r} must be true or false. Set deep.")
    if config["out"] is not None and not isinstance(config["out"], str):
        raise ConfigError(f"out={config['out']!r} is no name of a folder. Set out, for example out=runs/check.")
    out = None if config["out"] is None else made(Path(config["out"]))
    check(config["data"])
    videos: Videos = build(config["data"])
    train = videos.clips(videos.training_index(), config["deep"])
    plan = videos.plan(train, config["seed"]) if any(bucket is not None for bucket in train.buckets) else None
    findings = examine(train, plan, videos.micro, videos.shape.largest.frames, config["deep"])
    validation = validate(videos, train, config["deep"])
    settings = {key: config["data"][key] for key in ("batch_size", "batch_tokens", "crop")}
    ending = last_line(findings, validation, videos.bad_limit)
    show(findings, validation, settings)
    if out is not None:
        write(out, findings, validation, settings, ending)
    print(f"\n{ending}")
    if findings.lost or validation.faults:
        raise SystemExit(1)


def made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={folder} cannot be made ({error.strerror}). Set out to another folder.") from None
    return folder


def validate(videos: Videos, train: Clips, deep: bool) -> Validation:
    """The clips that validation would take, looked at if they are not the training clips."""
    if not videos.holds_out:
        return check_validation(None, len(train), videos.val_samples, train)
    index = videos.validation_index()
    clips = videos.clips(replace(index, rows=index.rows[: videos.val_samples]), deep)
    return check_validation(clips, len(index), videos.val_samples, train)


def show(findings: Findings, validation: Validation, settings: Config) -> None:
    """Everything but the last line."""
    print(textwrap.fill(words.headline(findings), COLUMNS))
    heading("found")
    for label, text in words.found(findings) or [("", "no clip that can be used")]:
        print(wrapped(label, text))
    for clips, where in ((findings.clips, ""), (validation.clips, " of the validation set")):
        if clips is not None and clips.faults:
            heading(f"bad files{where}: {len(clips.faults)}")
            show_faults(clips)
    if findings.shapes:
        heading("shapes: what clips are cut to, tokens of one clip, how many pass through the network at once")
        table(("frames x height x width", "clips", "samples an epoch", "tokens", "at once"), words.shapes(findings)[:SHOWN])
        if rest := findings.shapes[SHOWN:]:
            print(f"  and {words.count(len(rest), 'shape')} more with {words.count(sum(shape.clips for shape in rest), 'clip')}")
        heading("what is done to clips")
        for name, number, text in words.done(findings):
            print(wrapped(name, f"{number:>6}  {text}", hang=8))
    heading("an epoch")
    for label, text in words.epoch(findings, validation, settings):
        print(wrapped(label, text))


def show_faults(clips: Clips) -> None:
    for number, kind, advice in words.faults_by_kind(clips.faults):
        print(wrapped(kind, f"{number:>6}  {advice}", hang=8))
    print()
    for fault in clips.faults[:SHOWN]:
        print(wrapped(fault.kind, f"{words.bad_file(clips, fault)}: {words.plain(fault.detail)}"))
    if rest := clips.faults[SHOWN:]:
        print(wrapped("", f"and {len(rest)} more; out=FOLDER writes them all"))


def last_line(findings: Findings, validation: Validation, bad_limit: float) -> str:
    """What to do next."""
    typed = [argument for argument in sys.argv[1:] if not argument.startswith(("deep=", "out="))]
    given = {argument.partition("=")[0] for argument in typed}
    typed += [] if given & {"objective", "experiment"} else ["objective=vae"]
    typed += [] if "run" in given else ["run=runs/first"]
    command = f"python train.py {shlex.join(typed)}"
    lost = words.lost(findings, validation)
    if not lost:
        return f"next: {command}"
    if findings.ledger is None:
        return f"mend first: {lost} (there is nothing to train on)"
    sets = ((findings.clips.faults, len(findings.clips)), (validation.faults, validation.looked_at))
    if any(len(faults) > bad_limit * rows for faults, rows in sets):
        return f"mend first: {lost} (train.py stops above data.bad_limit={bad_limit:g})"
    return f"mend first: {lost}. Or train without: {command}"


def write(out: Path, findings: Findings, validation: Validation, settings: Config, ending: str) -> None:
    write_text(out / "report.json", json.dumps(report(findings, validation), indent=1) + "\n")
    write_text(out / "clips.jsonl", "".join(json.dumps(clip) + "\n" for clip in each_clip(findings)))
    write_text(out / "check_data.html", page(findings, validation, settings, ending))
    heading("written")
    for name in ("check_data.html", "report.json", "clips.jsonl"):
        print(wrapped("", str(out / name)))


def heading(text: str) -> None:
    print(f"\n{text}")


def wrapped(label: str, text: str, hang: int = 0) -> str:
    """Label and text in two columns."""
    lines = textwrap.wrap(text, COLUMNS - LABEL - 2, subsequent_indent=" " * hang, break_on_hyphens=False) or [""]
    return f"  {label:{LABEL}}" + f"\n{' ' * (LABEL + 2)}".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns to the right, the first to the left."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, *rows]:
        cells = [f"{cell:<{width}}" if not place else f"{cell:>{width}}" for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
        print("  " + "   ".join(cells))


if __name__ == "__main__":
    main()
