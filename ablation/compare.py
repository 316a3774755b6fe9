"""Runs side by side: what each is and was measured at, and how far it is from the first; one JSON that table and page are made of.

Figures and intervals are those of evaluation.json; only differences are computed here, and none between figures measured in unlike ways.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite, prod
from os.path import normpath
from pathlib import Path
from typing import Any, Literal

from ablation.compare_alike import Measured, faults
from evaluation.report import losses, read_json
from evaluation.statistics import Mean, apart, paired_bootstrap, paired_shares
from runtime.config import Config, ConfigError, flatten, load_run_config

Comparison = Mapping[str, Any]  # the content of comparison.json
MOST = 6


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of evaluation.json.

    Args:
        at: its dotted place: {value, low, high, n}, or a number beside which its interval may stand as <at>_low and <at>_high.
        better: None where neither end is better.
        head: whether it is among the few that decide.
        biased: its interval is not around its value (Frechet distances have their bias taken out of it), so it cannot be subtracted.
    """

    at: str
    label: str
    better: Literal["lower", "higher"] | None
    share: bool = False
    head: bool = False
    biased: bool = False


def compared(folders: Sequence[str], command: str) -> dict[str, Any]:
    """The content of comparison.json.

    Raises: ConfigError if these are not two to six folders of runs of one kind; ValueError if a file of theirs is damaged.
    """
    runs = _named(folders)
    configs = {name: load_run_config(folder) for name, folder in runs.items()}
    kind = _kind(runs, configs)
    measured = {name: Measured.of(folder, configs[name]) for name, folder in runs.items()}
    first = next(iter(runs))
    wanted, base = next((one for one in measured.values() if one.evaluation), None), measured[first].evaluation
    found: dict[str, Any] = {}
    measures = _measures(kind, [one.evaluation for one in measured.values()])
    for name, one in measured.items():
        own, wrong = one.evaluation, faults(one, wanted)
        # Only where both were measured alike is a difference one between the runs.
        alike = name != first and bool(base) and not any(fault["apart"] for fault in wrong)
        differences = {measure.at: _difference(own, base, measure) for measure in measures} if alike else {}
        figures = {measure.at: _figure(own, measure.at) for measure in measures}
        found[name] = {
            "run": str(one.run),
            "measured": str(one.folder),
            **_cost(one.run, one.config, own),
            "latents": _latents(own, one.config),
            "protocol": own.get("protocol"),
            "faults": wrong,
            "figures": {at: figure for at, figure in figures.items() if figure is not None},
            "items": [measure.at for measure in measures if isinstance(_at(own, f"{measure.at}_of"), list)],
            "differences": {at: difference for at, difference in differences.items() if difference is not None},
        }
    return {
        "command": command,
        "kind": kind,
        "first": first,
        "measures": {measure.at: asdict(measure) for measure in measures},
        "runs": found,
        "config": changed(configs),
    }


def changed(configs: Mapping[str, Config]) -> dict[str, dict[str, str | None]]:
    """Every key in which not all configs agree: of each run its value, None where it has no such key."""
    flat = {name: {key: repr(_at_home(value, config.get("run"))) for key, value in flatten(config).items()} for name, config in configs.items()}
    keys = dict.fromkeys(key for own in flat.values() for key in own)
    rows = {key: {name: own.get(key) for name, own in flat.items()} for key in keys if key != "allow_drift"}
    return {key: row for key, row in rows.items() if len(set(row.values())) > 1}


def _at_home(value: Any, run: str | None) -> Any:
    """A path into the run's own folder, which is another in every run, without it."""
    if run is None or not isinstance(value, str) or not f"{value}/".startswith(f"{run}/"):
        return value
    return f"<run>{value.removeprefix(run)}"


def _named(folders: Sequence[str]) -> dict[str, Path]:
    """Folders by the shortest ends of their paths that tell them apart."""
    if not 2 <= len(folders) <= MOST:
        raise ConfigError(f'runs={list(folders)} names {len(folders)} run folders, wanted 2 to {MOST}. Set "runs=[runs/a,runs/b]".')
    paths = [Path(normpath(str(folder))) for folder in folders]
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise ConfigError(f"runs={list(folders)} names {path} twice. Give folders of different runs.")
    for length in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    return {str(path): path for path in paths}


def _kind(runs: Mapping[str, Path], configs: Mapping[str, Config]) -> Literal["flow", "vae"]:
    for name, config in configs.items():
        if not isinstance(config.get("objective"), Mapping):
            raise ConfigError(f"{runs[name]} holds no config of a training run. Give folders that train.py was given as run=.")
        if not {"dit", "vae"} & set(config["objective"]):
            raise ConfigError(f"{runs[name]} is neither a flow model nor a VAE, and has no evaluation. Set runs to folders of these.")
    kinds = {name: "flow" if "dit" in config["objective"] else "vae" for name, config in configs.items()}
    for one, other in pairwise(kinds):
        if kinds[one] != kinds[other]:
            words = {"flow": "a flow model", "vae": "a VAE"}
            told = f"{runs[one]} is {words[kinds[one]]} and {runs[other]} is {words[kinds[other]]}: they share no figure"
            raise ConfigError(f"{told}. Set runs to folders of one kind.")
    return "flow" if "flow" in kinds.values() else "vae"


def _measures(kind: str, given: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """What runs of this kind are measured by; figures that no evaluation has are left out."""

    def below(at: str) -> list[str]:
        return list(dict.fromkeys(name for evaluation in given for name in (_at(evaluation, at) or {})))

    flow = kind == "flow"
    part, words = ("generated", "to real clips") if flow else ("vae", "to the clips")
    distances = [Measure(f"{part}.frechet.{name}", f"Frechet distance {words}, {name}", "lower", biased=True) for name in below(f"{part}.frechet")]
    distances += [Measure(f"{part}.kernel.{name}", f"kernel distance {words}, {name}", "lower") for name in below(f"{part}.kernel")]
    follow = [
        Measure("prompt_following.all", "held-out prompts followed in everything", "higher", True, head=True),
        Measure("prompt_following.graded", "attributes right, of held-out prompts", "higher", True, head=True),
        Measure("prompt_following.lenient", "the same prompts, lenient rule for shapes", "higher", True),
        *(Measure(f"prompt_following.attributes.{name}", f"{name} right", "higher", True) for name in below("prompt_following.attributes")),
        Measure("prompt_following.seen", "prompts of seen combinations followed", "higher", True, head=True),
        Measure("prompt_following.framed", "frames that show all of the object", "higher", True),
        *(Measure(f"objects.{count}", f"prompts of {count} object{'s' * (count != '1')} followed", "higher", True) for count in below("objects")),
    ]
    for part, words in (("image_to_video", "new"), ("image_to_video_seen", "seen")):
        for name, told in (("shape_and_colour", "shape and colour kept"), ("motion", "motion right"), ("first_frame_kept", "first frame kept")):
            follow.append(Measure(f"{part}.motion.{name}", f"picture of a {words} combination: {told}", "higher", True))
    pictures = [
        Measure("vae.psnr_db", "VAE: PSNR in dB" if flow else "PSNR in dB", "higher", head=not flow),
        Measure("vae.psnr_box_db", "PSNR inside objects' boxes, in dB", "higher"),
        Measure("vae.ssim", "SSIM", "higher"),
        Measure("vae.flicker", "flicker, in levels", "lower"),
        Measure("vae.edge_ratio.stride", "change across latent edges, of the source's", None),
        Measure("tokenizer.bits_per_pixel", "bits per pixel, at most", None),
    ]
    ceiling = Measure("ceiling", "reconstructions read right", "higher", True, head=not flow)
    every = [*follow, *distances, pictures[0], ceiling] if flow else [pictures[0], ceiling, *pictures[1:], *distances]
    return [measure for measure in every if any(_figure(evaluation, measure.at) for evaluation in given)]


def _at(node: Any, at: str) -> Any:
    for key in at.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _figure(evaluation: Mapping[str, Any], at: str) -> dict[str, Any] | None:
    """{value, low, high, n}, the last three None where the evaluation has none; None without a finite value."""
    node, parent = _at(evaluation, at), _at(evaluation, at.rpartition(".")[0]) if "." in at else evaluation
    if isinstance(node, Mapping):
        found = {key: node.get(key) for key in ("value", "low", "high")} | {"n": node.get("n", node.get("clips"))}
    else:
        parent = parent if isinstance(parent, Mapping) else {}
        last = at.rpartition(".")[2]
        found = {"value": node, "low": parent.get(f"{last}_low"), "high": parent.get(f"{last}_high"), "n": parent.get("n")}
    return found if isinstance(found["value"], int | float) and isfinite(found["value"]) else None


def _difference(own: Mapping[str, Any], base: Mapping[str, Any], measure: Measure) -> dict[str, Any] | None:
    """own - base: {value, low, high, n, how}; how is paired, apart, or bare where there is no interval."""
    one, other = _figure(own, measure.at), _figure(base, measure.at)
    if one is None or other is None:
        return None
    items = [_at(evaluation, f"{measure.at}_of") for evaluation in (own, base)]
    if all(isinstance(item, list) and len(item) > 1 for item in items) and len(items[0]) == len(items[1]):
        of_shares = all(isinstance(value, bool) for item in items for value in item)
        found = paired_shares(*items) if of_shares else paired_bootstrap(*items, seed=own["protocol"]["seed"])
        return asdict(found) | {"how": "paired"}
    if measure.biased or any(figure["low"] is None for figure in (one, other)):
        return {"value": one["value"] - other["value"], "low": None, "high": None, "n": one["n"], "how": "bare"}
    return asdict(apart(*(Mean(figure["value"], figure["low"], figure["high"], figure["n"] or 0) for figure in (one, other)))) | {"how": "apart"}


def _cost(folder: Path, config: Config, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a run took and came to; None for what nobody wrote down."""
    cost = read_json(folder / "cost.json")
    train, validation = losses(folder / "metrics.jsonl")
    newest = max((folder / "checkpoints").glob("step-*/ema.safetensors"), default=None)
    steps = [int(point[0]) for point in (*train[-1:], *validation[-1:])] + ([int(newest.parent.name[5:])] if newest is not None else [])
    return {
        "seed": config.get("seed"),
        "steps": max(steps, default=None),
        "samples": cost.get("samples"),
        "flop": cost.get("flop"),
        "seconds": cost.get("time_s"),
        "parameters": _at(evaluation, "tokenizer.parameters") if "dit" not in config["objective"] else _weights(newest),
        "validation_loss": validation[-1][1] if validation else None,
        "weights_sha256": _at(evaluation, "protocol.weights_sha256"),
    }


def _weights(path: Path | None) -> int | None:
    """How many numbers a safetensors file holds, by its header; None if it is cut or not there."""
    if path is None:
        return None
    with open(path, "rb") as file:
        head = file.read(8)
        try:
            tensors = json.loads(file.read(struct.unpack("<Q", head)[0]))
        except (struct.error, ValueError):
            return None
    return sum(prod(tensor["shape"]) for name, tensor in tensors.items() if name != "__metadata__")


def _latents(evaluation: Mapping[str, Any], config: Config) -> list[Any]:
    """Stride and channels of the latents: under one seed, noise is the same where these are."""
    tokenizer, vae = evaluation.get("tokenizer"), config["objective"].get("vae") or {}
    if tokenizer:
        return [*tokenizer["stride"], tokenizer["latent_channels"]]
    return [vae.get("stride_t"), vae.get("stride_s"), vae.get("stride_s"), vae.get("latent_channels")]
