"""The one training loop. Its state is step, weights, averages and optimiser; everything else is a function of the step."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, Protocol

import torch
from torch import Tensor

from accounting.meter import Meter
from data.batch import Batch, Packed
from data.writer import contact_sheet
from runtime.checkpoint import Checkpoints, restore
from runtime.device import autocast, describe, pick_device, pick_precision
from runtime.files import write_text
from runtime.preemption import StopRequest
from runtime.run_folder import RunFolder
from runtime.seeding import Rng
from runtime.tracking import Journal, Tracker
from training.compiled import compile_blocks, uncompiled
from training.ema import EMA, network_state
from training.figures import Tally
from training.objective import Objective
from training.optim import Optimizers, Recipe
from training.progress import Progress, big, duration
from training.schedule import Schedule
from training.validation import VALIDATION_RNG, validate

WARM_UP_STEPS = 2  # not timed: the first steps allocate
TIMED_STEPS = 10  # what a budget, and the expected time, are reckoned from


class StepLoader(Protocol):
    """Where batches come from; the batches of a step depend on nothing but the step."""

    @property
    def wait_s(self) -> float:
        """Seconds spent waiting for data so far."""
        ...

    def steps(self, start_step: int, stop_step: int) -> Iterator[Sequence[Batch | Packed]]:
        """The micro-batches of each step."""
        ...


@dataclass(slots=True)
class State:
    """What a checkpoint holds."""

    ema: EMA
    optimizers: Optimizers
    step: int = 0
    end: int | None = None  # the last step; None while a budget is being timed
    bad: int = 0  # steps in a row that were skipped
    tally: Tally = field(default_factory=Tally)
    meter: Meter = field(default_factory=Meter)


class Trainer:
    """Trains an objective in a run folder, or goes on where the folder's newest checkpoint stands.

    Args:
        max_steps: updates in all. With a budget: at most so many; may then be null.
        budget_s: seconds of training steps; max_steps is reckoned from the first ones, once, and kept. Validation, previews and checkpoints
            come on top. null: max_steps rules.
        schedule: factor of the learning rate.
        precision: of matrix products; auto measures once and keeps the choice.
        device: auto, cpu, cuda...
        clip_norm: gradients are scaled down to this norm, those of each side of the objective by themselves; null: never.
        ema_decay: of the average that samples are made with.
        log_every, validate_every, preview_every, checkpoint_every: steps; 0 is never. The end of a run validates and saves in any case.
        keep_last: checkpoints kept, at least 2.
        bad_steps: so many steps in a row without a finite loss and gradient end the run.
        threads: CPU threads of one operation; null: PyTorch's choice. A small network's operations are over before a second thread has
            joined in, so one may be faster than two.
        compile: none, or blocks: each block by torch.compile, once for every shape of batch. Validation and previews run them uncompiled, but
            for FlexAttention.
    """

    def __init__(
        self,
        max_steps: int | None,
        budget_s: float | None,
        schedule: Schedule,
        precision: Literal["auto", "float32", "bfloat16"],
        device: str,
        clip_norm: float | None,
        ema_decay: float,
        log_every: int,
        validate_every: int,
        preview_every: int,
        checkpoint_every: int,
        keep_last: int,
        bad_steps: int,
        threads: int | None,
        compile: Literal["none", "blocks"],
    ) -> None:
        if (max_steps is None or max_steps < 1) and not budget_s:
            raise ValueError(f"max_steps={max_steps} without a budget trains nothing. Set trainer.max_steps, or trainer.budget_s.")
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads} computes nothing: at least 1, or null for PyTorch's choice. Set trainer.threads.")
        if log_every < 1 or bad_steps < 1 or min(validate_every, preview_every, checkpoint_every) < 0:
            raise ValueError("trainer.log_every and trainer.bad_steps must be >= 1, the other cadences >= 0 (0 is never). Set them.")
        for key, value in (("budget_s", budget_s), ("clip_norm", clip_norm)):
            if value is not None and not value > 0:
                raise ValueError(f"trainer.{key}={value} must be above 0, or null for none. Set trainer.{key}.")
        self.max_steps, self.budget_s, self.schedule = max_steps, budget_s, schedule
        self.precision, self.device = precision, pick_device(device)
        self.clip_norm, self.ema_decay = clip_norm, ema_decay
        self.log_every, self.validate_every, self.preview_every = log_every, validate_every, preview_every
        self.checkpoint_every, self.keep_last, self.bad_steps = checkpoint_every, keep_last, bad_steps
        self.threads, self.compile = threads, compile

    def precision_of(self, folder: RunFolder) -> str:
        """float32 or bfloat16: chosen at a run's first start, with the `threads` that are used from here on, and kept in its folder."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return folder.fact("precision") or folder.remember("precision", pick_precision(self.precision, self.device))

    def fit(
        self,
        objective: Objective,
        loader: StepLoader,
        validation: Sequence[Batch],
        recipe: Recipe,
        folder: RunFolder,
        tracker: Tracker,
        seed: int,
    ) -> None:
        """Train to the end, from wherever the folder stands.

        Args:
            validation: fixed batches; also what the objective's statistics are computed on.
        Raises: SystemExit (143, 130) after saving, if asked to stop; RuntimeError if the loss stays non-finite.
        """
        precision = self.precision_of(folder)
        objective.to(self.device)
        checkpoints = Checkpoints(folder.checkpoints, self.keep_last)
        state = self._restored(objective, recipe, checkpoints)
        state.end = folder.fact("max_steps") if self.budget_s else self.max_steps
        if state.step == state.end:
            print(f"{folder.path} is complete: all {state.end} steps are done.", file=sys.stderr)
            return

        if self.compile == "blocks":
            compile_blocks(objective.networks)
        self._announce(objective, validation, folder, precision, state)
        rng, timed = Rng(seed), list[float]()
        with StopRequest() as stop, Journal(folder.metrics, state.step) as journal, Progress(state.step, state.end) as progress:
            state.meter.begin()
            for micros, wait_s in self._steps(loader, state):
                figures, finite = self._gradients(objective, state, micros, rng, precision)
                factor = self.schedule.factor(state.step, state.end)
                if finite:
                    state.optimizers.step(factor)
                    state.ema.update(state.step)
                    state.tally.add(figures.sums)
                state.bad = 0 if finite else state.bad + 1
                state.step += 1
                took_s = state.meter.end(sum(map(len, micros)), sum(map(objective.flops, micros)), wait_s)
                timed.append(took_s)
                progress.step(took_s)

                if not finite:
                    self._note_bad(journal, tracker, progress, state, micros, figures)
                if state.end is None and (len(timed) == WARM_UP_STEPS + TIMED_STEPS or state.step == self.max_steps):
                    state.end = folder.remember("max_steps", self._affordable(state, median(timed[WARM_UP_STEPS:] or timed)))
                    progress.end_at(state.end)
                if len(timed) == WARM_UP_STEPS + TIMED_STEPS:
                    progress.say(f"{duration(progress.left_s())} of training to go ({state.end} steps in all)")

                last, asked = state.step == state.end, stop.code
                validating = validation and (last or _due(state.step, self.validate_every))
                saving = last or _due(state.step, self.checkpoint_every) or asked
                if last or _due(state.step, self.log_every):
                    self._log(journal, tracker, progress, state, factor)
                if validating or saving:
                    with self._averaged(objective, state.ema):
                        objective.refresh([batch.to(self.device) for batch in validation])
                        if validating:
                            row = {"kind": "val", "step": state.step, **validate(objective, validation, precision, self.device)}
                            journal.write(row)
                            tracker.log(row)
                            progress.say(f"step {state.step}: validation loss {row['loss']:.4g}")
                if saving:
                    self._save(checkpoints, folder, objective, state, precision)
                if validation and _due(state.step, self.preview_every):
                    with self._averaged(objective, state.ema):
                        self._preview(objective, validation[0], folder.samples / f"step-{state.step:08d}.png", precision)
                if asked and not last:
                    progress.say(f"asked to stop: saved at step {state.step}; the same command goes on from here")
                    raise SystemExit(asked)
                state.meter.begin()

    def _restored(self, objective: Objective, recipe: Recipe, checkpoints: Checkpoints) -> State:
        """The state of the newest complete checkpoint, or a fresh one."""
        state = State(EMA(objective.networks, self.ema_decay), recipe.optimizers(objective.networks))
        checkpoints.clean()
        saved = checkpoints.newest()
        if saved is None:
            return state
        restore(network_state(objective.networks), saved.parts["weights"], f"{saved.folder}/weights.safetensors")
        averages = {name: saved.parts["ema"][name] for name in state.ema.averages if name in saved.parts["ema"]}
        restore(state.ema.averages, averages, f"{saved.folder}/ema.safetensors")
        state.optimizers.load(saved.parts["optimizer"])
        state.step, state.bad = saved.step, saved.facts["bad"]
        state.tally, state.meter = Tally(saved.facts["tally"]), Meter(saved.facts["cost"])
        if saved.facts["threads"] != torch.get_num_threads() and self.device == "cpu":
            print(f"note: {saved.facts['threads']} threads then, {torch.get_num_threads()} now; sums may round otherwise", file=sys.stderr)
        print(f"resuming from {saved.folder} (step {saved.step})", file=sys.stderr)
        return state

    def _steps(self, loader: StepLoader, state: State) -> Iterator[tuple[Sequence[Batch | Packed], float]]:
        """The batches from the state's step to its end, with the seconds each was waited for; an unknown end is known after the timed steps."""
        while state.end is None or state.step < state.end:
            waited = loader.wait_s
            timed_until = min(state.step + WARM_UP_STEPS + TIMED_STEPS, self.max_steps or sys.maxsize)
            for micros in loader.steps(state.step, state.end or timed_until):
                yield micros, loader.wait_s - waited
                waited = loader.wait_s

    def _gradients(self, objective: Objective, state: State, micros: Sequence[Batch | Packed], rng: Rng, precision: str) -> tuple[Tally, bool]:
        """Gradients of the mean over the whole step's values, however it was cut into micro-batches; and whether all of it is finite."""
        state.optimizers.zero_grad()
        figures = Tally()
        for micro in micros:
            with autocast(precision, self.device):
                loss = objective.loss(micro.to(self.device), rng)
            loss.total.backward()
            figures.add({"loss": (loss.total.detach(), loss.count), **loss.logs})
        gradients = [p.grad for p in state.optimizers.parameters if p.grad is not None]
        total, count = figures.sums["loss"]
        for gradient in gradients:
            gradient.div_(count)
        sides = _by_side(objective, state.optimizers.parameters)
        # A discriminator that has not joined has no gradients, and what torch calls their norm would lie on another device than the rest.
        norms = [self._clip(side) for side in sides if any(p.grad is not None for p in side)]
        finite = all(bool(torch.isfinite(norm)) for norm in norms)
        # of the first side; of all if one of them is why the step is skipped
        figures.add({"grad_norm": (norms[0] if finite else torch.stack(norms).sum(), 1)})
        return figures, abs(total) < float("inf") and finite

    def _clip(self, parameters: Sequence[Tensor]) -> Tensor:
        """Scale the gradients down to `clip_norm`; returns the norm they had."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        return norm

    def _note_bad(
        self, journal: Journal, tracker: Tracker, progress: Progress, state: State, micros: Sequence[Batch | Packed], figures: Tally
    ) -> None:
        samples = [sample for micro in micros for sample in micro.samples]
        rows = [row for micro in micros for row in micro.rows]
        means = figures.means()
        what = {"loss": means.get("loss", float("nan")), "grad_norm": means["grad_norm"]}
        journal.write({"kind": "skip", "step": state.step, "samples": samples, "rows": rows, **what})
        tracker.log({"kind": "skip", "step": state.step, "in_a_row": state.bad})
        progress.say(f"step {state.step} skipped: loss {what['loss']}, gradient norm {what['grad_norm']}, samples {samples}")
        if state.bad >= self.bad_steps:
            raise RuntimeError(
                f"the loss or its gradient was not finite in {state.bad} steps in a row (step {state.step}, samples {samples[:8]}...). "
                "The last checkpoint is from before. In a new run set a smaller optim.lr or trainer.precision=float32."
            )

    def _log(self, journal: Journal, tracker: Tracker, progress: Progress, state: State, factor: float) -> None:
        means, rates = state.tally.means(), state.meter.rates()
        row = {"kind": "train", "step": state.step, "samples": state.meter.samples, **means, "lr": state.optimizers.lr(factor)}
        row |= {"time_s": state.meter.time_s, "samples_per_s": rates.samples_per_s, "loader_wait": rates.loader_wait}
        journal.write(row)
        tracker.log(row)
        progress.show(means.get("loss", float("nan")), rates.samples_per_s, rates.loader_wait)
        state.tally.clear()

    def _save(self, checkpoints: Checkpoints, folder: RunFolder, objective: Objective, state: State, precision: str) -> None:
        cost = state.meter.totals()
        parts = {"weights": network_state(objective.networks), "ema": state.ema.state(), "optimizer": state.optimizers.tensors()}
        facts = {
            "samples_seen": state.meter.samples,
            "config_sha256": folder.config_hash,
            "precision": precision,
            "max_steps": state.end,
            "threads": torch.get_num_threads(),
            "bad": state.bad,
            "tally": state.tally.sums,
            "cost": cost,
            "optimizer": state.optimizers.scalars(),
        }
        # Before the checkpoint: a run whose last checkpoint is there is left alone, so nobody would write this afterwards.
        write_text(folder.cost, json.dumps(cost, indent=1) + "\n")
        checkpoints.save(state.step, parts, facts)

    def _preview(self, objective: Objective, batch: Batch, path: Path, precision: str) -> None:
        with autocast(precision, self.device):
            preview = objective.preview(batch.to(self.device), VALIDATION_RNG)
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(preview.videos, preview.captions, path)

    def _affordable(self, state: State, step_s: float) -> int:
        """Steps that the budget pays for, from what one takes."""
        assert self.budget_s is not None
        steps = max(state.step + 1, state.step + int((self.budget_s - state.meter.time_s) / step_s))
        return min(steps, self.max_steps) if self.max_steps else steps

    def _announce(self, objective: Objective, validation: Sequence[Batch], folder: RunFolder, precision: str, state: State) -> None:
        counts = {name: sum(p.numel() for p in network.parameters()) for name, network in objective.networks.items()}
        flop = objective.flops(validation[0]) / len(validation[0]) if validation else 0
        print(f"run         {folder.path}, {'from the start' if not state.step else f'from step {state.step}'}", file=sys.stderr)
        print(f"parameters  {', '.join(f'{name} {big(count)}' for name, count in counts.items())}", file=sys.stderr)
        print(f"steps       {state.end or f'as many as {duration(self.budget_s or 0)} of training pay for'}", file=sys.stderr)
        print(f"computing   {precision} on {describe(self.device)}; {big(flop)}FLOP a clip, forward and backward", file=sys.stderr)

    @contextmanager
    def _averaged(self, objective: Objective, ema: EMA) -> Iterator[None]:
        """Judge the averaged weights: in place, in evaluation mode, without gradients."""
        for network in objective.networks.values():
            network.eval()
        with torch.no_grad(), ema.applied(), uncompiled() if self.compile != "none" else nullcontext():
            yield
        for network in objective.networks.values():
            network.train()


def _by_side(objective: Objective, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """The trained parameters of each of the objective's sides."""
    owned = [{p for network in side for p in network.parameters()} for side in objective.sides]
    sides = [[p for p in parameters if p in own] for own in owned]
    assert sum(map(len, sides)) == len(parameters), "a trained parameter belongs to no side of the objective, or to two"
    return sides


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
