"""A storyboard: prompts, pictures and clips on one time line, from a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from torch import Tensor

from flow.generate import Prompt, Timed
from runtime.build import ConfigError, nearest
from tasks import sources
from tasks.given import cut_short, given_frames
from tasks.task import Files, Plan, Segment, Studio

SHOT = ("from_s", "to_s", "prompt")
PIECE = ("at_s", "image", "video")


@dataclass(frozen=True, slots=True)
class Shot:
    """A prompt from one moment to another, in seconds."""

    from_s: float
    to_s: float
    prompt: str


@dataclass(frozen=True, slots=True)
class Board:
    """What a storyboard file says.

    Args:
        shots: in order, without overlap.
        pieces: (seconds, path, whether it is a picture).
    """

    shots: tuple[Shot, ...]
    pieces: tuple[tuple[float, str, bool], ...]

    @property
    def end_s(self) -> float:
        return max(shot.to_s for shot in self.shots)


def read_board(path: str) -> Board:
    """A storyboard from YAML: `shots`, a list of {from_s, to_s, prompt}; `given`, a list of {at_s, image} or {at_s, video}, with paths from the
    file's folder.

    Raises: ConfigError naming the file and the entry.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"--storyboard {path} cannot be read ({' '.join(str(error).split())[:200]}). Give a YAML file with a list 'shots'."
        ) from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"--storyboard {path} holds a {type(content).__name__}, wanted the keys shots and given.")
    unknown = [key for key in content if key not in ("shots", "given")]
    if unknown:
        raise ConfigError(f"--storyboard {path}: the key {unknown[0]!r} is unknown{nearest(str(unknown[0]), ['shots', 'given'])}.")
    shots = tuple(_shot(path, number, entry) for number, entry in enumerate(_list(path, content, "shots")))
    if not shots:
        raise ConfigError(f"--storyboard {path} has no shots: at least one {{from_s: 0, to_s: 2, prompt: ...}} is needed.")
    for before, after in pairwise(shots):
        if after.from_s < before.to_s:
            raise ConfigError(
                f"--storyboard {path}: the shot from {after.from_s:g} s begins before the one from {before.from_s:g} s ends, at {before.to_s:g} s. "
                "Shots stand in order and do not overlap."
            )
    folder = Path(path).parent
    return Board(shots, tuple(_piece(path, folder, number, entry) for number, entry in enumerate(_list(path, content, "given"))))


def _list(path: str, content: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = content.get(key) or []
    if not isinstance(found, list):
        raise ConfigError(f"--storyboard {path}: {key} is a {type(found).__name__}, wanted a list.")
    return found


def _entry(path: str, what: str, entry: Any, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"--storyboard {path}: {what} is {entry!r:.60}, wanted the keys {', '.join(keys)}.")
    unknown = [str(key) for key in entry if key not in keys]
    if unknown:
        raise ConfigError(f"--storyboard {path}: {what} has the unknown key {unknown[0]!r}{nearest(unknown[0], keys)}.")
    return entry


def _second(path: str, what: str, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ConfigError(f"--storyboard {path}: {what} has {key}={value!r}, wanted seconds from 0 on.")
    return float(value)


def _shot(path: str, number: int, entry: Any) -> Shot:
    what = f"shot {number + 1}"
    fields = _entry(path, what, entry, SHOT)
    shot = Shot(_second(path, what, fields, "from_s"), _second(path, what, fields, "to_s"), fields.get("prompt") or "")
    if not isinstance(shot.prompt, str):
        raise ConfigError(f"--storyboard {path}: {what} has prompt={shot.prompt!r:.60}, wanted a text.")
    if not shot.from_s < shot.to_s:
        raise ConfigError(f"--storyboard {path}: {what} lasts from {shot.from_s:g} to {shot.to_s:g} s, wanted from_s below to_s.")
    return shot


def _piece(path: str, folder: Path, number: int, entry: Any) -> tuple[float, str, bool]:
    what = f"given {number + 1}"
    fields = _entry(path, what, entry, PIECE)
    files = [key for key in ("image", "video") if fields.get(key) is not None]
    if len(files) != 1 or not isinstance(fields[files[0]], str):
        raise ConfigError(f"--storyboard {path}: {what} wants one file, image or video.")
    return _second(path, what, fields, "at_s"), str(folder / fields[files[0]]), files[0] == "image"


@dataclass(frozen=True, slots=True)
class Script:
    """The prompts of a board over a clip's latent frames. The command's own prompt, if there is one, stands before each."""

    shots: Sequence[Shot]
    fps: float
    stride_t: int
    frames: int

    def weights(self) -> Tensor:
        """(shots, latent frames): one hears the shot that most of its pixel frames are in; where there is none, the one before, or the first."""
        weights = torch.zeros(len(self.shots), self.frames)
        for k in range(self.frames):
            middle_s = max(0.0, self.stride_t * k - (self.stride_t - 1) / 2) / self.fps
            begun = [place for place, shot in enumerate(self.shots) if shot.from_s <= middle_s]
            weights[begun[-1] if begun else 0, k] = 1
        return weights

    def __call__(self, prompt: str) -> Prompt:
        """Each shot's prompt where it is heard."""
        texts = [f"{prompt} {shot.prompt}".strip() for shot in self.shots]
        return Timed(tuple(texts), self.weights())


@dataclass(frozen=True, slots=True)
class Storyboard:
    """A clip after a storyboard: --storyboard FILE."""

    name: ClassVar[str] = "storyboard"
    uses: ClassVar[Sequence[str]] = ("storyboard",)

    def begin(self, files: Files, studio: Studio) -> Plan:
        if files.storyboard is None:
            raise ConfigError("task=storyboard wants its file. Give --storyboard FILE, a YAML with a list 'shots'.")
        board, step = read_board(files.storyboard), studio.stride[0]
        frames = studio.frames or 1 + max(1, round((board.end_s * studio.fps - 1) / step)) * step
        lasts_s = frames / studio.fps
        late = [shot for shot in board.shots if shot.from_s >= lasts_s]
        if late:
            raise ConfigError(
                f"--storyboard {files.storyboard}: a shot begins at {late[0].from_s:g} s, the clip ends at {lasts_s:g} s. Set frames higher."
            )
        segments, notes = [], ()
        for at_s, path, still in board.pieces:
            start = round(at_s * studio.fps)
            if start >= frames:
                raise ConfigError(f"--storyboard {files.storyboard}: {path} stands at {at_s:g} s, the clip ends at {lasts_s:g} s. Set frames higher.")
            found = (sources.picture(path, studio.height, studio.width)) if still else sources.clip(path, studio.fps, studio.height, studio.width)
            segments.append(Segment(start, found[: frames - start]))
            notes += cut_short(f"--storyboard {files.storyboard}: {path}", len(found), frames - start)
        canvas, pieces = studio.placed(segments, frames)
        script = Script(board.shots, studio.fps, step, canvas.shown)
        unheard = [shot for shot, heard in zip(board.shots, script.weights().any(dim=1).tolist(), strict=True) if not heard]
        if unheard:
            shot = unheard[0]
            raise ConfigError(
                f"--storyboard {files.storyboard}: the shot from {shot.from_s:g} to {shot.to_s:g} s, {shot.prompt!r:.60}, is never heard: the "
                f"middle of no latent frame lies in it. Let it last {step / studio.fps:g} s or more, or set fps or frames higher."
            )
        read = tuple(path for _, path, _ in board.pieces)
        return Plan(canvas, frames, given_frames(segments, frames), script=script, windows=True, pieces=pieces, read=read, notes=notes)
