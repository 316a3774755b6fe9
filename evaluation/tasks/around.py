"""The part of the suite that is about given frames: image to video, extensions, keyframes, connections, spans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import prompt_following
from evaluation.oracle import read
from evaluation.prompt_following import Prompt
from evaluation.statistics import wilson
from evaluation.tasks import given, motion, path
from evaluation.tasks.controls import frozen, halted
from evaluation.tasks.course import Course, course
from evaluation.tasks.given import WITHIN_DB
from evaluation.tasks.identity import appearance
from evaluation.tasks.outcome import SHOWN, Example, Outcome, mask
from evaluation.tasks.rows import Row
from evaluation.tasks.scenes import Pair, Source, World, pairs, sources
from evaluation.tasks.stage import Given, Stage

Video = NDArray[np.uint8]  # t h w c
IDENTITY, JOINT, PACE, MONOTONE = 0.8, 1.5, 0.5, 0.8
SAME = "shape, colour, size kept"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which frames of a clip are given.

    Args:
        spans: [start, stop) pixel frames.
        identity: the bar for what is made; None: it has none.
        goes_on: whether what is made goes on from what is given, so that its motion has bars too.
    """

    name: str
    spans: tuple[tuple[int, int], ...]
    identity: float | None = IDENTITY
    goes_on: bool = False

    def made(self, frames: int) -> list[range]:
        """All spans of a clip that are not given."""
        stops, starts = [0, *(stop for _, stop in self.spans)], [*(start for start, _ in self.spans), frames]
        return [range(stop, start) for stop, start in zip(stops, starts, strict=True) if stop < start]

    def given(self, video: Video) -> Given:
        return [(start, video[start:stop]) for start, stop in self.spans]

    def mask(self, frames: int) -> NDArray[np.bool_]:
        return mask(frames, *self.spans)


def layouts(frames: int, stride_t: int) -> list[Layout]:
    """The ways of giving frames of a clip of the trained length."""
    half, last = frames // 2, frames - 1
    third = max(1, last // stride_t // 3) * stride_t
    return [
        Layout("image to video", ((0, 1),), goes_on=True),
        Layout("extend forwards", ((0, half + 1),), goes_on=True),
        Layout("extend backwards", ((half, frames),), goes_on=True),
        Layout("extend both ways", ((third, frames - third),)),
        Layout("first and last frame", ((0, 1), (last, frames))),
        Layout("keyframes", ((0, 1), (half - 2, half - 1), (frames - 3, frames - 2))),
        Layout("in-betweening", tuple((k, k + 1) for k in range(0, frames, stride_t))),
        Layout("re-cut", ((third, frames - third + 1),)),
    ]


def reconstruction(stage: Stage, layout: Layout, videos: Sequence[Video]) -> list[Video]:
    """Each given piece through the VAE by itself, in its place; the other frames as they are.

    A piece that is no 1 + k * stride_t frames long is filled up with its last frame: left out, what is over would count as perfect.
    """
    found = [video.copy() for video in videos]
    for start, stop in layout.spans:
        more = -(stop - start - 1) % stage.stride_t
        filled = [np.concatenate([video[start:stop], np.repeat(video[stop - 1 : stop], more, axis=0)]) for video in videos]
        for place, piece in enumerate(stage.reconstructed(filled)):
            found[place][start:stop] = piece[: stop - start]
    return found


def around_given(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> list[Outcome]:
    """Every layout on fresh clips, under captions that name the motion alone."""
    clips = sources(world, n)
    real = stage.reconstructed([one.video for one in clips])
    courses = [course(read(video)) for video in real]
    ways = enumerate(layouts(world.frames, stage.stride_t))
    return [_one(stage, layout, clips, real, courses, first_sample + 10_000 * number, seed) for number, layout in ways]


def behind_posts(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Extensions in which something hides the object for a while: is it the same when it comes out again, and has it moved."""
    clips = sources(world, n, posts=True)
    real = stage.reconstructed([one.video for one in clips])
    layout = Layout("behind a post", ((0, 1),), identity=None)
    # No clip is read whole, as a post makes that many times as dear: identity and motion are told from the made frames alone.
    outcome = _one(stage, layout, clips, real, [None] * n, first_sample, seed)
    return replace(outcome, rows=_motion_rows(layout, outcome.figures))  # how given frames are kept is told of clips without posts


def _one(
    stage: Stage, layout: Layout, clips: Sequence[Source], real: Sequence[Video], courses: Sequence[Course | None], first_sample: int, seed: int
) -> Outcome:
    made, kept = _made(stage, layout, clips, first_sample, seed)
    figures = {"given": kept} | _motion(layout, clips, made, real, courses, seed)
    rows = _kept_rows(layout.name, kept) + _motion_rows(layout, figures)
    return Outcome(layout.name, rows, figures, _examples(layout, clips, made))


def _made(stage: Stage, layout: Layout, clips: Sequence[Source], first_sample: int, seed: int) -> tuple[list[Video], dict[str, Any]]:
    """A clip around what is given of each, and how well that is kept."""
    frames, samples = len(clips[0].video), range(first_sample, first_sample + len(clips))
    made, walked = stage.around([layout.given(one.video) for one in clips], frames, [one.motion for one in clips], samples)
    videos = [one.video for one in clips]
    return made, _kept(layout, videos, reconstruction(stage, layout, videos), made, walked, seed)


def _kept(
    layout: Layout, sources: Sequence[Video], back: Sequence[Video], made: Sequence[Video], walked: Sequence[Video], seed: int
) -> dict[str, Any]:
    """How well what was given is kept, as it is shown and, under `walked`, as it comes out before given frames are put in their places."""
    shown = layout.mask(len(sources[0]))

    def summed(videos: Sequence[Video]) -> dict[str, Any]:
        return given.summary([given.kept(a, b, c, shown) for a, b, c in zip(sources, videos, back, strict=True)], seed)

    return summed(made) | {"walked": summed(walked)}


def _kept_rows(name: str, kept: Mapping[str, Any]) -> list[Row]:
    return [
        Row(name, f"given frames within {WITHIN_DB} dB of the VAE, as shown", kept["kept"]),
        Row(name, "given frames below the VAE, as shown", kept["worse_db"], WITHIN_DB, False, "dB"),
        Row(name, "the same, as they come out beside what is made", kept["walked"]["worse_db"], None, False, "dB"),
    ]


def _examples(layout: Layout, clips: Sequence[Source], made: Sequence[Video]) -> list[Example]:
    shown = layout.mask(len(made[0]))
    return [Example(video, one.motion, shown, one.video) for one, video in zip(clips[:SHOWN], made, strict=False)]


def _motion(
    layout: Layout, clips: Sequence[Source], made: Sequence[Video], real: Sequence[Video], courses: Sequence[Course | None], seed: int
) -> dict:
    spans = layout.made(len(real[0]))

    def judged(videos: Sequence[Video], known: Sequence[Course | None]) -> dict:
        every = zip(clips, videos, courses, known, strict=True)
        return motion.summary([motion.continued(video, spans, one.claim, one.velocity(spans), own, whole) for one, video, own, whole in every], seed)

    unread = [None] * len(clips)
    still = [halted(video, spans) for video in real]
    return {"motion": judged(made, unread), "real": judged(real, courses), "frozen": judged(still, unread)}


def _motion_rows(layout: Layout, figures: dict) -> list[Row]:
    name, made, real, still = layout.name, figures["motion"], figures["real"], figures["frozen"]
    pace, joint = (PACE, JOINT) if layout.goes_on else (None, None)

    def beside(*keys: str) -> dict:
        def of(tree: dict) -> float:
            for key in keys:
                tree = tree[key]
            return tree["value"]

        return {"ceiling": of(real), "frozen": of(still)}

    rows = [
        Row(name, SAME, made["identity"], layout.identity, **beside("identity")),
        Row(name, f"moves as the caption says, at {PACE} of its speed or more", made["moves"], **beside("moves")),
        Row(name, "speed, in shares of the caption's", made["pace"], pace, True, "ratio", **beside("pace")),
    ]
    if made.get("joint", {}).get("n"):
        rows += [
            Row(
                name, "velocity error at the joint over real clips'", made["joint"]["velocity"], joint, False, "ratio", **beside("joint", "velocity")
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
    made, walked = stage.around([layout.given(video) for video in whole], frames, [""] * n, samples)
    ends = [_ends(pair, spans) for pair in both]
    kept = _kept(layout, whole, reconstruction(stage, layout, whole), made, walked, seed)

    def judged(videos: Sequence[Video]) -> dict:
        return path.summary([path.connection(video, made_span, own) for video, own in zip(videos, ends, strict=True)])

    def same(videos: Sequence[Video]) -> dict:
        seen = [appearance(read(video[made_span.start : made_span.stop]), pair.first.claim) for video, pair in zip(videos, both, strict=True)]
        return wilson([all(each.values()) for each in seen]).as_dict()

    still, real = [halted(video, [made_span]) for video in whole], stage.reconstructed([pair.first.video for pair in both])
    found, control = judged(made) | {"identity": same(made)}, judged(still) | {"identity": same(still)}
    figures = {"given": kept, "path": found, "frozen": control, "real": {"identity": same(real)}}
    rows = [
        *_kept_rows("connect", kept),
        Row("connect", SAME, found["identity"], IDENTITY, ceiling=figures["real"]["identity"]["value"], frozen=control["identity"]["value"]),
        Row("connect", "goes steadily from one end to the other", found["monotone"], MONOTONE, frozen=control["monotone"]["value"]),
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


def left_part(world: World) -> NDArray[np.bool_]:
    """(h, w) bool: five eighths of every frame, which inpainting keeps."""
    kept = np.zeros((world.height, world.width), bool)
    kept[:, : world.width // 2 + world.width // 8] = True
    return kept


def inside(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Inpainting: the right part of every frame is made anew, the left one stays."""
    clips = sources(world, n)
    kept = left_part(world)
    made = stage.painted([one.video for one in clips], kept, [one.short for one in clips], range(first_sample, first_sample + n))
    pixels, frames = stage.seen(kept), np.ones(world.frames, bool)
    back = stage.reconstructed([one.video for one in clips])
    figures = given.summary([given.kept(one.video, a, b, frames, pixels) for one, a, b in zip(clips, made, back, strict=True)], seed)

    def followed(videos: Sequence[Video]) -> dict:
        prompts = [Prompt(one.short, one.short_claim) for one in clips]
        return wilson([record.verdict.correct for record in prompt_following.judged(prompts, videos)]).as_dict()

    words, real, still = (followed(videos) for videos in (made, back, [frozen(video) for video in back]))
    rows = [
        Row("inpainting", "kept region below the VAE", figures["worse_db"], WITHIN_DB, False, "dB"),
        Row("inpainting", "prompt followed by the whole clip", words, ceiling=real["value"], frozen=still["value"]),
    ]
    examples = [Example(video, one.short, None, one.video) for one, video in zip(clips[:SHOWN], made, strict=False)]
    return Outcome("inpainting", rows, {"given": figures, "share": float(pixels.mean()), "followed": words, "real": real, "frozen": still}, examples)
