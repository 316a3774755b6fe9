"""Files of prompts, one job a line: what is asked for, and numbers that make a clip the same wherever, whenever and beside whatever it is made."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from runtime.build import nearest

VARIATION = 2**32  # sample numbers from one variation of a job to the next: a file has fewer lines


@dataclass(frozen=True, slots=True)
class Job:
    """One line of a file of prompts; None is what it does not say.

    Args:
        prompt, negative: word for word; "" lets the model choose, or leads away from nothing.
        seed: of the noise.
        sample: number of the noise: what it is drawn from is (seed, sample) alone. The line's number in the file, from 0, unless it says
            another; so a line that is changed, commented out or put at the end leaves the clips of all others as they are.
        image: path of the first frame, as it is written: as seen from the file's folder.
        height, width: px.
        source, line: where it stands, from 1; "" and 0 where it came from no file.
    """

    prompt: str = ""
    negative: str | None = None
    seed: int | None = None
    sample: int = 0
    image: str | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    source: str = ""
    line: int = 0

    @property
    def key(self) -> str:
        """What tells this job from all others of a file, the same in every process and for ever: its content and its sample number."""
        told = {name: value for name, value in asdict(self).items() if name not in ("source", "line") and value is not None}
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def image_path(self) -> Path | None:
        """Where the picture lies."""
        return None if self.image is None else Path(self.source).parent / self.image

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.source}, line {self.line}" if self.source else f"prompt {self.prompt!r:.60}"

    def variation(self, number: int) -> int:
        """The sample number of a variation; that of variation 0 is the job's own, however many there are."""
        return (self.sample + number * VARIATION) % 2**64


KEYS = tuple(field.name for field in fields(Job) if field.name not in ("source", "line"))
# Least values of the numbers; fps is the one that need not be whole.
LEAST = {"seed": 0, "sample": 0, "frames": 1, "height": 1, "width": 1, "fps": 0}
TEXTS = ("prompt", "negative", "image")


def read_jobs(path: str | Path, keys: Collection[str] = KEYS) -> list[Job]:
    """The jobs of a file, in its order.

    .txt   one prompt a line, without the space around it; blank lines and lines that begin with # are left out
    .jsonl one object a line, for example {"prompt": "a red circle", "negative": "blurry", "seed": 3}; blank lines are left out

    Args:
        keys: those that lines may have, of KEYS: what the task at hand understands.
    Raises: ValueError naming the line if it cannot be meant, or the file if it cannot be read.
    """
    assert set(keys) <= set(KEYS), f"jobs have no {set(keys) - set(KEYS)}"
    path = Path(path)
    readers = {".txt": _of_text, ".jsonl": _of_object}
    if path.suffix not in readers:
        raise ValueError(f"{path} is no file of prompts: wanted .txt (a prompt a line) or .jsonl (an object a line). Rename it.")
    jobs = []
    for line, text in _lines(path):
        told = readers[path.suffix](text, f"{path}, line {line}", keys)
        if told is not None:
            jobs.append(Job(**{"sample": line - 1, **told}, source=str(path), line=line))
    if not jobs:
        raise ValueError(f"{path} holds no prompt. Write one a line.")
    return jobs


def share(jobs: Sequence[Job], rank: int, ranks: int) -> list[Job]:
    """What one of several processes makes: every `ranks`-th job, so that shares differ by one job at most.

    Share first and leave out what is finished afterwards: a list that shrinks while processes start would be cut otherwise by each.

    Raises: ValueError if there is no such rank.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank={rank} of ranks={ranks} is none: wanted 0 to ranks - 1.")
    return list(jobs[rank::ranks])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines from 1; a line ends at a line feed and nowhere else (a prompt may hold other marks that count as ends)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). Give a file of prompts, .txt or .jsonl.") from None
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8.") from None


def _of_text(text: str, where: str, keys: Collection[str]) -> Mapping[str, Any] | None:
    return None if not text or text.startswith("#") else {"prompt": text}


def _of_object(text: str, where: str, keys: Collection[str]) -> Mapping[str, Any] | None:
    if not text:
        return None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = next((name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place])), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is said twice")
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{where}: not a JSON object ({error}). Each line must be one, such as {{"prompt": "a red circle"}}.') from None
    if not isinstance(found, dict):
        raise ValueError(f'{where}: got a {type(found).__name__}, wanted an object such as {{"prompt": "a red circle"}}.')
    for name in found:
        if name not in keys:
            raise ValueError(f"{where}: {name!r} is no key of a job here{nearest(name, list(keys))}.")
    told = {name: value for name, value in found.items() if value is not None}
    if "prompt" not in told and "image" not in told:
        raise ValueError(f'{where}: says neither prompt nor image. Write "prompt": "" to let the model choose.')
    for name, value in told.items():
        _check(name, value, where)
    return told


def _check(name: str, value: Any, where: str) -> None:
    if name in TEXTS:
        if not isinstance(value, str) or (name == "image" and not value):
            raise ValueError(f"{where}: {name}={value!r:.60} must be a text.")
    elif name == "fps":
        if type(value) not in (int, float) or not 0 < value <= 1000:
            raise ValueError(f"{where}: fps={value!r:.60} must be a number above 0 and at most 1000.")
    elif type(value) is not int or not LEAST[name] <= value < 2**64:
        raise ValueError(f"{where}: {name}={value!r:.60} must be a whole number from {LEAST[name]} on, below 2**64.")
