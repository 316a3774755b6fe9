"""Train a VAE, a DiT or features of videos: python train.py experiment=... run=runs/x. The same command again goes on where the run stopped."""

import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from runtime.config import CONFIGS, Config, ConfigError, build, check, entry
from runtime.files import write_text
from runtime.run_folder import RunFolder

CAPTIONS_READ = 10_000  # clips whose captions are held against the text encoder's length at the start


def with_vae(look: Callable[[str], Any]) -> Config:
    """A flow objective's VAE is the one that vae_run trained: its sizes are known before the DiT's are resolved."""
    if look("objective.dit") is None or look("objective.vae") is not None:
        return {}
    from training.vae_bundle import vae_config

    vae_run = look("vae_run")
    return {"objective.vae": vae_config(None if vae_run is None else str(vae_run), str(look("run")))}


@entry("train", with_vae)
def main(config: Config) -> None:
    check(config)  # misspelt keys and wrong types end here, before anything is read or made
    check_top(config)
    flow = "dit" in config["objective"]
    if not flow and config["vae_run"] is not None:
        raise ConfigError(f"vae_run={config['vae_run']} is for objective=flow: only a flow model takes a VAE. Set vae_run=null.")
    if config["data"]["packing"] != "bucket" and (not flow or config["trainer"]["compile"] != "none"):
        why = f"trainer.compile={config['trainer']['compile']} makes a graph for each shape of pass" if flow else "only objective=flow packs"
        raise ConfigError(f"data.packing={config['data']['packing']}, but {why}, wanted bucket. Set data.packing=bucket.")

    with RunFolder(config["run"], config, config["allow_drift"]) as folder:
        train(config, folder, flow)
    judges = f"python scripts/evaluate.py run=<a flow model or a VAE> 'features=[learnt:{config['run']}]'"
    print(f"next: {judges if 'encoder' in config['objective'] else next_command(config, flow)}", file=sys.stderr)


def check_top(config: Config) -> None:
    """Refuse wrong values of the keys that no constructor takes.

    Raises: ConfigError naming the key.
    """
    if not isinstance(config["run"], str) or not config["run"]:
        raise ConfigError(f"run={config['run']!r} is no name of a folder. Set run, for example run=runs/first.")
    if config["vae_run"] is not None and not isinstance(config["vae_run"], str):
        raise ConfigError(f"vae_run={config['vae_run']!r} is no name of a folder. Set vae_run.")
    if config["init_from"] is not None and (not isinstance(config["init_from"], str) or not config["init_from"]):
        raise ConfigError(f"init_from={config['init_from']!r} is no name of a folder. Set init_from to a run, a checkpoint or a bundle, or to null.")
    if type(config["seed"]) is not int or not 0 <= config["seed"] < 2**64:
        raise ConfigError(f"seed={config['seed']!r} must be a whole number from 0 to 2**64 - 1. Set seed.")
    if not isinstance(config["allow_drift"], list):
        raise ConfigError(f"allow_drift={config['allow_drift']!r} must be a list of keys: allow_drift=[data.train]. Set allow_drift.")


def train(config: Config, folder: RunFolder, flow: bool) -> None:
    """Build the parts and hand them to the Trainer."""
    from models.attention import check_kernel
    from runtime.device import keep_freed_memory, seeded
    from training.frozen import frozen_vae, with_known_texts
    from training.warm_start import warm_start

    keep_freed_memory()
    trainer, recipe, tracker, videos = (build(config[name]) for name in ("trainer", "optim", "tracking", "data"))
    encoder, given = None, {}
    if flow:
        vae_config = config["objective"]["vae"]
        given["vae"], encoder = frozen_vae(config["vae_run"], vae_config, folder.path, trainer.device, trainer.precision_of(folder))
    with seeded(config["seed"]):
        objective = build(config["objective"], **given)
    for network in objective.networks.values():
        check_kernel(network, trainer.device, trainer.precision_of(folder))
    recipe.width_scaling.prepare(objective.networks, config["objective"])
    warm_start(config["init_from"], objective.networks, config["objective"], folder)
    objective.begin(folder, config["allow_drift"])
    try:
        loader, validation = videos.loader(config["seed"], encoder), videos.validation(encoder)
        announce(videos, loader, validation)
        folder.remember("shape", usual_shape(loader.source.buckets))
        if flow:
            announce_cut(objective.text, loader.source.index)
            indexes = [loader.source.index, *([videos.validation_index()] if videos.holds_out else [])]
            with_known_texts(objective.text, indexes, trainer.device, videos.memory_bytes)
        elif "encoder" in config["objective"]:
            shown = zip(loader.source.index.rows, loader.source.buckets, strict=True)
            objective.check_clips(min(bucket.frames for row, bucket in shown if bucket is not None and row.weight > 0), validation)
        tracker.start(folder.path, config)
        try:
            trainer.fit(objective, loader, validation, recipe, folder, tracker, config["seed"])
        finally:
            tracker.finish()
    finally:
        if videos.faults:
            path = folder.path / "bad_files.txt"
            write_text(path, "".join(f"{fault}\n" for fault in videos.faults))
            print(f"{len(videos.faults)} files could not be used, each with its reason in {path}", file=sys.stderr)


def usual_shape(buckets: Any) -> list[int]:
    """Frames, height and width of most clips; of shapes that are equally common, the largest."""
    counts = Counter((bucket.frames, bucket.height, bucket.width) for bucket in buckets if bucket is not None)
    return list(max(counts, key=lambda shape: (counts[shape], shape)))


def announce(videos: Any, loader: Any, validation: Any) -> None:
    """What an epoch shows, in a line or two."""
    shapes = {bucket for bucket in loader.source.buckets if bucket is not None}
    samples, steps, held_out = loader.plan.samples_per_epoch, loader.steps_per_epoch, sum(len(batch) for batch in validation)
    sizes = f"of {next(iter(shapes))}" if len(shapes) == 1 else f"in {len(shapes)} shapes"
    epoch = f"an epoch is {samples} samples in {steps} step{'s' * (steps != 1)}"
    print(f"data        {len(loader.source.index)} clips {sizes}; {epoch}", file=sys.stderr)
    own = "" if videos.holds_out else " (training clips: set data.val or data.hold_out for others)"
    print(f"validation  {held_out} clips{own}", file=sys.stderr)
    if videos.shared():
        print(f"note: {videos.shared()} of the validation set's clips come from files that are trained on too", file=sys.stderr)


def announce_cut(text: Any, index: Any) -> None:
    """Say how many captions are longer than the text encoder reads, of the first CAPTIONS_READ clips."""
    captions = [caption for row in index.rows[:CAPTIONS_READ] for caption in row.texts]
    cut = len(text.cut(captions)) if captions else 0
    if cut:
        what = f"{cut} of {len(captions)} are longer than the text encoder's {text.max_tokens} tokens and lose their end"
        print(f"captions    {what} (objective.text.max_tokens)", file=sys.stderr)


def next_command(config: Config, flow: bool) -> str:
    """What a user would type now: after a VAE, its recipe's model on it, with the same data."""
    if flow:
        return f'python sample.py run={config["run"]} --prompt "..."'
    typed = {key: value for key, _, value in (argument.partition("=") for argument in sys.argv[1:])}
    recipe = following_recipe(typed.pop("experiment", ""))
    again = {key: value for key, value in typed.items() if not re.match(r"(run|init_from|seed|objective|optim|trainer|data/crop|data\.crop)\b", key)}
    if not recipe and not any(key.startswith("data") for key in again):
        again |= {f"data.{split}": str(config["data"][split]) for split in ("train", "val") if config["data"][split] is not None}
    words = [f"{key}={value}" for key, value in again.items()]
    return f"python train.py {f'experiment={recipe}' if recipe else 'objective=flow'} vae_run={config['run']} {shlex.join(words)} run=<a new folder>"


def following_recipe(name: str) -> str:
    """The recipe of a flow model beside a VAE's, of the same size if there are several; none: an empty text."""
    own = CONFIGS / "experiment" / f"{name}.yaml"
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(own.parent.glob("*.yaml"))} if name else {}
    flow = [path for path, text in texts.items() if "override /objective: flow" in text]
    flow += [path for path, text in texts.items() if any(f"- {own.parent.name}/{other.stem}\n" in text for other in flow)]  # built on one
    same = [path for path in flow if path.stem.partition("_")[2] == own.stem.partition("_")[2]]
    return next((f"{own.parent.relative_to(CONFIGS / 'experiment')}/{path.stem}" for path in same + flow), "")


if __name__ == "__main__":
    main()
