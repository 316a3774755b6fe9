"""Encode a set before it is trained on: python scripts/cache_latents.py vae_run=runs/my/vae data.train=my_videos data.latents=cache/latents/my

Takes every key of train.py, whose command with the same keys then encodes nothing. Captions too, if the text encoder is frozen
(objective/text=t5, objective.text.cache=FOLDER). The same command again goes on where it stopped. Each process that torchrun starts
encodes its part.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from data.cache.store import Store
from data.files.faults import Fault
from models.text_frozen import HuggingFaceText
from runtime.config import Config, ConfigError, build, check, entry
from runtime.device import keep_freed_memory, pick_precision
from training.frozen import frozen_vae, with_known_texts
from training.trainer import Trainer
from training.vae_bundle import vae_config

SHOWN = 10  # bad files that are named


def with_vae(look: Callable[[str], Any]) -> Config:
    """The VAE that vae_run trained, or that the run has a copy of."""
    if look("objective.dit") is None:
        raise ConfigError("only a flow objective (objective=flow) learns from latents; training a VAE needs no cache.")
    vae_run, run = look("vae_run"), look("run")
    nothing: Config = dict.fromkeys(("optim", "tracking"))
    return nothing | {"objective.vae": vae_config(None if vae_run is None else str(vae_run), str(run))}


@entry("cache_latents", with_vae)
def main(config: Config) -> None:
    keep_freed_memory()
    check({key: config[key] for key in ("data", "objective", "trainer")})
    rank, ranks = place(config)
    trainer, videos, text = build(config["trainer"]), build(config["data"]), build(config["objective"]["text"])
    frozen = isinstance(text, HuggingFaceText) and text.cache is not None
    if videos.latents is None and not frozen:
        raise ConfigError("data.latents is null and no frozen text encoder has a folder: there is nothing to cache. Set data.latents.")
    for key, folder in (("data.latents", videos.latents), ("objective.text.cache", text.cache if frozen else None)):
        if config["run"] is None and folder is not None and folder.startswith("None/"):  # ${run}/... of no run
            raise ConfigError(f"{key} has no value. Set {key}=... to a folder, and give the same to train.py; or set run=... of train.py.")
    precision = precision_of(config, trainer)
    index = videos.training_index()
    stores = {}
    if videos.latents is not None:
        clips = videos.clips(index)
        with home(config) as folder:
            _, encoder = frozen_vae(config["vae_run"], config["objective"]["vae"], folder, trainer.device, precision)
        stores["latents"] = videos.cache(clips, encoder, rank, ranks)
        show_faults([*clips.faults, *(Fault(**note) for note in stores["latents"].notes)] if rank == 0 else [])
    indexes = [index, *([videos.validation_index()] if videos.holds_out else [])]
    texts = with_known_texts(text, indexes, trainer.device, 0, rank, ranks)
    if texts is not None:
        stores["texts"] = texts
    if rank == 0:
        show(stores)
        print(f"next: {next_command(config, precision)}")


def place(config: Config) -> tuple[int, int]:
    """(rank, ranks) as torchrun says in the environment, and this process's GPU if there are several.

    Raises: ConfigError if the ranks could choose different precisions.
    """
    try:
        rank, ranks, local = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    except ValueError:
        raise ConfigError("RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers, as torchrun sets them. Unset them to work alone.") from None
    if not 0 <= rank < ranks:
        raise ConfigError(f"RANK={rank} does not fit WORLD_SIZE={ranks}: it must be 0 to {ranks - 1}. Unset both to work alone.")
    if ranks > 1 and config["trainer"]["precision"] == "auto":
        raise ConfigError("trainer.precision=auto is measured, and each process may measure another. Set trainer.precision=bfloat16 or float32.")
    if ranks > 1 and torch.cuda.is_available():
        torch.cuda.set_device(local)
    return rank, ranks


def precision_of(config: Config, trainer: Trainer) -> str:
    """What train.py will compute in: what the run remembers from its first start, else as the config says."""
    state = Path(config["run"] or "") / "state.json"
    remembered = json.loads(state.read_text(encoding="utf-8")).get("precision") if config["run"] is not None and state.is_file() else None
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)  # they decide which precision is faster
    return remembered or pick_precision(trainer.precision, trainer.device)


@contextmanager
def home(config: Config) -> Iterator[Path]:
    """Where the copy of the VAE lies: a run that has one and was given no other, else a folder for the time being."""
    if config["vae_run"] is None:
        yield Path(config["run"])
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def show_faults(faults: Sequence[Fault]) -> None:
    if faults:
        print(f"bad files   {len(faults)} clips cannot be used")
    for fault in faults[:SHOWN]:
        print(f"            {fault}".encode("utf-8", "backslashreplace").decode())
    if len(faults) > SHOWN:
        print(f"            and {len(faults) - SHOWN} more: python scripts/check_data.py names them all")


def show(stores: dict[str, Store]) -> None:
    for name, store in stores.items():
        shards = len(list(store.folder.glob("shard-*.safetensors")))
        what = "clips" if name == "latents" else "captions"
        print(f"{name:11} {len(store)} {what} in {shards} shard{'s' * (shards != 1)}, {store.bytes / 2**20:.1f} MiB, in {store.folder}: complete")


def next_command(config: Config, precision: str) -> str:
    """The training that encodes nothing."""
    typed = list(sys.argv[1:])
    typed += [] if config["trainer"]["precision"] != "auto" else [f"trainer.precision={precision}"]
    typed += [] if config["run"] is not None else ["run=runs/first"]
    return f"python train.py {shlex.join(typed)}"


if __name__ == "__main__":
    main()
