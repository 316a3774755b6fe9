"""Measure a run: python scripts/evaluate.py run=runs/demo/dit [prompts=256 steps=12 guidance.scale=2.5]; VAE and flow runs alike.

A VAE run on clips of its own is measured on those that it held out, or on any others: videos=FOLDER.

Writes <run>/evaluation.json, <run>/evaluation.png (a contact sheet) and <run>/evaluation/ (samples for the report); out=FOLDER for another place.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.index import Row, read_index
from data.transforms import to_float, to_uint8
from evaluation.autoencoder import Tokenizer, evaluate_videos, in_words, latent_bits
from evaluation.frozen_features import FrozenFeatures, read_features
from evaluation.gallery import Result, Video, write
from evaluation.learnt_features import KIND, LearntFeatures, run_of
from evaluation.nearest import Training, read_training
from evaluation.suite import Clip, Plan, evaluate_flow, evaluate_vae, read_clips
from evaluation.video_features import in_words as distances_in_words
from models.geometry import latent_grid
from models.vae import VideoVAE
from models.vae_tiles import decode_tiled, encode_tiled, posterior_tiled
from runtime.config import Config, ConfigError, build, check, entry, load_run_config
from runtime.device import pick_device
from runtime.machine import machine, versions
from training.inference import known_prefix, load_features, load_networks, load_vae, make_generator

Features = FrozenFeatures | LearntFeatures
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
    if config["world"] is not None and config["videos"] is not None:
        raise ConfigError(f"world={config['world']} and videos={config['videos']} are both given. Set one of them, the other to null.")
    if "dit" in saved["objective"] and config["videos"] is not None:
        what = f"videos={config['videos']} are clips to measure a VAE on, but run={run} is a flow run, which is measured on a world"
        raise ConfigError(f"{what}. Set videos=null, and world=<folder of make_world.py> if it was not trained on one.")
    given = [f"{key}={config[key]}" for key in (*SHAPE, "rope") if config[key] is not None]
    if "dit" not in saved["objective"] and given:
        raise ConfigError(f"{', '.join(given)} says how samples are made, and run={run} is a VAE run, which makes none. Set them to null.")
    own = "dit" not in saved["objective"] and config["world"] is None and (config["videos"] is not None or not of_a_world(saved))
    frozen = features_of(config["features"], device)
    measure = own_result if own else world_result
    result, protocol, fps = measure(config, run, saved, frozen, device)
    protocol |= {"features": {features.name: features.key for features in frozen}} if frozen else {}
    protocol = {"seed": config["seed"]} | protocol | {"config_sha256": hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()}
    protocol |= {"seconds": round(time.monotonic() - begun, 1), "machine": machine(), "versions": versions()}
    out = run if config["out"] is None else Path(config["out"])
    path = write(out, result, protocol, fps)
    show(result)
    print(f"{path}, {out / 'evaluation.png'}")


def world_result(config: Config, run: Path, saved: Config, frozen: Sequence[Features], device: str) -> tuple[Result, dict, float]:
    """On clips of the procedural world, of combinations that training never showed: what was found, under which protocol, and the clips' fps."""
    folder, world = find_world(config["world"], saved)
    clips = read_clips(folder / "heldout", config["clips"])
    judged = read_index(folder / "heldout" / "index.jsonl").rows[: len(clips)]
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
    result.figures.update(seen_by_features(config["features"], judged))
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
    names = [videos.validation_index().name(row) for batch in batches for row in batch.rows]
    vae, digest = load_vae(run, device)
    print(f"{run}: {len(sources)} clips of {given or 'those that training held out'}")
    tokenizer = tokenizer_of(vae, sources, device)
    frames, height, width = max((video.shape[:3] for video in sources), key=prod)
    result = evaluate_videos(sources, names, lambda parts: reconstructed(vae, parts, device), config["seed"], tokenizer, frozen)
    result.figures.update(seen_by_features(config["features"], videos.validation_index().rows))
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


def seen_by_features(given: Sequence[str], judged: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many of the judged real clips come from files that learnt features were trained on, by what was given; nothing where none do.

    Such clips may look more usual to these features than clips of the same sort that they never saw. Training sets that are gone are not looked for.
    """
    found = {}
    for each in given:
        if each.startswith(f"{KIND}:"):
            with suppress(ValueError, OSError):
                trained = {row.media for row in build(load_run_config(run_of(each)[0])["data"]).training_index().rows}
                found[each] = sum(row.media in trained for row in judged)
    found = {each: shared for each, shared in found.items() if shared}
    return {"features_saw": found} if found else {}


def training_of(saved: Config, most: int) -> Training | str | None:
    """The run's training clips that samples are compared with, or why there are none to read; None if none are wanted."""
    if not most:
        return None
    try:
        return read_training(build(saved["data"] | {"memory_mb": 0}), most)
    except (ValueError, RuntimeError, OSError) as error:
        return str(error)


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
    networks = load_networks(run, device, build(config["kernel"]))
    shape = replace(networks.shape, **{key: config[key] for key in SHAPE if config[key] is not None})
    grid = latent_grid(shape.frames, shape.height, shape.width, networks.vae.stride)
    if config["rope"] is not None:
        networks.dit.rescale(build(config["rope"]))
    generator = make_generator(networks, config, device)
    made = "x".join(map(str, (shape.frames, shape.height, shape.width)))
    print(f"{run}, step {networks.step}: {config['prompts']} + {config['seen']} prompts, 2 x {config['animated']} first frames x 3 captions, {made}")
    heldout, seen = ([clip.fitted(shape.height, shape.width) for clip in part] for part in (clips, read_clips(folder / "val", config["animated"])))
    training: Training | str | None = f"samples are {made}, no shape that the run was trained in." if config["neighbours"] else None
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
    """A config node in words: 'ClassifierFree, scale 2.5'."""
    name = str(node["_target_"]).rpartition(".")[2]
    return ", ".join([name, *(f"{key} {value}" for key, value in node.items() if key != "_target_")])


def show(result: Result) -> None:
    """A short table and, last, the one number that matters."""

    def line(name: str, share: dict) -> None:
        print(f"  {name:36} {100 * share['value']:5.1f} %   [{100 * share['low']:.1f}, {100 * share['high']:.1f}]  n={share['n']}")

    figures = result.figures
    vae, following = figures["vae"], figures.get("prompt_following")
    inside = "" if vae["psnr_box_db"] is None else f", {vae['psnr_box_db']:.2f} dB inside the box"
    print(f"  VAE: PSNR {vae['psnr_db']:.2f} dB{inside}, SSIM {vae['ssim']:.4f}, flicker {vae['flicker']:.2f} levels")
    for words in in_words(figures):
        print(f"  {words}")
    for given, shared in figures.get("features_saw", {}).items():
        print(f"  {given} were trained on {shared} of the real clips: these may look more usual to them than others would")
    if "ceiling" in figures:
        line("ceiling: reconstructions read right", figures["ceiling"])
    if following is None:
        print(f"held-out PSNR {vae['psnr_db']:.1f} dB")
        return
    for name in ("lenient", "seen"):
        line(name, following[name])
    line("frames that show all of the object", following["framed"])
    for name, share in [*following["attributes"].items(), *following["kinds"].items()]:
        line(name, share)
    line("shuffled prompts", figures["shuffled"])
    for count, share in figures.get("objects", {}).items():
        line(f"prompts of {count} object{'s' * (count != '1')}", share)
    if "swapped" in figures:
        line("two objects, colours exchanged", figures["swapped"])
    for part, combinations in (("image_to_video", "held out"), ("image_to_video_seen", "seen")):
        print(f"  image to video, fresh clips of combinations that were {combinations}, by caption:")
        for mode, node in figures[part].items():
            for name in ("shape_and_colour", "motion", "first_frame_kept"):
                if name in node:
                    line(f"  {mode}: {name}", node[name])
    show_sets(figures, line)
    share = following["all"]
    print(f"held-out prompts with everything right: {100 * share['value']:.1f} % of {share['n']} (chance {100 * figures['chance']:.2f} %)")


def show_sets(figures: Mapping[str, Any], line: Callable[[str, dict], None]) -> None:
    """How far made videos lie from real ones, and whether they repeat training clips; why not, where that is not measured."""
    if "generated" in figures:
        node = figures["generated"]
        print(f"  videos of {node['n']} held-out prompts against as many real held-out clips:")
        for words in [f"not measured: {node['why']}"] if "why" in node else distances_in_words(node, node["n"]):
            print(f"    {words}")
    if "memorisation" not in figures:
        return
    node = figures["memorisation"]
    if "why" in node:
        print(f"  whether samples repeat training clips is not measured: {node['why']}")
        return
    unreadable = f", {node['unreadable']} more could not be read" if node["unreadable"] else ""
    print(f"  nearer to one of {node['training_clips']} training clips (of {node['of']}{unreadable}) than almost all new real clips are:")
    for name, words in (("heldout", "held-out"), ("seen", "seen")):
        share = node[name]
        line(f"  {words} (expected {100 * share['expected']:.1f}, to {100 * share['expected_high']:.0f})", share)


if __name__ == "__main__":
    main()
