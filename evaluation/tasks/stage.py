"""What the suite of tasks asks of a generator: given frames, words and strengths in, videos out; how it makes them is not its business."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.uint8]  # t h w c
Given = Sequence[tuple[int, Video]]  # pieces of a clip with the frame that each begins at


class Stage(Protocol):
    """One trained run. Each call takes as many prompts and sample numbers as clips; a clip's noise hangs on its number alone.

    Attributes:
        frames, height, width: of the clips that it was trained on.
        stride_t: pixel frames of a latent frame.
    """

    @property
    def frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def stride_t(self) -> int: ...

    def words(self, prompts: Sequence[str], samples: Sequence[int], shape: tuple[int, int, int] | None = None) -> list[Video]:
        """From words alone, in (frames, height, width) or as trained."""
        ...

    def around(self, given: Sequence[Given], frames: int, prompts: Sequence[str], samples: Sequence[int]) -> tuple[list[Video], list[Video]]:
        """Clips of so many frames around what is given of each: with given frames shown as they were given, and as they come out."""
        ...

    def timed(self, prompts: Sequence[Sequence[str]], switches: Sequence[int], frames: int, samples: Sequence[int]) -> list[Video]:
        """Clips under a first prompt until frame `switch`, and a second one from it on."""
        ...

    def loops(self, frames: int, prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        """Clips whose last frame is followed by their first."""
        ...

    def remixed(self, videos: Sequence[Video], strength: float, prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        """Videos noised to flow time `strength` and made again."""
        ...

    def painted(self, videos: Sequence[Video], kept: NDArray[np.bool_], prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        """Videos of which the region `kept` (h, w) stays."""
        ...

    def seen(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels (h, w) that should look as in the source: those of kept latent positions, away from what is made anew."""
        ...

    def drafted(self, prompts: Sequence[str], samples: Sequence[int], factor: int) -> list[Video]:
        """Clips in the trained size, from the noise of clips `factor` times as large."""
        ...

    def refined(self, prompts: Sequence[str], samples: Sequence[int], factor: int, strength: float) -> list[Video]:
        """Clips `factor` times as large, begun from drafts that are enlarged and noised to flow time `strength`."""
        ...

    def rolled_out(self, frames: int, prompts: Sequence[str], samples: Sequence[int]) -> Iterator[Video]:
        """Long clips in overlapping windows, b t h w 3 as it is made."""
        ...

    def chained(self, frames: int, prompts: Sequence[str], samples: Sequence[int]) -> Iterator[Video]:
        """Long clips by naive chaining: the last frame of each is the first of the next."""
        ...

    def reconstructed(self, videos: Sequence[Video]) -> list[Video]:
        """Through the VAE and back."""
        ...
