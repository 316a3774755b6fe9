"""What an evaluation leaves in a folder: evaluation.json, a contact sheet, and samples that were chosen by rule, not by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.writer import contact_sheet, write_mp4, write_png_strip
from runtime.files import write_text

Video = NDArray[np.uint8]  # t h w c
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation found.

    Args:
        figures: the content of evaluation.json, without its protocol.
        gallery: lists of items for the report; arrays in them become files.
        sheet: (video, line of text) of each row of the contact sheet.
    """

    figures: dict[str, Any]
    gallery: dict[str, Any]
    sheet: list[tuple[Video, str]]


def choose(correct: Sequence[bool], shown: int = SHOWN) -> tuple[list[int], int]:
    """Which samples a page shows: the first as they come and, unless these hold two failures already, up to two that went wrong.

    Returns: their places, and how many of them were taken as they come.
    """
    if sum(not right for right in correct[:shown]) >= 2:
        return list(range(min(shown, len(correct)))), min(shown, len(correct))
    for extra in (2, 1, 0):
        drawn = min(shown - extra, len(correct))
        wrong = [place for place in range(drawn, len(correct)) if not correct[place]][:extra]
        if len(wrong) == extra:
            return [*range(drawn), *wrong], drawn
    raise AssertionError("no failure to add is always possible")


def write(out: Path, result: Result, protocol: Mapping[str, Any], fps: float) -> Path:
    """Write the gallery, the contact sheet and, last and in one step, <out>/evaluation.json."""
    folder = out / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    gallery = dict(result.gallery)
    for name, part in gallery.items():
        if isinstance(part, list):
            gallery[name] = [_saved(folder, f"{name}-{number:02d}", item, fps) for number, item in enumerate(part)]
    write_text(folder / "gallery.json", json.dumps(gallery, indent=1) + "\n")
    videos, texts = zip(*result.sheet, strict=True)
    contact_sheet(videos, texts, out / "evaluation.png", count=8, enlarge=3, columns=1)
    path = out / "evaluation.json"
    write_text(path, json.dumps({**result.figures, "protocol": dict(protocol)}, indent=1, allow_nan=False) + "\n")
    return path


def _saved(folder: Path, name: str, item: Mapping[str, Any], fps: float) -> dict[str, Any]:
    """The item with its arrays written to files: videos as mp4 with a still from their middle, single frames as PNG."""
    result: dict[str, Any] = {}
    for key, value in item.items():
        if not isinstance(value, np.ndarray):
            result[key] = value
            continue
        stem = f"{name}-{key}"
        middle = len(value) // 2
        write_png_strip(folder / f"{stem}.png", value[middle : middle + 1], count=1)
        if len(value) == 1:
            result[key] = f"{stem}.png"
        else:
            write_mp4(folder / f"{stem}.mp4", value, fps)
            result |= {key: f"{stem}.mp4", f"{key}_still": f"{stem}.png"}
    return result
