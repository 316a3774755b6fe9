"""From orders to latents with one run's networks and one command's settings: plans, what is said, whether a run can do it, and how it is made."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data.prompts.expander import AsWritten
from flow.generate import Prompt
from flow.noise import Coarse
from flow.rollout import Rollout
from models.geometry import latent_frames
from runtime.build import ConfigError, build
from tasks.given import InBetween
from tasks.make import AsTrained, Job, Progress, Refine, in_windows, latents, refined
from tasks.orders import Order, Planned, texts_of, told
from tasks.task import OPTIONS, Files, Plan, Task, refuse_unused
from tasks.trained import missing, missing_for_level, missing_for_windows
from training.inference import Networks, Shape, make_generator, read_guidance, studio

# What becomes of files where no task is named.
USUAL = {(): "tasks.text.TextToVideo", ("images",): "tasks.given.ImageToVideo"}


class Maker:
    """Makes the latents of orders; an order comes out the same whatever others are made beside it.

    Args:
        networks: of the run.
        config: as configs/sample.yaml, with height and width.
    Raises: ValueError if a setting cannot be used.
    """

    def __init__(self, networks: Networks, config: Mapping[str, Any], device: str) -> None:
        self._noted: set[str] = set()
        rope = None if config["rope"] is None else build(config["rope"])
        if rope is not None:
            networks.dit.rescale(rope)
        config = {**config, "expander": self._in_the_runs_world(config["expander"], networks.config["data"])}
        self.networks, self.config = networks, config
        self._conditioning = networks.config["objective"]["conditioning"]
        self._rollout: Rollout | AsTrained | None = None if config["rollout"] is None else build(config["rollout"])
        self.style, expander, noise = build(config["style"]), build(config["expander"]), build(config["noise"])
        self._say = told(self.style, expander)
        self._say_beside = self._say if config["expand_given"] else told(self.style, AsWritten())  # pictures say themselves what they show
        self.watermark = build(config["watermark"])
        self._refine: Refine | None = None if config["refine"] is None else build(config["refine"])
        whole = config["whole"] and config["rope"] is None
        guidance = read_guidance(config["guidance"], networks, device, build(config["kernel"]), rope)  # of both, as it may hold a network
        self.generator = make_generator(networks, config, device, config["tile"], noise, whole, guidance)
        drafted = None if self._refine is None else Coarse(self._refine.factor, noise)
        self._draft = None if drafted is None else make_generator(networks, config, device, config["tile"], drafted, whole, guidance)
        self._plans = lru_cache(maxsize=2)(self._plan)  # neighbours share theirs; more would hold many clips' frames

    def usual_fps(self, files: Files) -> float:
        """Frames per second where nobody asks for a rate: as the run was trained, or what the task makes of its source's.

        Raises: ConfigError if the source cannot be used.
        """
        task = build(task_node(self.config, files))
        return (task.rate(files) if isinstance(task, InBetween) else None) or self.networks.shape.fps

    def plan(self, order: Order) -> Plan:
        """What is to be made.

        Raises: ConfigError or ValueError if the task cannot be done with what is given, or the run was not trained for it.
        """
        return self._of(order, 1)

    def prompt(self, order: Order, plan: Plan) -> Prompt:
        """What the network is told, and when."""
        pictured = any(kind not in ("storyboard", "second") for kind in order.files.kinds)
        return order.spoken(plan, self._say_beside if pictured else self._say)

    def prepare(self, orders: Sequence[Order]) -> None:
        """Refuses, before anything is made, what can be told of orders that are given no pictures, and notes prompts that are cut."""
        heard: dict[str, None] = {}
        for number, order in enumerate(orders):
            if number == 0 or not order.files.paths:  # of others a plan encodes what is given; the command's own files are those of the first
                try:
                    heard |= dict.fromkeys([*texts_of(self.prompt(order, self.plan(order))), order.negative])
                except ValueError as error:
                    raise ConfigError(f"{order.where}: {error}" if order.where else str(error)) from None
        for height, width in dict.fromkeys((order.height, order.width) for order in orders):
            next(iter(self.watermark([np.zeros((height, width, 3), np.uint8)])))  # one that has no room there says so
        for text in self.networks.text.cut(list(heard)):
            self.note(text)

    def rollout(self, plan: Plan) -> Rollout | None:
        """By which a plan is made, None: at once.

        Raises: ConfigError if windows were asked for and training showed none, or what is handed on stands under more noise than there.
        """
        rollout, lacking = self._rollout, missing_for_windows(plan, self._conditioning)
        if isinstance(rollout, AsTrained):
            trained = latent_frames(self.networks.shape.frames, self.networks.vae.stride[0])
            found = replace(rollout, at_once=1.0) if plan.shows_motion else rollout
            rollout = None if self.config["rope"] is not None else found.rollout(trained, plan.canvas.shown)
            if lacking and in_windows(plan, rollout):
                self.note(f"{plan.frames} frames are made at once, training showed {self.networks.shape.frames}; not in windows, as {lacking[0]}")
                return None
        if rollout is None or not in_windows(plan, rollout):
            return None
        self._check_trained("rollout=windows", lacking)
        self._check_trained(f"rollout.level={rollout.level:g}", missing_for_level(rollout.level, self._conditioning))
        return rollout

    def latents(self, batch: Sequence[Planned], progress: Progress | None = None) -> Iterator[Tensor]:
        """Latent frames b c k h w of orders of one shape and seed, in order, each as soon as it is made."""
        orders, plans = [order for order, _ in batch], [plan for _, plan in batch]
        negatives = [order.negative for order in orders]
        prompts = [self.prompt(order, plan) for order, plan in batch]
        job = Job(prompts, [order.sample for order in orders], orders[0].seed, negatives if any(negatives) else ())
        rollout = self.rollout(plans[0])
        if self._refine is None or self._draft is None:
            yield from latents(self.generator, plans, job, rollout, progress)
            return
        small = [self._of(order, self._refine.factor) for order in orders]
        yield from refined((self._draft, small), (self.generator, plans), self._refine, job, rollout, progress)

    def note(self, text: str) -> None:
        """Tell the user, once."""
        if text not in self._noted:
            print(f"note: {text}", file=sys.stderr)
        self._noted.add(text)

    def _of(self, order: Order, factor: int) -> Plan:
        return self._plans(order.frames, order.height, order.width, order.fps, order.files, factor)

    def _plan(self, frames: int | None, height: int, width: int, fps: float, files: Files, factor: int) -> Plan:
        """In 1 / factor of the size."""
        task = build(task_node(self.config, files))
        refuse_unused(task, files)
        if self._refine is not None:
            small = self._refine.draft_size(height, width, self.networks.vae.stride[1])
            height, width = small if factor > 1 else (height, width)
        shape = Shape(frames or self.networks.shape.frames, height, width, fps)
        own = studio(self.networks, shape, frames, self.config["known_level"], self.config["tile"])
        own.grid(1)  # a size that the VAE has no latents of is refused before anything is cut to it
        plan = task.begin(files, own)
        self._check_plan(task, plan)
        for note in plan.notes:
            self.note(note)
        return plan

    def _check_plan(self, task: Task, plan: Plan) -> None:
        """Raises: ConfigError if the network cannot make it, or was not trained for it."""
        pattern, level = self.networks.dit.trunk.pattern, self.config["known_level"]
        if plan.canvas.latents.shape[2] > plan.canvas.shown and not pattern.whole:
            raise ConfigError(
                f"task={task.name} gives pictures at later moments, where this run's objective/dit/pattern={type(pattern).__name__.lower()} does not "
                "look. Give a beginning alone (task=i2v, or task=extend task.side=after), or train with objective/dit/pattern=full."
            )
        if isinstance(self._rollout, Rollout) and not plan.windows:
            raise ConfigError(f"task={task.name} makes a clip at once, and rollout=windows would have no effect. Set rollout=auto.")
        self._check_trained(f"task={task.name}", missing(plan, self._conditioning, self.networks.shape.frames))
        if plan.given.any():
            self._check_trained(f"known_level={level:g}", missing_for_level(level, self._conditioning))
        self.rollout(plan)  # refuses what cannot be made in windows before anything is made

    def _in_the_runs_world(self, expander: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The expander's config node, with the level of the world that the run was trained on where it asks for that."""
        if expander.get("difficulty") != "auto":
            return expander
        try:
            world = json.loads((Path(data["train"]).parents[1] / "world.json").read_text(encoding="utf-8"))
            return {**expander, "difficulty": world["difficulty"]}
        except (OSError, ValueError, LookupError, TypeError):
            self.note("this run's world is not there to tell its level, so prompts are written for expander.difficulty=easy")
            return {**expander, "difficulty": "easy"}

    def _check_trained(self, what: str, lacking: Sequence[str]) -> None:
        """Raises: ConfigError if training did not show what is asked for, unless that is wanted all the same."""
        if lacking and not self.config["untrained"]:
            told = "; ".join(lacking)
            raise ConfigError(f"this run was not trained for {what}: {told}. Train one that was, or set untrained=true and expect little of it.")
        if lacking:
            self.note(f"this run was not trained for {what} ({'; '.join(lacking)}): expect little of it")


def task_node(config: Mapping[str, Any], files: Files) -> Mapping[str, Any]:
    """The config node of the command's task; without one, words make a video, and so does a picture.

    Raises: ConfigError if other files are given and no task is named.
    """
    if config["task"] is not None:
        return config["task"]
    if files.kinds not in USUAL:
        option, task = OPTIONS[next(kind for kind in files.kinds if kind != "images")]
        raise ConfigError(f"{option} is given, and no task says what becomes of it. Set task={task}.")
    return {"_target_": USUAL[files.kinds]}
