"""The latent cache: every clip of a set encoded once, in shards that are whole or absent, refused if anything they depend on has changed."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from data.batch import Batch
from data.dataset import Draw, Fault, Fetched, VideoDataset, candidates, check_faults
from data.index import Index
from data.loader import OrderedPool
from data.transforms import to_float
from runtime.files import sync_file, sync_folder, write_text

FORMAT = 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that a cached latent depends on. Two caches with equal identities hold the same numbers.

    Args:
        vae: hash of the weights that encoded.
        clips: shape and rate of the clips, and how a clip is taken from a file.
        dtype: of the stored numbers.
        files: hash over every row's path, size and time of change, in order. Not over the content: reading terabytes to find out that
            nothing changed would cost as much as a part of the cache. A copied or touched file is encoded again; only an edit that keeps
            size and nanosecond goes unnoticed.
    """

    vae: str
    clips: str
    dtype: str
    files: str

    @classmethod
    def of(cls, dataset: VideoDataset, vae: str, dtype: str) -> "Identity":
        bucket = dataset.bucket
        clips = f"{bucket.frames}x{bucket.height}x{bucket.width} at {dataset.fps:g} fps, middle of the file, scaled and centre-cropped"
        return cls(vae, clips, dtype, _files_hash(dataset.index))


@dataclass(slots=True)
class Manifest:
    """What a cache folder holds: only shards that are whole on the disk are named."""

    identity: Identity
    rows: int
    shard_rows: int
    shards: list[dict[str, Any]] = field(default_factory=list)  # name, sha256, bytes
    faults: list[Fault] = field(default_factory=list)  # the rows without a latent

    @property
    def count(self) -> int:
        """Shards of the whole cache."""
        return -(-self.rows // self.shard_rows)

    @property
    def complete(self) -> bool:
        return len(self.shards) == self.count

    def span(self, shard: int) -> tuple[int, int]:
        """Rows [start, stop) of a shard."""
        return shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows)

    def save(self, folder: Path) -> None:
        write_text(folder / "manifest.json", json.dumps({"format": FORMAT, **asdict(self)}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Manifest | None":
        """None if the folder holds none. Raises: ValueError if it holds something else under that name."""
        path = folder / "manifest.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["format"] != FORMAT:
                raise ValueError(f"format {fields['format']}, this version reads {FORMAT}")
            shards = [{key: shard[key] for key in ("name", "sha256", "bytes")} for shard in fields["shards"]]
            if any(shard["name"] != _shard_name(number) for number, shard in enumerate(shards)):
                raise ValueError("it names shards that this code does not write")
            faults = [Fault(**fault) for fault in fields["faults"]]
            return cls(Identity(**fields["identity"]), int(fields["rows"]), int(fields["shard_rows"]), shards, faults)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a latent cache's manifest ({error}). Delete {folder} or set data.latents to another folder.") from error


@dataclass(frozen=True, slots=True)
class LatentCache:
    """A complete cache on disk."""

    folder: Path
    manifest: Manifest

    @classmethod
    def build(
        cls,
        dataset: VideoDataset,
        encode: Callable[[Tensor], Tensor],
        folder: str | Path,
        key: str,
        batch_size: int,
        workers: int = 0,
        dtype: str = "float32",
        shard_rows: int = 512,
    ) -> "LatentCache":
        """Encode what is missing of a cache and return it; a complete one is only looked at.

        A killed build goes on at its first missing shard, and ends with the same files as an undisturbed one.

        Args:
            dataset: with seed None, so that a row is one clip.
            encode: float32 b c t h w in [-1, 1], on the CPU -> b c f h w, anywhere.
            key: hash of the weights behind `encode`.
        Raises: ValueError naming what differs if the folder holds the cache of another VAE, shape or set of files. RuntimeError if too
            many files are unusable.
        """
        assert dataset.seed is None, "a cached clip must not depend on a seed"
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} cannot be stored, wanted one of {', '.join(DTYPES)}. Set data.latent_dtype.")
        folder = Path(folder)
        wanted = Manifest(Identity.of(dataset, key, dtype), len(dataset), shard_rows)
        manifest = Manifest.load(folder) or wanted
        _refuse_other(folder, manifest, wanted)
        if not manifest.complete:
            folder.mkdir(parents=True, exist_ok=True)
            for litter in folder.glob("*.tmp*"):
                litter.unlink()
            _build(dataset, encode, folder, manifest, batch_size, workers, DTYPES[dtype])
        return cls(folder, manifest)


class LatentDataset:
    """Clips from a cache: a drop-in for VideoDataset that gives latents.

    Args:
        seed: draws the replacement of rows without a latent, as VideoDataset does.
        memory_bytes: the cache is held in memory if it fits, its hashes checked; else it is mapped and only its sizes are checked.
    Raises: ValueError if a shard is missing or not the one that was written.
    """

    def __init__(self, cache: LatentCache, index: Index, fps: float, seed: int, bad_limit: float = 0.01, memory_bytes: int = 0) -> None:
        assert cache.manifest.complete, "LatentCache.build returns complete caches only"
        assert cache.manifest.rows == len(index), "the cache was built for another index"
        self.index, self.fps, self.seed, self.bad_limit = index, fps, seed, bad_limit
        self.known_faults = tuple(cache.manifest.faults)
        self.in_memory = sum(shard["bytes"] for shard in cache.manifest.shards) <= memory_bytes
        self._shards = _Shards([_checked(cache.folder, shard, self.in_memory) for shard in cache.manifest.shards])
        self._places = self._shards.places(len(index))  # (row) -> (shard, place in it), -1 where there is none
        self._latents = self._shards.all() if self.in_memory else None
        self._starts = np.cumsum([0, *self._shards.counts])
        check_faults(self.known_faults, len(index), bad_limit, certain=len(self.known_faults) == len(index))

    def __len__(self) -> int:
        return len(self.index)

    def fetch(self, draws: Sequence[Draw]) -> Fetched:
        """The latents of one micro-batch, content b c f h w as stored."""
        rows = [next((row for row in candidates(self.seed, draw.row, len(self)) if self._places[row, 0] >= 0), -1) for draw in draws]
        if -1 in rows:
            return Fetched((), (), None, ())
        places = self._places[rows]  # b 2
        if self._latents is not None:
            content = self._latents.index_select(0, torch.from_numpy(self._starts[places[:, 0]] + places[:, 1]))
        else:
            content = torch.stack([self._shards.read(int(shard), int(place)) for shard, place in places])
        return Fetched(tuple(draw.sample for draw in draws), tuple(rows), content, ())

    def batch(self, fetched: Fetched) -> Batch:
        assert fetched.content is not None, "faults are looked at before a batch is made"
        return Batch(
            samples=fetched.samples,
            rows=fetched.rows,
            captions=tuple(self.index.rows[row].captions for row in fetched.rows),
            fps=torch.full((len(fetched.rows),), self.fps, dtype=torch.float32),
            latents=fetched.content.float(),
        )


class _Shards:
    """The tensors of a cache's shard files; mapped files are opened in each process that reads them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.counts: list[int] = []
        self._open: dict[int, Any] = {}

    def __reduce__(self) -> Any:
        return _Shards, (self.paths,)

    def places(self, rows: int) -> np.ndarray:
        places = np.full((rows, 2), -1, dtype=np.int64)
        for number in range(len(self.paths)):
            held = self._file(number).get_tensor("rows").numpy()
            places[held] = np.stack([np.full(len(held), number), np.arange(len(held))], axis=1)
            self.counts.append(len(held))
        return places

    def all(self) -> Tensor:
        """Every latent, in the order of the shards."""
        parts = [load_file(path)["latents"] for path, count in zip(self.paths, self.counts, strict=True) if count]
        return torch.cat(parts) if parts else torch.empty(0)

    def read(self, shard: int, place: int) -> Tensor:
        return self._file(shard).get_slice("latents")[place]

    def _file(self, number: int) -> Any:
        if number not in self._open:
            try:
                self._open[number] = safe_open(self.paths[number], framework="pt")
            except (OSError, SafetensorError) as error:
                path = self.paths[number]
                raise ValueError(f"{path} cannot be read ({error}). Delete {path.parent}: it will be made anew.") from error
        return self._open[number]


class _RowReader:
    """Decodes a range of rows in a worker: (rows, their clips, faults)."""

    def __init__(self, dataset: VideoDataset) -> None:
        self.dataset = dataset

    def __call__(self, rows: range) -> tuple[list[int], Tensor | None, list[Fault]]:
        results = {row: self.dataset.clip(row, 0) for row in rows}
        clips = {row: clip for row, clip in results.items() if not isinstance(clip, Fault)}
        faults = [clip for clip in results.values() if isinstance(clip, Fault)]
        return list(clips), torch.from_numpy(np.stack(list(clips.values()))) if clips else None, faults


def _build(
    dataset: VideoDataset,
    encode: Callable[[Tensor], Tensor],
    folder: Path,
    manifest: Manifest,
    batch_size: int,
    workers: int,
    dtype: torch.dtype,
) -> None:
    """Write the shards that `manifest` does not name yet."""
    spans = [manifest.span(shard) for shard in range(len(manifest.shards), manifest.count)]
    parts = OrderedPool(_RowReader(dataset), workers).map(
        range(first, min(first + batch_size, stop)) for start, stop in spans for first in range(start, stop, batch_size)
    )
    with tqdm(total=len(dataset), initial=spans[0][0], desc="encoding clips", unit="clip", dynamic_ncols=True, disable=None) as bar:
        for start, stop in spans:
            rows: list[int] = []
            latents: list[Tensor] = []
            for held, clips, faults in islice(parts, -(-(stop - start) // batch_size)):
                manifest.faults += faults
                check_faults(manifest.faults, len(dataset), dataset.bad_limit, certain=len(manifest.faults) == len(dataset))
                if clips is not None:
                    rows += held
                    with torch.inference_mode():
                        latents.append(encode(to_float(clips)).to("cpu", dtype))
                bar.update(len(held) + len(faults))
            _write_shard(folder, manifest, rows, torch.cat(latents) if latents else torch.empty(0, dtype=dtype))


def _write_shard(folder: Path, manifest: Manifest, rows: list[int], latents: Tensor) -> None:
    """Publish one shard: the file first, then the manifest that names it."""
    name = _shard_name(len(manifest.shards))
    if not torch.isfinite(latents).all():
        raise RuntimeError(f"the VAE's latents of rows {rows[0]} to {rows[-1]} are not finite: its weights are broken. Train it again.")
    tensors = {"latents": latents.contiguous(), "rows": torch.tensor(rows, dtype=torch.int64)}
    temporary = folder / f"{name}.tmp"
    try:
        save_file(tensors, temporary)
        sync_file(temporary)
        record = {"name": name, "sha256": _sha256(temporary), "bytes": temporary.stat().st_size}
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    manifest.shards.append(record)
    manifest.save(folder)


def _refuse_other(folder: Path, found: Manifest, wanted: Manifest) -> None:
    """Raises: ValueError with a line for everything in which a folder's cache is not the wanted one."""
    reasons = {
        "vae": "another VAE (weights {0:.12}, now {1:.12})",
        "clips": "other clips ({0}; now {1})",
        "dtype": "another dtype ({0}, now {1})",
        "files": "other files (or files that were touched since)",
    }
    old, new = asdict(found.identity), asdict(wanted.identity)
    differ = [text.format(old[key], new[key]) for key, text in reasons.items() if old[key] != new[key]]
    if found.rows != wanted.rows:
        differ.append(f"{found.rows} rows, now {wanted.rows}")
    if found.shard_rows != wanted.shard_rows:
        differ.append(f"{found.shard_rows} clips a shard, now {wanted.shard_rows}")
    if differ:
        raise ValueError(f"the latents in {folder} were made from {'; '.join(differ)}. Delete that folder, or set data.latents to another one.")


def _checked(folder: Path, shard: dict[str, Any], whole: bool) -> Path:
    path = folder / shard["name"]
    size = path.stat().st_size if path.is_file() else None
    if size != shard["bytes"] or (whole and _sha256(path) != shard["sha256"]):
        state = "is missing" if size is None else "is not what was written (its size or hash differs)"
        raise ValueError(f"{path} {state}. Delete {folder}: it will be made anew.")
    return path


def _files_hash(index: Index) -> str:
    digest = hashlib.sha256()
    for number, row in enumerate(index.rows):
        try:
            status = os.stat(row.path)
            identity = (index.name(number), status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            identity = (index.name(number), -1, -1)  # when the file comes, the cache is another
        digest.update(json.dumps(identity).encode())
    return digest.hexdigest()


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
