"""Whether a video does what its prompt says: prompts in, verdicts of the strict oracle out, with the controls that give the figure its meaning."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import factorial, prod
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.vocabulary import Attributes, Claim
from evaluation.oracle import Verdict, in_view, judge, read
from evaluation.statistics import bootstrap, wilson
from runtime.seeding import Stream, generator

Video = NDArray[np.uint8]  # t h w c
# Prompts and the number of each sample in, one video each out. Its noise hangs on the sample number, so the batch size changes nothing.
Generate = Callable[[Sequence[str], Sequence[int]], Sequence[Video]]
OF_OBJECTS = ("shape", "colour", "motion", "size")
OF_CLIPS = ("background", "camera", "light")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and what it claims; `kind` is the kind of held-out combination it belongs to, None for a seen one."""

    text: str
    claim: Claim
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A video that was made for a prompt (or belongs to its claim), what the oracle read from it, and whether that is right."""

    prompt: Prompt
    video: Video
    state: Any
    verdict: Verdict


def judged(prompts: Sequence[Prompt], videos: Iterable[Video]) -> list[Record]:
    """Judge each video against its own prompt's claim."""
    records = []
    for prompt, video in zip(prompts, videos, strict=True):
        state = read(video)
        records.append(Record(prompt, video, state, judge(state, prompt.claim)))
    return records


def follow(generate: Generate, prompts: Sequence[Prompt], first_sample: int = 0, batch_size: int = 64) -> list[Record]:
    """Generate a video for every prompt and judge it.

    Args:
        first_sample: the sample number of the first prompt; two calls of one evaluation must not share numbers, or they share noise.
    """
    records: list[Record] = []
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        samples = range(first_sample + start, first_sample + start + len(part))
        records += judged(part, generate([prompt.text for prompt in part], samples))
    return records


def derangement(n: int, seed: int) -> list[int]:
    """A partner for each of `n` items that is never the item itself: one random cycle through all of them.

    Raises: ValueError if n < 2.
    """
    if n < 2:
        raise ValueError(f"a shuffled control needs at least 2 prompts, got {n}. Raise prompts.")
    order = generator(seed, Stream.BOOTSTRAP, 1).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, -1)
    return partner.tolist()


def shuffled(records: Sequence[Record], seed: int) -> list[Record]:
    """The same videos judged against other prompts' claims: what a model would reach that makes good video and ignores its prompt."""
    others = [records[partner].prompt for partner in derangement(len(records), seed)]
    return [Record(other, record.video, record.state, judge(record.state, other.claim)) for record, other in zip(records, others, strict=True)]


def swapped(records: Sequence[Record]) -> list[Record]:
    """The videos of two objects judged with the objects' colours exchanged in the claim.

    A model that makes both objects but gives attributes to either is right here as often as on its own prompts; one that binds them never is.
    Pairs that differ in nothing but colour are left out: exchanged they are the same claim.
    """
    exchanged = []
    for record in records:
        objects = record.prompt.claim.objects
        if len(objects) == 2 and replace(objects[0], colour=None) != replace(objects[1], colour=None):
            first, second = objects
            claim = replace(record.prompt.claim, objects=(replace(first, colour=second.colour), replace(second, colour=first.colour)))
            prompt = replace(record.prompt, claim=claim)
            exchanged.append(Record(prompt, record.video, record.state, judge(record.state, claim)))
    return exchanged


def by_count(records: Sequence[Record]) -> dict[str, Any]:
    """The strict verdict per number of objects."""
    counts = sorted({record.prompt.claim.count for record in records})
    return {str(count): wilson([record.verdict.correct for record in records if record.prompt.claim.count == count]).as_dict() for count in counts}


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """{value, low, high, n} of the strict verdict, the same under `lenient`, and under `attributes` for each attribute that is claimed.

    `graded` is the mean over samples of the share of their attributes that are right: it moves long before whole prompts are followed.
    """
    names = dict.fromkeys(name for record in records for name in record.verdict.attributes)
    attributes = {
        name: wilson([record.verdict.attributes[name] for record in records if name in record.verdict.attributes]).as_dict() for name in names
    }
    return {
        **wilson([record.verdict.correct for record in records]).as_dict(),
        "lenient": wilson([record.verdict.lenient for record in records]).as_dict(),
        "graded": bootstrap([_graded(record.verdict) for record in records], 0).as_dict(),
        "attributes": attributes,
    }


def _graded(verdict: Verdict) -> float:
    """The share of the claimed attributes that are right; of a claim without any, whether it is."""
    return fmean(verdict.attributes.values()) if verdict.attributes else float(verdict.correct)


def by_prompt(records: Sequence[Record]) -> dict[str, list[Any]]:
    """What `summary` draws together, prompt by prompt, so that two generators asked the same can be compared in pairs."""
    return {"all_of": [bool(record.verdict.correct) for record in records], "graded_of": [round(_graded(record.verdict), 4) for record in records]}


def framing(records: Sequence[Record]) -> dict[str, Any]:
    """Whether the picture's edge cuts objects off: `framed`, the share of frames in which all that the prompt claims are wholly in view, as the
    mean over samples; `framed_of`, of each sample."""
    shares = [float(in_view(record.state, record.prompt.claim.count).mean()) for record in records]
    return {"framed": bootstrap(shares, 0).as_dict(), "framed_of": [round(share, 4) for share in shares]}


def by_kind(records: Sequence[Record]) -> dict[str, Any]:
    """The strict verdict per kind of held-out combination."""
    kinds = sorted({record.prompt.kind for record in records if record.prompt.kind is not None})
    return {kind: wilson([record.verdict.correct for record in records if record.prompt.kind == kind]).as_dict() for kind in kinds}


def chance(prompts: Sequence[Prompt], values: Mapping[str, int]) -> dict[str, float]:
    """The exact share a generator gets right that makes the claimed number of objects and draws every attribute uniformly.

    Args:
        values: how many values each attribute has in this world: {"shape": 3, "colour": 6, ...}; attributes it lacks are left out.
    Returns: "all", and each attribute's by itself; the mean over the prompts where prompts claim different things.
    """
    names = [name for name in (*OF_OBJECTS, *OF_CLIPS) if name in values]
    single = {name: [_chance(prompt.claim, [name], values) for prompt in prompts if _claims(prompt.claim, name)] for name in names}
    result = {"all": float(np.mean([_chance(prompt.claim, names, values) for prompt in prompts]))}
    return result | {name: float(np.mean(shares)) for name, shares in single.items() if shares}


def _claims(claim: Claim, name: str) -> bool:
    return any(getattr(item, name) is not None for item in ((claim,) if name in OF_CLIPS else claim.objects))


def _chance(claim: Claim, names: Sequence[str], values: Mapping[str, int]) -> float:
    clip = prod(values[name] for name in names if name in OF_CLIPS and getattr(claim, name) is not None)
    own = [name for name in names if name in OF_OBJECTS]
    # Objects stand in no order: unlike ones may be drawn in any of their orders.
    told = [tuple(getattr(item, name) for name in own) for item in claim.objects]
    orders = factorial(len(told)) // prod(factorial(told.count(kind)) for kind in set(told))
    combinations = prod(values[name] for item in claim.objects for name in own if _has(item, name))
    return min(1.0, orders / (combinations * clip))


def _has(item: Attributes, name: str) -> bool:
    return getattr(item, name) is not None
