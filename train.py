"""Train a VAE or a DiT: python train.py experiment=... run=runs/x. The same command again goes on where the run stopped."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.config import Config, ConfigError, build, check, entry
from runtime.files import write_text
from runtime.run_folder import RunFolder


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
        raise ConfigError(f"vae_run={config['vae_run']} is for objective=flow; objective=vae trains its own VAE. Set vae_run=null.")

    with RunFolder(config["run"], config, config["allow_drift"]) as folder:
        train(config, folder, flow)
    print(f"next: {next_command(config, flow)}", file=sys.stderr)


def check_top(config: Config) -> None:
    """Refuse wrong values of the keys that no constructor takes.

    Raises: ConfigError naming the key.
    """
    if not isinstance(config["run"], str) or not config["run"]:
        raise ConfigError(f"run={config['run']!r} is no name of a folder. Set run, for example run=runs/first.")
    if config["vae_run"] is not None and not isinstance(config["vae_run"], str):
        raise ConfigError(f"vae_run={config['vae_run']!r} is no name of a folder. Set vae_run.")
    if type(config["seed"]) is not int or not 0 <= config["seed"] < 2**64:
        raise ConfigError(f"seed={config['seed']!r} must be a whole number from 0 to 2**64 - 1. Set seed.")
    if not isinstance(config["allow_drift"], list):
        raise ConfigError(f"allow_drift={config['allow_drift']!r} must be a list of keys: allow_drift=[data.train]. Set allow_drift.")


def train(config: Config, folder: RunFolder, flow: bool) -> None:
    """Build the parts and hand them to the Trainer."""
    from runtime.device import keep_freed_memory, seeded

    keep_freed_memory()
    trainer, recipe, tracker, videos = (build(config[name]) for name in ("trainer", "optim", "tracking", "data"))
    encoder, given = None, {}
    if flow:
        encoder, given = frozen_vae(config, folder.path, trainer.device, trainer.precision_of(folder))
    with seeded(config["seed"]):
        objective = build(config["objective"], **given)
    loader, validation = videos.loader(config["seed"], encoder), videos.validation(encoder)
    held_out = sum(len(batch) for batch in validation)
    print(f"data        {len(loader.source)} clips, {loader.steps_per_epoch} steps an epoch, {held_out} clips for validation", file=sys.stderr)
    tracker.start(folder.path, config)
    try:
        trainer.fit(objective, loader, validation, recipe, folder, tracker, config["seed"])
    finally:
        tracker.finish()
        if videos.faults:
            path = folder.path / "bad_files.txt"
            write_text(path, "".join(f"{fault}\n" for fault in videos.faults))
            print(f"{len(videos.faults)} files could not be used and others stood in for them: see {path}", file=sys.stderr)


def frozen_vae(config: Config, run: Path, device: str, precision: str) -> tuple[Any, dict[str, Any]]:
    """The run's own copy of its VAE, as the data sees it and as the objective does."""
    from data.videos import Encoder
    from runtime.device import autocast
    from training.vae_bundle import bundle_vae, load_vae

    bundle_vae(config["vae_run"], config["objective"]["vae"], run)
    vae, key = load_vae(run)
    vae.to(device)

    def encode(video: Any) -> Any:
        with autocast(precision, device):
            return vae.encode(video.to(device)).float().cpu()

    # Latents of another precision differ in their last digits: they are another cache.
    return Encoder(encode, f"{key}-{precision}", vae.stride), {"vae": vae}


def next_command(config: Config, flow: bool) -> str:
    if flow:
        return f'python sample.py run={config["run"]} --prompt "..."'
    clips = " ".join(f"data.{split}={config['data'][split]}" for split in ("train", "val"))
    return f"python train.py objective=flow vae_run={config['run']} {clips} run=<a new folder>"


if __name__ == "__main__":
    main()
