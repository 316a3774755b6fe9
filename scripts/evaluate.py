"""Measure a run: python scripts/evaluate.py run=runs/demo/dit [prompts=256 steps=12 guidance.scale=2.5]; VAE and flow runs alike.

A VAE run on clips of its own is measured on those that it held out, or on any others: videos=FOLDER.
suite=tasks measures every way of making video instead, to <run>/tasks.json and tasks.md.

Writes <run>/evaluation.json, <run>/evaluation.png (a contact sheet) and <run>/evaluation/ (samples for the report); out=FOLDER for another place.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.index import read_index
from data.transforms import to_float, to_uint8
from evaluation.autoencoder import Tokenizer, evaluate_videos, latent_bits
from evaluation.frozen_features import FrozenFeatures, read_features
from evaluation.gallery import Result, Video, write
from evaluation.learnt_features import LearntFeatures
from evaluation.nearest import Training, read_training
from evaluation.suite import Clip, Plan, evaluate_flow, evaluate_vae, read_clips
from evaluation.tasks.files import write_tasks
from evaluation.tasks.scenes import World
from evaluation.tasks.suite import Plan as TasksPlan
from evaluation.tasks.suite import measured
from evaluation.terminal import lines
from flow.guidance import Guidance
from flow.rollout import Rollout
from models.geometry import latent_grid
from models.vae import VideoVAE
from models.vae_tiles import decode_tiled, encode_tiled, posterior_tiled
from runtime.config import Config, ConfigError, build, check, compose, entry, load_run_config
from runtime.device import pick_device
from runtime.machine import machine, versions
from training.inference import Networks, known_prefix, load_networks, load_vae, make_generator, read_guidance
from training.learnt import load_features, seen_by_features
from training.stage import Stage

Features = FrozenFeatures | LearntFeatures
OF_PROMPTS = ("prompts", "seen", "clips", "animated", "features", "neighbours")  # keys that only suite=prompts reads
SHAPE = {"frames": 1, "height": 16, "width": 16}  # of samples, and the least that the oracle can read


@entry("evaluate")
def main(config: Config) -> None:
    for key, least in {"prompts": 2, "seen": 2, "clips": 2, "animated": 2, "seed": 0, "steps": 1, "batch_size": 1, "neighbours": 0}.items():
        if type(config[key]) is not int or config[key] < least:
            raise ConfigError(f"{key}={config[key]!r} must be a whole number >= {least}. Set {key}.")
    for key, least in SHAPE.items():
        if config[key] is not None and (type(config[key]) is not int or config[key] < least):
            told = f"{key}={config[key]!r} must be a whole number >= {least}, or null for what the run was trained on"
            raise ConfigError(f"{told}. Set {key}.")
    check({key: config[key] for key in ("solver", "guidance", "kernel", "rope") if config[key] is not None})
    begun, run, device = time.monotonic(), Path(config["run"]), pick_device(config["device"], "device")
    saved = load_run_config(run)
    if not {"objective", "data"} <= set(saved):
        raise ConfigError(f"run={run} holds no config of a training run. Give the folder that train.py was given as run=.")
    if "encoder" in saved["objective"]:
        raise ConfigError(f"run={run} trained features, which judge other runs. Set run to a flow model or a VAE, and features=[learnt:{run}].")
    if config["world"] is not None and config["videos"] is not None:
        raise ConfigError(f"world={config['world']} and videos={config['videos']} are both given. Set one of them, the other to null.")
    if "dit" in saved["objective"] and config["videos"] is not None:
        what = f"videos={config['videos']} are clips to measure a VAE on, but run={run} is a flow run, which is measured on a world"
        raise ConfigError(f"{what}. Set videos=null, and world=<folder of make_world.py> if it was not trained on one.")
    given = [f"{key}={config[key]}" for key in (*SHAPE, "rope") if config[key] is not None]
    if "dit" not in saved["objective"] and given:
        raise ConfigError(f"{', '.join(given)} says how samples are made, and run={run} is a VAE run, which makes none. Set them to null.")
    if config["suite"] not in ("prompts", "tasks"):
        raise ConfigError(f"suite={config['suite']!r} is unknown: prompts or tasks. Set suite.")
    if config["suite"] == "tasks":
        if "dit" not in saved["objective"]:
            raise ConfigError(f"suite=tasks measures what a flow model makes, and run={run} is a VAE run. Set run to a flow model.")
        if given:
            what = f"{', '.join(given)} says how samples of suite=prompts are made. suite=tasks has tasks.sizes and tasks.lengths"
            raise ConfigError(f"{what}. Set them to null.")
        others = [f"{key}={config[key]}" for key, usual in compose("evaluate", ["run=."]).items() if key in OF_PROMPTS and config[key] != usual]
        if others:
            what = f"{', '.join(others)} says what suite=prompts measures, and suite=tasks goes by tasks.clips, tasks.rollouts and the like"
            raise ConfigError(f"{what}. Set these, and leave {', '.join(other.partition('=')[0] for other in others)} out.")
        tasks_result(config, run, saved, device, begun)
        return
    own = "dit" not in saved["objective"] and config["world"] is None and (config["videos"] is not None or not of_a_world(saved))
    frozen = features_of(config["features"], device)
    measure = own_result if own else world_result
    result, protocol, fps = measure(config, run, saved, frozen, device)
    protocol |= {"features": {features.name: features.key for features in frozen}} if frozen else {}
    protocol = {"seed": config["seed"]} | protocol | {"config_sha256": hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()}
    protocol |= {"seconds": round(time.monotonic() - begun, 1), "machine": machine(), "versions": versions()}
    out = run if config["out"] is None else Path(config["out"])
    path = write(out, result, protocol, fps)
    for line in lines(result.figures):
        print(line)
    print(f"{path}, {out / 'evaluation.png'}")


def world_result(config: Config, run: Path, saved: Config, frozen: Sequence[Features], device: str) -> tuple[Result, dict, float]:
    """On clips of the procedural world, of combinations that training never showed: what was found, under which protocol, and the clips' fps."""
    folder, world = find_world(config["world"], saved)
    clips = read_clips(folder / "heldout", config["clips"])
    judged = read_index(folder / "heldout" / "index.jsonl").rows[: len(clips)]
    judged_at = saved["data"]["fps"] if "dit" in saved["objective"] else world["fps"]  # what a flow run makes is compared at the run's rate
    saw = seen_by_features(config["features"], frozen, judged, judged_at)
    frames, height, width = clips[0].video.shape[:3]
    protocol = {"world": str(folder), "clips": len(clips), "size": [height, width], "frames": frames}
    protocol |= {key: world[key] for key in ("fps", "difficulty")}
    if "dit" in saved["objective"]:
        result, own = flow_result(config, run, saved, folder, world, clips, frozen, device)
        protocol |= own
    else:
        vae, digest = load_vae(run, device)
        print(f"{run}: {len(clips)} held-out clips")
        tokenizer = tokenizer_of(vae, [clip.video for clip in clips], device)
        result = evaluate_vae(clips, lambda videos: reconstructed(vae, videos, device), config["seed"], config["batch_size"], tokenizer, frozen)
        protocol |= {"weights_sha256": digest}
    result.figures.update({"features_saw": saw} if saw else {})
    return result, protocol, world["fps"]


def own_result(config: Config, run: Path, saved: Config, frozen: Sequence[Features], device: str) -> tuple[Result, dict, float]:
    """A VAE on clips of nobody's world: those that its training held out, or those of `videos`.

    Raises: ConfigError if the run held none out, or it was trained on one of them: on those it would look better than it is.
    """
    given = config["videos"]
    data = saved["data"] | {"val_samples": config["clips"], "memory_mb": 0}
    videos = build(data if given is None else data | {"val": given, "hold_out": 0, "root": None, "train": given})
    if not videos.holds_out:
        raise ConfigError(f"run={run} was trained with data.val=null and data.hold_out=0: it held no clip out. Set videos=<a folder of other clips>.")
    trained = {row.media for row in build(saved["data"]).training_index().rows}
    shared = sum(row.media in trained for row in videos.validation_index().rows)
    if shared:
        what = f"{shared} of the {len(videos.validation_index())} clips of {given or data['val']} come from files that run={run} was trained on"
        raise ConfigError(f"{what}: they would look better than others. Set videos=<a folder of other clips>.")
    batches = videos.validation(None)
    sources = [video for batch in batches for video in to_uint8(batch.content).numpy()]
    index = videos.validation_index()
    index = index.take([number for number, row in enumerate(index.rows) if row.weight > 0])  # whose rows the batches count
    judged = [row for batch in batches for row in batch.rows]
    saw = seen_by_features(config["features"], frozen, [index.rows[row] for row in judged], data["fps"])
    names = [index.name(row) for row in judged]
    vae, digest = load_vae(run, device)
    print(f"{run}: {len(sources)} clips of {given or 'those that training held out'}")
    tokenizer = tokenizer_of(vae, sources, device)
    frames, height, width = max((video.shape[:3] for video in sources), key=prod)
    result = evaluate_videos(sources, names, lambda parts: reconstructed(vae, parts, device), config["seed"], tokenizer, frozen)
    result.figures.update({"features_saw": saw} if saw else {})
    protocol = {"videos": given or "held out by the run", "clips": len(sources), "size": [height, width], "frames": frames}
    return result, protocol | {"fps": data["fps"], "weights_sha256": digest}, data["fps"]


def of_a_world(saved: Config) -> bool:
    """Whether a run's validation clips are those of scripts/make_world.py."""
    val = saved["data"]["val"]
    return isinstance(val, str) and (Path(val).parent.parent / "world.json").is_file()


@torch.no_grad()
def tokenizer_of(vae: VideoVAE, videos: Sequence[Video], device: str) -> Tokenizer:
    """What the VAE makes of these clips and at what cost; the largest one's shape where they are unlike."""
    frames, height, width = max((video.shape[:3] for video in videos), key=prod)
    (f, h, w), pixels, flop = latent_grid(frames, height, width, vae.stride), frames * height * width, vae.flops(frames, height, width)
    bits = 0.0
    for video in videos:
        for posterior in posterior_tiled(vae, pieces(vae, torch.from_numpy(video[None]), device)):
            bits += latent_bits(posterior.mean, posterior.logvar, vae.latent_mean, vae.latent_std)
    return Tokenizer(
        stride=vae.stride,
        patch=vae.patch[1],
        latent_channels=vae.latent_channels,
        values_ratio=3 * pixels / (vae.latent_channels * f * h * w),
        bits_per_pixel=bits / sum(prod(video.shape[:3]) for video in videos),
        encode_tflop=flop["encode"] / pixels / 1e6,  # 1e12 FLOP per 1e6 pixels
        decode_tflop=flop["decode"] / pixels / 1e6,
        parameters=sum(p.numel() for p in vae.parameters()),
    )


def find_world(given: str | None, saved: Config) -> tuple[Path, dict]:
    """The world folder and its settings.

    Raises: ConfigError if there is none.
    """
    val = saved["data"]["val"]
    if given is None and not isinstance(val, str):
        what = f"the run was trained with data.val={'null' if val is None else val}, which is no part of a world"
        raise ConfigError(f"{what}. Set world=<folder of make_world.py>.")
    folder = Path(given) if given is not None else Path(val).parent.parent
    try:
        return folder, json.loads((folder / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"world={folder} is no folder of scripts/make_world.py ({error}). Set world=<that folder>.") from None


def features_of(given: object, device: str) -> list[Features]:
    """Raises: ConfigError if one cannot be had."""
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ConfigError(f"features={given!r} must be a list of texts like dino:<folder>. Set features.")
    try:
        return read_features(given, device, partial(load_features, device=device))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(str(error)) from None


def training_of(saved: Config, most: int) -> Training | str | None:
    """The run's training clips that samples are compared with, or why there are none to read; None if none are wanted."""
    if not most:
        return None
    try:
        return read_training(build(saved["data"] | {"memory_mb": 0}), most)
    except (ValueError, RuntimeError, OSError) as error:
        return str(error)


def networks_of(config: Config, run: Path, device: str) -> tuple[Networks, Guidance]:
    """A run's networks, and the guidance: a weaker network of it sees as they do."""
    kernel, rope = (None if config[key] is None else build(config[key]) for key in ("kernel", "rope"))
    networks = load_networks(run, device, kernel)
    if rope is not None:
        networks.dit.rescale(rope)
    return networks, read_guidance(config["guidance"], networks, device, kernel, rope)


def flow_result(
    config: Config,
    run: Path,
    saved: Config,
    folder: Path,
    world: Mapping[str, Any],
    clips: Sequence[Clip],
    frozen: Sequence[Features],
    device: str,
) -> tuple[Result, dict]:
    """A flow run in the shape that is asked for, on clips of a world fitted to it: what was found, and what of the protocol is its own."""
    networks, guidance = networks_of(config, run, device)
    shape = replace(networks.shape, **{key: config[key] for key in SHAPE if config[key] is not None})
    grid = latent_grid(shape.frames, shape.height, shape.width, networks.vae.stride)
    if grid[0] < 2:
        why = "a clip that begins with a given frame needs more than one latent frame"
        raise ConfigError(f"samples of {shape.frames} frame cannot be measured: {why}. Set frames={1 + networks.vae.stride[0]} or more.")
    generator = make_generator(networks, config, device, guidance=guidance)
    made = "x".join(map(str, (shape.frames, shape.height, shape.width)))
    print(f"{run}, step {networks.step}: {config['prompts']} + {config['seen']} prompts, 2 x {config['animated']} first frames x 3 captions, {made}")
    heldout, seen = ([clip.fitted(shape.height, shape.width) for clip in part] for part in (clips, read_clips(folder / "val", config["animated"])))
    training: Training | str | None = f"samples are {made}, another shape than most clips of the run's training." if config["neighbours"] else None
    if shape == networks.shape:
        training = training_of(saved, config["neighbours"])
    counts = {key: config[key] for key in ("prompts", "seen", "animated", "seed", "batch_size")}
    plan = Plan(**counts, difficulty=world["difficulty"], fps=shape.fps, clips_fps=world["fps"])

    def generate(prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        return list(generator.videos(generator.latents(prompts, grid, shape.fps, plan.seed, samples)).numpy())

    def animate(firsts: Sequence[Video], captions: Sequence[str], samples: Sequence[int]) -> list[Video]:
        latents, known = known_prefix(networks.vae, np.stack(firsts), grid)
        return list(generator.videos(generator.latents(captions, grid, shape.fps, plan.seed, samples, latents, known)).numpy())

    tokenizer = tokenizer_of(networks.vae, [clip.video for clip in heldout], device)

    def reconstruct(videos: Sequence[Video]) -> list[Video]:
        return reconstructed(networks.vae, videos, device)

    result = evaluate_flow(plan, heldout, seen, generate, animate, reconstruct, tokenizer, frozen, training)
    protocol = {"size": [shape.height, shape.width], "frames": shape.frames, "weights_sha256": networks.weights_sha256, "step": networks.step}
    protocol |= {name: described(config[name]) for name in ("solver", "guidance", "rope") if config[name] is not None}
    return result, protocol | {key: config[key] for key in ("steps", "prompts", "seen", "animated", "neighbours")}


def tasks_result(config: Config, run: Path, saved: Config, device: str, begun: float) -> None:
    """Every way of making video, part by part: what is measured is written at once; parts of the same measurement that are not asked for stay."""
    _, made = find_world(config["world"], saved)
    keys = config["tasks"]
    if not isinstance(keys, dict):
        raise ConfigError(f"tasks={keys!r} must hold what suite=tasks measures, tasks.clips and the like: leave it out, or set single keys of it.")
    plan = TasksPlan(keys["clips"], keys["rollouts"], keys["times"], keys["sizes"], keys["lengths"], config["seed"], keys["parts"])
    networks, guidance = networks_of(config, run, device)
    shape = networks.shape
    rollout = rollout_of(keys, latent_grid(shape.frames, shape.height, shape.width, networks.vae.stride)[0])
    generator = make_generator(networks, config, device, whole=True, guidance=guidance)
    stage = Stage(generator, networks, config["seed"], rollout)
    for key, frames, height, width in plan.shapes(shape.frames, shape.height, shape.width):  # before anything is made in the others
        try:
            latent_grid(frames, height, width, networks.vae.stride)
        except ValueError as error:
            raise ConfigError(f"tasks.{key}: {str(error).rpartition(' Set ')[0]} Set tasks.{key}.") from None
    world = World(made["difficulty"], made["seed"], shape.frames, shape.height, shape.width)
    settings = {key: value for key, value in keys.items() if key != "parts"} | {"window": rollout.window, "overlap": rollout.overlap}
    protocol = {"run": str(run), "step": networks.step, "weights_sha256": networks.weights_sha256, "seed": config["seed"], "tasks": settings}
    protocol |= {"world": f"{made['difficulty']}, seed {made['seed']}"}
    protocol |= {"steps": config["steps"], **{name: described(config[name]) for name in ("solver", "guidance")}}
    protocol |= {"machine": machine(), "versions": versions()}
    out = run if config["out"] is None else Path(config["out"])
    for line in write_tasks(out, measured(stage, world, plan), protocol, shape.fps):
        print(line, flush=True)
    print(f"{time.monotonic() - begun:.0f} s; look at the clips: python scripts/showcase.py run={out}")


def rollout_of(keys: Mapping[str, Any], latent_frames: int) -> Rollout:
    """Windows as long as the clips of `latent_frames` that the run was trained on, half of each handed on, where nothing else is set.

    Raises: ConfigError for a value that is none.
    """
    window = max(2, latent_frames - 1) if keys["window"] is None else keys["window"]
    overlap = keys["overlap"]
    if type(window) is not int or type(overlap) not in (int, type(None)) or type(keys["level"]) not in (int, float):
        told = ", ".join(f"tasks.{key}={keys[key]!r}" for key in ("window", "overlap", "level"))
        raise ConfigError(f"{told} must be two counts of latent frames, null for as trained, and a flow time. Set tasks.window, overlap and level.")
    try:
        return Rollout(window, window // 2 if overlap is None else overlap, float(keys["level"]))
    except ValueError as error:
        raise ConfigError(str(error).replace("rollout.", "tasks.")) from None


@torch.no_grad()
def reconstructed(vae: VideoVAE, videos: Sequence[Video], device: str) -> list[Video]:
    """Through the VAE and back as streams, a few clips at a time: pixels and what lies between the layers take far more memory than latents."""

    def back(part: torch.Tensor) -> torch.Tensor:
        return torch.cat([to_uint8(video).cpu() for video in decode_tiled(vae, encode_tiled(vae, pieces(vae, part, device)))], dim=1)

    return [video for part in torch.from_numpy(np.stack(videos)).split(16) for video in back(part).numpy()]


def pieces(vae: VideoVAE, videos: torch.Tensor, device: str) -> Iterator[torch.Tensor]:
    """8-bit clips b t h w c for a stream: b 3 t h w in [-1, 1], of as many frames as one latent frame has."""
    return (to_float(piece).to(device) for piece in videos.split(vae.stride[0], dim=1))


def described(node: Config) -> str:
    """A config node in words: 'ClassifierFree, scale 2.5'. What is null goes without saying."""
    name = str(node["_target_"]).rpartition(".")[2]
    return ", ".join([name, *(f"{key} {value}" for key, value in node.items() if key != "_target_" and value is not None)])


if __name__ == "__main__":
    main()
