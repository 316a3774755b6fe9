"""Measure a run: python scripts/evaluate.py run=runs/demo/dit [prompts=256 steps=12 guidance.scale=2.5]; VAE and flow runs alike.

Writes <run>/evaluation.json, <run>/evaluation.png (a contact sheet) and <run>/evaluation/ (samples for the report).
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data.transforms import to_float, to_uint8
from evaluation.gallery import Result, Video, write
from evaluation.suite import Plan, evaluate_flow, evaluate_vae, machine, read_clips, versions
from models.geometry import latent_grid
from models.vae import VideoVAE
from runtime.config import Config, ConfigError, check, entry, load_run_config
from runtime.device import pick_device
from training.inference import Networks, known_prefix, load_networks, load_vae, make_generator


@entry("evaluate")
def main(config: Config) -> None:
    for key, least in {"prompts": 2, "seen": 2, "clips": 2, "animated": 2, "seed": 0, "steps": 1, "batch_size": 1}.items():
        if type(config[key]) is not int or config[key] < least:
            raise ConfigError(f"{key}={config[key]!r} must be a whole number >= {least}. Set {key}.")
    check({key: config[key] for key in ("solver", "guidance")})
    begun, run, device = time.monotonic(), Path(config["run"]), pick_device(config["device"], "device")
    saved = load_run_config(run)
    if not {"objective", "data"} <= set(saved):
        raise ConfigError(f"run={run} holds no config of a training run. Give the folder that train.py was given as run=.")
    folder, world = find_world(config["world"], saved)
    clips = read_clips(folder / "heldout", config["clips"])
    height, width = clips[0].video.shape[1:3]
    protocol = {"seed": config["seed"], "world": str(folder), "clips": len(clips), "size": [height, width], "frames": len(clips[0].video)}
    protocol |= {key: world[key] for key in ("fps", "difficulty")}
    protocol |= {"config_sha256": hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()}

    if "dit" in saved["objective"]:
        networks = load_networks(run, device)
        print(f"{run}, step {networks.step}: {config['prompts']} + {config['seen']} prompts, 2 x {config['animated']} first frames x 3 captions")
        counts = {key: config[key] for key in ("prompts", "seen", "animated", "seed", "batch_size")}
        seen_clips = read_clips(folder / "val", config["animated"])
        result = flow_result(config, networks, Plan(**counts, difficulty=world["difficulty"]), clips, seen_clips, device)
        protocol |= {"weights_sha256": networks.weights_sha256, "step": networks.step, "steps": config["steps"]}
        protocol |= {name: described(config[name]) for name in ("solver", "guidance")} | {key: config[key] for key in ("prompts", "seen", "animated")}
    else:
        vae, digest = load_vae(run, device)
        print(f"{run}: {len(clips)} held-out clips")
        result = evaluate_vae(clips, lambda videos: reconstructed(vae, videos, device), config["seed"], config["batch_size"])
        protocol |= {"weights_sha256": digest}
    protocol |= {"seconds": round(time.monotonic() - begun, 1), "machine": machine(), "versions": versions()}
    path = write(run, result, protocol, world["fps"])
    show(result)
    print(f"{path}, {run / 'evaluation.png'}")


def find_world(given: str | None, saved: Config) -> tuple[Path, dict]:
    """The world folder and its settings.

    Raises: ConfigError if there is none.
    """
    folder = Path(given) if given is not None else Path(saved["data"]["val"]).parent.parent
    try:
        return folder, json.loads((folder / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"world={folder} is no folder of scripts/make_world.py ({error}). Set world=<that folder>.") from None


def flow_result(config: Config, networks: Networks, plan: Plan, clips: Sequence, seen_clips: Sequence, device: str) -> Result:
    shape = networks.shape
    grid = latent_grid(shape.frames, shape.height, shape.width, networks.vae.stride)
    generator = make_generator(networks, config, device)

    def generate(prompts: Sequence[str], samples: Sequence[int]) -> list[Video]:
        return list(generator.videos(generator.latents(prompts, grid, shape.fps, plan.seed, samples)).numpy())

    def animate(firsts: Sequence[Video], captions: Sequence[str], samples: Sequence[int]) -> list[Video]:
        latents, known = known_prefix(networks.vae, np.stack(firsts), grid)
        return list(generator.videos(generator.latents(captions, grid, shape.fps, plan.seed, samples, latents, known)).numpy())

    return evaluate_flow(plan, clips, seen_clips, generate, animate, lambda videos: reconstructed(networks.vae, videos, device))


@torch.no_grad()
def reconstructed(vae: VideoVAE, videos: Sequence[Video], device: str) -> list[Video]:
    """Through the VAE and back, a few at a time: a pixel video takes far more memory than its latents."""
    parts = torch.from_numpy(np.stack(videos)).split(16)
    return [video for part in parts for video in to_uint8(vae.decode(vae.encode(to_float(part).to(device)))).cpu().numpy()]


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
    line("ceiling: reconstructions read right", figures["ceiling"])
    if following is None:
        print(f"held-out PSNR {vae['psnr_db']:.1f} dB")
        return
    for name in ("lenient", "seen"):
        line(name, following[name])
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
    share = following["all"]
    print(f"held-out prompts with everything right: {100 * share['value']:.1f} % of {share['n']} (chance {100 * figures['chance']:.2f} %)")


if __name__ == "__main__":
    main()
