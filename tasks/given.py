"""Video around given pictures and clips: each task is a choice of where on the clip's time line they stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch

from flow.generate import Prompt, Timed
from runtime.build import ConfigError
from tasks import sources
from tasks.task import Files, Plan, Segment, Studio


def one(paths: Sequence[str], option: str, task: str) -> str:
    """The only path.

    Raises: ConfigError if there is none, or there are several.
    """
    if len(paths) != 1:
        raise ConfigError(f"task={task} wants one {option}, got {len(paths)}. Give {option} FILE once.")
    return paths[0]


def given_frames(segments: Sequence[Segment], frames: int) -> np.ndarray:
    """(frames,) bool: which pixel frames are given."""
    mask = np.zeros(frames, bool)
    for segment in segments:
        mask[segment.start : segment.start + len(segment.video)] = True
    return mask


def cut_short(what: str, found: int, room: int) -> tuple[str, ...]:
    """What to tell of given frames that reach beyond the clip.

    Args:
        what: the option and its file.
        found, room: frames of the file, and those from its place to the clip's end.
    """
    if found <= room:
        return ()
    return (f"{what}: the last {found - room} of its {found} frames lie beyond the clip's end and are left out. Set frames higher to keep them.",)


def planned(studio: Studio, segments: Sequence[Segment], frames: int, begin: int = 0, windows: bool = True) -> Plan:
    """A plan around segments.

    Raises: ConfigError if they leave nothing to make.
    """
    mask = given_frames(segments, frames)
    if mask.all():
        raise ConfigError(f"the given frames fill all {frames} frames of the clip: nothing is left to make. Set frames higher.")
    source = np.zeros((frames, studio.height, studio.width, 3), np.uint8)
    for segment in segments:
        source[segment.start : segment.start + len(segment.video)] = segment.video
    canvas, pieces = studio.placed(segments, frames)
    return Plan(canvas, frames, mask, begin, windows=windows, source=source, pieces=pieces)


def whole(frames: int, step: int) -> int:
    """The least 1 + k * step that is not below `frames`."""
    return 1 + -(-(frames - 1) // step) * step


@dataclass(frozen=True, slots=True)
class ImageToVideo:
    """A clip that begins with a picture, and may end with another one."""

    name: ClassVar[str] = "i2v"
    uses: ClassVar[Sequence[str]] = ("images",)

    def begin(self, files: Files, studio: Studio) -> Plan:
        frames = studio.frames or studio.usual
        first = Segment(0, sources.picture(one(files.images, "--image", "i2v"), studio.height, studio.width))
        return planned(studio, [first], frames)


@dataclass(frozen=True, slots=True)
class FirstAndLast:
    """A clip between a first and a last picture."""

    name: ClassVar[str] = "first_last"
    uses: ClassVar[Sequence[str]] = ("images", "last")

    def begin(self, files: Files, studio: Studio) -> Plan:
        frames = studio.frames or studio.usual
        if files.last is None:
            raise ConfigError("task=first_last wants a picture for the end. Give --last FILE.")
        pictures = [(0, one(files.images, "--image", "first_last")), (frames - 1, files.last)]
        return planned(studio, [Segment(at, sources.picture(path, studio.height, studio.width)) for at, path in pictures], frames, windows=False)


@dataclass(frozen=True, slots=True)
class Keyframes:
    """A clip through pictures and clips at any times: --keyframe SECONDS=FILE, as often as wanted."""

    name: ClassVar[str] = "keyframes"
    uses: ClassVar[Sequence[str]] = ("keyframes",)

    def begin(self, files: Files, studio: Studio) -> Plan:
        frames = studio.frames or studio.usual
        if not files.keyframes:
            raise ConfigError(
                "task=keyframes wants pictures or clips with their times. Give --keyframe SECONDS=FILE, for example --keyframe 1.5=b.png."
            )
        segments, notes = [], ()
        for at_s, path in files.keyframes:
            start = round(at_s * studio.fps)
            if not 0 <= start < frames:
                last_s = (frames - 1) / studio.fps
                raise ConfigError(
                    f"--keyframe {at_s:g}={path} lies outside the clip, which ends at {last_s:g} s. Set frames higher or the time lower."
                )
            found = sources.clip(path, studio.fps, studio.height, studio.width)
            segments.append(Segment(start, found[: frames - start]))
            notes += cut_short(f"--keyframe {at_s:g}={path}", len(found), frames - start)
        return replace(planned(studio, segments, frames, windows=False), notes=notes)


@dataclass(frozen=True, slots=True)
class Extend:
    """A given video with a past, a future, or both.

    Args:
        side: "after", "before" or "both".
        context_s: how much of the given video is taken, next to the side that is made; null: all of it.
    Raises: ValueError for another side.
    """

    side: Literal["after", "before", "both"]
    context_s: float | None = None
    name: ClassVar[str] = "extend"
    uses: ClassVar[Sequence[str]] = ("videos",)

    def __post_init__(self) -> None:
        if self.side not in ("after", "before", "both"):
            raise ConfigError(f"task.side={self.side!r} is no side of a video: after, before or both. Set task.side.")
        if self.context_s is not None and self.side == "both":
            raise ConfigError("task.context_s takes what is next to one side, and task.side=both makes two. Set task.context_s=null.")
        if self.context_s is not None and not self.context_s > 0:
            raise ConfigError(f"task.context_s={self.context_s} must be above 0, or null for the whole video. Set task.context_s.")

    def begin(self, files: Files, studio: Studio) -> Plan:
        source = sources.clip(one(files.videos, "--video", "extend"), studio.fps, studio.height, studio.width)
        if self.context_s is not None:
            count = min(len(source), 1 + round(self.context_s * studio.fps))
            source = source[-count:] if self.side == "after" else source[:count]
        step = studio.stride[0]
        least = whole(len(source) + (2 if self.side == "both" else 1) * step, step)  # a latent frame on each side that is made
        frames = studio.frames or max(least, whole(len(source) + studio.usual - 1, step))
        if frames < least:
            raise ConfigError(f"frames={frames} leaves nothing to add to the {len(source)} frames of {files.videos[0]}. Set frames={least} or more.")
        room = frames - len(source)
        # From the first frame of a latent frame on: then as many as can be of those behind it are known.
        start = {"after": 0, "before": room, "both": room // 2 // step * step}[self.side]
        return outwards(planned(studio, [Segment(start, source)], frames), start, step)


def outwards(plan: Plan, start: int, stride_t: int) -> Plan:
    """The plan, made from what is given outwards: its windows begin with the latent frame of pixel frame `start`, where the segment begins."""
    return replace(plan, begin=-(-start // stride_t))


@dataclass(frozen=True, slots=True)
class ReCut:
    """A span of a given video kept in its place, and all around it made anew.

    Args:
        keep_s: (from, to) in seconds of the video.
    """

    keep_s: Sequence[float]
    name: ClassVar[str] = "recut"
    uses: ClassVar[Sequence[str]] = ("videos",)

    def begin(self, files: Files, studio: Studio) -> Plan:
        source = sources.clip(one(files.videos, "--video", "recut"), studio.fps, studio.height, studio.width)
        if len(self.keep_s) != 2 or not 0 <= self.keep_s[0] < self.keep_s[1] or round(self.keep_s[0] * studio.fps) >= len(source):
            lasts_s = len(source) / studio.fps
            raise ConfigError(
                f"task.keep_s={list(self.keep_s)} is no span of {files.videos[0]}, which lasts {lasts_s:g} s. Set task.keep_s=[from,to]."
            )
        start, stop = (min(len(source), round(second * studio.fps)) for second in self.keep_s)
        stop = max(stop, start + 1)
        frames = studio.frames or whole(len(source), studio.stride[0])
        if stop > frames:
            raise ConfigError(f"task.keep_s={list(self.keep_s)} reaches beyond the {frames} frames of the clip. Set frames higher.")
        return outwards(planned(studio, [Segment(start, source[start:stop])], frames), start, studio.stride[0])


@dataclass(frozen=True, slots=True)
class Connect:
    """Two given videos, one after the other, with a passage between them that is made.

    Args:
        gap_s: of the passage.
        curve: how the first prompt gives way to the second (--then) over the passage: linear, smooth (slow at both ends) or step.
    Raises: ValueError for another curve, or a gap that is not above 0.
    """

    gap_s: float
    curve: Literal["linear", "smooth", "step"] = "smooth"
    name: ClassVar[str] = "connect"
    uses: ClassVar[Sequence[str]] = ("videos", "second")

    def __post_init__(self) -> None:
        if self.curve not in CURVES:
            raise ConfigError(f"task.curve={self.curve!r} is unknown: {', '.join(CURVES)}. Set task.curve.")
        if not self.gap_s > 0:
            raise ConfigError(f"task.gap_s={self.gap_s} leaves no room between the videos: it must be above 0. Set task.gap_s.")

    def begin(self, files: Files, studio: Studio) -> Plan:
        if len(files.videos) != 2:
            raise ConfigError(f"task=connect wants two videos, got {len(files.videos)}. Give --video FILE twice.")
        first, second = (sources.clip(path, studio.fps, studio.height, studio.width) for path in files.videos)
        step, gap = studio.stride[0], max(1, round(self.gap_s * studio.fps))
        if studio.frames is not None:
            gap = studio.frames - len(first) - len(second)
            if gap < 1:
                raise ConfigError(f"frames={studio.frames} has no room between {len(first)} and {len(second)} given frames. Set frames higher.")
        frames = studio.frames or whole(len(first) + gap + len(second), step)
        start = frames - len(second)
        plan = planned(studio, [Segment(0, first), Segment(start, second)], frames, windows=False)
        passage = (len(first) - 1) / step, start / step
        return replace(plan, script=Passage(files.second, passage, self.curve, plan.canvas.shown))


CURVES = {
    "linear": lambda share: share,
    "smooth": lambda share: share * share * (3 - 2 * share),
    "step": lambda share: (share >= 0.5).float(),
}


@dataclass(frozen=True, slots=True)
class Passage:
    """From the clip's prompt to a second one.

    Args:
        between: latent frames, not whole, at which the passage begins and ends.
        frames: latent frames of the clip.
    """

    second: str | None
    between: tuple[float, float]
    curve: str
    frames: int

    def __call__(self, prompt: str) -> Prompt:
        if self.second is None:
            return prompt
        low, high = self.between
        share = ((torch.arange(self.frames) - low) / (high - low)).clamp(0, 1)
        weight = CURVES[self.curve](share)
        return Timed((prompt, self.second), torch.stack([1 - weight, weight]))


@dataclass(frozen=True, slots=True)
class InBetween:
    """A video at a higher frame rate: each given frame stays at its moment, those between are made, and at most a latent frame's more at the end.

    Args:
        factor: by which the rate rises, whole, at least 2.
    Raises: ValueError for another factor.
    """

    factor: int
    name: ClassVar[str] = "inbetween"
    uses: ClassVar[Sequence[str]] = ("videos",)

    def __post_init__(self) -> None:
        if type(self.factor) is not int or self.factor < 2:
            raise ConfigError(f"task.factor={self.factor!r} makes no frames between: a whole number of at least 2. Set task.factor.")

    def rate(self, files: Files) -> float | None:
        """Frames per second at which every given frame is used; None of a folder of pictures or one picture, which have no rate."""
        path = one(files.videos, "--video", "inbetween")
        found = sources.look(path)
        return found.fps * self.factor if found.kind == "video" and found.frames > 1 else None

    def begin(self, files: Files, studio: Studio) -> Plan:
        path, read_fps = one(files.videos, "--video", "inbetween"), studio.fps / self.factor
        source = sources.clip(path, read_fps, studio.height, studio.width)
        count, unused = len(source), sources.look(path).frames - len(source)
        if count < 2:
            raise ConfigError(f"{path} has {count} frames at {read_fps:g} fps, too few to make some between them.")
        frames = whole(1 + (count - 1) * self.factor, studio.stride[0])
        if studio.frames not in (None, frames):
            raise ConfigError(
                f"frames={studio.frames}, and the {count} frames of {path} become {frames} by task.factor={self.factor}. Set frames=null."
            )
        plan = planned(studio, [Segment(number * self.factor, source[number : number + 1]) for number in range(count)], frames)
        # As slow motion at the rate of training, with a picture at every moment as there: at its own rate moments would stand closer than any that
        # the network knows. Of 17 frames at 8 fps, 65 at 32: given frames at 30 dB instead of 25, the largest leap 2 px instead of 5.
        slow = replace(plan.canvas, moments=plan.canvas.moments * (studio.fps / (studio.usual_fps or studio.fps)))
        told = f"{unused} of the {unused + count} frames of {path} are not used, as fps={studio.fps:g} and task.factor={self.factor} read it"
        return replace(plan, canvas=slow, notes=(f"{told} at {read_fps:g} fps. Leave out fps to use them all.",) * (unused > 0))
