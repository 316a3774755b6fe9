"""Print how clips were made and which invisible mark they carry: python scripts/provenance.py clip.mp4 [...] [--psnr 46 --bits 16 --key 7].

The record stands in the mp4 and in the .json beside it (see data/provenance.py), that of a picture in the .json alone. The mark is looked for with
what the record says of it, and where there is no record, with the shipped settings or those given. Ends with 1 if a file has neither, or cannot be
read.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from data.files.faults import Limits, VideoError
from data.files.media import Media
from data.files.pictures import SUFFIXES, read_picture
from data.files.probe import probe
from data.files.pyav_reader import PyAVReader
from data.provenance import payload
from data.watermark import CHANCE
from runtime.build import build
from tasks.record import record_of

TARGET = "data.watermark.Invisible"
AT_ONCE_PX = 2**25  # of frames read at a time


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", help="mp4 files and pictures, or what other tools made of them")
    parser.add_argument("--psnr", type=float, help="dB of the mark, if there is no record")
    parser.add_argument("--bits", type=int, help="of the mark, if there is no record")
    parser.add_argument("--key", type=int, help="of the mark, if there is no record")
    given = parser.parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a prompt may hold what the terminal cannot show
    settings = {name: value for name in ("psnr", "bits", "key") if (value := getattr(given, name)) is not None}
    return max([attempt(Path(file), settings) for file in given.files])


def attempt(file: Path, settings: dict[str, Any]) -> int:
    """As `show`; a file that cannot be read does not end the command."""
    try:
        return show(file, settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}")
        return 1


def show(file: Path, settings: dict[str, Any]) -> int:
    """Print what one file says; 1 if that is nothing."""
    print(file)
    record = None
    try:
        record = record_of(file)
        for key, value in record.items():
            print(f"  {key:16s} {json.dumps(value, ensure_ascii=False)}")
    except VideoError:
        raise
    except ValueError as error:
        print(f"  no record        {error}")
    found = False if file.suffix == ".json" else show_mark(file, record, settings)
    return 0 if record is not None or found else 1


def show_mark(file: Path, record: dict[str, Any] | None, settings: dict[str, Any]) -> bool:
    """Print which invisible mark the frames carry, and whether it is the record's own."""
    node = {} if record is None else record.get("watermark")
    told = isinstance(node, dict) and node.get("_target_") == TARGET and not settings
    reader = build(node if told else {"_target_": TARGET, **settings})
    try:
        mark = reader.detect(frames(file))
    except VideoError:
        raise
    except ValueError as error:
        print(f"  no mark          {error}")
        return False
    if not mark.found:
        print(f"  no mark          the clearest reading comes by chance with up to {mark.chance:.2g}; below {CHANCE:g} it would be called one")
        return False
    number = f"{mark.payload:0{-(-reader.bits // 4)}x}"
    if record is not None:
        unlike = (mark.payload ^ payload(record) % 2**reader.bits).bit_count()
        number += f" ({unlike} of {reader.bits} bits unlike this record's)" if unlike else " (this record's)"
    print(f"  invisible mark   {number}; all bits right with {mark.confidence:.4f}, there by chance with at most {mark.chance:.2g}")
    return True


def frames(file: Path) -> Iterator[np.ndarray]:
    """A file's frames, h w 3, a stretch at a time."""
    if file.suffix.lower() in SUFFIXES:
        yield from read_picture(file)
        return
    media, limits = Media.of(file), Limits()
    found = probe(media, limits, None)
    stretch = max(1, AT_ONCE_PX // (found.height * found.width))
    for start in range(0, found.frames, stretch):
        yield from PyAVReader(limits).read(media, found, range(start, min(start + stretch, found.frames)))


if __name__ == "__main__":
    raise SystemExit(main())
