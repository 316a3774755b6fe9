"""A run's own copy of the VAE it learns from: <run>/vae/ holds its config and EMA weights, so the run folder is complete in itself."""

import shutil
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.vae import VideoVAE
from runtime.checkpoint import CheckpointError, Checkpoints, read, read_manifest, restore, write
from runtime.config import Config, ConfigError, build, dump, flatten, load_run_config
from runtime.files import sync_folder, write_text
from training.vae_encoding import encoding_facts, encoding_key, unlike

FOLDER = "vae"  # inside the run
ASIDE = "vae.old"  # the copy before, while another takes its place
NETWORK = "vae"  # the name the VAE's own run trained it under


def bundle_folder(run: str | Path) -> Path:
    """Where a run's copy lies: <run>/vae, or beside it if a kill came while it was replaced."""
    folder = Path(run) / FOLDER
    return folder.with_name(ASIDE) if not folder.is_dir() and folder.with_name(ASIDE).is_dir() else folder


def vae_config(vae_run: str | None, run: str) -> Config:
    """The constructor of the VAE in `vae_run`, or of the copy that `run` has already.

    Raises: ConfigError if neither is there.
    """
    own = bundle_folder(run) / "config.yaml"
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
    """Copy the EMA weights of the VAE run's newest checkpoint into <run>/vae. Once something was learnt, only another decoder is copied.

    Raises: ConfigError if vae_run has no checkpoint, or does not encode as the copy does on which something was learnt.
    """
    folder = bundle_folder(run)
    if vae_run is None or (folder.exists() and not Checkpoints(Path(vae_run) / "checkpoints").published()):
        return  # the copy is all that is left, and all that is needed
    saved = Checkpoints(Path(vae_run) / "checkpoints").newest()
    if saved is None:
        raise ConfigError(f"vae_run={vae_run} has no checkpoint yet. Train it to its end first: the same command goes on where it stopped.")
    source = read_manifest(saved.folder)["files"]["ema.safetensors"]["sha256"]
    if folder.exists() and read_manifest(folder)["source_sha256"] == source:
        return
    tensors = {name.removeprefix(f"{NETWORK}."): tensor for name, tensor in saved.parts["ema"].items() if name.startswith(f"{NETWORK}.")}
    learnt = folder.exists() and bool(Checkpoints(run / "checkpoints").published())
    if learnt:
        _check_encodes_alike(run, str(vae_run), _restored(config, tensors, f"{saved.folder}/ema.safetensors"), config)
    wanted = (load_run_config(vae_run).get("trainer") or {}).get("max_steps")
    if wanted is not None and saved.step < wanted:
        print(f"note        vae_run={vae_run} stopped at step {saved.step} of {wanted}: this run keeps that unfinished VAE.", file=sys.stderr)
    for litter in run.glob(f"{FOLDER}.tmp-*"):  # of a kill
        shutil.rmtree(litter, ignore_errors=True)
    temporary = run / f"{FOLDER}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir()
        write_text(temporary / "config.yaml", dump(config))
        write(temporary, {"weights": tensors}, {"source": str(vae_run), "source_step": saved.step, "source_sha256": source})
        _put(temporary, run / FOLDER)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if learnt:
        print(f"vae         {run} decodes with vae_run={vae_run} at step {saved.step} from now on; the encoder is the same", file=sys.stderr)


def load_vae(run: str | Path) -> tuple[VideoVAE, str]:
    """The VAE that a run's latents are of, frozen, and the sha256 of its weights.

    Raises: ConfigError or CheckpointError if the copy is missing or damaged.
    """
    folder = bundle_folder(run)
    vae = _restored(load_run_config(folder), read(folder, "weights").parts["weights"], f"{folder}/weights.safetensors")
    return vae, read_manifest(folder)["files"]["weights.safetensors"]["sha256"]


def latents_key(run: str | Path) -> str:
    """The key of what encodes in a run's copy.

    Raises: as `load_vae`.
    """
    return encoding_key(_facts(run))


def _facts(run: str | Path) -> dict[str, str]:
    return encoding_facts(load_vae(run)[0], load_run_config(bundle_folder(run)))


def _restored(config: Config, tensors: Mapping[str, Tensor], what: str) -> VideoVAE:
    vae = build(config)
    if not isinstance(vae, VideoVAE):
        raise CheckpointError(f"{what} lies beside the config of a {type(vae).__name__}, not of a VAE.")
    restore(vae.state_dict(), tensors, what)
    return vae.eval().requires_grad_(False)


def _check_encodes_alike(run: Path, vae_run: str, vae: VideoVAE, config: Config) -> None:
    differ = unlike(_facts(run), encoding_facts(vae, config))
    if differ:
        raise ConfigError(
            f"vae_run={vae_run} is another VAE than {run} learns from, or has trained on since: its encoder differs in {', '.join(differ)}. "
            "Use a new name (run=...), or vae_run=null to keep the copy."
        )


def _put(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name. A folder cannot replace another in one step: the old one stands aside under a name that readers know."""
    aside = folder.with_name(ASIDE)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    temporary.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
