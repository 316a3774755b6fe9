"""Where the bytes of a clip lie: a file of its own, a stretch of a tar file read in place, or a folder of pictures."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Media:
    """A video, a picture, or a folder whose pictures are the frames of a video.

    Args:
        path: the file or folder, absolute, with links resolved; for a member of a tar file, that tar file.
        member: its name in the tar file; empty if it is a file of its own.
        start, size: the bytes it takes up in the tar file; size None is all of the file.
    """

    path: str
    member: str = ""
    start: int = 0
    size: int | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Media":
        """A file or folder by its path."""
        return cls(os.path.abspath(os.fspath(path)))

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else self.path
