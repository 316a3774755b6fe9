"""Image to video: the first frame of a real clip is given; is it kept, does its object stay itself, does it move as the caption says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Claim
from evaluation.oracle import Verdict, judge, read
from evaluation.reconstruction import HIGHEST_DB, psnr_db
from evaluation.statistics import bootstrap, wilson

Video = NDArray[np.uint8]  # t h w c
# First frames (1 h w c), captions and sample numbers in, one video each out.
Animate = Callable[[Sequence[Video], Sequence[str], Sequence[int]], Sequence[Video]]
MODES = ("full", "motion", "empty")
# A frame counts as kept when it is at most this much worse than the VAE's own reconstruction of that single picture: 2 % in squared
# error, room for rounding to 8 bits and for kernels that sum in another order, and for nothing else.
KEPT_DB = 0.1


@dataclass(frozen=True, slots=True)
class Given:
    """A real clip whose first frame is given: what it shows, its full caption, one that tells the motion alone, and which rule keeps its
    combination from training (None: it was seen)."""

    video: Video
    claim: Claim
    full: str
    motion: str
    kind: str | None = None

    def caption(self, mode: str) -> str:
        return {"full": self.full, "motion": self.motion, "empty": ""}[mode]


@dataclass(frozen=True, slots=True)
class Animated:
    """One result. The verdict is against the source clip's claim, whatever the caption left out; an empty caption asks for no motion."""

    given: Given
    mode: str
    video: Video
    verdict: Verdict
    first_frame_psnr_db: float
    vae_first_frame_psnr_db: float


def animate_all(
    animate: Animate, reconstruct: Callable[[Sequence[Video]], Sequence[Video]], clips: Sequence[Given], first_sample: int = 0, batch_size: int = 64
) -> list[Animated]:
    """Every clip's first frame continued under each kind of caption.

    Args:
        reconstruct: the VAE's encode and decode, here of single frames: the error that no generator behind this VAE can avoid.
        first_sample: as in prompt_following.follow; the three captions of one clip share its number, so they start from the same noise.
    """
    results: list[Animated] = []
    for start in range(0, len(clips), batch_size):
        part = clips[start : start + batch_size]
        firsts = [clip.video[:1] for clip in part]
        own = [_capped_db(first, single[:1]) for first, single in zip(firsts, reconstruct(firsts), strict=True)]
        samples = range(first_sample + start, first_sample + start + len(part))
        for mode in MODES:
            videos = animate(firsts, [clip.caption(mode) for clip in part], samples)
            for clip, first, video, limit in zip(part, firsts, videos, own, strict=True):
                verdict = judge(read(video), clip.claim if mode != "empty" else without_motion(clip.claim))
                results.append(Animated(clip, mode, video, verdict, _capped_db(first, video[:1]), limit))
    return results


def without_motion(claim: Claim) -> Claim:
    """What remains of a claim under an empty caption."""
    return replace(claim, objects=tuple(replace(item, motion=None) for item in claim.objects))


def summary(results: Sequence[Animated], seed: int = 0) -> dict[str, Any]:
    """Per kind of caption: the share that is right per claimed attribute, in shape and colour at once (also per kind of held-out combination)
    and in `all`, and the first frame."""
    return {mode: _summary([result for result in results if result.mode == mode], seed) for mode in MODES}


def _summary(results: Sequence[Animated], seed: int) -> dict[str, Any]:
    verdicts = [result.verdict.attributes for result in results]
    names = dict.fromkeys(name for verdict in verdicts for name in verdict)  # unlike clips may claim unlike things
    shares = {name: wilson([verdict[name] for verdict in verdicts if name in verdict]) for name in names}
    kept = [all(verdict[name] for name in ("shape", "colour") if name in verdict) for verdict in verdicts]
    shares["shape_and_colour"] = wilson(kept)
    shares["all"] = wilson([result.verdict.correct for result in results])
    shares["first_frame_kept"] = wilson([result.first_frame_psnr_db >= result.vae_first_frame_psnr_db - KEPT_DB for result in results])
    kinds = sorted({result.given.kind for result in results if result.given.kind is not None})
    return {
        **{name: share.as_dict() for name, share in shares.items()},
        "kinds": {kind: wilson([ok for ok, result in zip(kept, results, strict=True) if result.given.kind == kind]).as_dict() for kind in kinds},
        "first_frame_psnr_db": bootstrap([result.first_frame_psnr_db for result in results], seed).value,
        "vae_first_frame_psnr_db": bootstrap([result.vae_first_frame_psnr_db for result in results], seed).value,
        "n": len(results),
    }


def _capped_db(source: Video, result: Video) -> float:
    return min(HIGHEST_DB, psnr_db(source, result))
