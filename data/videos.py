"""A training set and a validation set as the `data` group of a config describes them: what train.py builds and asks for batches."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from data.batch import Batch
from data.cache.latents import LatentDataset, cache_latents
from data.cache.store import Store
from data.catalogue import look
from data.clips import Clips
from data.dataset import ClipSource, VideoDataset
from data.files.faults import Fault
from data.files.media import Media
from data.files.reader import VideoReader
from data.index import Index, read_sources
from data.loader import Loader
from data.plan import EpochPlan, MicroBatches, OnePass, Sequences
from data.shapes import Shapes
from data.stills import NO_STILLS, StillFrames, encode_stills
from data.transforms import Crop
from models.geometry import Grid, latent_grid

LOOKERS = 2  # processes that look at files even where none reads ahead: a hanging file must not hang the start


@dataclass(frozen=True, slots=True)
class Encoder:
    """A frozen VAE as the data sees it.

    Args:
        encode: float32 b c t h w in [-1, 1], on the CPU -> whitened latents b c f h w.
        key: names what its latents depend on.
        stride: (t, h, w).
    """

    encode: Callable[[Tensor], Tensor]
    key: str
    stride: Grid


class Videos:
    """Sets of videos and pictures, delivered as clips.

    Args:
        train: what to train on: a folder, an index file, tar shards, or a list of these, each {path, weight, root, columns}.
        val: what to validate on, likewise; null: see hold_out.
        hold_out: clips of `train` that are set aside for validation if `val` is null; with 0, validation looks at training clips.
        root: the folder that paths of an index start from; null: the index's own.
        shape: the shape of each clip.
        grid: pixels (frames, height, width) of one token: the VAE's stride times the DiT's patch. The unit of the two token limits.
        fps: files of another rate are resampled by their time stamps.
        batch_size, batch_tokens: of an optimiser step at most; null: no limit.
        micro_batch, micro_tokens: of what passes through the network at once, at most; null: no limit.
        workers: processes that decode ahead.
        reader: opens the files.
        crop: cut out of each training clip, never of a validation clip; None for whole clips.
        memory_mb: MiB for decoded clips, or for latents; 0 reads from disk each time.
        latents: folder for the cache of latents; None encodes clips in every step.
        latent_dtype: of the cache on disk.
        val_samples: clips of the validation set, the first ones of its index.
        bad_limit: share of unusable files above which a run stops.
        probes: folder that keeps what was found in files; None looks again at every start.
        file_budget_s: a file that takes a worker longer is given up.
        packing: whether clips of one shape pass at once, or of any, as one sequence. Validation passes by shape in any case.
        stills: pictures of each clip that a flow objective is given beside its latents, each encoded alone: the last frame of every latent
            frame but the first, and so many others. 0: none at all.
    """

    def __init__(
        self,
        train: str | Sequence[str | Mapping[str, Any]],
        val: str | Sequence[str | Mapping[str, Any]] | None,
        hold_out: int,
        root: str | None,
        shape: Shapes,
        grid: Grid,
        fps: float,
        batch_size: int | None,
        batch_tokens: int | None,
        micro_batch: int | None,
        micro_tokens: int | None,
        workers: int,
        reader: VideoReader,
        crop: Crop | None,
        memory_mb: int,
        latents: str | None,
        latent_dtype: str,
        val_samples: int,
        bad_limit: float,
        probes: str | None,
        file_budget_s: float,
        packing: Literal["bucket", "sequence"] = "bucket",  # of runs from before there was a choice
        stills: int = 0,  # likewise
    ) -> None:
        if memory_mb < 0 or val_samples < 1 or hold_out < 0 or stills < 0:
            raise ValueError(
                f"got memory_mb={memory_mb}, val_samples={val_samples}, hold_out={hold_out}, stills={stills}; wanted at least 0, 1, 0 and 0. "
                "Set data.memory_mb, data.val_samples, data.hold_out, data.stills."
            )
        if not fps > 0 or not file_budget_s > 0:
            raise ValueError(f"got fps={fps}, file_budget_s={file_budget_s}; both must be above 0. Set data.fps, data.file_budget_s.")
        if val is not None and hold_out:
            raise ValueError(f"hold_out={hold_out} sets training clips aside, but val={val} names others. Set data.hold_out or data.val, not both.")
        self.train, self.val, self.hold_out, self.root = train, val, hold_out, root
        self.shape, self.grid, self.fps = shape, grid, fps
        self.batch_size, self.batch_tokens = batch_size, batch_tokens
        self.micro, self.workers = MicroBatches(micro_batch, micro_tokens, grid), workers
        self.passes = Sequences(micro_batch, micro_tokens, grid) if packing == "sequence" else self.micro
        self.reader, self.crop, self.memory_bytes = reader, crop, memory_mb * 2**20
        self.latents, self.latent_dtype, self.stills = latents, latent_dtype, stills
        self.val_samples, self.bad_limit = val_samples, bad_limit
        self.probes, self.file_budget_s = probes, file_budget_s
        self._loaders: list[Loader] = []
        self._faults: list[Fault] = []

    @property
    def holds_out(self) -> bool:
        """Whether validation looks at clips that are not trained on."""
        return self.val is not None or self.hold_out > 0

    @property
    def faults(self) -> list[Fault]:
        """Files that could not be used so far, in training and in validation, each once."""
        found = [*self._faults, *(fault for loader in self._loaders for fault in loader.faults)]
        return list({(fault.path, fault.kind, fault.detail): fault for fault in found}.values())

    @cached_property
    def _indexes(self) -> tuple[Index, Index]:
        index = read_sources(self.train, self.root)
        if self.val is not None:
            return index, read_sources(self.val, self.root)
        return _split(index, self.hold_out) if self.hold_out else (index, index)

    def training_index(self) -> Index:
        """The clips to train on."""
        return self._indexes[0]

    def validation_index(self) -> Index:
        """The clips to validate on; training clips if none are set aside."""
        return self._indexes[1]

    def shared(self) -> int:
        """How many validation clips come from files that are trained on, if they should not."""
        training, validation = self._indexes
        known = {row.media for row in training.rows if row.weight > 0} if self.holds_out else set()
        return sum(row.media in known for row in validation.rows)

    def clips(self, index: Index, deep: bool = False) -> Clips:
        """Look at the files and give each clip its shape."""
        found = look(index, self.probes, max(self.workers, LOOKERS), self.file_budget_s, deep=deep)
        clips = Clips.of(index, found, self.shape, self.fps)
        self._faults += clips.faults
        return clips

    def plan(self, source: ClipSource | Clips, seed: int) -> EpochPlan:
        """Which clips each training step sees."""
        rows = zip(source.index.rows, source.buckets, strict=True)
        weights, tokens = zip(*((row.weight, bucket.tokens(self.grid)) if bucket else (0.0, 0) for row, bucket in rows), strict=True)
        return EpochPlan(weights, tokens, self.batch_size, self.batch_tokens, seed)

    def loader(self, seed: int, encoder: Encoder | None, rank: int = 0, ranks: int = 1) -> Loader:
        """Training batches: latents if an encoder and a folder for them are given (the cache is built first), else videos."""
        clips, stills = self.clips(self.training_index()), self._stills(encoder)
        if encoder is not None and self.latents is not None:
            source = LatentDataset(self.cache(clips, encoder, rank, ranks), clips, self.bad_limit, self.memory_bytes, stills)
            workers = 0 if source.in_memory else self.workers  # a copy within memory is cheaper than a message
        else:
            source = VideoDataset(clips, self.reader, seed, self.crop, self.bad_limit, self.memory_bytes, stills)
            workers = self.workers
        return self._noted(Loader(source, self.plan(source, seed), self.passes, workers, self.file_budget_s, rank, ranks))

    def validation(self, encoder: Encoder | None) -> list[Batch]:
        """The first clips of the validation set in micro-batches, the same in every run: whole, from the middle of each file, samples 0, 1...

        Latents where `loader` gives latents. Bad files are left out and noted; only if all are bad does it end the run.
        """
        index = self.validation_index()
        clips = self.clips(index.take([row for row in range(len(index)) if index.rows[row].weight > 0][: self.val_samples]))
        source = VideoDataset(clips, self.reader, None, None, bad_limit=1.0, stills=self._stills(encoder))
        usable = [row for row, bucket in enumerate(clips.buckets) if bucket is not None]
        loader = self._noted(Loader(source, OnePass(usable), self.micro, self.workers, self.file_budget_s))
        (passes,) = loader.steps(0, 1)
        batches = [batch for each in passes for batch in each.parts]
        loader.close()
        if encoder is None or self.latents is None:
            return batches
        self._check_grid(clips, encoder)
        with torch.no_grad():
            return [_encoded(batch, encoder) for batch in batches]

    def cache(self, clips: Clips, encoder: Encoder, rank: int = 0, ranks: int = 1) -> Store:
        """The clips' latents on disk, complete; what is missing is encoded, by each rank its part."""
        assert self.latents is not None, "a cache needs a folder"
        if self.crop is not None:
            raise ValueError("latents of whole clips are cached, which cannot be cropped. Leave data/crop out, or set data.latents=null.")
        self._check_grid(clips, encoder)
        dataset = VideoDataset(clips, self.reader, None, None, self.bad_limit, stills=self._stills(encoder))
        settings = (self.workers, self.file_budget_s, self.latent_dtype, rank, ranks)
        return cache_latents(dataset, encoder.encode, self.latents, encoder.key, *settings)

    def _stills(self, encoder: Encoder | None) -> StillFrames:
        return NO_STILLS if encoder is None else StillFrames(encoder.stride[0], self.stills)

    def _noted(self, loader: Loader) -> Loader:
        self._loaders.append(loader)
        return loader

    def _check_grid(self, clips: Clips, encoder: Encoder) -> None:
        for bucket in {bucket for bucket in clips.buckets if bucket is not None}:
            try:
                latent_grid(bucket.frames, bucket.height, bucket.width, encoder.stride)
            except ValueError as error:
                hint = f"The VAE's stride {encoder.stride} must divide data.grid={list(self.grid)}, which native shapes lie on."
                raise ValueError(f"{error} It stands in data.shape. {hint}") from None


def _encoded(batch: Batch, encoder: Encoder) -> Batch:
    """The same clips as latents, as a cache would give them but for the last bits."""
    video, frames = batch.content, batch.still_frames
    latents = encoder.encode(video).to("cpu", torch.float32)
    stills = None if frames is None else encode_stills(encoder.encode, video, frames).to("cpu", torch.float32)
    return replace(batch, video=None, latents=latents, stills=stills)


def _split(index: Index, count: int) -> tuple[Index, Index]:
    """An index without about `count` of its rows, and those: whole files, chosen by their names, so that a new file moves no other."""
    files: dict[Media, list[int]] = {}
    for number, row in enumerate(index.rows):
        files.setdefault(row.media, []).append(number)
    names = {media: min(map(index.relative, rows)).encode("utf-8", "surrogateescape") for media, rows in files.items()}
    kept_out: set[int] = set()
    for media in sorted(files, key=lambda media: (hashlib.sha256(names[media]).digest(), media.path)):
        if len(kept_out) >= count:
            break
        kept_out.update(files[media])
    if len(kept_out) >= len(index):
        raise ValueError(f"hold_out={count} leaves nothing to train on: the set has {len(index)} clips. Set data.hold_out lower, or data.val.")
    return index.take([row for row in range(len(index)) if row not in kept_out]), index.take(sorted(kept_out))
