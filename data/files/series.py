"""Whole numbers kept short: the time stamps of a file are mostly first, step and count."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class Series:
    """Whole numbers, kept as (start, step, count) where they are regular.

    Args:
        listed: int64, if they are not.
    """

    start: int
    step: int
    count: int
    listed: bytes = b""

    @classmethod
    def of(cls, numbers: np.ndarray | Sequence[int]) -> "Series":
        given = np.asarray(numbers, np.int64)
        if not len(given):
            return cls(0, 0, 0)
        steps = np.diff(given)
        if np.all(steps == steps[:1]):
            return cls(int(given[0]), int(steps[0]) if len(steps) else 0, len(given))
        return cls(int(given[0]), 0, len(given), given.tobytes())

    @property
    def numbers(self) -> np.ndarray:
        return np.frombuffer(self.listed, np.int64) if self.listed else self.start + self.step * np.arange(self.count, dtype=np.int64)

    def __len__(self) -> int:
        return self.count

    @property
    def rising(self) -> bool:
        """Whether each number is above the one before it."""
        return bool(np.all(np.diff(self.numbers) > 0)) if self.listed else self.step > 0 or self.count < 2

    def to_json(self) -> list[Any]:
        return [self.start, np.diff(self.numbers).tolist()] if self.listed else [self.start, self.step, self.count]

    @classmethod
    def from_json(cls, given: Any, name: str, most: int) -> "Series":
        """Raises: ValueError."""
        if isinstance(given, list) and len(given) == 3 and all(map(is_whole, given)):
            start, step, count = given
            if 0 <= count <= most and is_whole(start + step * count):
                return cls(start, step, count)
        if isinstance(given, list) and len(given) == 2 and is_whole(given[0]) and isinstance(given[1], list) and len(given[1]) < most:
            numbers = list(accumulate(given[1], initial=given[0])) if all(map(is_whole, given[1])) else []
            if numbers and all(map(is_whole, numbers)):
                return cls.of(numbers)
        raise ValueError(f"{name} must be [start, step, count] or [start, [steps]] of whole numbers, got {given!r:.80}")


def is_whole(value: Any) -> bool:
    """Whether a value read from JSON is a whole number that int64 holds with room to spare."""
    return isinstance(value, int) and not isinstance(value, bool) and -LARGEST < value < LARGEST
