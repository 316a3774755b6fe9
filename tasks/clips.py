"""From latents to files: frames are decoded while they are written and not kept, a clip with a sidecar is whole, and none is overwritten."""

import json
import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.provenance import Fingerprint, write_clip, write_sidecar
from data.writer import write_gif, write_png_strip, write_whole
from flow.generate import Generator
from runtime.build import ConfigError


class Decoded:
    """The frames of one clip, uint8 h w 3, made as they are asked for and not kept: gone through again, they are decoded again.

    Its latents, which are small, are kept; those that are still to be made are made when their frames are asked for.

    Args:
        parts: latent frames 1 c k h w in order, as they are made.
        frames: pixel frames of the clip.
        cyclic: whether the last frame is followed by the first; then all is made before the first frame is decoded.
        given: frames h w 3 by number that are shown instead of what is decoded.
    """

    def __init__(
        self, generator: Generator, parts: Iterable[Tensor], frames: int, cyclic: bool = False, given: Mapping[int, Any] | None = None
    ) -> None:
        self._generator, self._coming, self._kept = generator, iter(parts), list[Tensor]()
        self._frames, self._cyclic, self._given = frames, cyclic, given or {}

    def __len__(self) -> int:
        return self._frames

    def __iter__(self) -> Iterator[np.ndarray]:
        latents = self._latent_frames()
        decoded = self._generator.frames(torch.cat(list(latents), dim=2), cyclic=True) if self._cyclic else self._generator.decoded(latents)
        for number, frame in enumerate(frame for frames in decoded for frame in frames[0].numpy()):
            yield self._given.get(number, frame)

    def _latent_frames(self) -> Iterator[Tensor]:
        yield from self._kept
        for part in self._coming:
            own = part.split(1, dim=2)
            self._kept += own
            yield from own


def _strip(stem: Path, video: Fingerprint, record: Mapping[str, Any]) -> Path:
    return write_png_strip(f"{stem}{ENDINGS['strip']}", video, enlarge=max(1, 128 // record["height"]))


def _png(stem: Path, video: Fingerprint, record: Mapping[str, Any]) -> Path:
    first, *_ = [frame for number, frame in enumerate(video) if number == 0]
    return write_whole(f"{stem}{ENDINGS['png']}", lambda target: Image.fromarray(first).save(target, format="PNG"))


ENDINGS = {"mp4": ".mp4", "gif": ".gif", "strip": ".strip.png", "png": ".png"}
FORMATS: dict[str, Callable[[Path, Fingerprint, Mapping[str, Any]], Path]] = {
    "mp4": lambda stem, video, record: write_clip(f"{stem}{ENDINGS['mp4']}", video, record["fps"], record),
    "gif": lambda stem, video, record: write_gif(f"{stem}{ENDINGS['gif']}", video, record["fps"]),
    "strip": _strip,
    "png": _png,
}


def write(stem: Path, video: Fingerprint, formats: Sequence[str], record: Mapping[str, Any], before_s: float = 0.0) -> tuple[Path, float]:
    """The files of one clip, decoded as they are written; the sidecar comes last, so a clip with a sidecar is whole.

    Args:
        before_s: seconds that its latents took before.
    Returns: the first file, and the seconds that the clip took.
    Raises: RuntimeError if the disk refuses.
    """
    begun = time.monotonic()
    try:
        files = [FORMATS[name](stem, video, record) for name in formats]
        seconds = before_s + time.monotonic() - begun
        assert video.sha256 is not None, "every format goes through all frames"
        write_sidecar(Path(f"{stem}.json"), record, video.sha256, seconds)
    except OSError as error:
        raise RuntimeError(f"{stem} could not be written: {error}. The clips before it are kept. Set out=<a folder with space>.") from error
    return files[0], seconds


def writable(out: Path) -> Path:
    """The folder, made and tried.

    Raises: ConfigError if nothing can be written there.
    """
    probe = out / f".sample-writes-here.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written: {error}. Set out=<a folder that can>.") from None
    return out


def next_number(out: Path) -> int:
    """One more than the highest number in the folder: no clip is ever overwritten."""
    numbers = [int(found[1]) for path in out.iterdir() if (found := re.match(r"(\d{3,})-", path.name))]
    return max(numbers, default=-1) + 1


def there(stem: Path) -> list[str]:
    """The formats that a clip has files of."""
    return [name for name, ending in ENDINGS.items() if Path(f"{stem}{ending}").exists()]


def finished(stem: Path, asked: Mapping[str, Any], formats: Sequence[str]) -> bool:
    """Whether a clip is there already, made as it is asked for now and in every format.

    Args:
        asked: what its record must say.
    Raises: ConfigError if a clip of that name was made otherwise.
    """
    sidecar = Path(f"{stem}.json")
    taken = sorted(path.name for path in stem.parent.glob(f"{stem.name.partition('-')[0]}-*") if path.stem.partition(".")[0] != stem.name)
    if not sidecar.exists() and not taken:
        return False
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8")) if not taken else {}
    except (OSError, ValueError):
        found = {}
    unlike = next((key for key, value in asked.items() if found.get(key) != value), None)
    if unlike is not None:
        name = taken[0] if taken else sidecar.name
        raise ConfigError(
            f"{sidecar.parent} holds other clips: {name} was made with another {unlike}. With ranks above 1, set out=<a folder of its own>."
        )
    return set(formats) <= set(there(stem))


def slug(prompt: str, length: int = 48) -> str:
    """A file name from a prompt: plain letters, digits and dashes, so that it can be written on any disk."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:length].rstrip("-")
    return words or ("clip" if prompt.strip() else "no-prompt")


def shown(prompt: str) -> str:
    """A prompt on one line of at most 80 characters, whatever is in it."""
    line = json.dumps(prompt, ensure_ascii=False)
    return line if len(line) <= 80 else f"{line[:76]}..."
