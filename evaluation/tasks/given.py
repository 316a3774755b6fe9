"""Whether what was given of a clip is kept: its PSNR in the made clip against that of the VAE's own reconstruction of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.reconstruction import HIGHEST_DB, psnr_db
from evaluation.statistics import bootstrap, wilson

Video = NDArray[np.uint8]  # t h w c
# A made clip may be this much worse than its VAE.
WITHIN_DB = 0.5


@dataclass(frozen=True, slots=True)
class Kept:
    """The given part of one clip, against the source: as it was made, and as the VAE alone reconstructs it."""

    psnr_db: float
    vae_psnr_db: float

    @property
    def worse_db(self) -> float:
        """By how much making the rest has spoilt it; below 0 where it came out better."""
        return self.vae_psnr_db - self.psnr_db

    @property
    def kept(self) -> bool:
        return self.worse_db <= WITHIN_DB


def kept(source: Video, made: Video, reconstruction: Video, frames: NDArray[np.bool_], pixels: NDArray[np.bool_] | None = None) -> Kept:
    """Compare what was given.

    Args:
        source, made, reconstruction: one size; the reconstruction is the source through the VAE and back. What was given as a clip or a
            picture of its own is reconstructed as that, in its place.
        frames: (t,), which frames were given.
        pixels: (h, w) or (t, h, w), where within them; None: everywhere.
    Raises: ValueError if shapes differ, or nothing was given.
    """
    if not source.shape == made.shape == reconstruction.shape or frames.shape != source.shape[:1]:
        shapes = f"{source.shape}, {made.shape}, {reconstruction.shape} and {frames.shape}"
        raise ValueError(f"given frames need three videos of one shape and a mask of their frames, got {shapes}")
    mask = np.broadcast_to(frames[:, None, None], source.shape[:3])
    if pixels is not None:
        if pixels.shape not in (source.shape[:3], source.shape[1:3]):
            raise ValueError(f"a mask of pixels needs shape {source.shape[1:3]} or {source.shape[:3]}, got {pixels.shape}. Give it the clip's size.")
        mask = mask & pixels
    if not mask.any():
        raise ValueError("nothing of the clip was given, so nothing can be kept: mark at least one pixel of a frame")
    own = source[mask][None, None]  # 1 1 n 3: PSNR asks for a video
    return Kept(*(min(HIGHEST_DB, psnr_db(own, video[mask][None, None])) for video in (made, reconstruction)))


def summary(results: Sequence[Kept], seed: int = 0) -> dict[str, Any]:
    """`kept`: the share of clips within WITHIN_DB of the VAE; `worse_db`: by how much on average; `worse_db_of`: of each clip."""
    return {
        "kept": wilson([result.kept for result in results]).as_dict(),
        "worse_db": bootstrap([result.worse_db for result in results], seed).as_dict(),
        "psnr_db": bootstrap([result.psnr_db for result in results], seed).as_dict(),
        "vae_psnr_db": bootstrap([result.vae_psnr_db for result in results], seed).as_dict(),
        "worse_db_of": [round(result.worse_db, 4) for result in results],
    }
