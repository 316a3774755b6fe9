"""From one YAML to runs: every arm under every seed, as many steps each as the same budget pays for."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from ablation.jobs import Job
from data.batch import Batch
from models.geometry import latent_grid
from runtime.build import build
from runtime.build import check as check_built
from runtime.config import CONFIGS, Complete, Config, ConfigError, compose, nearest

RUNS = "runs"  # folder of all ablations' runs: those that are alike, as many baselines are, are made once
BUDGETS = ("flop", "steps", "seconds")
SOURCES = ("validation", "evaluation")


@dataclass(frozen=True, slots=True)
class Run:
    """One arm under one seed.

    Args:
        job: measures it, and needs its training; or is the training, where no measure asks for an evaluation.
        folder: of the training run.
        steps: optimiser steps; None where a budget of seconds decides.
        flop_per_step: of an optimiser step, forward and backward.
        parameters: trained weights.
    """

    arm: str
    seed: int
    job: Job
    folder: Path
    steps: int | None
    flop_per_step: int
    parameters: int


@dataclass(frozen=True, slots=True)
class _Arm:
    """What all seeds of an arm share.

    Args:
        train, evaluate: overrides of train.py, whatever the seed, and of scripts/evaluate.py; None where no measure asks for one.
        digests: of all that decides about the training, and about the evaluation.
    """

    train: list[str]
    evaluate: list[str] | None
    steps: int | None
    flop_per_step: int
    parameters: int
    digests: tuple[str, str]


def plan(config: Config, complete: Complete | None = None) -> list[Run]:
    """All runs of an ablation, seeds outermost, so that one that is stopped early compares all arms on the first seeds.

    Args:
        config: of scripts/ablate.py.
        complete: of runtime.config.compose, for train.py's config.
    Raises: ConfigError naming the key, before anything runs.
    """
    check(config)
    arms = {name: _arm(config, name, complete) for name in chosen(config)}
    first = {arm.digests: name for name, arm in reversed(arms.items())}
    for name, arm in arms.items():
        if first[arm.digests] != name:
            raise ConfigError(f"arms {first[arm.digests]} and {name} come to the same config: there is nothing to compare. Set arms.")
    return [_run(name, arm, seed, Path(config["out"]) / RUNS) for seed in seeds(config) for name, arm in arms.items()]


def _run(name: str, arm: _Arm, seed: int, root: Path) -> Run:
    called, (training, measuring) = f"{name}, seed {seed}", arm.digests
    folder = root / f"{training}-seed-{seed}"
    job = Job(called, folder, "cost.json", (("train.py", f"run={folder}", *arm.train, f"seed={seed}"),), work=training)
    if arm.evaluate is not None:
        out = folder / f"measured-{measuring}"
        command = ("scripts/evaluate.py", f"run={folder}", f"out={out}", *arm.evaluate)
        job = Job(called, out, "evaluation.json", (command,), work=measuring, needs=(replace(job, name=f"training of {called}"),))
    return Run(name, seed, job, folder, arm.steps, arm.flop_per_step, arm.parameters)


def prepared(config: Config) -> list[Job]:
    """What has to be there before the first run, in its order: each the folder it fills and a file that it leaves there."""
    nodes = {name: node for name, node in config["ablation"]["prepare"].items() if node is not None}
    notes = Path(config["base"]) / "made"
    return [Job(name, Path(node["folder"]), node["result"], (tuple(node["command"]),), notes / name) for name, node in nodes.items()]


def chosen(config: Config) -> list[str]:
    """The arms that run: all, or the baseline and those of `only`."""
    arms, baseline, only = config["ablation"]["arms"], config["ablation"]["baseline"], config["only"]
    return [name for name in arms if only is None or name in map(str, only) or name == baseline]


def overrides(config: Config, arm: str) -> tuple[list[str], list[str]]:
    """What an arm changes of train.py and of scripts/evaluate.py. A list is of the former."""
    node = config["ablation"]["arms"][arm]
    return (list(node), []) if isinstance(node, list) else (list(node.get("train", ())), list(node.get("evaluate", ())))


def measures(config: Config) -> dict[str, Config]:
    """What is compared, by name; null takes away what an ablation inherited."""
    return {name: node for name, node in config["ablation"]["measures"].items() if node is not None}


def seeds(config: Config) -> list[int]:
    """A count stands for 0, 1, 2..."""
    given = config["seeds"] if config["seeds"] is not None else config["ablation"]["seeds"]
    return list(range(given)) if isinstance(given, int) else list(given)


def asked(config: Config) -> str:
    """The ablation's name and which arms, seeds and budget the command line asks for instead of its YAML's: each has a page of its own."""
    ablation, own, words = config["ablation"], seeds(config), [config["ablation"]["name"]]
    if len(chosen(config)) < len(ablation["arms"]):
        words += ["only", *(_plain(name) for name in chosen(config) if name != ablation["baseline"])]
    if own != seeds(config | {"seeds": None}):
        in_a_row = len(own) > 2 and own == list(range(own[0], own[0] + len(own)))
        words += ["seeds", *([str(own[0]), "to", str(own[-1])] if in_a_row else map(str, own))]
    if budget(config) != ablation["budget"]:
        ((key, value),) = ((key, value) for key, value in budget(config).items() if value is not None)
        words += ["budget", f"{value / 1e12:g}-tflop" if key == "flop" else f"{value:g}-{key}"]
    return "-".join(words)


def budget(config: Config) -> Config:
    """The ablation's budget, or that of the command line in its place."""
    return config["budget"] if any(config["budget"].values()) else config["ablation"]["budget"]


def check(config: Config) -> None:
    """Raises: ConfigError naming the key."""
    if "ablation" not in config:
        options = sorted(path.stem for path in (CONFIGS / "ablation").glob("[!_]*.yaml"))
        raise ConfigError(f"ablation has no value. Set ablation= one of {', '.join(options)}.")
    ablation = config["ablation"]
    arms, baseline, only = ablation["arms"], ablation["baseline"], config["only"]
    if not re.fullmatch(r"\w[\w-]*", str(ablation["name"])) or ablation["name"] == RUNS:
        wanted = f"letters, digits, - and _, and not {RUNS}, where all runs lie"
        raise ConfigError(f"ablation.name={ablation['name']!r} becomes a folder: {wanted}. Set name in the ablation's YAML.")
    if len(arms) < 2 or baseline not in arms:
        told = f"got {len(arms)} arms ({', '.join(arms)}) and baseline={baseline}; wanted at least two arms, the baseline among them"
        raise ConfigError(f"{told}. Set arms and baseline in the ablation's YAML.")
    plain = [_plain(name) for name in arms]
    if "" in plain or len(set(plain)) < len(plain):
        told = f"arms {', '.join(arms)}: a page's folder could not tell two of them apart"
        raise ConfigError(f"{told}, wanted names that differ in a to z and digits. Set arms.")
    if only is not None and not isinstance(only, list):
        raise ConfigError(f"only={only!r} must be a list of arms: only=[{only}]. Set only, or null for all.")
    for name in map(str, only or ()):
        if name not in arms:
            raise ConfigError(f"only={name} is no arm{nearest(name, list(arms))}. Set only, or null for all.")
    given = config["seeds"] if config["seeds"] is not None else ablation["seeds"]
    numbers = seeds(config) if type(given) is int or isinstance(given, list) else []
    if not numbers or len(set(numbers)) < len(numbers) or any(type(seed) is not int or seed < 0 for seed in numbers):
        raise ConfigError(f"seeds={given!r} must be a count >= 1 or a list of different whole numbers >= 0. Set seeds.")
    for node, key in ((config["budget"], "budget"), (budget(config), "ablation.budget")):
        set_keys = {name: value for name, value in node.items() if value is not None}
        wrong = [name for name, value in set_keys.items() if type(value) not in (int, float) or not (isfinite(value) and value > 0)]
        if set(node) != set(BUDGETS) or wrong or len(set_keys) > 1 or (key != "budget" and not set_keys):
            raise ConfigError(f"{key}={node} must give exactly one of {', '.join(BUDGETS)}, above 0. Set {key}.flop, .steps or .seconds.")
    _check_measures(measures(config))
    for name, node in arms.items():
        parts = {"train": node} if isinstance(node, list) else node
        if not isinstance(parts, dict) or not set(parts) <= {"train", "evaluate"} or not all(isinstance(part, list) for part in parts.values()):
            wanted = "a list of overrides of train.py, or {train: [...], evaluate: [...]}"
            raise ConfigError(f"arms.{name}={node!r}, wanted {wanted}. Set arms in the ablation's YAML.")
        if parts.get("evaluate") and not _evaluated(config):
            raise ConfigError(f"arms.{name} is evaluated otherwise, but no measure is from an evaluation. Set measures, or take evaluate away.")


def _check_measures(found: Mapping[str, Any]) -> None:
    if not found:
        raise ConfigError("measures={} compares nothing. Set measures in the ablation's YAML.")
    wanted = {"label", "from", "key", "better", "smallest", "share", "deviation"}
    for name, node in found.items():
        if set(node) != wanted:
            raise ConfigError(f"measures.{name} has the keys {sorted(node)}, wanted {sorted(wanted)}. Set measures.{name}.")
        for key, legal in (("from", SOURCES), ("better", ("lower", "higher"))):
            if node[key] not in legal:
                raise ConfigError(f"measures.{name}.{key}={node[key]!r}, wanted one of {', '.join(legal)}. Set measures.{name}.{key}.")
        for key in ("smallest", "deviation"):
            if node[key] is not None and not (type(node[key]) in (int, float) and node[key] > 0):
                raise ConfigError(f"measures.{name}.{key}={node[key]!r} must be a number above 0, or null. Set measures.{name}.{key}.")


def _arm(config: Config, name: str, complete: Complete | None) -> _Arm:
    train, evaluate = overrides(config, name)
    paid, given = budget(config), [*config["ablation"]["common"], *train]
    composed = compose("train", ["run=x", *given], complete)
    flop, parameters = _step_cost(composed)
    steps = None if paid["seconds"] else int(paid["steps"] or steps_for(paid["flop"], flop))
    length = [f"trainer.max_steps={steps}"] if steps else ["trainer.max_steps=null", f"trainer.budget_s={paid['seconds']}"]
    # An arm of which anything was changed is another run.
    facts = [composed, length, _weights_of(composed["vae_run"]), _world_of(composed)]
    measuring = [*config["ablation"]["evaluate"], *evaluate] if _evaluated(config) else None
    measured = None if measuring is None else compose("evaluate", ["run=x", *measuring], None)
    digests = _digest(facts), "" if measured is None else _digest([measured, _world_of(measured)])
    return _Arm([*given, *length], measuring, steps, flop, parameters, digests)


def _evaluated(config: Config) -> bool:
    return any(measure["from"] == "evaluation" for measure in measures(config).values())


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def _weights_of(run: str | None) -> str | None:
    """The manifest of a run's newest checkpoint, which holds the sha256 of its weights."""
    manifests = sorted(Path(run).glob("checkpoints/step-*/manifest.json")) if run is not None else []
    return manifests[-1].read_text(encoding="utf-8") if manifests else None


def _world_of(composed: Config) -> str | None:
    """How the clips were made."""
    path = Path(composed.get("world") or "", "world.json")  # a run on other clips has no such key
    return path.read_text(encoding="utf-8") if path.is_file() else None


def steps_for(budget_flop: float, flop_per_step: int) -> int:
    """Optimiser steps that a budget of training FLOP pays for.

    Raises: ConfigError if it pays for none.
    """
    steps = int(budget_flop // flop_per_step)
    if steps < 1:
        wanted = f"a budget of {budget_flop / 1e12:.3g} TFLOP does not pay for one step of {flop_per_step / 1e12:.3g} TFLOP"
        raise ConfigError(f"{wanted}. Set the budget higher, or the arm's data.batch_size lower.")
    return steps


def step_cost(overrides: Sequence[str], complete: Complete | None = None) -> tuple[int, int]:
    """(FLOP of an optimiser step of a training config, forward and backward, by its own objective; trained weights).

    Raises: ConfigError if steps have no one cost, as clips have many shapes.
    """
    return _step_cost(compose("train", ["run=x", *overrides], complete))


def _step_cost(config: Config) -> tuple[int, int]:
    check_built(config)
    data = config["data"]
    if data["batch_size"] is None or not {"frames", "height", "width"} <= set(data["shape"]):
        shape = data["shape"]["_target_"].rpartition(".")[2]
        told = f"data.batch_size={data['batch_size']} and data/shape={shape.lower()}: steps are of unlike clips and have no one cost in FLOP"
        raise ConfigError(f"{told}. Set data/shape=fixed and data.batch_size.")
    with torch.device("meta"):
        objective = build(config["objective"])
    count, shape, crop = data["batch_size"], data["shape"], data["crop"]
    height, width = (min(shape[side], crop["size"]) if crop else shape[side] for side in ("height", "width"))
    video, latents = None, None
    if data["latents"] is not None and "dit" in config["objective"]:  # encoded once, before the first step
        vae = objective.vae
        latents = torch.empty(count, vae.latent_channels, *latent_grid(shape["frames"], height, width, vae.stride), device="meta")
    else:
        video = torch.empty(count, 3, shape["frames"], height, width, device="meta")
    batch = Batch(tuple(range(count)), (0,) * count, ({},) * count, torch.zeros(count), video, latents)
    return objective.flops(batch), sum(p.numel() for network in objective.networks.values() for p in network.parameters())


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "-", name.lower()).strip("-")
