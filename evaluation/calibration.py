"""The oracle's own error: how many honest clips it accepts, as rendered and after what codecs and autoencoders do, and how many forgeries."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data.files.reader import read_video
from data.world.captions import facts
from data.world.render import render
from data.world.sampling import draw_scene
from data.world.scene import shots
from data.world.stories import STORIES, draw_clip
from data.world.vocabulary import Claim
from data.writer import write_mp4
from evaluation.forgeries import blurred, forgeries, to_bytes
from evaluation.oracle import judge
from runtime.seeding import Stream, generator

Clip = tuple[str, np.ndarray, Claim]  # what kind it is of, uint8 t h w 3, what it claims
Treatment = Callable[[np.ndarray, int], np.ndarray]  # of a video and its number


@dataclass(slots=True)
class Tally:
    """Yes-votes by the strict and the lenient rule; `wrong` counts the attributes that failed, `yes_by_kind` (yes, of) by kind."""

    clips: int = 0
    strict: int = 0
    lenient: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    yes_by_kind: dict[str, tuple[int, int]] = field(default_factory=dict)


def tally(clips: Iterable[Clip]) -> Tally:
    """Judge every clip by its claim."""
    result = Tally()
    for kind, video, claim in clips:
        verdict = judge(video, claim)
        result.clips += 1
        result.strict += verdict.correct
        result.lenient += verdict.lenient
        result.wrong.update(name for name, right in verdict.attributes.items() if not right)
        yes, of = result.yes_by_kind.get(kind, (0, 0))
        result.yes_by_kind[kind] = (yes + verdict.correct, of + 1)
    return result


def honest(difficulty: str, count: int, seed: int, treatment: Treatment, frames: int = 17, size: int = 64) -> Iterator[Clip]:
    """Rendered clips with everything that is true of them, camera, light, sizes and post included."""
    for number in range(count):
        scene = draw_scene(seed, number, difficulty, "val")
        yield difficulty, treatment(render(scene, frames, size, size), number), facts(scene)


def told(difficulty: str, count: int, seed: int, treatment: Treatment, frames: int = 17, size: int = 64) -> Iterator[Clip]:
    """The shots of rendered stories, each judged alone by everything that is true of it."""
    for number in range(count):
        story = draw_clip(seed, number, difficulty, STORIES, frames=frames)
        video, start = treatment(render(story, frames, size, size), number), 0
        for shot, (scene, share) in enumerate(shots(story, frames), 1):
            yield f"shot {shot}", np.ascontiguousarray(video[start : start + len(share)]), facts(scene)
            start += len(share)


def forged(count: int, seed: int, frames: int = 17, size: int = 64) -> Iterator[Clip]:
    """Videos that only pretend to do what they claim, all kinds in turn."""
    yield from ((each.kind, each.video, each.claim) for each in forgeries(count, seed, frames, size))


def exchanged(difficulty: str, count: int, seed: int) -> Iterator[Clip]:
    """Rendered clips, each with the claim of the next: what the oracle says where video and caption have nothing to do with each other."""
    clips = list(honest(difficulty, count, seed, raw))
    for (kind, video, claim), (_, _, other) in zip(clips, clips[1:] + clips[:1], strict=True):
        if claim != other:
            yield kind, video, other


def raw(video: np.ndarray, number: int) -> np.ndarray:
    """As rendered."""
    return video


def round_trip(video: np.ndarray, number: int) -> np.ndarray:
    """To H.264 and back, at the quality of the world's own files."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(path, video, fps=8)
        return read_video(path)


def reconstructed(video: np.ndarray, number: int) -> np.ndarray:
    """About what an autoencoder of 33 dB does: edges blurred by 0.6 px, noise of 0.013, colours off by 0.02."""
    rng = generator(0, Stream.BOOTSTRAP, number)
    soft = np.stack([blurred(np.pad(video[..., c] / 255, ((0, 0), (4, 4), (4, 4)), "edge"), np.full(len(video), 0.6)) for c in range(3)], -1)
    return to_bytes(soft[:, 4:-4, 4:-4] + rng.normal(0, 0.013, video.shape) + rng.choice([-0.02, 0.02], 3))


def both(video: np.ndarray, number: int) -> np.ndarray:
    """A reconstruction of what a file holds."""
    return reconstructed(round_trip(video, number), number)


TREATMENTS: dict[str, Treatment] = {"raw": raw, "mp4": round_trip, "vae": reconstructed, "mp4 + vae": both}
