"""From a run folder to networks that sample: the one place where saved weights meet the saved config, for sample.py and every script."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.transforms import fit, to_float
from flow.autoguidance import Weak
from flow.generate import OWN, Generator
from flow.guidance import Guidance
from flow.noise import Noise
from flow.prediction import Prediction, Velocity, velocity_field
from models.attention import Kernel, check_kernel
from models.dit import DiT
from models.geometry import Grid, latent_frames
from models.rope_scaling import RopeScaling
from models.text import TextEncoder
from models.vae import VideoVAE
from models.vae_tiles import Tile, check_tile, decode_tiled, encode_tiled
from runtime.build import build
from runtime.checkpoint import Checkpoint, CheckpointError, Checkpoints, read, read_manifest, restore
from runtime.config import Config, load_run_config
from runtime.run_folder import read_facts
from tasks.task import Studio
from training import vae_bundle
from training.ema import network_state

KERNEL = "objective/dit/kernel@kernel"  # what sample.py and scripts/evaluate.py choose the back end by


@dataclass(frozen=True, slots=True)
class Shape:
    """A clip's frame count, size in pixels and frames per second."""

    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True, slots=True)
class Networks:
    """What a flow run learnt, averaged weights, ready to sample.

    Args:
        config: the run's saved config.
        step: of the checkpoint.
        shape: of most clips that it was trained on.
        config_sha256: of config.yaml.
        weights_sha256: over the files of all three networks.
        vae_sha256: of the VAE's weights alone.
    """

    dit: DiT
    text: TextEncoder
    vae: VideoVAE
    config: Config
    step: int
    shape: Shape
    config_sha256: str
    weights_sha256: str
    vae_sha256: str = ""


def load_networks(run: str | Path, device: torch.device | str = "cpu", kernel: Kernel | None = None, step: int | None = None) -> Networks:
    """The networks of a flow run with the averaged weights of a complete checkpoint.

    Args:
        kernel: the attention back end of the DiT; None: the one that it was trained with.
        step: of the checkpoint; None: the newest one that is sound.
    Raises: ValueError or RuntimeError if the folder is no run, a run of another kind, has no checkpoint, or the weights do not fit its config.
    """
    run = Path(run)
    config = load_run_config(run)
    objective = _objective(run, config)
    if "dit" not in objective:
        raise ValueError(
            f"{run} trained a VAE, which makes no video from text. Give the run folder of a flow model; "
            f"train one on it with: python train.py objective=flow vae_run={run} run=<a new folder>"
        )
    saved, digest = newest_averages(run) if step is None else averages_of(run, step)
    shape_of_dit = {key: value for key, value in objective["dit"].items() if key != "stride_t"}  # a run from when the DiT reckoned moments itself
    dit, text = build(shape_of_dit, **({} if kernel is None else {"kernel": kernel})), build(objective["text"])
    restore(network_state({"dit": dit, "text": text}), saved.parts["ema"], f"{saved.folder}/ema.safetensors")
    vae, vae_digest = load_vae(run, device)
    for network in (dit, text):
        check_kernel(network, device, key=KERNEL)  # float32, in which all sampling is done
        network.to(device).eval().requires_grad_(False)
    both = hashlib.sha256(f"{digest} {vae_digest}".encode()).hexdigest()
    largest = build(config["data"]["shape"]).largest  # where the run did not write down what its clips were
    frames, height, width = read_facts(run).get("shape") or (largest.frames, largest.height, largest.width)
    shape = Shape(frames, height, width, config["data"]["fps"])
    return Networks(dit, text, vae, config, saved.step, shape, hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest(), both, vae_digest)


def load_vae(run: str | Path, device: torch.device | str = "cpu") -> tuple[VideoVAE, str]:
    """The VAE of a VAE run, or the one that a flow run carries, and the sha256 of its weights.

    Raises: ValueError or RuntimeError as `load_networks`.
    """
    run = Path(run)
    objective = _objective(run, load_run_config(run))
    if "dit" in objective:
        if not vae_bundle.bundle_folder(run).is_dir():
            raise RuntimeError(f"{run} lacks its VAE, {run / vae_bundle.FOLDER}. Start its train.py command again, with vae_run=<run of the VAE>.")
        vae, digest = vae_bundle.load_vae(run)
    else:
        saved, digest = newest_averages(run)
        vae = build(objective["vae"])
        restore(vae.state_dict(), part_of(saved, vae_bundle.NETWORK), f"{saved.folder}/ema.safetensors")
    return vae.to(device).eval().requires_grad_(False), digest


def newest_averages(run: Path) -> tuple[Checkpoint, str]:
    """The averaged weights of the newest sound checkpoint, and their sha256; a damaged one is named and passed over.

    Raises: RuntimeError if there is none.
    """
    published = Checkpoints(run / "checkpoints").published()
    for folder in reversed(published):
        try:
            return read(folder, only="ema"), read_manifest(folder)["files"]["ema.safetensors"]["sha256"]
        except CheckpointError as error:
            warnings.warn(f"{error} Falling back to the checkpoint before it.", stacklevel=2)
    found = f"none of its {len(published)} checkpoints is sound" if published else "it has no complete checkpoint yet"
    raise RuntimeError(f"{run} cannot be used: {found}. Start its train.py command again; it goes on where it stopped.")


def averages_of(run: Path, step: int) -> tuple[Checkpoint, str]:
    """The averaged weights of one checkpoint, and their sha256.

    Raises: ValueError naming the steps that there are if it is not kept; RuntimeError if it is damaged.
    """
    kept = {int(folder.name.rpartition("-")[2]): folder for folder in Checkpoints(run / "checkpoints").published()}
    if step not in kept:
        raise ValueError(f"{run} keeps no checkpoint of step {step}, but of {', '.join(map(str, sorted(kept))) or 'none'}.")
    return read(kept[step], only="ema"), read_manifest(kept[step])["files"]["ema.safetensors"]["sha256"]


def read_guidance(
    node: Mapping[str, Any], networks: Networks, device: torch.device | str = "cpu", kernel: Kernel | None = None, rope: RopeScaling | None = None
) -> Guidance:
    """A guidance by its config node, with the weaker network that `guidance=auto` leads away from.

    Args:
        kernel, rope: of `networks`, where they are not as trained: the two velocities are compared, so both networks see alike.
    Raises: ValueError if that network cannot be loaded, or was trained on other latents.
    """
    if node.get("_target_") != "flow.autoguidance.Autoguidance" or node.get("run") is None:
        return build(node)
    try:
        weak = load_networks(node["run"], device, kernel, node["step"])
    except ValueError as error:
        raise ValueError(f"{error} Set guidance.run or guidance.step.") from None
    if rope is not None:
        weak.dit.rescale(rope)
    if weak.vae_sha256 != networks.vae_sha256:
        raise ValueError(f"guidance.run={node['run']} learnt the latents of another VAE, so velocities cannot be compared. Set guidance.run.")
    return build(node, weak=Weak(velocity_field(weak.dit, read_prediction(weak.config["objective"])), weak.text))


def make_generator(
    networks: Networks,
    sampling: Mapping[str, Any],
    device: torch.device | str = "cpu",
    tile: Tile = "auto",
    noise: Noise = OWN,
    whole: bool = False,
    guidance: Guidance | None = None,
) -> Generator:
    """A Generator of a run's networks, with the prediction and the shift they were trained with.

    Args:
        sampling: the keys solver and guidance (config nodes), steps and batch_size.
        tile: px, of the tiles that pictures are decoded in.
        noise: what samples begin with.
        whole: whether clips longer than those of training are brought into the time that these last.
        guidance: that of `sampling`, if it is there already.
    Raises: ValueError if one of them cannot be used.
    """
    check_tile(networks.vae, tile)
    return Generator(
        velocity_field(networks.dit, read_prediction(networks.config["objective"])),
        networks.text,
        partial(decode_tiled, networks.vae, tile=tile),
        networks.vae.latent_channels,
        build(sampling["solver"]),
        guidance or read_guidance(sampling["guidance"], networks, device),
        sampling["steps"],
        networks.config["objective"]["shift"],
        networks.vae.stride[0],
        networks.vae.decoder_look_back,
        sampling["batch_size"],
        device,
        noise,
        (networks.shape.frames - 1) / networks.shape.fps if whole and networks.shape.frames > 1 else None,
    )


def studio(networks: Networks, shape: Shape, frames: int | None, level: float = 0.0, tile: Tile = "auto") -> Studio:
    """What tasks work with, in the size and at the rate of `shape`.

    Args:
        frames: pixel frames asked for; None: what the task makes of those of the run's clips.
        level: flow time at which the network is shown what is given.
        tile: px, of the tiles that pictures are encoded in.
    """
    vae = networks.vae

    def encode(video: np.ndarray) -> Tensor:
        pieces = (to_float(piece).to(vae.latent_mean.device) for piece in torch.from_numpy(video[None]).split(vae.stride[0], dim=1))
        with torch.no_grad():
            return torch.cat([part.cpu() for part in encode_tiled(vae, pieces, tile)], dim=2)

    halo = vae.halo[0]
    sizes = shape.height, shape.width, shape.fps
    return Studio(encode, vae.latent_channels, vae.stride, vae.look_back, halo, frames, networks.shape.frames, *sizes, level, networks.shape.fps)


def known_prefix(vae: VideoVAE, clips: np.ndarray, grid: Grid) -> tuple[Tensor, Tensor]:
    """What a Generator needs to go on from given frames: (known_latents b c f h w, known_mask b f), on the CPU.

    Args:
        clips: the beginnings, uint8 b t h w 3 with t = 1 + k * stride_t; any height and width: scaled to cover, and the middle cut out.
        grid: latent frames, height and width of the clips to be made.
    Raises: ValueError if t is no legal count or leaves nothing to make.
    """
    f, h, w = grid
    given = latent_frames(clips.shape[1], vae.stride[0])
    if given >= f:
        raise ValueError(f"the {clips.shape[1]} given frames fill all {f} latent frames of the clip: nothing is left to make. Set frames higher.")
    fitted = np.stack([fit(clip, h * vae.stride[1], w * vae.stride[2]) for clip in clips])  # b t h w 3
    with torch.no_grad():
        video = to_float(torch.from_numpy(fitted)).to(vae.latent_mean.device)
        encoded = torch.cat(list(encode_tiled(vae, [video])), dim=2).cpu()  # b c given h w
    latents = torch.zeros(len(clips), vae.latent_channels, f, h, w)
    latents[:, :, :given] = encoded
    known = torch.zeros(len(clips), f, dtype=torch.bool)
    known[:, :given] = True
    return latents, known


def read_prediction(objective: Mapping[str, Any]) -> Prediction:
    """What the network's output stands for; a run from before there was a choice does not say, and it is the velocity."""
    return build(objective["prediction"]) if "prediction" in objective else Velocity()


def part_of(saved: Checkpoint, network: str) -> dict[str, Tensor]:
    """The averaged weights of one network: a run may train more than is kept of it (a discriminator, say)."""
    prefix = f"{network}."
    return {name.removeprefix(prefix): tensor for name, tensor in saved.parts["ema"].items() if name.startswith(prefix)}


def _objective(run: Path, config: Config) -> Mapping[str, Any]:
    objective = config.get("objective")
    if isinstance(objective, Mapping) and "encoder" in objective:
        raise ValueError(f"{run} trained features, which judge other runs: scripts/evaluate.py run=<such a run> features=[learnt:{run}]")
    if not isinstance(objective, Mapping) or "vae" not in objective:
        raise ValueError(f"{run}/config.yaml is not of a run that this code makes: it has no objective with a vae.")
    return objective
