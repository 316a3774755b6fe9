"""From what a command asks to a list of clips, each with its own prompt, size and noise, whatever else is made beside it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from data.prompts.expander import Expander
from data.prompts.jobs import Job, read_jobs
from data.prompts.style import Style
from flow.generate import Prompt, Timed
from runtime.build import ConfigError
from tasks.command import Words
from tasks.task import Files, Plan

Say = Callable[[str, int], str]  # (text, seed) -> what the network is told


@dataclass(frozen=True, slots=True)
class Order:
    """One clip to make; its noise hangs on (seed, sample) alone.

    Args:
        number: among all clips of the command, from 0.
        prompt: as it was written.
        negative: what the clip is led away from.
        frames: None: what the task makes of the trained length.
        height, width: px.
        where: for messages; empty where the command line says all.
        texts: what the network is told, where that is settled: of a clip that is made again.
    """

    number: int
    prompt: str
    negative: str
    seed: int
    sample: int
    frames: int | None
    height: int
    width: int
    fps: float
    files: Files
    where: str = ""
    texts: tuple[str, ...] | None = None

    @property
    def plan_key(self) -> tuple[Any, ...]:
        """Orders that agree in it have the same plan."""
        return self.frames, self.height, self.width, self.fps, self.files

    def spoken(self, plan: Plan, say: Say) -> Prompt:
        """What the network is told, and when."""
        script = plan.script(self.prompt)
        if self.texts is None:
            return say(script, self.seed) if isinstance(script, str) else replace(script, texts=tuple(say(text, self.seed) for text in script.texts))
        return self.texts[0] if isinstance(script, str) else replace(script, texts=self.texts)


def texts_of(prompt: Prompt) -> tuple[str, ...]:
    return prompt.texts if isinstance(prompt, Timed) else (prompt,)


def orders(words: Words, config: Mapping[str, Any], style: Style) -> list[Order]:
    """The clips of a command: all variations of the first prompt, of the second...

    Args:
        config: seed, variations, frames, height, width and fps.
    Raises: ValueError if the file of prompts cannot be used, or a line of it says what the command says too.
    """
    jobs = [Job(prompt) for prompt in words.prompts] if words.jobs is None else read_jobs(words.jobs)
    found = []
    for job in jobs:
        files = words.files
        if job.image_path is not None:
            if files.images:
                raise ConfigError(f"{job.where} has an image, and the command another. Leave out --image {files.images[0]}.")
            if not job.image_path.is_file():
                raise ConfigError(f"{job.where}: there is no image {job.image_path}; paths are as seen from the file's folder.")
            files = replace(files, images=(str(job.image_path),))
        sizes = {key: config[key] if own is None else own for key in ("frames", "height", "width", "fps") for own in [getattr(job, key)]}
        negative = style.negatives(words.negative if job.negative is None else job.negative)
        seed, where = config["seed"] if job.seed is None else job.seed, job.where if words.jobs else ""
        for number in range(config["variations"]):
            # Of a prompt on the command line the noise hangs on the variation alone: another prompt beside it changes nothing.
            sample = number if words.jobs is None else job.variation(number)
            found.append(Order(len(found), job.prompt, negative, seed, sample, files=files, where=where, **sizes))
    return found


def told(style: Style, expander: Expander) -> Say:
    """A prompt in its style, written out; each is asked for once."""
    return cache(lambda text, seed: expander.expand(style.prompt(text), seed))


Planned = tuple[Order, Plan]


def batches(planned: Iterable[Planned], size: int, alone: Callable[[Plan], bool]) -> Iterator[list[Planned]]:
    """Neighbours that can be made at once: of one shape and one seed.

    Args:
        alone: whether a plan is made by itself, in windows.
    """
    waiting: list[Planned] = []
    for order, plan in planned:
        if waiting and (len(waiting) == size or alone(plan) or _alike(*waiting[0]) != _alike(order, plan)):
            yield waiting
            waiting = []
        waiting.append((order, plan))
        if alone(plan):
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _alike(order: Order, plan: Plan) -> tuple[Any, ...]:
    canvas = plan.canvas
    return order.seed, order.height, order.width, tuple(canvas.latents.shape), canvas.shown, canvas.cyclic


def check_files(orders: Sequence[Order]) -> None:
    """Raises: ConfigError if a given file is missing: better before the first clip than after many."""
    for path in dict.fromkeys(path for order in orders for path in order.files.paths):
        if not Path(path).exists():
            raise ConfigError(f"{path} cannot be used (missing: there is no such file). Give a file that is there.")
