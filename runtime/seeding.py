"""All randomness as a function of counters: the same (seed, stream, counter) gives the same numbers anywhere, in any order."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np


class Stream(IntEnum):
    """What a random number is for. Streams never share numbers; values are stored in no file but must never be reused."""

    ORDER = 1  # the permutation of an epoch
    NOISE = 2  # flow-matching noise in training
    TIME = 3  # flow times
    KNOWN = 4  # which latent frames are given
    CAPTION = 5  # which of a clip's captions
    TEXT_DROPOUT = 6  # whether the caption is hidden
    POSTERIOR = 7  # the VAE's posterior sample
    LAYER = 8  # dropout inside a network
    CROP = 9  # where a transform cuts
    REPLACEMENT = 10  # which row stands in for an unreadable one
    WORLD = 11  # the procedural world's scenes
    WORDING = 12  # the procedural world's captions
    INIT = 13  # initial weights
    BOOTSTRAP = 14  # resampling in statistics
    SOLVER = 15  # noise that a stochastic solver adds
    SAMPLING = 16  # the noise that a sample begins with: never one that training saw
    WEIGHT = 17  # in which epochs a clip of a broken weight comes once more
    FEATURES = 18  # the weights of the fixed network that video features come from
    PLAYBACK = 19  # how a stretch of video is played to a network that is to tell
    PATCHES = 20  # which of its patches that network sees
    STILLS = 21  # which frames of a clip are encoded alone
    EXPANSION = 22  # what a prompt leaves open, and the words of its expansion
    WATERMARK = 23  # where the lattice of an invisible mark lies
    GIVEN = 24  # the noise under which sampling shows what is given: never the one that it may have been made from


def generator(seed: int, stream: Stream, *counter: int) -> np.random.Generator:
    """A generator that depends on nothing but its arguments.

    Philox has a 128-bit key and a 256-bit counter: the key is (seed, stream), the upper three counter words are `counter`, and the
    lowest word runs. A shorter draw is the beginning of a longer one.

    Args:
        seed: 0 <= seed < 2**64.
        counter: at most three integers in [0, 2**64): sample number, latent frame...
    Raises: ValueError if a number is out of range or there are more than three counters.
    """
    if len(counter) > 3:
        raise ValueError(f"got {len(counter)} counters, a Philox stream has room for 3")
    for number in (seed, *counter):
        if not 0 <= number < 2**64:
            raise ValueError(f"seed and counters must lie in [0, 2**64), got {number}")
    upper = [*counter, *[0] * (3 - len(counter))]
    # As arrays: a list with a number above 2**63 would pass through float64, where neighbouring seeds are one.
    key, start = np.array([seed, int(stream)], dtype=np.uint64), np.array([0, *upper], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=start))


def text_counter(text: str) -> int:
    """A counter for what hangs on a text: another text has another one, in every process and for ever."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Rng:
    """A run's random numbers, addressed by sample number (and latent frame).

    Passing this object is passing a seed: it holds no state, so drawing twice gives the same numbers, and a resumed run or another
    batch size draws what the first one drew.
    """

    seed: int

    def uniform(self, stream: Stream, samples: Sequence[int], width: int = 1) -> np.ndarray:
        """Uniform float64 numbers in [0, 1), shape (len(samples), width)."""
        return np.stack([generator(self.seed, stream, sample).random(width) for sample in samples])

    def normal(self, stream: Stream, samples: Sequence[int], frames: int, shape: Sequence[int], first_frame: int = 0) -> np.ndarray:
        """Unit normal float32 numbers, shape (len(samples), frames, *shape), each latent frame from its own counter.

        Frame k of a draw that starts at `first_frame` is frame `first_frame + k` of the sample: a longer video begins with the
        noise of a shorter one. Frames before a video's first one have numbers below 0.
        """
        draws = [
            generator(self.seed, stream, sample, (first_frame + frame) % 2**64).standard_normal(tuple(shape), dtype=np.float32)
            for sample in samples
            for frame in range(frames)
        ]
        return np.stack(draws).reshape(len(samples), frames, *shape)
