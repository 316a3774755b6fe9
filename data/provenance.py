"""How a clip was made, in its mp4 and in the .json beside it: all that is needed to make the same frames again, or to say why that cannot be.

A record is plain JSON: what was asked for (prompt, seed, sample and every setting), the networks (run, step, sha256 of config and weights), versions,
and the sha256 of the frames before encoding. Whatever the record needs a file for stands in it as {"path", "sha256"} (`given`), at any depth.

Two copies. The one in the mp4 travels with the frames, which are shown to others: of given files it holds the names alone, and of a run that was
named by an absolute path its folder's name; their sha256 tell which they were. The .json stays with its maker and holds the paths as they were
given. The mp4's copy is trusted first; the .json adds its paths if it says the same, serves alone where a tool has stripped or cut the mp4's copy,
and a difference between the two is refused by name. `record_sha256` shows a copy that was changed; anyone can compute it, so it is no signature.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from data.files.faults import Limits
from data.files.media import Media
from data.files.source import opened
from data.writer import Pictures, write_mp4
from runtime.checkpoint import digest
from runtime.files import write_text
from runtime.machine import versions

FORMAT, MAKER = 1, "kinora"
NETWORKS = ("run", "step", "config_sha256", "weights_sha256", "device", "threads")
OWN = ("format", "made_by", *NETWORKS, "others", "versions", "record_sha256")  # what a record holds besides what was asked for
LATE = ("frames_sha256", "seconds")  # known when the last frame is made, so not part of record_sha256
BLANK = "0" * 64  # holds frames_sha256's place in the mp4 while it is written
LARGEST = 2**26  # characters of a copy; a storyboard of 100 000 shots has less, and FFmpeg keeps ten times as much

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Networks that make a clip.

    Args:
        run: their folder as the user wrote it.
        step: of the checkpoint.
        config_sha256, weights_sha256: as `training.inference.Networks` has them.
        device: what they run on, for instance cpu.
        threads: of a CPU, `torch.get_num_threads()`.
    """

    run: str
    step: int
    config_sha256: str
    weights_sha256: str
    device: str
    threads: int


class Fingerprint:
    """A clip that hashes its frames as they are asked for.

    Attributes:
        sha256: over the bytes of all frames in order (uint8 h w 3), as `hashlib.sha256(video.tobytes())`; None before the last one was given.
    """

    def __init__(self, video: Pictures) -> None:
        self.video = video
        self.sha256: str | None = None

    def __len__(self) -> int:
        return len(self.video)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.sha256, found = None, hashlib.sha256()
        for frame in self.video:
            found.update(np.ascontiguousarray(frame).data)
            yield frame
        self.sha256 = found.hexdigest()


def given(path: str | os.PathLike[str]) -> dict[str, str]:
    """How a file, or a folder of pictures, stands in a record.

    Raises: OSError if it cannot be read.
    """
    return {"path": os.fspath(path), "sha256": content_sha256(Path(path))}


def make_record(asked: Mapping[str, Any], made_by: Origin, others: Mapping[str, Origin] | None = None) -> Record:
    """The record of one clip, before its frames are made.

    Args:
        asked: everything that the command line and the config say and frames depend on, plain; files as `given`. How many clips were made at once
            and this one's place among them belong to it: they tip the last bits of matrix products, and so about one value of 50 000 by a level.
        made_by: the networks.
        others: further ones that take part (autoguidance), by what they are for.
    Raises: ValueError for a key that records use themselves, or a value that JSON does not keep.
    """
    taken = sorted({*OWN, *LATE} & set(asked))
    if taken:
        raise ValueError(f"a record keeps {', '.join(taken)} itself: what is asked for needs other names.")
    record = {"format": FORMAT, "made_by": MAKER, **asked, **asdict(made_by), "versions": versions()}
    if others:
        record["others"] = {name: asdict(origin) for name, origin in others.items()}
    try:
        text = json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a record is plain JSON: {error}.") from None
    if len(text) > LARGEST:
        raise ValueError(f"a record of {len(text)} characters would not be read back: at most {LARGEST}. Ask for less at once.")
    kept = json.loads(text)
    return kept | {"record_sha256": record_sha256(kept)}


def record_sha256(record: Mapping[str, Any]) -> str:
    """Over what both copies of a record hold before the frames are made."""
    facts = {key: value for key, value in shared(record).items() if key != "record_sha256" and key not in LATE}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def payload(record: Mapping[str, Any]) -> int:
    """What an invisible mark says of a clip: the first 32 bits of its record's sha256."""
    return int(record["record_sha256"][:8], 16)


def shared(record: Mapping[str, Any]) -> Record:
    """The copy for the mp4: names of files and of runs at absolute paths instead of these paths, and not the time that it took."""
    return {key: _named(value, key) for key, value in record.items() if key != "seconds"}


def is_given(node: Mapping[str, Any]) -> bool:
    """Whether a part of a record stands for a file."""
    return set(node) == {"path", "sha256"} and all(isinstance(value, str) for value in node.values())


def content_sha256(path: Path) -> str:
    """Of a file; of a folder, over the names and sha256 of the files in it."""
    if not path.is_dir():
        return digest(path)
    inside = "".join(f"{file.name} {digest(file)}\n" for file in sorted(path.iterdir()) if file.is_file())
    return hashlib.sha256(inside.encode()).hexdigest()


def write_clip(path: str | os.PathLike[str], video: Fingerprint, fps: float, record: Mapping[str, Any]) -> Path:
    """Writes an mp4 with its copy of the record; the frames' sha256 takes its place in it after the last frame."""

    def seal(file: Path) -> None:
        place = f'"frames_sha256": "{BLANK}"'.encode()  # the last of them: in texts its quotes are escaped, and nothing follows it
        with open(file, "r+b") as opened_file, mmap.mmap(opened_file.fileno(), 0) as content:
            at = content.rfind(place)
            assert at >= 0, "the comment holds the place"
            assert video.sha256 is not None, "the last frame was written"
            content[at : at + len(place)] = place.replace(BLANK.encode(), video.sha256.encode())

    return write_mp4(path, video, fps, metadata=shared({**record, "frames_sha256": BLANK}), seal=seal)


def write_sidecar(path: Path, record: Mapping[str, Any], frames_sha256: str, seconds: float) -> None:
    """Writes the .json with its copy of the record and what making the clip took."""
    whole = {**record, "frames_sha256": frames_sha256, "seconds": round(seconds, 3)}
    write_text(path, json.dumps(whole, indent=1, allow_nan=False) + "\n")


def read_record(path: str | os.PathLike[str]) -> Record:
    """The record of a clip, from the file itself and the .json of the same name; or of a .json alone.

    Raises: ValueError if there is none, or it is damaged, of another format, or the two copies differ; VideoError if the file is no video.
    """
    clip = Path(path)
    beside = clip.with_suffix(".json")
    copies = [] if clip == beside else [(clip, _comment(clip))]
    if beside.exists() or clip == beside:
        with open(beside, encoding="utf-8", errors="replace") as file:
            copies.append((beside, file.read(LARGEST + 1)))
    records, faults = {}, []
    for place, text in copies:
        try:
            records[place] = parse(text)
        except ValueError as error:
            faults.append(f"{place}: {error}")
    if len(records) == 2:
        _check_agree(records[clip], records[beside], clip, beside)
    for place, record in records.items():
        if record["record_sha256"] != record_sha256(record):
            raise ValueError(f"{place}: its record was changed after it was written, as its record_sha256 tells. Find the file as it was.")
    if not records:
        raise ValueError(f"{'; '.join(faults)}. So it cannot be made again.")
    return list(records.values())[-1]  # the .json where there is one: it says the same and has the paths


def parse(text: str | None) -> Record:
    """A copy of a record from its JSON, whether or not it was changed.

    Raises: ValueError saying that it is not ours, broken off, or of another format.
    """
    if not text:
        raise ValueError("holds no record of how it was made (a tool may have stripped it)")
    if len(text) > LARGEST:
        raise ValueError(f"its record has more than {LARGEST} characters: none of ours")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        ours = f'"{MAKER}"' in text or "weights_sha256" in text
        raise ValueError(f"its record is damaged ({error})" if ours else "holds a comment, but no record of ours") from None
    if not isinstance(record, dict) or ("format" not in record and "weights_sha256" not in record):
        raise ValueError("holds JSON, but no record of ours")
    if "format" not in record:
        old = {key: record.get(key) for key in ("prompt", "seed", "sample", "weights_sha256")}
        raise ValueError(f"its record is of an older format, which does not hold all settings: {json.dumps(old)}")
    if record.get("made_by") != MAKER:
        raise ValueError(f"its record was made by {_short(record.get('made_by'))}, not by {MAKER}")
    if record["format"] != FORMAT:
        raise ValueError(f"its record is of format {_short(record['format'])}, this code reads {FORMAT}: use the version of Kinora that made it")
    missing = [key for key in (*NETWORKS, "versions", "record_sha256", "frames_sha256") if key not in record]
    if missing or record["frames_sha256"] == BLANK:
        raise ValueError(f"its record is damaged: it lacks {', '.join(missing) or 'frames_sha256'}")
    return record


def _check_agree(inside: Record, side: Record, clip: Path, beside: Path) -> None:
    unlike = [key for key in dict.fromkeys([*inside, *shared(side)]) if inside.get(key) != shared(side).get(key)]
    if unlike:
        key = next((key for key in unlike if key != "record_sha256"), unlike[0])
        says = f"{key}={_short(inside.get(key))} in the file, {_short(side.get(key))} in {beside.name}"
        changed = " and ".join(place.name for place, record in ((clip, inside), (beside, side)) if record["record_sha256"] != record_sha256(record))
        told = f"{changed} was changed after it was written" if changed else "they are of two clips"
        raise ValueError(
            f"{clip}: its two records differ in {', '.join(unlike)}: {says}; {told}. Move the wrong {beside.name} away, or take its clip."
        )


def _named(value: Any, key: str) -> Any:
    """A value of a record with names instead of paths."""
    if isinstance(value, Mapping):
        return {**value, "path": _name(value["path"])} if is_given(value) else {name: _named(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_named(item, "") for item in value]
    absolute = key == "run" and isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute())
    return _name(value) if absolute else value


def _name(path: str) -> str:
    return PureWindowsPath(path).name  # parts at both slashes, so that both copies give one hash on any system


def _comment(path: Path) -> str | None:
    """What an mp4 (or what a tool made of it) says of itself.

    Raises: VideoError if it is no video or cannot be opened.
    """
    with opened(Media.of(path), Limits()) as (container, _):
        return next((text for key, text in container.metadata.items() if key.lower() == "comment"), None)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]}..."
