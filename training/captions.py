"""Which text a training sample is shown: a kind of caption, a wording of it, or none, depending on whether frames are given."""

import bisect
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

from data.batch import Captions
from runtime.seeding import Rng, Stream

NONE = "none"
Shows = Literal["free", "known", "picture"]


class CaptionPolicy:
    """Draws each sample's caption.

    A clip whose first frame is given shows its shape and colour already; a caption that repeats them teaches the network to read the text
    instead of the frame. So samples of which something is given have a table of their own, and so have single pictures, which show no motion.

    Args:
        free: weight per kind of caption (and "none" for no text) for samples of which nothing is given.
        known: the same for samples of which something is.
        picture: the same for single pictures of clips; null: as `free`.
    Raises: ValueError if a weight is negative or a table has none above 0.
    """

    def __init__(self, free: Mapping[str, float], known: Mapping[str, float], picture: Mapping[str, float] | None = None) -> None:
        for name, table in (("free", free), ("known", known), ("picture", free if picture is None else picture)):
            if any(not 0 <= weight < math.inf for weight in table.values()) or not sum(table.values()) > 0:
                raise ValueError(f"captions.{name}={dict(table)}: weights must be >= 0 and one of them > 0. Set objective.captions.{name}.")
        self.free, self.known, self.picture = dict(free), dict(known), dict(free if picture is None else picture)

    def draw(self, rng: Rng, samples: Sequence[int], captions: Sequence[Captions], shows: Sequence[Shows]) -> list[str]:
        """One text per sample; "" is none.

        Kinds that a clip lacks leave their weight to the kinds it has, never to "none", whose share is of the sum of the whole table; a
        clip with no kind of the table uses all it has, evenly.

        Args:
            shows: which table each sample's text is drawn from.
        """
        dropped = rng.uniform(Stream.TEXT_DROPOUT, samples)[:, 0]
        choice = rng.uniform(Stream.CAPTION, samples, 2)
        texts = []
        for number, clip in enumerate(captions):
            table = getattr(self, shows[number])
            if dropped[number] < table.get(NONE, 0.0) / sum(table.values()):
                texts.append("")
            else:
                texts.append(_pick(table, clip, choice[number, 0], choice[number, 1]))
        return texts

    def fixed(self, captions: Sequence[Captions]) -> list[str]:
        """The same text each time: the first wording of the kind that samples without known frames see most; none if they see none."""
        if not any(weight > 0 for kind, weight in self.free.items() if kind != NONE):
            return [""] * len(captions)
        return [_pick({max(table, key=table.__getitem__): 1.0} if (table := _kinds(self.free, clip)) else {}, clip, 0.0, 0.0) for clip in captions]


def _kinds(table: Mapping[str, float], clip: Captions) -> dict[str, float]:
    """The weights of the kinds that a clip has."""
    there = {kind: weight for kind, weight in table.items() if kind != NONE and weight > 0 and clip.get(kind)}
    return there or {kind: 1.0 for kind, texts in clip.items() if texts}


def _pick(table: Mapping[str, float], clip: Captions, of_kind: float, of_wording: float) -> str:
    kinds = _kinds(table, clip)
    if not kinds:
        return ""
    shares = list(accumulate(kinds.values()))
    kind = list(kinds)[min(bisect.bisect_right(shares, of_kind * shares[-1]), len(shares) - 1)]
    return clip[kind][int(of_wording * len(clip[kind]))]
