"""The part of the suite that is about whole clips: loops, remixes, storyboards, unlike shapes, long videos."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation import prompt_following
from evaluation.prompt_following import Prompt
from evaluation.statistics import paired_shares, wilson
from evaluation.tasks import drift, remix, seam, switches
from evaluation.tasks.controls import frozen
from evaluation.tasks.course import mean_speed
from evaluation.tasks.outcome import SHOWN, Example, Outcome
from evaluation.tasks.rows import Row
from evaluation.tasks.scenes import ROUND, Source, World, changes, sources
from evaluation.tasks.stage import Stage

Video = NDArray[np.uint8]  # t h w c
SEAM, JUMP, POINTS, ON_TIME, SHAPE_POINTS = 1.2, 2.0, 0.10, 0.70, 0.15
STRENGTHS, MIDDLE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 0.6
LASTING = {4: 0.8, 20: 0.5}  # share of clips whose attributes hold and that still move, by multiples of the trained length


def looped(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Loops of what goes round, beside clips from the same words."""
    clips, samples = sources(world, n, (ROUND,)), range(first_sample, first_sample + n)
    prompts, frames = [one.short for one in clips], world.frames - 1
    made, plain = stage.loops(frames, prompts, samples), stage.words(prompts, samples)

    def judged(videos: Sequence[Video]) -> dict:
        return seam.summary([seam.loop(video, one.short_claim, _speed(one)) for video, one in zip(videos, clips, strict=True)], seed)

    followed = [record.verdict.correct for record in prompt_following.judged([Prompt(one.short, one.short_claim) for one in clips], plain)]
    figures = {"loop": judged(made), "frozen": judged([frozen(video) for video in made]), "text_to_video": wilson(followed).as_dict()}
    loop, still = figures["loop"], figures["frozen"]
    behind = paired_shares(followed, loop["followed_of"])
    figures["behind"] = behind.as_dict()
    rows = [
        Row("loop", "place error at the seam over the interior's", loop["place"], SEAM, False, "ratio", frozen=still["place"]["value"]),
        Row("loop", "velocity error at the seam over the interior's", loop["velocity"], SEAM, False, "ratio", frozen=still["velocity"]["value"]),
        Row("loop", "speed, in shares of the caption's", loop["pace"], 0.5, True, "ratio", frozen=still["pace"]["value"]),
        Row("loop", "largest jump at most 2 x the median", loop["even"], frozen=still["even"]["value"]),
        Row("loop", "moves, without jump, with a hidden seam", loop["loops"], frozen=still["loops"]["value"]),
        Row("loop", "prompts followed, below text to video", figures["behind"], POINTS, False, "points", reference=figures["text_to_video"]["value"]),
    ]
    return Outcome("loop", rows, figures, [Example(video, text) for video, text in zip(made[:SHOWN], prompts, strict=False)])


def _speed(one: Source) -> float:
    return mean_speed(one.course)


def remixes(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """Each clip under another one's words, at rising strength."""
    clips, samples = sources(world, n), range(first_sample, first_sample + n)
    others = [clips[(place + 1) % n] for place in range(n)]
    asked = [place for place in range(n) if remix.differing(clips[place].short_claim, others[place].short_claim)]
    videos, prompts = [one.video for one in clips], [other.short for other in others]
    made = [stage.remixed(videos, strength, prompts, samples) for strength in STRENGTHS]
    back = stage.reconstructed(videos)
    results = [[remix.remixed(videos[k], row[k], clips[k].short_claim, others[k].short_claim) for row in made] for k in asked]
    figures = {"remix": remix.summary(results, STRENGTHS, seed)}
    same = [bool(np.abs(a.astype(int) - b).max() <= 1) for a, b in zip(made[0], back, strict=True)]
    plain = prompt_following.judged([Prompt(other.short, other.short_claim) for other in others], stage.words(prompts, samples))
    words = [record.verdict.correct for record in plain]
    behind = paired_shares([words[k] for k in asked], [row[-1].follows for row in results])
    figures |= {"identity": wilson(same).as_dict(), "behind": behind.as_dict(), "text_to_video": wilson([words[k] for k in asked]).as_dict()}
    found = figures["remix"]
    grows = wilson([step["low"] > 0 for step in found["steps"]]).as_dict()
    rows = [
        Row("remix", "strength 0 gives the VAE's reconstruction back", figures["identity"], 1.0),
        Row("remix", "steps of strength at which the distance grows", {"value": grows["value"], "n": len(found["steps"])}, 1.0),
        Row("remix", "distances in the order of strength (without effect: 50 %)", found["ordered"]),
        Row("remix", f"taken from the new prompt at strength {MIDDLE}", found["taken"][STRENGTHS.index(MIDDLE)]),
        Row("remix", f"kept of the old clip at strength {MIDDLE}", found["kept"][STRENGTHS.index(MIDDLE)]),
        Row(
            "remix",
            "new prompt followed at full strength, below text to video",
            figures["behind"],
            POINTS,
            False,
            "points",
            reference=figures["text_to_video"]["value"],
        ),
    ]
    examples = [Example(row[0], f"strength {strength:g}: {prompts[0]}", None, videos[0]) for strength, row in zip(STRENGTHS, made, strict=True)]
    return Outcome("remix", rows, figures, examples)


def storyboards(stage: Stage, world: World, n: int, first_sample: int, seed: int) -> Outcome:
    """One attribute switches at an asked time; `world` says how long the clips are."""
    stories = changes(world, n)
    made = stage.timed([one.prompts for one in stories], [one.switch for one in stories], world.frames, range(first_sample, first_sample + n))
    tolerance = stage.stride_t

    def judged(videos: Sequence[Video]) -> dict:
        return switches.summary(
            [switches.switches(v, one.before, one.after, one.switch, tolerance) for v, one in zip(videos, stories, strict=True)], tolerance, seed
        )

    real, still = judged(stage.reconstructed([one.video for one in stories])), judged([frozen(video) for video in made])
    figures = {"storyboard": judged(made), "real": real, "frozen": still}
    name = f"storyboard, {world.frames} frames"
    found = figures["storyboard"]
    beside = {"ceiling": real["on_time"]["value"], "frozen": still["on_time"]["value"]}
    rows = [
        Row(
            name,
            f"switches within {tolerance} frames of the asked time "
            f"(a random time: {100 * found['by_chance']:.0f} %, always in the middle: {100 * found['in_the_middle']:.0f} %)",
            found["on_time"],
            ON_TIME,
            **beside,
        )
    ]
    rows += [Row(name, f"{key} alone", share, ceiling=real["attributes"][key]["value"]) for key, share in found["attributes"].items()]
    examples = [
        Example(video, " | ".join(one.prompts), None, one.video, f"asked at frame {one.switch}")
        for video, one in zip(made[:SHOWN], stories, strict=False)
    ]
    return Outcome(name, rows, figures, examples)


def shapes(stage: Stage, prompts: Sequence[Prompt], wanted: Sequence[tuple[int, int, int]], first_sample: int) -> Outcome:
    """The same prompts in the trained shape and in others, (frames, height, width)."""
    trained = (stage.frames, stage.height, stage.width)
    samples = range(first_sample, first_sample + len(prompts))
    texts = [prompt.text for prompt in prompts]
    right, rows, figures, examples = {}, [], {}, []
    for shape in (trained, *(shape for shape in wanted if shape != trained)):
        made = stage.words(texts, samples, shape)
        right[shape] = [record.verdict.correct for record in prompt_following.judged(prompts, made)]
        share, name = wilson(right[shape]).as_dict(), "x".join(map(str, shape))
        figures[name] = {"followed": share, "followed_of": right[shape]}
        examples.append(Example(made[0], f"{name}: {texts[0]}"))
        if shape == trained:
            rows.append(Row("any shape", f"prompts followed at {name}, as trained", share))
            continue
        figures[name]["behind"] = paired_shares(right[trained], right[shape]).as_dict()
        behind, reference = figures[name]["behind"], float(np.mean(right[trained]))
        measure = f"{name}: prompts followed, below the trained shape"
        rows.append(Row("any shape", measure, behind, SHAPE_POINTS, False, "points", reference=reference))
    return Outcome("any shape", rows, figures, examples)


def rollouts(stage: Stage, world: World, n: int, first_sample: int, seed: int, times: int = 20) -> Outcome:
    """Long videos of what goes round: do its attributes hold and does it still move, against naive chaining."""
    clips, samples, size = sources(world, n, (ROUND,)), range(first_sample, first_sample + n), 32
    prompts, claims = [one.short for one in clips], [one.short_claim for one in clips]
    frames = _whole(times * world.frames, stage.stride_t)
    speeds = [_speed(one) for one in clips]

    def read_all(make: Callable[..., Iterator[Video]]) -> tuple[list[list[drift.Window]], Video]:
        found, first = [], None
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            whole = np.concatenate(list(make(frames, prompts[part], list(samples[part]))), axis=1)  # b t h w 3
            first = whole[0] if first is None else first
            found += [drift.drift([video], claim, world.frames) for video, claim in zip(whole, claims[part], strict=True)]
        assert first is not None, "at least one clip is rolled out"
        return found, first

    (rolled, shown), (chained, other) = read_all(stage.rolled_out), read_all(stage.chained)
    ours, theirs = drift.curve(rolled, speeds), drift.curve(chained, speeds)
    better = drift.compared(rolled, chained, speeds, seed)
    back = stage.reconstructed([one.video for one in clips])

    def one_window(videos: Sequence[Video]) -> dict:
        return drift.curve([drift.drift([video], claim, world.frames) for video, claim in zip(videos, claims, strict=True)], speeds)

    real, still = one_window(back), one_window([frozen(video) for video in back])
    name, beside = "attributes held, and still moving", {"ceiling": real["lasting"][0]["value"], "frozen": still["lasting"][0]["value"]}
    rows = [Row("rollout", f"{name}, in the first window", ours["lasting"][0], **beside)]
    for multiple, bar in LASTING.items():
        if multiple <= len(ours["lasting"]):
            rows += [
                Row("rollout", f"{name}, at {multiple} x the trained length", ours["lasting"][multiple - 1], bar, **beside),
                Row("rollout", f"the same, above naive chaining at {multiple} x", better["lasting"][multiple - 1], 0.0, True, "points", sure=True),
                Row("rollout", f"attributes held at {multiple} x", ours["held"][multiple - 1]),
                Row("rollout", f"still moving at {multiple} x", ours["moves"][multiple - 1]),
            ]
    rows.append(Row("rollout", f"{name}, above naive chaining, mean over time", better["mean"], 0.0, True, "points", sure=True))
    figures = {"rollout": ours, "chained": theirs, "better": better, "real": real, "frozen": still, "frames": frames}
    examples = [Example(shown, prompts[0], note=f"{frames} frames in windows"), Example(other, prompts[0], note="the same by naive chaining")]
    return Outcome("rollout", rows, figures, examples)


def _whole(frames: int, step: int) -> int:
    return 1 + -(-(frames - 1) // step) * step
