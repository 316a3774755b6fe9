"""What a way of making video is: given files in, a canvas out; it knows neither the network nor how the canvas is walked."""

from collections.abc import Callable, Iterator, Sequence
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
class Piece:
    """Given frames as the VAE has them by themselves: latents 1 c f h w, of which the first is the picture of pixel frame `frame`."""

    frame: int
    latents: Tensor


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
        usual_fps: frames per second of the clips that the network was trained on; None: `fps`.
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
    usual_fps: float | None = None

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

    def pieces(self, segments: Sequence[Segment]) -> list[Piece]:
        """Given frames as latents, each piece encoded by itself: stretches from the last pixel frame of a latent frame on, and frames alone."""
        pixels: dict[int, np.ndarray] = {}
        for one in segments:
            pixels |= {one.start + number: frame for number, frame in enumerate(one.video)}
        found, step = [], self.stride[0]
        for first, run in _runs(pixels):
            head = min(-first % step, len(run))  # frames before the first that ends a latent frame
            whole = (len(run) - head - 1) // step * step + 1 if head < len(run) else 0
            found += [Piece(first + place, self.encode(run[place : place + 1])) for place in (*range(head), *range(head + whole, len(run)))]
            if whole:
                found.append(Piece(first + head, self.encode(run[head : head + whole])))
        return found

    def placed(self, segments: Sequence[Segment], frames: int) -> tuple[Canvas, list[Piece]]:
        """One clip of so many pixel frames of which segments are given, and what was given; where they overlap the later one in the list counts.

        Raises: ValueError if one reaches beyond the clip.
        """
        canvas, step = self.blank(frames), self.stride[0]
        known, pictures = self.rule.split([(one.start, one.start + len(one.video)) for one in segments], frames)
        pieces = self.pieces(segments)
        latents, alone = torch.zeros(canvas.latents.shape), dict[int, Tensor]()
        pixels = {one.start + number: frame for one in segments for number, frame in enumerate(one.video)}
        for piece in pieces:
            alone[piece.frame] = piece.latents[:, :, :1]  # the first of a stretch is encoded as a picture is
            if piece.frame % step == 0:
                _fill(latents, known, piece.frame // step, piece.latents)
        for first, run in _runs(pixels):
            if step > 1 and first % step == 1 and len(run) >= step:
                # It begins with a whole latent frame, on which its neighbours look back: no piece holds that one. What is put before it, none sees.
                _fill(latents, known, first // step, self.latents(np.concatenate([run[:1], run])))
        canvas = canvas.keep(latents, torch.tensor([known]), self.level)
        if pictures:
            parts = [alone[frame] if frame in alone else self.encode(pixels[frame][None]) for frame in pictures]
            canvas = canvas.beside(torch.cat(parts, dim=2), torch.tensor([pictures]) / self.fps, self.level)
        return canvas, pieces


def _fill(latents: Tensor, known: Sequence[bool], first: int, found: Tensor) -> None:
    """Put found latents 1 c k h w in their places, from latent frame `first` on, where they are known."""
    for place in range(found.shape[2]):
        if known[first + place]:
            latents[:, :, first + place] = found[:, :, place]


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
        pieces: what was given, where it is to be shown as it was given: see `as_given`.
        read: files besides those of the command that were read.
        notes: what of the files found no place in it, to tell the user.
    """

    canvas: Canvas
    frames: int
    given: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    begin: int = 0
    script: Callable[[str], Prompt] = str
    windows: bool = False
    source: Video | None = None
    pieces: Sequence[Piece] = ()
    read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.given.size:
            object.__setattr__(self, "given", np.zeros(self.frames, bool))

    @property
    def shows_motion(self) -> bool:
        """Whether given frames show how fast something moves: a clip brought into less time would go on at another speed."""
        return int(self.given.sum()) > 1

    def repeated(self, clips: int) -> Canvas:
        """The canvas for so many clips alike."""
        return self.canvas.take([0] * clips)

    def as_given(self, decode: Callable[[Tensor], Iterator[Tensor]]) -> dict[int, np.ndarray]:
        """The given frames h w 3 as the VAE has them by themselves, by number.

        What is decoded of a late piece looks back on frames that were made, and a late picture is only looked at: either comes near to what was
        given and is not the same. A beginning looks back on nothing and is left out.

        Args:
            decode: latents 1 c f h w -> their frames, uint8 1 t h w 3, one latent frame after the other.
        """
        found = {}
        for piece in self.pieces:
            frames = [frame for part in decode(piece.latents) for frame in part[0].numpy()] if piece.frame else []
            found |= {piece.frame + number: frame for number, frame in enumerate(frames)}
        return found

    def with_canvas(self, canvas: Canvas) -> "Plan":
        return replace(self, canvas=canvas)


class Task(Protocol):
    """A way of making video.

    Attributes:
        name: of its config group's option.
        uses: fields of Files that it has a use for.
    """

    name: ClassVar[str]
    uses: ClassVar[Sequence[str]]

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
