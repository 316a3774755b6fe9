"""Clips whose verdict is known before they are measured: what each measure must refuse, and what it must pass."""

import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.uint8]  # t h w c


def frozen(video: Video) -> Video:
    """The first frame for ever: it keeps everything and does nothing."""
    return np.repeat(video[:1], len(video), axis=0)


def halted(video: Video, made: range) -> Video:
    """Given frames as they are, the made ones all like the given one before them, or after: a generator that leaves everything where it is."""
    result = video.copy()
    result[made.start : made.stop] = video[made.start - 1 if made.start else made.stop]
    return result
