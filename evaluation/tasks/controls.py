"""Clips whose verdict is known before they are measured: what each measure must refuse, and what it must pass."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.uint8]  # t h w c


def frozen(video: Video) -> Video:
    """The first frame for ever: it keeps everything and does nothing."""
    return np.repeat(video[:1], len(video), axis=0)


def halted(video: Video, made: Sequence[range]) -> Video:
    """Given frames as they are, each made span all like the given one before it, or after: a generator that leaves everything where it is."""
    result = video.copy()
    for span in made:
        result[span.start : span.stop] = video[span.start - 1 if span.start else span.stop]
    return result
