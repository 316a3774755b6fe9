"""Toys: an objective of a few hundred weights, and a loader that makes its batches from the step alone."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data.batch import Batch
from runtime.run_folder import RunFolder
from runtime.seeding import Rng, Stream, generator
from runtime.tracking import TIME_FIELDS, NoTracker
from training.objective import Loss, Preview
from training.optim import AdamW, Muon
from training.schedule import Schedule
from training.trainer import Trainer

torch.set_num_threads(1)


def batch(samples: Sequence[int]) -> Batch:
    latents = torch.from_numpy(Rng(99).normal(Stream.WORLD, samples, 2, (4, 2, 2))).transpose(1, 2).contiguous()
    captions = tuple({"short": (f"clip {sample}",)} for sample in samples)
    return Batch(tuple(samples), tuple(samples), captions, torch.full((len(samples),), 8.0), latents=latents)


class ToyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 8)
        self.hidden = nn.Linear(4, 8)
        self.out = nn.Linear(8, 4)
        self.register_buffer("statistics", torch.zeros(4))

    def forward(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(x) + self.words(words)))


class ToyObjective:
    """Takes noise away. `poison(step samples)` may spoil the loss."""

    def __init__(self, spoil: Callable[[Batch], bool] = lambda _: False) -> None:
        torch.manual_seed(0)
        self.net, self.spoil, self.refreshed = ToyNet(), spoil, 0

    @property
    def networks(self):
        return {"toy": self.net}

    @property
    def sides(self):
        return [[self.net]]

    def begin(self, folder: RunFolder, allow_drift: Sequence[str] = ()) -> None:
        """Nothing."""

    def to(self, device: str) -> None:
        self.net.to(device)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        errors = self.errors(batch, rng)
        if self.spoil(batch):
            errors = errors * float("nan")
        return Loss(errors.sum(), errors.numel(), {"first": (errors.detach()[0].sum(), errors[0].numel())})

    def errors(self, batch: Batch, rng: Rng) -> torch.Tensor:
        clean = batch.content.flatten(2).transpose(1, 2)  # b n c
        noise = torch.from_numpy(rng.normal(Stream.NOISE, batch.samples, 1, clean.shape[1:])[:, 0])
        words = torch.tensor([[sample % 5] for sample in batch.samples])
        return (self.net(clean + noise, words) - clean).square()

    def validate(self, batch: Batch, rng: Rng):
        errors = self.errors(batch, rng)
        return {"loss": (errors.sum(), errors.numel()), "weight": (self.net.out.weight.sum(), 1), "refreshed": (self.net.statistics.sum(), 1)}

    def preview(self, batch: Batch, rng: Rng) -> Preview:
        return Preview([np.zeros((3, 16, 16, 3), np.uint8)] * len(batch), [clip["short"][0] for clip in batch.captions])

    def refresh(self, batches) -> None:
        self.refreshed += 1
        self.net.statistics.copy_(self.net.out.weight.sum(dim=1))

    def flops(self, batch: Batch) -> int:
        return 1000 * len(batch)


class ToyLoader:
    wait_s = 0.0

    def __init__(self, batch_size: int = 6, micro: int = 6, after: Callable[[int], None] = lambda _: None) -> None:
        self.batch_size, self.micro, self.after = batch_size, micro, after

    def steps(self, start_step: int, stop_step: int) -> Iterator[list[Batch]]:
        for step in range(start_step, stop_step):
            order = generator(0, Stream.ORDER, step).permutation(1000)[: self.batch_size].tolist()
            yield [batch(order[first : first + self.micro]) for first in range(0, self.batch_size, self.micro)]
            self.after(step + 1)


def adamw(**changes) -> AdamW:
    return AdamW(**({"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.01, "eps": 1e-8} | changes))


def muon() -> Muon:
    return Muon(lr=1e-2, momentum=0.95, weight_decay=0.0, adjust="match_rms_adamw", rest=adamw(), adamw_layers=["toy.out.*"])


def trainer(**changes) -> Trainer:
    settings = {
        "max_steps": 10,
        "budget_s": None,
        "schedule": Schedule(2, 0.5),
        "precision": "float32",
        "device": "cpu",
        "clip_norm": 1.0,
        "ema_decay": 0.9,
        "log_every": 3,
        "validate_every": 4,
        "preview_every": 0,
        "checkpoint_every": 5,
        "keep_last": 2,
        "bad_steps": 3,
        "threads": None,
        "compile": "none",
    }
    return Trainer(**(settings | changes))


class Toys:
    """What a test needs to run and to compare runs."""

    batch, Objective, Loader = staticmethod(batch), ToyObjective, ToyLoader
    adamw, muon, trainer = staticmethod(adamw), staticmethod(muon), staticmethod(trainer)

    @staticmethod
    def fit(run: Path, objective=None, loader=None, recipe=None, tracker=None, **changes) -> ToyObjective:
        objective = objective or ToyObjective()
        with RunFolder(run, {"run": str(run)}) as folder:
            loader, validation = loader or ToyLoader(), [batch([0, 1]), batch([2])]
            trainer(**changes).fit(objective, loader, validation, recipe or muon(), folder, tracker or NoTracker(), seed=3)
        return objective

    @staticmethod
    def rows(run: Path) -> list[dict]:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in rows]

    @staticmethod
    def digests(run: Path, step: int) -> dict[str, str]:
        folder = run / "checkpoints" / f"step-{step:08d}"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture
def toys() -> type[Toys]:
    return Toys
