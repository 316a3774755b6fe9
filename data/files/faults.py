"""Why a file gives no clip, and what its header may claim: every reason has a name, so that none is lost on the way to the user."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "missing",  # no such file, or no permission to look
    "not_a_file",  # a folder without pictures, a pipe or a device
    "empty",  # no bytes
    "unreadable",  # no demuxer or decoder makes sense of it
    "no_video",  # sound or data only
    "too_large",  # the header is beyond the limits
    "too_short",  # fewer frames than the clip needs
    "damaged",  # some wanted frames cannot be decoded, or only with made-up parts
    "timeline",  # time stamps do not say which frame is which
    "hung",  # over its budget of time
    "crashed",  # killed the process that read it
]


class VideoError(ValueError):
    """Why a file gives no clip. Carries plain texts only, so it passes between processes."""

    def __init__(self, path: str, kind: Kind, detail: str) -> None:
        super().__init__(path, kind, detail)
        self.path, self.kind, self.detail = path, kind, detail

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that gave no clip, and why."""

    row: int
    path: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a header may claim before anything is decoded: a few bytes can promise more than any memory holds.

    Args:
        frame_px: pixels of one frame, 2**26 is 8192 x 8192.
        frames: of a file; a day at 30 fps is 2.6 million.
        clip_px: frames x height x width of one read, 2**30 is 3 GiB of RGB.
    """

    frame_px: int = 2**26
    frames: int = 3_000_000
    clip_px: int = 2**30

    def check_header(self, path: str, width: int, height: int, frames: int) -> None:
        if width < 1 or height < 1:
            raise VideoError(path, "unreadable", f"the header gives no size ({width}x{height})")
        if width * height > self.frame_px:
            raise VideoError(path, "too_large", f"{width}x{height} pixels, the limit is {self.frame_px} a frame")
        if frames > self.frames:
            raise VideoError(path, "too_large", f"the header claims {frames} frames, the limit is {self.frames}")

    def check_clip(self, path: str, width: int, height: int, frames: int) -> None:
        if frames * width * height > self.clip_px:
            raise VideoError(path, "too_large", f"{frames} frames of {width}x{height} in one read, the limit is {self.clip_px} pixels")


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a table."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
