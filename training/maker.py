"""From orders to latents with one run's networks and one command's settings: plans, what is said, whether a run can do it, and how it is made."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from data.prompts.expander import AsWritten
from flow.generate import Prompt
from flow.noise import Coarse
from flow.rollout import Rollout
from models.geometry import latent_frames
from runtime.build import ConfigError, build
from tasks.make import AsTrained, Job, Progress, Refine, in_windows, latents, missing, missing_for_windows, refined
from tasks.orders import Order, Planned, texts_of, told
from tasks.task import OPTIONS, Files, Plan, refuse_unused
from training.inference import Networks, Shape, make_generator, studio

# What becomes of files where no task is named.
USUAL = {(): "tasks.text.TextToVideo", ("images",): "tasks.given.ImageToVideo"}


class Maker:
    """Makes the latents of orders; an order comes out the same whatever others are made beside it.

    Args:
        networks: of the run.
        config: as configs/sample.yaml, with height, width and fps.
    Raises: ValueError if a setting cannot be used.
    """

    def __init__(self, networks: Networks, config: Mapping[str, Any], device: str) -> None:
        if config["rope"] is not None:
            networks.dit.rescale(build(config["rope"]))
        self.networks, self.config = networks, config
        self.style, expander, noise = build(config["style"]), build(config["expander"]), build(config["noise"])
        self._say = told(self.style, expander)
        self._say_beside = self._say if config["expand_given"] else told(self.style, AsWritten())  # pictures say themselves what they show
        self.watermark = build(config["watermark"])
        self._refine: Refine | None = None if config["refine"] is None else build(config["refine"])
        whole = config["whole"] and config["rope"] is None
        self.generator = make_generator(networks, config, device, config["tile"], noise, whole)
        drafted = None if self._refine is None else Coarse(self._refine.factor, noise)
        self._draft = None if drafted is None else make_generator(networks, config, device, config["tile"], drafted, whole)
        self._plans = lru_cache(maxsize=2)(self._plan)  # neighbours share theirs; more would hold many clips' frames
        self._noted: set[str] = set()

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

        Raises: ConfigError if windows were asked for and training showed none.
        """
        node, conditioning = self.config["rollout"], self.networks.config["objective"]["conditioning"]
        found = None if node is None else build(node)
        if not isinstance(found, AsTrained):
            if not in_windows(plan, found):
                return None
            self._check_trained("rollout=windows", missing_for_windows(plan, conditioning))
            return found
        frames = latent_frames(self.networks.shape.frames, self.networks.vae.stride[0])
        rollout = found.rollout(frames)
        if self.config["rope"] is not None or not in_windows(plan, rollout):
            return None
        lacking = missing_for_windows(plan, conditioning)
        if lacking:
            self.note(f"{plan.frames} frames are made at once, training showed {self.networks.shape.frames}; not in windows, as {lacking[0]}")
        return None if lacking else rollout

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
        self._check_trained(f"task={task.name}", missing(task, self.networks.config["objective"]["conditioning"]))
        if self._refine is not None:
            small = self._refine.draft_size(height, width, self.networks.vae.stride[1])
            height, width = small if factor > 1 else (height, width)
        shape = Shape(frames or self.networks.shape.frames, height, width, fps)
        own = studio(self.networks, shape, frames, self.config["known_level"], self.config["tile"])
        own.grid(1)  # a size that the VAE has no latents of is refused before anything is cut to it
        return task.begin(files, own)

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
