"""The whole evaluation of a run: real clips, prompts and two or three callables in; figures and what to show of them out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.buckets import TooShort, Windows
from data.files.reader import read_video
from data.index import read_index
from data.transforms import fit, fit_box
from data.world.captions import claim, prompt_for, said
from data.world.sampling import draw_scene
from data.world.splits import heldout, motions
from data.world.vocabulary import COLOURS, PLAIN_BACKGROUNDS, SHAPES, Attributes, Claim
from evaluation import image_to_video, prompt_following
from evaluation.autoencoder import Reconstruct, Tokenizer, beside, pictures
from evaluation.gallery import Result, choose
from evaluation.image_to_video import Animate, Given
from evaluation.nearest import Training, memorisation
from evaluation.prompt_following import Generate, Prompt, Record
from evaluation.reconstruction import Boxes
from evaluation.video_features import ClipFeatures, distances

Video = NDArray[np.uint8]  # t h w c
# Sample numbers of the four parts of an evaluation: unlike ranges, so that no two share noise.
SEEN_FROM, ANIMATED_FROM, ANIMATED_SEEN_FROM = 100_000, 200_000, 300_000


@dataclass(frozen=True, slots=True)
class Clip:
    """A real clip of the world: its pixels, what its short captions claim, where its objects are, and a caption of two kinds."""

    video: Video
    claim: Claim
    boxes: Sequence[Boxes]
    short: str
    motion: str

    def fitted(self, height: int, width: int) -> "Clip":
        """In another size, as training fits clips: what the edge cuts off is still claimed, and its box reaches beyond the picture."""
        size = self.video.shape[1], self.video.shape[2]
        if size == (height, width):
            return self
        boxes = [[fit_box(box, size, height, width) for box in frame] for frame in self.boxes]
        return replace(self, video=fit(self.video, height, width), boxes=boxes)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Args:
        prompts: with held-out combinations, the kinds taking turns.
        seen: prompts with combinations that training showed.
        animated: clips whose first frame is given, under three captions each: so many of held-out combinations, so many of seen ones.
        difficulty: of the world the run was trained on.
        seed: of prompts, noise, the shuffled control and the bootstrap.
        fps, clips_fps: of the videos that are made, and of the real clips.
    """

    prompts: int
    seen: int
    animated: int
    difficulty: str
    seed: int
    batch_size: int = 64
    fps: float = 8.0
    clips_fps: float = 8.0

    def __post_init__(self) -> None:
        for name in ("prompts", "seen", "animated"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}={getattr(self, name)} measures nothing: at least 2. Set {name}.")


def draw_prompts(count: int, seed: int, difficulty: str, split: str) -> list[Prompt]:
    """Prompts of the world: `heldout` takes turns among the kinds of held-out combinations, `val` holds seen ones."""
    rule, prompts = heldout(difficulty), []
    for number in range(count):
        scene = draw_scene(seed, number, difficulty, split)
        first = scene.objects[0]
        what = claim(scene)
        prompts.append(Prompt(prompt_for(what, seed, number), what, rule.kind(first.shape, first.colour, first.motion)))
    return prompts


def read_clips(folder: Path, count: int) -> list[Clip]:
    """The first `count` clips of a split that make_world.py wrote, or all if there are fewer.

    Raises: ValueError if the split has no clips, or index.jsonl and truth.jsonl are not of the same ones.
    """
    if not (folder / "index.jsonl").is_file():
        raise ValueError(f"{folder} holds no index of clips. Run make_world.py with {folder.name}=128 to its end, and set world to its folder.")
    index = read_index(folder / "index.jsonl")
    labels = _lines(folder / "index.jsonl", count)
    truths = _lines(folder / "truth.jsonl", count)
    clips = []
    for row, label, truth in zip(index.rows, labels, truths, strict=False):
        if label["path"] != truth["path"]:
            raise ValueError(f"{folder}: index.jsonl has {label['path']} where truth.jsonl has {truth['path']}. Make the world again.")
        boxes = [[item["box"] for item in frame["objects"]] for frame in truth["frames"]]
        clips.append(Clip(read_video(row.path), _claim(label["labels"]), boxes, row.captions["short"][0], row.captions["motion"][0]))
    return clips


def evaluate_vae(
    clips: Sequence[Clip],
    reconstruct: Reconstruct,
    seed: int,
    batch_size: int = 64,
    tokenizer: Tokenizer | None = None,
    frozen: Sequence[ClipFeatures] = (),
) -> Result:
    """The autoencoder on real held-out clips: picture measures, and whether the oracle still reads them (the ceiling of any generator)."""
    sources = [clip.video for clip in clips]
    results = [video for start in range(0, len(clips), batch_size) for video in reconstruct(sources[start : start + batch_size])]
    own = [Prompt(clip.short, clip.claim) for clip in clips]
    records = prompt_following.judged(own, results)
    raw = prompt_following.judged(own, sources)
    figures = pictures(sources, results, [clip.boxes for clip in clips], seed, tokenizer, frozen)
    figures["ceiling"] = {
        **prompt_following.summary(records),
        "framed": prompt_following.framing(records)["framed"],
        "mp4": prompt_following.summary(raw) | {"framed": prompt_following.framing(raw)["framed"]},
    }
    figures["ceiling_of"] = prompt_following.by_prompt(records)["all_of"]
    sheet = [row for clip, record in zip(clips[:8], records, strict=False) for row in ((clip.video, "source: " + clip.short), _row(record))]
    return Result(figures, {"reconstructions": beside(sources, results, [clip.short for clip in clips])}, sheet)


def evaluate_flow(
    plan: Plan,
    clips: Sequence[Clip],
    seen_clips: Sequence[Clip],
    generate: Generate,
    animate: Animate,
    reconstruct: Reconstruct,
    tokenizer: Tokenizer | None = None,
    frozen: Sequence[ClipFeatures] = (),
    training: Training | str | None = None,
) -> Result:
    """A generator: prompt following with its controls, image to video, how far its clips lie from real and from training ones, and the VAE behind it.

    Args:
        clips: of held-out combinations, in the size of the videos that are made.
        seen_clips: that training did not show either, of combinations that it did; likewise.
        frozen: features besides our own that distances are taken over.
        training: what samples are compared with to see whether they repeat it; why there is nothing to compare with; None leaves that out.
    """
    unseen = draw_prompts(plan.prompts, plan.seed, plan.difficulty, "heldout")
    seen = draw_prompts(plan.seen, plan.seed, plan.difficulty, "val")
    records = prompt_following.follow(generate, unseen, 0, plan.batch_size)
    seen_records = prompt_following.follow(generate, seen, SEEN_FROM, plan.batch_size)
    animated, animated_seen = (
        image_to_video.animate_all(animate, reconstruct, _given(part[: plan.animated], plan.difficulty), first, plan.batch_size)
        for part, first in ((clips, ANIMATED_FROM), (seen_clips, ANIMATED_SEEN_FROM))
    )
    vae = evaluate_vae(clips, reconstruct, plan.seed, plan.batch_size, tokenizer, frozen)

    overall = prompt_following.summary(records)
    chances = prompt_following.chance(unseen, values(plan.difficulty))
    figures = {
        "prompt_following": {
            "all": {key: overall[key] for key in ("value", "low", "high", "n")},
            "lenient": overall["lenient"],
            "graded": overall["graded"],
            "attributes": overall["attributes"],
            "kinds": prompt_following.by_kind(records),
            "seen": prompt_following.summary(seen_records),
            **prompt_following.by_prompt(records),
            **prompt_following.framing(records),
            "seen_of": prompt_following.by_prompt(seen_records)["all_of"],
        },
        "chance": chances.pop("all"),
        "chance_attributes": chances,
        "shuffled": prompt_following.summary(prompt_following.shuffled(records, plan.seed)),
        **_binding(records),
        **vae.figures,
        "generated": _from_real(plan, records, clips, frozen),
        "image_to_video": image_to_video.summary(animated, plan.seed),
        "image_to_video_seen": image_to_video.summary(animated_seen, plan.seed),
    }
    chosen, drawn = choose([record.verdict.correct for record in records])
    gallery = {
        "drawn": drawn,
        "prompts": [
            {
                "video": records[place].video,
                "prompt": records[place].prompt.text,
                "kind": records[place].prompt.kind,
                "correct": records[place].verdict.correct,
                "attributes": records[place].verdict.attributes,
            }
            for place in chosen
        ],
        "image_to_video": [
            {
                "given": item.given.video[:1],
                "video": item.video,
                "mode": item.mode,
                "caption": item.given.caption(item.mode),
                "attributes": item.verdict.attributes,
            }
            for item in _shown_animated(animated)
        ],
    }
    if training is not None:
        parts = {"heldout": (records, clips), "seen": (seen_records, seen_clips)}
        figures["memorisation"], gallery["nearest"] = _from_training(plan, training, parts)
    wrong = [record for record in records[16:] if not record.verdict.correct][:8]
    sheet = [_row(record) for record in [*records[:16], *wrong]]
    sheet += [(item.video, f"first frame given, “{item.given.caption(item.mode)}”: {_marks(item.verdict)}") for item in _shown_animated(animated)]
    return Result(figures, gallery, sheet)


def in_shape(video: Video, like: Video, fps: float, wanted_fps: float) -> Video:
    """A real clip of `fps` as training sees it: the middle window of as many frames as `like` has, at its rate, fitted to its size.

    Whole clips would be compared by other stretches of time than samples are, and would lie farther from training clips for that alone.

    Raises: TooShort if it does not last as long.
    """
    frames, height, width = like.shape[:3]
    return fit(video[Windows(np.arange(len(video)) / fps, frames, wanted_fps).pick(0.5)], height, width)


def _from_real(plan: Plan, records: Sequence[Record], clips: Sequence[Clip], frozen: Sequence[ClipFeatures]) -> dict[str, Any]:
    """How far the videos of held-out prompts lie from as many real held-out clips: both are drawn from the same law of scenes."""
    n = min(len(records), len(clips))
    made = [record.video for record in records[:n]]
    try:
        real = [in_shape(clip.video, video, plan.clips_fps, plan.fps) for clip, video in zip(clips, made, strict=False)]
    except TooShort as error:
        return {"n": n, "why": f"a real clip {error}."}
    return distances(real, made, plan.seed, frozen=frozen) | {"n": n}


def _from_training(
    plan: Plan, training: Training | str, parts: Mapping[str, tuple[Sequence[Record], Sequence[Clip]]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Whether samples repeat training clips, and the nearest pairs with their prompts; or why that is not known."""
    if isinstance(training, str):
        return {"why": training}, []
    try:
        videos = {
            name: ([record.video for record in records], [in_shape(clip.video, records[0].video, plan.clips_fps, plan.fps) for clip in clips])
            for name, (records, clips) in parts.items()
        }
    except TooShort as error:
        return {"why": f"a real clip {error}."}, []
    figures, pairs = memorisation(training, videos)
    return figures, [pair | {"prompt": parts[pair["part"]][0][pair["place"]].prompt.text} for pair in pairs]


def _given(clips: Sequence[Clip], difficulty: str) -> list[Given]:
    rule = heldout(difficulty)
    firsts = [clip.claim.objects[0] for clip in clips]
    kinds = [rule.kind(first.shape or "", first.colour or "", first.motion or "") for first in firsts]
    return [Given(clip.video, clip.claim, clip.short, clip.motion, kind) for clip, kind in zip(clips, kinds, strict=True)]


def _binding(records: Sequence[Record]) -> dict[str, Any]:
    """Where prompts name two objects: the verdict per number of objects, and with the objects' colours exchanged."""
    exchanged = prompt_following.swapped(records)
    if not exchanged:
        return {}
    return {"objects": prompt_following.by_count(records), "swapped": prompt_following.summary(exchanged)}


def values(difficulty: str) -> dict[str, int]:
    """How many values each attribute has at this level. At `standard` and `hard` backgrounds, cameras and lights are not drawn evenly: they
    are left out, and chance comes out too high."""
    own = {"shape": len(SHAPES), "colour": len(COLOURS), "motion": len(motions(difficulty))}
    return own | ({"background": len(PLAIN_BACKGROUNDS)} if difficulty in ("easy", "sora") else {})


def _lines(path: Path, count: int) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def _claim(labels: Mapping[str, Any]) -> Claim:
    """What the short captions claim of a clip whose labels tell everything."""
    objects = tuple(Attributes(**item) for item in labels["objects"])
    return said(Claim(objects, labels["background"], labels.get("camera"), labels.get("light"), labels.get("occluder")), "short")


def _shown_animated(results: Sequence[image_to_video.Animated]) -> list[image_to_video.Animated]:
    by_mode = {mode: [item for item in results if item.mode == mode] for mode in image_to_video.MODES}
    return [*by_mode["motion"][:4], *by_mode["empty"][4:6]]


def _row(record: Record) -> tuple[Video, str]:
    return record.video, f"{record.prompt.text}: {_marks(record.verdict)}"


def _marks(verdict: Any) -> str:
    wrong = [name for name, right in verdict.attributes.items() if not right]
    return f"wrong: {', '.join(wrong)}" if wrong else "all right"
