"""A training set and a validation set as the `data` group of a config describes them: what train.py builds and asks for batches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from data.batch import Batch
from data.buckets import Bucket
from data.dataset import ClipSource, Fault, VideoDataset
from data.index import Index, read_index
from data.latents import LatentCache, LatentDataset
from data.loader import EpochPlan, Loader, OnePass
from data.reader import VideoReader
from data.transforms import Crop
from models.geometry import Grid, latent_grid


@dataclass(frozen=True, slots=True)
class Encoder:
    """A frozen VAE as the data sees it.

    Args:
        encode: float32 b c t h w in [-1, 1], on the CPU -> whitened latents b c f h w.
        key: sha256 of its weights.
        stride: (t, h, w).
    """

    encode: Callable[[Tensor], Tensor]
    key: str
    stride: Grid


class Videos:
    """Two indexes of video files, delivered as clips of one shape.

    Args:
        train, val: index files; paths in them start at the file's own folder.
        frames, height, width, fps: the clip that is delivered, whatever the files hold.
        batch_size: samples of an optimiser step.
        micro_batch: samples that pass through the network at once.
        workers: processes that decode ahead.
        reader: opens the files.
        crop: cut out of each training clip, never of a validation clip; None for whole clips.
        memory_mb: MiB for decoded clips, or for latents; 0 reads from disk each time.
        latents: folder for the cache of latents; None encodes clips in every step.
        latent_dtype: of the cache on disk.
        val_samples: clips of the validation set, the first ones of its index.
        bad_limit: share of unusable files above which a run stops.
    """

    def __init__(
        self,
        train: str,
        val: str,
        frames: int,
        height: int,
        width: int,
        fps: float,
        batch_size: int,
        micro_batch: int,
        workers: int,
        reader: VideoReader,
        crop: Crop | None,
        memory_mb: int,
        latents: str | None,
        latent_dtype: str,
        val_samples: int,
        bad_limit: float,
    ) -> None:
        if memory_mb < 0 or val_samples < 1:
            raise ValueError(f"got memory_mb={memory_mb}, val_samples={val_samples}; wanted at least 0 and 1. Set data.memory_mb, data.val_samples.")
        self.train, self.val = train, val
        self.bucket, self.fps = Bucket(frames, height, width), fps
        self.batch_size, self.micro_batch, self.workers = batch_size, micro_batch, workers
        self.reader, self.crop, self.memory_bytes = reader, crop, memory_mb * 2**20
        self.latents, self.latent_dtype = latents, latent_dtype
        self.val_samples, self.bad_limit = val_samples, bad_limit
        self._loaders: list[Loader] = []

    @property
    def faults(self) -> list[Fault]:
        """Files that could not be used so far, in training and in validation."""
        return [fault for loader in self._loaders for fault in loader.faults]

    def loader(self, seed: int, encoder: Encoder | None) -> Loader:
        """Training batches: latents if an encoder and a folder for them are given (the cache is built first), else videos."""
        index = read_index(self.train)
        source: ClipSource
        workers = self.workers
        if encoder is not None and self.latents is not None:
            source = self._latents(index, encoder, self.latents, seed)
            workers = 0 if source.in_memory else workers  # a copy within memory is cheaper than a message
        else:
            source = self._clips(index, seed, self.crop, self.memory_bytes)
        return self._noted(Loader(source, EpochPlan(len(index), self.batch_size, seed), self.micro_batch, workers))

    def validation(self, encoder: Encoder | None) -> list[Batch]:
        """The first clips of the validation set in micro-batches, the same in every run: whole, from the middle of each file, samples 0, 1...

        Latents where `loader` gives latents.
        """
        index = read_index(self.val)
        index = replace(index, rows=index.rows[: self.val_samples])
        source = self._clips(index, None, None, 0)
        (batches,) = self._noted(Loader(source, OnePass(len(index)), self.micro_batch)).steps(0, 1)
        if encoder is None or self.latents is None:
            return batches
        self._check_grid(encoder)
        with torch.no_grad():
            return [replace(batch, video=None, latents=encoder.encode(batch.content).to("cpu", torch.float32)) for batch in batches]

    def _noted(self, loader: Loader) -> Loader:
        self._loaders.append(loader)
        return loader

    def _clips(self, index: Index, seed: int | None, crop: Crop | None, memory_bytes: int) -> VideoDataset:
        return VideoDataset(index, self.reader, self.bucket, self.fps, seed, crop, self.bad_limit, memory_bytes)

    def _latents(self, index: Index, encoder: Encoder, folder: str, seed: int) -> LatentDataset:
        if self.crop is not None:
            raise ValueError("latents of whole clips are cached, which cannot be cropped. Leave data/crop out, or set data.latents=null.")
        self._check_grid(encoder)
        clips = self._clips(index, None, None, 0)
        cache = LatentCache.build(clips, encoder.encode, Path(folder), encoder.key, self.micro_batch, self.workers, self.latent_dtype)
        return LatentDataset(cache, index, self.fps, seed, self.bad_limit, self.memory_bytes)

    def _check_grid(self, encoder: Encoder) -> None:
        latent_grid(self.bucket.frames, self.bucket.height, self.bucket.width, encoder.stride)
