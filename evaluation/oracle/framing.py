"""Whether objects lie wholly in the picture, frame by frame: one that the edge cuts off fills pixels along it."""

import numpy as np

from evaluation.oracle.reading import State

# Pixels along the edge that make an object cut off. Of objects that reach 0.6 px or more beyond it all fill as many, of those that stay
# 1.5 px or more inside none, as rendered, from files and through a simulated autoencoder; in between its blur decides.
CUT_PX = 2


def in_view(state: State, count: int) -> np.ndarray:
    """(t,) bool: in which frames as many objects as claimed are seen, and the picture's edge cuts none of them off."""
    if not state.tracks:
        return np.zeros(state.frames, bool)
    found = np.stack([track.found for track in state.tracks])  # k t
    cut = np.stack([track.at_edge >= CUT_PX for track in state.tracks])
    return (found.sum(0) >= count) & ~(found & cut).any(0)
