"""The part of the suite that is about size: does a small draft foretell the full size, and does refining it keep the layout and the prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation import prompt_following
from evaluation.oracle import read
from evaluation.prompt_following import Prompt
from evaluation.statistics import bootstrap, paired_bootstrap, wilson
from evaluation.tasks.course import Course, course
from evaluation.tasks.outcome import Example, Outcome
from evaluation.tasks.rows import Row
from evaluation.tasks.stage import Stage, Video

NAME = "draft and full size"
FACTOR, STRENGTH = 2, 0.6
LOST = 0.5  # of the shorter side: as far as an object that is not there counts


def drafts(stage: Stage, prompts: Sequence[Prompt], first_sample: int, seed: int) -> Outcome:
    """Each prompt in the trained size as a draft, in twice the size from the same noise, from other noise, and refined from the draft."""
    texts, n = [prompt.text for prompt in prompts], len(prompts)
    samples, others = range(first_sample, first_sample + n), range(first_sample + n, first_sample + 2 * n)
    shape = stage.frames, FACTOR * stage.height, FACTOR * stage.width
    small = stage.drafted(texts, samples, FACTOR)
    large = {
        "same": stage.words(texts, samples, shape),
        "other": stage.words(texts, others, shape),
        "refined": stage.refined(texts, samples, FACTOR, STRENGTH),
    }
    layouts = [_course(video) for video in small]
    away = {name: [_apart(layout, _course(video)) for layout, video in zip(layouts, videos, strict=True)] for name, videos in large.items()}
    followed = {name: [record.verdict.correct for record in prompt_following.judged(prompts, videos)] for name, videos in large.items()}
    figures: dict[str, Any] = {name: {"away": bootstrap(away[name], seed).as_dict(), "followed": wilson(followed[name]).as_dict()} for name in large}
    nearer = paired_bootstrap(away["other"], away["same"], seed)
    figures["nearer"] = nearer.as_dict()
    elsewhere = f"{figures['other']['away']['value']:.3f}"
    rows = [
        Row(NAME, "full size nearer to its draft than to another's, in shorter sides", figures["nearer"], 0.0, True, "plain", sure=True),
        Row(NAME, f"distance of the object, same noise (other noise: {elsewhere})", figures["same"]["away"], None, False, "plain"),
        Row(NAME, f"distance of the object, refined (other noise: {elsewhere})", figures["refined"]["away"], None, False, "plain"),
        Row(NAME, f"prompts followed in {FACTOR} x the size", figures["same"]["followed"]),
        Row(NAME, "prompts followed, refined from the draft", figures["refined"]["followed"]),
    ]
    examples = [Example(video, texts[0], note=name) for name, video in (("draft", small[0]), *((name, videos[0]) for name, videos in large.items()))]
    return Outcome(NAME, rows, figures, examples)


def _course(video: Video) -> Course:
    return course(read(video))


def _apart(one: Course, other: Course) -> float:
    """Mean distance of the object over frames, in shorter sides."""
    both = one.seen & other.seen
    distance = np.linalg.norm(one.at[:, :2] - other.at[:, :2], axis=1)
    return float(np.where(both, np.minimum(distance, LOST), LOST).mean())
