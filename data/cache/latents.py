"""The latent cache: every clip of a set encoded once, and refused if the VAE, the clips' shapes or the files are not what they were."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.batch import Batch, Shot
from data.cache.build import Part, build
from data.cache.stopwatch import Stopwatch
from data.cache.store import Identity, Store
from data.catalogue import TRANSIENT
from data.clips import MIDDLE, Clips
from data.dataset import Fetched, Group, VideoDataset, check_faults
from data.files.faults import Fault
from data.plan import Draw, MicroBatches
from data.stills import NO_STILLS, StillFrames, encode_stills
from data.transforms import to_float
from data.workers import UNWATCHED, Pool, Watch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHARD_PX = 2**30  # of video in a shard: 256 MiB of latents at 4x8x8, 16 channels and float32
SHARD_ROWS = 512  # few enough that ranks get about equal parts
# What is encoded at once, 30 clips of 17x64x64: no setting, since a latent's last bits depend on what it is encoded with.
PARTS = MicroBatches(None, 2**21, (1, 1, 1))

Encode = Callable[[Tensor], Tensor]
_REASONS = {
    "vae": "another VAE (weights {0:.12}, now {1:.12})",
    "clips": "clips of other shapes or another rate ({0}; now {1})",
    "dtype": "another dtype ({0}, now {1})",
    "reader": "frames of another reader ({0}, now {1}; data/reader)",
    "files": "other files, or files that were touched since",
    "stills": "other pictures encoded alone ({0}; now {1}; data.stills)",
}


def identity(clips: Clips, vae: str, dtype: str, pixels: str, stills: StillFrames = NO_STILLS) -> Identity:
    """Everything that the latents of these clips depend on.

    Not the files' content but their sizes and times of change: to read terabytes in order to find out that nothing changed would cost as
    much as a part of the cache. A copied or touched file is encoded again; only an edit that keeps size and nanosecond goes unnoticed.
    """
    shapes = sorted({bucket for bucket in clips.buckets if bucket is not None})
    named = f"{shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} shapes {_hash(map(str, clips.buckets)):.12}"
    facts = {"vae": vae, "clips": f"{named} at {clips.fps:g} fps, from the middle of the file, scaled and centre-cropped"}
    facts |= {"dtype": dtype, "reader": pixels, "files": _hash(_files(clips))}
    facts |= {"stills": str(stills)} if stills.drawn else {}  # so that a cache from before there were any is still valid
    return Identity("latent", "data.latents", facts, _REASONS, absent={"stills": "none"})


def cache_latents(
    dataset: VideoDataset,
    encode: Encode,
    folder: str | Path,
    vae: str,
    workers: int = 0,
    file_budget_s: float = 60.0,
    dtype: str = "float32",
    rank: int = 0,
    ranks: int = 1,
) -> Store:
    """Encode what is missing of a cache and return it; a complete one is only looked at. See data.cache.build.build.

    A row's tensor is c (f + m) h w: the clip's latents and behind them its stills, if the dataset names any.

    Args:
        dataset: with seed None, so that a row is one clip.
        encode: float32 b c t h w in [-1, 1], on the CPU -> b c f h w, anywhere.
        vae: hash of the weights behind `encode`.
    Raises: ValueError naming what differs if the folder holds the cache of another VAE, shape or set of files. RuntimeError if too many
        files are unusable.
    """
    assert dataset.seed is None, "a cached clip must not depend on a seed"
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} cannot be stored, wanted one of {', '.join(DTYPES)}. Set data.latent_dtype.")
    shards = division(dataset.clips)
    pool = Pool(_RowReader(dataset), workers, file_budget_s)
    try:
        make = _Maker(dataset, encode, pool, DTYPES[dtype], [part for shard in shards for part in shard])
        store = build(folder, identity(dataset.clips, vae, dtype, dataset.reader.pixels, dataset.stills), shards, make, rank, ranks)
    finally:
        pool.close()
    if make.watch.spent_s:
        print(f"latents     {make.encoded} of {len(store)} clips encoded in {make.watch}", file=sys.stderr)
    return store


def division(clips: Clips) -> list[list[Part]]:
    """The rows that give a clip, as shards of parts that are encoded at once: a function of the clips alone."""
    shards: list[list[Draw]] = [[]]
    pixels = 0
    for row, bucket in enumerate(clips.buckets):
        if bucket is None:
            continue
        own = bucket.frames * bucket.height * bucket.width
        if shards[-1] and (pixels + own > SHARD_PX or len(shards[-1]) == SHARD_ROWS):
            shards.append([])
            pixels = 0
        shards[-1].append(Draw(0, row))
        pixels += own
    return [[tuple(str(draw.row) for draw in part) for part in PARTS.cut(shard, clips.buckets)] for shard in shards]


class _Maker:
    """Decodes ahead in workers and encodes what comes."""

    def __init__(self, dataset: VideoDataset, encode: Encode, pool: Pool, dtype: torch.dtype, parts: Sequence[Part]) -> None:
        self.dataset, self.encode, self.pool, self.dtype, self.parts = dataset, encode, pool, dtype, parts
        self.faults = list(dataset.known_faults)
        self.watch, self.encoded = Stopwatch(), 0

    def __call__(self, parts: Iterator[Part]) -> Iterator[tuple[Mapping[str, Tensor], Sequence[Mapping[str, Any]]]]:
        first = next(parts)
        done = sum(map(len, self.parts[: self.parts.index(first)]))
        wanted, asked = tee(chain([first], parts))
        results = self.pool.map([int(key) for key in part] for part in asked)
        with tqdm(total=sum(map(len, self.parts)), initial=done, desc="encoding clips", unit="clip", dynamic_ncols=True, disable=None) as bar:
            self.watch.lap(None)
            for part, (rows, clips, faults) in zip(wanted, results, strict=True):
                self.watch.lap("waiting for decoded clips")
                self.faults += faults
                everything = len(self.dataset.index)
                check_faults(self.faults, everything, self.dataset.bad_limit, certain=len(self.faults) == everything)
                latents = {str(row): latent for row, latent in zip(rows, self._encoded(rows, clips), strict=True)}
                self.watch.lap("encoding")
                yield latents, [_note(fault) for fault in faults]
                self.watch.lap("writing")
                self.encoded += len(latents)
                bar.update(len(part))

    def _encoded(self, rows: Sequence[int], clips: np.ndarray | None) -> Tensor | Sequence[Tensor]:
        if clips is None:
            return []
        with torch.inference_mode():
            video = to_float(torch.from_numpy(clips))
            latents = self.encode(video).to("cpu", self.dtype)  # b c f h w
            frames = self.dataset.stills.table(rows, clips.shape[1])
            if frames is not None:
                latents = torch.cat([latents, encode_stills(self.encode, video, frames).to("cpu", self.dtype)], dim=2)  # b c (f m) h w
        if not torch.isfinite(latents).all():
            names = f"{self.dataset.index.name(rows[0])} to {self.dataset.index.name(rows[-1])}"
            raise RuntimeError(f"the VAE's latents of {names} are not finite: its weights are broken. Train it again.")
        return latents


class _RowReader:
    """Decodes a part in a worker: (rows, their clips b t h w c, faults)."""

    def __init__(self, dataset: VideoDataset) -> None:
        self.dataset = dataset

    def run(self, item: Sequence[int], watch: Watch = UNWATCHED) -> tuple[list[int], np.ndarray | None, list[Fault]]:
        results = {row: self.dataset.clip(row, 0, watch=watch) for row in item}
        clips = {row: clip for row, clip in results.items() if not isinstance(clip, Fault)}
        faults = [clip for clip in results.values() if isinstance(clip, Fault)]
        return list(clips), np.stack(list(clips.values())) if clips else None, faults

    def give_up(self, token: int, kind: str, detail: str) -> None:
        self.dataset.give_up(token, kind, detail)


class LatentDataset:
    """Clips from a cache: a drop-in for VideoDataset that gives latents. A row without a latent is never drawn.

    Args:
        store: of these clips, as `cache_latents` returns it.
        memory_bytes: the cache is held in memory if it fits, its hashes checked; else it is mapped and only its sizes are checked.
        stills: those that the cache was made with.
    Raises: ValueError if a shard is not the one that was written. RuntimeError if too many clips have no latent.
    """

    def __init__(self, store: Store, clips: Clips, bad_limit: float = 0.01, memory_bytes: int = 0, stills: StillFrames = NO_STILLS) -> None:
        faults = {fault.row: fault for fault in (*clips.faults, *(Fault(**note) for note in store.notes))}
        self.clips, self.index, self.bad_limit, self.stills = clips, clips.index, bad_limit, stills
        self.known_faults = tuple(faults.values())
        self.buckets = tuple(None if row in faults else bucket for row, bucket in enumerate(clips.buckets))
        check_faults(self.known_faults, len(self.index), bad_limit, certain=len(faults) == len(self.index))
        self.in_memory = store.bytes <= memory_bytes
        self._store = store
        self._latents = {int(key): latent for key, latent in store.load().items()} if self.in_memory else None

    def run(self, item: Sequence[Draw], watch: Watch = UNWATCHED) -> Fetched:
        """The latents of one micro-batch and their stills, content b c (f + m) h w as stored."""
        rows = tuple(draw.row for draw in item)
        latents = [self._store.get(str(row)) for row in rows] if self._latents is None else [self._latents[row] for row in rows]
        return Fetched((Group(tuple(draw.sample for draw in item), rows, torch.stack(latents)),))

    def give_up(self, token: int, kind: str, detail: str) -> None:
        """No file of a user's is opened here, so none is watched."""

    def batch(self, group: Group) -> Batch:
        bucket = self.buckets[group.rows[0]]
        assert bucket is not None, "a row without a latent is never drawn"
        latents, stills, frames = group.content.float(), None, self.stills.table(group.rows, bucket.frames)
        if frames is not None:
            latents, stills = (part.contiguous() for part in latents.split((latents.shape[2] - frames.shape[1], frames.shape[1]), dim=2))
        shots = tuple(self._shots(row) for row in group.rows)
        return Batch(
            samples=group.samples,
            rows=group.rows,
            captions=tuple(self.index.rows[row].captions for row in group.rows),
            fps=torch.full((len(group.rows),), self.clips.fps, dtype=torch.float32),
            latents=latents,
            stills=stills,
            still_frames=frames,
            shots=shots if any(shots) else (),
        )

    def _shots(self, row: int) -> tuple[Shot, ...]:
        return self.clips.shots(row, self.clips.pick(row, MIDDLE)) if self.index.rows[row].shots else ()


def _note(fault: Fault) -> dict[str, Any]:
    again = "; delete the cache to try again" if fault.kind in TRANSIENT else ""
    return {"row": fault.row, "path": fault.path, "kind": fault.kind, "detail": fault.detail + again}


def _files(clips: Clips) -> Iterator[str]:
    """What a row's clip is cut from."""
    for number, (row, probe) in enumerate(zip(clips.index.rows, clips.probes, strict=True)):
        found = None if probe is None else (probe.bytes, probe.mtime_ns)  # when the file comes, the cache is another
        yield json.dumps((clips.index.relative(number), row.start_s, row.end_s, found))


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
