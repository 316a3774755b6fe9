"""The part of the suite that is about given frames: image to video, extensions, keyframes, connections, spans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.oracle import read
from evaluation.tasks import given, motion, path
from evaluation.tasks.controls import halted
from evaluation.tasks.course import Course, course
from evaluation.tasks.given import WITHIN_DB
from evaluation.tasks.outcome import SHOWN, Example, Outcome, mask
from evaluation.tasks.rows import Row
from evaluation.tasks.scenes import Pair, Source, World, pairs, sources
from evaluation.tasks.stage import Given, Stage

Video = NDArray[np.uint8]  # t h w c
KEPT, IDENTITY, JOINT, PACE, MONOTONE = 1.0, 0.8, 1.5, 0.5, 0.8


@dataclass(frozen=True, slots=True)
class Layout:
    """Which frames of a clip are given.

    Args:
        spans: [start, stop) pixel frames.
        made: a span of frames that were made, whose motion is judged; None: it is not.
    """

    name: str
    spans: tuple[tuple[int, int], ...]
    made: range | None = None

    def given(self, video: Video) -> Given:
        return [(start, video[start:stop]) for start, stop in self.spans]

    def mask(self, frames: int) -> NDArray[np.bool_]:
        return mask(frames, *self.spans)


def layouts(frames: int, stride_t: int) -> list[Layout]:
    """The ways of giving frames of a clip of the trained length."""
    half, last = frames // 2, frames - 1
    third = max(1, last // stride_t // 3) * stride_t
    return [
        Layout("image to video", ((0, 1),), range(1, frames)),
        Layout("extend forwards", ((0, half + 1),), range(half + 1, frames)),
        Layout("extend backwards", ((half, frames),), range(half)),
        Layout("extend both ways", ((third, frames - third),), None),
        Layout("first and last frame", ((0, 1), (last, frames)), None),
        Layout("keyframes", ((0, 1), (half - 2, half - 1), (frames - 3, frames - 2)), None),
        Layout("in-betweening", tuple((k, k + 1) for k in range(0, frames, stride_t)), None),
        Layout("re-cut", ((third, frames - third + 1),), None),
    ]


def reconstruction(stage: Stage, layout: Layout, videos: Sequence[Video]) -> list[Video]:
    """Each given piece through the VAE by itself, in its place; the other frames as they are."""
    found = [video.copy() for video in videos]
    for start, stop in layout.spans:
        step = stage.stride_t
        usable = 1 + (stop - start - 1) // step * step
        for place, piece in enumerate(stage.reconstructed([video[start : start + usable] for video in videos])):
            found[place][start : start + usable] = piece
    return found


def around_given(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> list[Outcome]:
    """Every layout on fresh clips, under captions that name the motion alone."""
    clips = sources(world, n)
    real = stage.reconstructed([one.video for one in clips])
    ways = enumerate(layouts(world.frames, stage.stride_t))
    return [_one(stage, layout, clips, real, first_sample + 10_000 * number, seed) for number, layout in ways]


def behind_posts(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Extensions in which something hides the object for a while: is it the same when it comes out again."""
    clips = sources(world, n, posts=True)
    layout = layouts(world.frames, stage.stride_t)[0]
    outcome = _one(stage, layout, clips, stage.reconstructed([one.video for one in clips]), first_sample, seed)
    figures = outcome.figures["motion"]
    row = Row("behind a post", "shape, colour, size kept", figures["identity"], ceiling=outcome.figures["real"]["identity"]["value"])
    return Outcome("behind a post", [row], outcome.figures, outcome.examples)


def _one(stage: Stage, layout: Layout, clips: Sequence[Source], real: Sequence[Video], first_sample: int, seed: int) -> Outcome:
    frames = len(clips[0].video)
    samples = range(first_sample, first_sample + len(clips))
    made = stage.around([layout.given(one.video) for one in clips], frames, [one.motion for one in clips], samples)
    shown = layout.mask(frames)
    back = reconstruction(stage, layout, [one.video for one in clips])
    kept = given.summary([given.kept(one.video, video, own, shown) for one, video, own in zip(clips, made, back, strict=True)], seed)
    rows = [
        Row(layout.name, f"given frames within {WITHIN_DB} dB of the VAE", kept["kept"]),
        Row(layout.name, "given frames below the VAE", kept["worse_db"], WITHIN_DB, False, "dB"),
    ]
    figures = {"given": kept}
    if layout.made is not None:
        figures |= _motion(layout, layout.made, clips, made, real, seed)
        rows += _motion_rows(layout.name, figures)
    examples = [Example(video, one.motion, shown, one.video) for one, video in zip(clips[:SHOWN], made, strict=False)]
    return Outcome(layout.name, rows, figures, examples)


def _motion(layout: Layout, span: range, clips: Sequence[Source], made: Sequence[Video], real: Sequence[Video], seed: int) -> dict:
    courses = [course(read(video)) for video in real]

    def judged(videos: Sequence[Video]) -> dict:
        results = [motion.continued(video, span, one.claim, one.velocity(span), own) for one, video, own in zip(clips, videos, courses, strict=True)]
        return motion.summary(results, seed)

    still = [halted(video, span) for video in real]
    return {"motion": judged(made), "real": judged(real), "frozen": judged(still)}


def _motion_rows(name: str, figures: dict) -> list[Row]:
    made, real, still = figures["motion"], figures["real"], figures["frozen"]

    def beside(*keys: str) -> dict:
        def of(tree: dict) -> float:
            for key in keys:
                tree = tree[key]
            return tree["value"]

        return {"ceiling": of(real), "frozen": of(still)}

    rows = [
        Row(name, "shape, colour, size kept", made["identity"], IDENTITY, **beside("identity")),
        Row(name, f"moves as the caption says, at {PACE} of its speed or more", made["moves"], **beside("moves")),
        Row(name, "speed, in shares of the caption's", made["pace"], PACE, True, "ratio", **beside("pace")),
    ]
    if made.get("joint", {}).get("n"):
        rows += [
            Row(
                name, "velocity error at the joint over real clips'", made["joint"]["velocity"], JOINT, False, "ratio", **beside("joint", "velocity")
            ),
            Row(name, "place error at the joint over real clips'", made["joint"]["place"], None, False, "ratio", **beside("joint", "place")),
            Row(name, "smooth joints", made["joint"]["smooth"], **beside("joint", "smooth")),
        ]
    return rows


def connected(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Two clips of objects alike at unlike places: the first one's beginning and the second one's end, and all between made."""
    both, frames, step = pairs(world, n), world.frames, stage.stride_t
    spans = (0, 1 + step), (frames - 1 - step, frames)
    made_span = range(spans[0][1], spans[1][0])
    whole = [_spliced(pair, spans) for pair in both]
    layout = Layout("connect", spans)
    samples = range(first_sample, first_sample + n)
    made = stage.around([layout.given(video) for video in whole], frames, [""] * n, samples)
    ends = [_ends(pair, spans) for pair in both]
    back = reconstruction(stage, layout, whole)
    kept = given.summary([given.kept(a, b, c, layout.mask(frames)) for a, b, c in zip(whole, made, back, strict=True)], seed)

    def judged(videos: Sequence[Video]) -> dict:
        return path.summary([path.connection(video, made_span, own) for video, own in zip(videos, ends, strict=True)])

    figures = {"given": kept, "path": judged(made), "frozen": judged([halted(video, made_span) for video in whole])}
    rows = [
        Row("connect", "given frames below the VAE", kept["worse_db"], WITHIN_DB, False, "dB"),
        Row(
            "connect", "goes steadily from one end to the other", figures["path"]["monotone"], MONOTONE, frozen=figures["frozen"]["monotone"]["value"]
        ),
    ]
    examples = [Example(video, "", layout.mask(frames), whole[k]) for k, video in enumerate(made[:SHOWN])]
    return Outcome("connect", rows, figures, examples)


def _spliced(pair: Pair, spans: tuple[tuple[int, int], tuple[int, int]]) -> Video:
    """The first clip's beginning and the second one's end; between them what nobody is shown."""
    video = pair.first.video.copy()
    video[spans[1][0] :] = pair.second.video[spans[1][0] :]
    return video


def _ends(pair: Pair, spans: tuple[tuple[int, int], tuple[int, int]]) -> Course:
    at, seen = pair.first.course.at.copy(), mask(len(pair.first.course), *spans)
    at[spans[1][0] :] = pair.second.course.at[spans[1][0] :]
    return Course(at, seen)


def inside(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Inpainting: the right half of every frame is made anew, the left one stays."""
    clips = sources(world, n)
    kept = np.zeros((world.height, world.width), bool)
    kept[:, : world.width // 2 + world.width // 8] = True
    made = stage.painted([one.video for one in clips], kept, [one.short for one in clips], range(first_sample, first_sample + n))
    pixels, frames = stage.seen(kept), np.ones(world.frames, bool)
    back = stage.reconstructed([one.video for one in clips])
    figures = given.summary([given.kept(one.video, a, b, frames, pixels) for one, a, b in zip(clips, made, back, strict=True)], seed)
    rows = [Row("inpainting", "kept region below the VAE", figures["worse_db"], WITHIN_DB, False, "dB")]
    examples = [Example(video, one.short, None, one.video) for one, video in zip(clips[:SHOWN], made, strict=False)]
    return Outcome("inpainting", rows, {"given": figures, "share": float(pixels.mean())}, examples)
