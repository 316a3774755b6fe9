"""Checkpoints that a kill at any moment cannot lose: written aside, published by one rename, checked byte by byte before they are used.

checkpoints/step-00001000/ holds one safetensors file per part (weights, ema, optimizer) and manifest.json, written last, with the size and
sha256 of each file and every number that is not a tensor. There is no pickle, and no file points at the newest checkpoint: it is found by
looking.
"""

import contextlib
import hashlib
import json
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.files import sync_file, sync_folder, write_text

FORMAT = 1
MANIFEST = "manifest.json"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a complete, verified checkpoint holds: tensors by part, and the facts that are not tensors."""

    folder: Path
    step: int
    parts: Mapping[str, dict[str, Tensor]]
    facts: dict[str, Any]


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, incomplete or does not fit; the message names the file and what is wrong."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: <run>/checkpoints.
        keep_last: how many of the newest to keep, at least 2: the newest may turn out damaged.
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        if keep_last < 2:
            raise ValueError(f"trainer.keep_last={keep_last}: at least 2, so that a damaged newest checkpoint leaves one. Set trainer.keep_last=2.")
        self.folder = folder
        self.keep_last = keep_last

    def save(self, step: int, parts: Mapping[str, Tensors], facts: Mapping[str, Any]) -> Path:
        """Publish a checkpoint, then delete those that are older than the newest `keep_last`.

        Args:
            parts: tensors by file: {"weights": {...}, "ema": {...}, "optimizer": {...}}.
            facts: everything else, JSON.
        Raises: CheckpointError if the disk refuses; what was there before is untouched.
        """
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f"{final.name}.tmp-{uuid.uuid4().hex[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_space(parts)
            temporary.mkdir()
            write(temporary, parts, {"step": step, "facts": dict(facts)})
            if final.exists():  # the same step again, after a fall-back to an older checkpoint
                self._remove(final)
            temporary.rename(final)
            sync_folder(self.folder)
        except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
            raise CheckpointError(f"{final} could not be written ({error}). Make room and start the same command again.") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self.published()[: -self.keep_last]:
            self._remove(old)
        return final

    def published(self) -> list[Path]:
        """The folders that carry a checkpoint's name and a manifest, oldest first; not yet verified."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name) and (path / MANIFEST).is_file())

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose every byte is right; a damaged one is named in a warning and passed over.

        Raises: CheckpointError if there are checkpoints but none is usable: starting afresh in silence would lose the run.
        """
        published = self.published()
        for folder in reversed(published):
            try:
                return read(folder)
            except CheckpointError as error:
                warnings.warn(f"{error} Falling back to the checkpoint before it.", stacklevel=2)
        if published:
            raise CheckpointError(f"none of the {len(published)} checkpoints in {self.folder} is usable. Move the folder away to start afresh.")
        return None

    def clean(self) -> None:
        """Remove what an interrupted save left behind. Only the holder of the run's lock may call this."""
        for path in self.folder.glob("step-*.tmp-*") if self.folder.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)

    def _remove(self, folder: Path) -> None:
        """Delete a checkpoint: a kill on the way leaves litter that `clean` knows, never half a checkpoint under its name."""
        aside = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(OSError):
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _check_space(self, parts: Mapping[str, Tensors]) -> None:
        needed = sum(tensor.numel() * tensor.element_size() for tensors in parts.values() for tensor in tensors.values())
        free = shutil.disk_usage(self.folder).free
        if free < needed * 1.05 + 2**20:
            raise OSError(f"{needed:,} bytes needed, {free:,} free")


def write(folder: Path, parts: Mapping[str, Tensors], manifest: Mapping[str, Any]) -> None:
    """Write parts and then their manifest into an existing folder, all of it on disk before this returns."""
    files = {}
    for name, tensors in parts.items():
        path = folder / f"{name}.safetensors"
        # A copy each: safetensors refuses tensors that share memory, as tied weights do.
        save_file({key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}, path)
        sync_file(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": digest(path)}
    write_text(folder / MANIFEST, json.dumps({"format": FORMAT, **manifest, "files": files}, indent=1, allow_nan=True) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest.

    Raises: CheckpointError if it is missing, not JSON, or of a format this code does not read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        complete = manifest["format"] == FORMAT and all(set(entry) == {"bytes", "sha256"} for entry in manifest["files"].values())
        # A name is a plain file beside the manifest, or a stranger's manifest could point anywhere.
        complete = complete and all(re.fullmatch(r"\w[\w.-]*\.safetensors", name) for name in manifest["files"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {MANIFEST}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    if not complete:
        raise CheckpointError(f"{path} is of format {manifest['format']!r} or names strange files; this code reads format {FORMAT}.")
    return manifest


def read(folder: Path, only: str | None = None) -> Checkpoint:
    """Load and verify a checkpoint, or one part of it.

    Raises: CheckpointError naming the first file that is missing, cut or changed.
    """
    manifest = read_manifest(folder)
    parts = {}
    for name, entry in manifest["files"].items():
        part, path = name.removesuffix(".safetensors"), folder / name
        if only is not None and part != only:
            continue
        if not path.is_file():
            raise CheckpointError(f"{path} is missing.")
        if path.stat().st_size != entry["bytes"]:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, the manifest says {entry['bytes']}.")
        if digest(path) != entry["sha256"]:
            raise CheckpointError(f"{path} was changed after it was written: its sha256 is not the manifest's.")
        try:
            parts[part] = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file ({error}).") from None
    if only is not None and only not in parts:
        raise CheckpointError(f"{folder} has no part '{only}', only {', '.join(manifest['files'])}.")
    return Checkpoint(folder, int(manifest.get("step", 0)), parts, manifest.get("facts", {}))


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@torch.no_grad()
def restore(targets: Tensors, saved: Tensors, what: str) -> None:
    """Copy saved tensors into existing ones of the same names, shapes and dtypes; all or nothing.

    Args:
        what: whose tensors these are, for the message.
    Raises: CheckpointError with a table of what is missing, unexpected or unlike, or naming the first tensor that is not finite.
    """
    rows = [f"  missing     {name} {tuple(target.shape)}" for name, target in targets.items() if name not in saved]
    rows += [f"  unexpected  {name} {tuple(tensor.shape)}" for name, tensor in saved.items() if name not in targets]
    for name, target in targets.items():
        if name in saved and (saved[name].shape != target.shape or saved[name].dtype != target.dtype):
            rows.append(f"  mismatched  {name}: saved {tuple(saved[name].shape)} {saved[name].dtype}, here {tuple(target.shape)} {target.dtype}")
    if rows:
        shown = rows[:20] + ([f"  ... and {len(rows) - 20} more"] if len(rows) > 20 else [])
        raise CheckpointError(f"{what} does not fit the network that the config describes:\n" + "\n".join(shown))
    broken = [name for name in targets if not torch.isfinite(saved[name]).all()]
    if broken:
        count = f"{len(broken)} of {len(targets)} tensors"
        raise CheckpointError(f"{what} holds NaN or infinite values in {count}, first in {broken[0]}. Use an older checkpoint.")
    for name, target in targets.items():
        target.copy_(saved[name])
