"""Starting from another run's weights: what fits is copied by name, ends of another size are resized, and a report names all the rest."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import DoubleBlock
from models.dit import DiT
from models.vae import VideoVAE
from runtime.checkpoint import MANIFEST, Checkpoint, Checkpoints, read, read_manifest
from runtime.config import Config, ConfigError, differences, load_run_config
from runtime.files import write_text
from runtime.run_folder import RunFolder
from training import vae_bundle
from training.ema import network_state
from training.inference import newest_averages, read_prediction
from training.resize import either_end, resizes
from training.vae_encoding import encoding_config, encoding_names, unlike

# Keys of objective.text that say what its vectors mean; with another value, whatever read the old ones starts afresh.
ENCODER_KEYS = ("_target_", "tokenizer", "path", "layer", "labels", "width")
READS_TEXT = ("text.", "dit.text_in.", "dit.pooled_in.")

# What loads and means something else under other values of these keys of objective.
POSITIONS = "positions are not what these weights learnt", ("dit.rope", "dit.patch")
HEADS = "these weights learnt other heads: their channels are shared out anew, so attention is not what it was", ("dit.heads=",)
PREDICTION = "the output of these weights stood for something else, or was bounded elsewhere, than it is read as here"


@dataclass(frozen=True, slots=True)
class Source:
    """Weights to start from.

    Args:
        tensors: by '<network>.<name>', averaged where there are averages.
        objective: config of the run that made them; empty if nothing tells.
        flow_run: the run that holds the VAE whose latents they learnt; None for a VAE.
    """

    name: str
    step: int
    sha256: str
    tensors: Mapping[str, Tensor]
    objective: Mapping[str, Any]
    flow_run: Path | None = None

    @property
    def networks(self) -> list[str]:
        """Names of the networks it holds, in order."""
        return list(dict.fromkeys(name.partition(".")[0] for name in self.tensors))


@dataclass(slots=True)
class Report:
    """What became of every tensor: of those here, `loaded`, `resized` and `fresh`; of the source's, `unused`. Values say why."""

    source: Source
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> str:
        """In a few words."""
        words = [f"{len(self.loaded)} tensors", f"{len(self.resized)} resized", f"{len(self.fresh)} fresh"]
        return ", ".join(words) + (f", {len(self.unused)} of the source unused" if self.unused else "")

    def facts(self) -> dict[str, Any]:
        """For the run's state.json."""
        source = self.source
        lists = {"resized": list(self.resized), "fresh": list(self.fresh), "unused": list(self.unused)}
        return {"source": source.name, "step": source.step, "sha256": source.sha256, "loaded": len(self.loaded), **lists}

    def text(self) -> str:
        """Every tensor, one a line."""
        source = self.source
        lines = [f"from {source.name}, step {source.step}, sha256 {source.sha256}", self.counts()]
        groups = {"resized": self.resized, "fresh": self.fresh, "unused": self.unused, "loaded": dict.fromkeys(self.loaded, "")}
        lines += [f"{kind:<9}{name}{f': {why}' if why else ''}" for kind, names in groups.items() for name, why in names.items()]
        lines += [f"note     {note}" for note in self.notes]
        return "\n".join([*lines, *(f"config   objective.{line}" for line in self.differs)]) + "\n"


def warm_start(init_from: str | None, networks: Mapping[str, nn.Module], objective: Config, folder: RunFolder) -> None:
    """Put the weights of `init_from` into freshly built networks, once in a run's life: a run that has a checkpoint has its own.

    Leaves <run>/init_from.txt and the fact "init_from".

    Args:
        init_from: a run folder, a checkpoint inside one, or a VAE bundle (<run>/vae); None: nothing happens.
        objective: this run's config of the networks.
    Raises: ConfigError if the source cannot be read, holds other networks, or holds weights that are not finite.
    """
    if Checkpoints(folder.checkpoints).published():
        return
    path = folder.path / "init_from.txt"
    path.unlink(missing_ok=True)  # of a start that came to nothing
    if init_from is None:
        return
    source = read_source(init_from)
    report = load(source, networks, objective)
    write_text(path, report.text())
    folder.remember("init_from", report.facts())
    print(f"start       from {source.name} step {source.step}: {report.counts()} ({path} has them)", file=sys.stderr)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    bundle = vae_bundle.bundle_folder(folder.path)
    if source.flow_run and bundle.is_dir() and vae_bundle.latents_key(folder.path) != vae_bundle.latents_key(source.flow_run):
        print(f"note: {source.name} learnt the latents of another VAE than the one in {bundle}", file=sys.stderr)


def read_source(init_from: str) -> Source:
    """The weights that `init_from` names: of a run its newest sound checkpoint.

    Raises: ConfigError if there are none, or they are damaged.
    """
    folder = Path(init_from)
    try:
        if (folder / MANIFEST).is_file():
            part = "ema" if "ema.safetensors" in read_manifest(folder)["files"] else "weights"
            saved, sha256 = read(folder, part), read_manifest(folder)["files"][f"{part}.safetensors"]["sha256"]
            if (folder / "config.yaml").is_file():
                return _bundle(init_from, saved, part, sha256, load_run_config(folder))
            run = folder.parent.parent
            config = load_run_config(run) if (run / "config.yaml").is_file() else {}
        elif (folder / "config.yaml").is_file():
            run, config, part = folder, load_run_config(folder), "ema"
            saved, sha256 = newest_averages(folder)
        else:
            raise ConfigError(f"init_from={init_from} is no run folder, no checkpoint and no bundle. Set init_from.")
    except RuntimeError as error:
        raise ConfigError(f"init_from: {error} Set init_from.") from None
    flow_run = run if vae_bundle.bundle_folder(run).is_dir() else None
    return Source(init_from, saved.step, sha256, saved.parts[part], config.get("objective", {}), flow_run)


def load(source: Source, networks: Mapping[str, nn.Module], objective: Mapping[str, Any]) -> Report:
    """Copy the source's weights into the networks, all or nothing.

    Raises: ConfigError if it holds none of these networks, nothing fits, a weight is not finite, nothing tells what a DiT's weights mean
        and not all of them fit, or a VAE's encoder is frozen and would not be the source's.
    """
    targets = network_state(networks)
    held = {name: tensor for name, tensor in source.tensors.items() if name.partition(".")[0] in networks}
    _refuse(source, held, networks)
    report = Report(source)
    if source.objective:
        report.differs = differences(_own(source.objective), _own(objective), ("preview_steps", "preview_clips"))
    rules, barred = resizes(source.objective, networks, held), _other_encoder(source.objective, objective)
    names = {either_end(name): name for name in held}
    made: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, fresh in targets.items():
        there = names.get(either_end(name), name)
        saved, rule, shape = held.get(there), rules.get(name), tuple(fresh.shape)
        resized = None if saved is None or rule is None else rule(saved, fresh)
        if saved is None:
            report.fresh[name] = f"{shape} is not in the source"
        elif barred and name.startswith(READS_TEXT):
            report.fresh[name] = barred
        elif resized is not None:
            made[name], report.resized[name] = resized, f"{tuple(saved.shape)} there, {shape} here"
        elif rule is not None or saved.shape != fresh.shape:
            report.fresh[name] = f"mismatch, {tuple(saved.shape)} there, {shape} here"
        else:
            made[name] = saved
            report.loaded.append(name)
        used.add(there)
    report.unused = {name: f"{tuple(tensor.shape)}" for name, tensor in source.tensors.items() if name not in used}
    if not any(name in made for network, module in networks.items() for name in (f"{network}.{own}" for own, _ in module.named_parameters())):
        first = next(iter(report.fresh.items()))
        raise ConfigError(f"init_from={source.name}: none of its {len(held)} tensors fits the {len(targets)} here ({first[0]}: {first[1]}).")
    if "dit" in networks and not source.objective:
        _fits_untold(report, {name: held[name] for name in report.unused if name in held})
    _refuse_other_encoder(report, networks.get(vae_bundle.NETWORK), objective)
    report.notes += _notes(report, held, networks, objective)
    with torch.no_grad():
        for name, tensor in made.items():
            targets[name].copy_(tensor)
        for network, module in networks.items():
            if isinstance(module, DiT):
                _silence_new_blocks(module, f"{network}.", made)
    return report


def _refuse(source: Source, held: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> None:
    if not held:
        bundle = " Its VAE is in <run>/vae." if source.flow_run and vae_bundle.NETWORK in networks else ""
        theirs, ours = ", ".join(source.networks), ", ".join(networks)
        raise ConfigError(f"init_from={source.name} holds weights of {theirs}, and this run trains {ours}.{bundle} Set init_from.")
    for name, tensor in held.items():
        bad = tensor.numel() - int(torch.isfinite(tensor).sum())
        if bad:
            what = f"{bad} of the {tensor.numel()} values of {name} are not finite"
            raise ConfigError(
                f"init_from={source.name}: {what}. Give an earlier checkpoint (<run>/checkpoints/step-...) or another run. Set init_from."
            )


def _fits_untold(report: Report, left: Mapping[str, Tensor]) -> None:
    """Without a config nothing says what an end of another size is, or what the text's vectors mean: all or nothing."""
    name, untold = report.source.name, "has no config.yaml two folders up, as in <run>/checkpoints/<step>"
    misfits = report.fresh | {own: f"{tuple(tensor.shape)} is not here" for own, tensor in left.items()}
    if misfits:
        first, why = next(iter(misfits.items()))
        raise ConfigError(
            f"init_from={name} {untold}, so it must fit as it is: {len(misfits)} tensors do not ({first}: {why}). Set init_from to its run."
        )
    report.notes.append(f"{name} {untold}: text encoder, patch, latent channels, heads, positions and prediction are taken to be this run's")


def _refuse_other_encoder(report: Report, vae: nn.Module | None, objective: Mapping[str, Any]) -> None:
    """A frozen encoder in part as it was drawn, or built to read its weights otherwise, makes latents that nobody learnt."""
    if not isinstance(vae, VideoVAE) or all(p.requires_grad for p in vae.parameters()):
        return
    was, misfits = report.source.objective.get("vae"), report.fresh | report.resized
    lines = unlike(encoding_config(vae, was), encoding_config(vae, objective["vae"])) if was else []
    wrong = [f"objective.vae.{line}" for line in lines]
    wrong += [f"{name}: {misfits[name]}" for name in (f"{vae_bundle.NETWORK}.{own}" for own in encoding_names(vae)) if name in misfits]
    if wrong:
        more = f", and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise ConfigError(
            f"init_from={report.source.name} has another encoder: {'; '.join(wrong[:2])}{more}. The decoder alone is trained here, so the "
            "encoder must be the source's. Set objective.vae to what the source has, or objective/part=whole."
        )


def _notes(report: Report, held: Mapping[str, Tensor], networks: Mapping[str, nn.Module], objective: Mapping[str, Any]) -> list[str]:
    """What is loaded and means something else here though its shape is the same, and blocks that are of another kind."""
    notes, differs = [], report.differs
    for what, keys in (POSITIONS, HEADS):
        lines = [f"objective.{line}" for line in differs if line.startswith(keys)]
        if lines and not (keys == HEADS[1] and any(line.startswith("dit.width=") for line in differs)):  # of another width nothing is loaded
            notes.append(f"{what}: {'; '.join(lines)}")
    if "dit" in networks and report.source.objective:
        was, now = read_prediction(report.source.objective), read_prediction(objective)
        if was != now:
            notes.append(f"{PREDICTION}: objective.prediction={was}, now {now}")
    dit = networks.get("dit")
    if isinstance(dit, DiT):
        blocks = [name.split(".")[3:5] for name in held if name.startswith("dit.trunk.blocks.")]
        there, two = {number for number, _ in blocks}, {number for number, part in blocks if part == "text"}
        here = [isinstance(block, DoubleBlock) for block in dit.shard_units()]
        changed = [str(number) for number, double in enumerate(here) if str(number) in there and (str(number) in two) != double]
        if changed:
            mixing = _mixing(report.source.objective)
            keep = f"double objective.dit.mixing.double_blocks={len(two)}" if mixing in ("joint", "double", "hybrid") else mixing
            counts = f"{len(two)} double blocks there, {sum(here)} here: {len(changed)} blocks are of another kind"
            notes.append(f"{counts} and start fresh ({', '.join(changed)}). To keep them: objective/dit/mixing={keep}")
    return notes


def _other_encoder(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why nothing that reads text can be used; empty if it can."""
    then, here = ({key: (node.get("text") or {}).get(key) for key in ENCODER_KEYS} for node in (before, now))
    lines = differences(then, here) if before.get("text") and now.get("text") else []
    return f"another text encoder, objective.text.{lines[0]}" if lines else ""


def _silence_new_blocks(dit: DiT, prefix: str, made: Mapping[str, Tensor]) -> None:
    """A block beyond the source's is the identity. Its own modulation is 0 at the start; a loaded one that all blocks share is not."""
    if not any(name.startswith(f"{prefix}trunk.shared.") for name in made):
        return
    names = {module: name for name, module in dit.named_modules()}
    for block in dit.shard_units():
        if not any(name.startswith(f"{prefix}{names[block]}.") for name in made):
            for name, layer in block.named_modules():
                if name.rpartition(".")[2] in ("out", "down") and "modulation" not in name:  # what a branch adds to the stream
                    for p in layer.parameters(recurse=False):
                        p.zero_()


def _mixing(objective: Mapping[str, Any]) -> str:
    """The file of configs/objective/dit/mixing that a source has; a DiT that is told none is joint."""
    node = (objective.get("dit") or {}).get("mixing") or {}
    return node.get("_target_", "joint").rpartition(".")[2].lower()


def _bundle(name: str, saved: Checkpoint, part: str, sha256: str, config: Config) -> Source:
    tensors = {f"{vae_bundle.NETWORK}.{own}": tensor for own, tensor in saved.parts[part].items()}
    step = int(read_manifest(saved.folder).get("source_step", 0))
    return Source(name, step, sha256, tensors, {"vae": config})


def _own(objective: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the VAE that a flow objective is given."""
    return {key: node for key, node in objective.items() if key != "vae" or "dit" not in objective}
