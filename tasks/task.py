"""What a way of making video is: given files in, a canvas out; it knows neither the network nor how the canvas is walked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from flow.canvas import Canvas
from flow.generate import Prompt
from flow.given import Rule
from models.geometry import Grid, latent_grid, moments
from runtime.build import ConfigError
from tasks.sources import Video

Needs = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Files:
    """What a command gives, by what it is for.

    Args:
        images: in the order given.
        last: a picture for the clip's last moment.
        videos: in the order given.
        keyframes: (seconds, picture or video) pairs.
        mask, storyboard: paths.
        second: the prompt that the first gives way to.
    """

    images: tuple[str, ...] = ()
    last: str | None = None
    videos: tuple[str, ...] = ()
    keyframes: tuple[tuple[float, str], ...] = ()
    mask: str | None = None
    storyboard: str | None = None
    second: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file."""
        single = [path for path in (self.last, self.mask, self.storyboard) if path is not None]
        return (*self.images, *self.videos, *(path for _, path in self.keyframes), *single)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The fields that hold something."""
        return tuple(name for name in OPTIONS if getattr(self, name))


# How the command line names each field of Files, and the task that it is for.
OPTIONS = {
    "images": ("--image", "i2v"),
    "last": ("--last", "first_last"),
    "videos": ("--video", "extend, connect, recut, inbetween, remix, inpaint or outpaint"),
    "keyframes": ("--keyframe", "keyframes"),
    "mask": ("--mask", "inpaint"),
    "storyboard": ("--storyboard", "storyboard"),
    "second": ("--then", "connect"),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """Given frames, uint8 t h w 3, of which the first is pixel frame `start` of the clip."""

    start: int
    video: Video


@dataclass(frozen=True, slots=True)
class Studio:
    """What every task works with.

    Args:
        encode: uint8 t h w 3 with t = 1 + k * stride -> whitened latents 1 c f h w on the CPU.
        channels: of a latent.
        stride: of the VAE.
        look_back: latent frames that its encoder sees before the one that it makes.
        halo: latent positions around one that the encoder sees.
        frames: pixel frames asked for; None: what the task makes of `usual`.
        usual: pixel frames of the clips that the network was trained on.
        height, width: px.
        fps: frames per second.
        level: flow time of what is given.
    """

    encode: Callable[[Video], Tensor]
    channels: int
    stride: Grid
    look_back: int
    halo: int
    frames: int | None
    usual: int
    height: int
    width: int
    fps: float
    level: float = 0.0

    @property
    def rule(self) -> Rule:
        return Rule(self.stride[0], self.look_back)

    def grid(self, frames: int) -> Grid:
        """Raises: ValueError naming the nearest legal sizes."""
        return latent_grid(frames, self.height, self.width, self.stride)

    def blank(self, frames: int) -> Canvas:
        """One clip of so many pixel frames, of which nothing is given."""
        grid = self.grid(frames)
        return Canvas.blank(self.channels, grid, moments(grid[0], torch.tensor([self.fps]), self.stride[0]))

    def latents(self, video: Video) -> Tensor:
        """Latents 1 c f h w of a whole clip, which is cut to 1 + k * stride frames."""
        return self.encode(video[: 1 + (len(video) - 1) // self.stride[0] * self.stride[0]])

    def placed(self, segments: Sequence[Segment], frames: int) -> Canvas:
        """One clip of so many pixel frames of which segments are given; where they overlap the later one in the list counts.

        Raises: ValueError if one reaches beyond the clip.
        """
        canvas, pixels = self.blank(frames), dict[int, np.ndarray]()
        known, pictures = self.rule.split([(one.start, one.start + len(one.video)) for one in segments], frames)
        for one in segments:
            pixels |= {one.start + number: frame for number, frame in enumerate(one.video)}
        latents = torch.zeros(canvas.latents.shape)
        for first, run in _runs(pixels):
            begin = -(-first // self.stride[0])  # the first latent frame whose last pixel frame is given
            own = self.latents(run[begin * self.stride[0] - first :]) if begin * self.stride[0] < first + len(run) else None
            for place in range(0 if own is None else own.shape[2]):
                if own is not None and known[begin + place]:
                    latents[:, :, begin + place] = own[:, :, place]
        canvas = canvas.keep(latents, torch.tensor([known]), self.level)
        if not pictures:
            return canvas
        alone = torch.cat([self.encode(pixels[frame][None]) for frame in pictures], dim=2)  # 1 c m h w
        return canvas.beside(alone, torch.tensor([pictures]) / self.fps, self.level)


def _runs(pixels: dict[int, np.ndarray]) -> list[tuple[int, Video]]:
    """Frames by number as stretches without a gap: (first number, t h w 3)."""
    runs: list[tuple[int, list[np.ndarray]]] = []
    for number in sorted(pixels):
        if runs and runs[-1][0] + len(runs[-1][1]) == number:
            runs[-1][1].append(pixels[number])
        else:
            runs.append((number, [pixels[number]]))
    return [(first, np.stack(frames)) for first, frames in runs]


@dataclass(frozen=True, slots=True)
class Plan:
    """A clip that is to be made.

    Args:
        canvas: of one clip.
        frames: pixel frames that it has.
        given: (frames,) bool, which of them were given, as pixels.
        begin: latent frame from which windows go out where the clip is rolled out.
        script: what is said when, from the clip's prompt.
        windows: whether it is made in windows where it is longer than the network saw in training.
        source: the given clip that the result can be held against, frame by frame; None where there is none.
        read: files besides those of the command that were read.
    """

    canvas: Canvas
    frames: int
    given: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    begin: int = 0
    script: Callable[[str], Prompt] = str
    windows: bool = False
    source: Video | None = None
    read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.given.size:
            object.__setattr__(self, "given", np.zeros(self.frames, bool))

    def repeated(self, clips: int) -> Canvas:
        """The canvas for so many clips alike."""
        return self.canvas.take([0] * clips)

    def with_canvas(self, canvas: Canvas) -> "Plan":
        return replace(self, canvas=canvas)


class Task(Protocol):
    """A way of making video.

    Attributes:
        name: of its config group's option.
        uses: fields of Files that it has a use for.
        needs: patterns of known frames that training must have shown, each as the names of which any one will do.
        windows_needed: whether training must have shown pieces of longer videos.
    """

    name: ClassVar[str]
    uses: ClassVar[Sequence[str]]
    windows_needed: ClassVar[bool]

    @property
    def needs(self) -> Needs: ...

    def begin(self, files: Files, studio: Studio) -> Plan:
        """What is to be made.

        Raises: ConfigError or ValueError if files are missing, cannot be used, or do not fit the clip.
        """
        ...


def refuse_unused(task: Task, files: Files) -> None:
    """Raises: ConfigError if something is given that the task has no use for: left out in silence, it would be missed in the clip."""
    for kind in files.kinds:
        if kind not in task.uses:
            option, other = OPTIONS[kind]
            taken = ", ".join(OPTIONS[used][0] for used in task.uses) or "words alone"
            raise ConfigError(f"{option} is of no use to task={task.name}, which takes {taken}. Leave it out, or set task={other}.")
