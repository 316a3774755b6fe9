"""A run's own copy of the VAE it learns from: <run>/vae/ holds its config and EMA weights, so the run folder is complete in itself."""

import shutil
import sys
import uuid
from pathlib import Path

from models.vae import VideoVAE
from runtime.checkpoint import CheckpointError, Checkpoints, read, read_manifest, restore, write
from runtime.config import Config, ConfigError, build, dump, flatten, load_run_config

FOLDER = "vae"  # inside the run
NETWORK = "vae"  # the name the VAE's own run trained it under


def vae_config(vae_run: str | None, run: str) -> Config:
    """The constructor of the VAE in `vae_run`, or of the copy that `run` has already.

    Raises: ConfigError if neither is there.
    """
    own = Path(run) / FOLDER / "config.yaml"
    if vae_run is None and own.exists():
        return load_run_config(own.parent)
    if vae_run is None:
        raise ConfigError("a flow objective learns latents of a VAE, and vae_run is null. Train one (objective=vae), then set vae_run.")
    try:
        objective = load_run_config(vae_run)["objective"]
        config = objective["vae"]
        if "dit" in objective:
            raise ConfigError(f"vae_run={vae_run} trained a flow model, not a VAE. Set vae_run to the run of objective=vae that it was given.")
        if any(isinstance(leaf, str) and "${" in leaf for leaf in flatten(config).values()):
            raise ConfigError(f"{vae_run}/config.yaml holds an interpolation, which no saved config does: it was changed by hand.")
        return config
    except (KeyError, TypeError):
        raise ConfigError(f"vae_run={vae_run} trained no VAE: its config has no objective.vae. Give a run of objective=vae.") from None


def bundle_vae(vae_run: str | None, config: Config, run: Path) -> None:
    """Copy the EMA weights of the VAE run's newest checkpoint into <run>/vae, once.

    Raises: ConfigError if vae_run has no checkpoint, or has trained on since its weights were copied.
    """
    folder = run / FOLDER
    if vae_run is None or (folder.exists() and not Checkpoints(Path(vae_run) / "checkpoints").published()):
        return  # the copy is all that is left, and all that is needed
    saved = Checkpoints(Path(vae_run) / "checkpoints").newest()
    if saved is None:
        raise ConfigError(f"vae_run={vae_run} has no checkpoint yet. Train it to its end first: the same command goes on where it stopped.")
    source = read_manifest(saved.folder)["files"]["ema.safetensors"]["sha256"]
    if folder.exists():
        if read_manifest(folder)["source_sha256"] == source:
            return
        if Checkpoints(run / "checkpoints").published():
            raise ConfigError(
                f"vae_run={vae_run} has trained on since {run} copied its weights. Use a new name (run=...), or vae_run=null to keep the copy."
            )
        shutil.rmtree(folder)  # nothing was learnt on it yet
    wanted = (load_run_config(vae_run).get("trainer") or {}).get("max_steps")
    if wanted is not None and saved.step < wanted:
        print(f"note        vae_run={vae_run} stopped at step {saved.step} of {wanted}: this run keeps that unfinished VAE.", file=sys.stderr)
    tensors = {name.removeprefix(f"{NETWORK}."): tensor for name, tensor in saved.parts["ema"].items() if name.startswith(f"{NETWORK}.")}
    temporary = run / f"{FOLDER}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir()
        (temporary / "config.yaml").write_text(dump(config), encoding="utf-8")
        write(temporary, {"weights": tensors}, {"source": str(vae_run), "source_step": saved.step, "source_sha256": source})
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_vae(run: str | Path) -> tuple[VideoVAE, str]:
    """The VAE that a run's latents are of, frozen, and the sha256 of its weights.

    Raises: ConfigError or CheckpointError if the copy is missing or damaged.
    """
    folder = Path(run) / FOLDER
    config = load_run_config(folder)
    vae = build(config)
    if not isinstance(vae, VideoVAE):
        raise CheckpointError(f"{folder}/config.yaml describes a {type(vae).__name__}, not a VAE.")
    saved = read(folder, "weights")
    restore(vae.state_dict(), saved.parts["weights"], f"{folder}/weights.safetensors")
    return vae.eval().requires_grad_(False), read_manifest(folder)["files"]["weights.safetensors"]["sha256"]
