"""How fast our networks are beside diffusers', and how much memory they take: python scripts/bench_model.py [what=[dit,vae,train,ladder] pairs=5].

Each part writes its raw figures as JSON; write=docs/performance.md fills that page's tables from them.
"""

import gc
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from runtime.config import Config, ConfigError, entry
from runtime.device import pick_device
from runtime.files import write_text


@entry("bench_model")
def main(config: Config) -> None:
    from bench import page  # here, as `entry` makes the checkout importable
    from bench.measure import machine, pinned, tf32, versions, without_tf32

    parts = {"dit": transformers, "vae": autoencoders, "train": training, "ladder": ladder}
    if not isinstance(config["what"], list) or not set(config["what"]) <= set(parts):
        raise ConfigError(f"what={config['what']!r} must be a list of {', '.join(parts)}. Set what.")
    device, out = pick_device(config["device"], "device"), Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    with pinned(config["core"], config["threads"]), without_tf32():
        for part in config["what"]:
            shared = {key: config[key] for key in ("core", "threads", "clock", "repeats", "pairs", "memory")}
            raw = {"part": part, "device": device, "machine": machine(device), "versions": versions(), "tf32": tf32()}
            raw["arguments"] = {**shared, part: config[part]}
            raw["figures"] = parts[part](config, device)
            file = out / f"{part}-{torch.device(device).type}.json"
            write_text(file, json.dumps(raw, indent=1) + "\n")
            print(f"{file}\n{page.summary(raw)}")
    if config["write"] is not None:
        page.write(Path(config["write"]), out)
        print(config["write"])


def transformers(config: Config, device: str) -> dict[str, Any]:
    """Ours and each peer by turns."""
    from bench import ceilings, dit
    from bench.contenders import Size

    size, meter = config["dit"], _meter(config, device)
    common = Size(size["width"], size["depth"], size["head_width"], tuple(size["latents"]), size["text_tokens"], size["text_width"], size["samples"])
    cases = [dit.Case.read(case) for case in size["cases"]]
    rates = ceilings.of_transformers(common, sorted({case.dtype for case in cases}, key=str), device, meter, 2 * config["pairs"] + 1)
    return {"ceilings": rates, "rows": dit.measure(common, size["peers"], cases, config["pairs"], device, meter, config["memory"])}


def autoencoders(config: Config, device: str) -> dict[str, Any]:
    """What a frame-megapixel costs, memory by length, tiles against the whole."""
    from bench import ceilings, vae

    settings, meter, memory = config["vae"], _meter(config, device), config["memory"]
    ours = {name: vae.preset(name, device) for name in settings["presets"]}
    (first, network), *_ = ours.items()
    clip, (height, width) = vae.Clip(*settings["clip"]), settings["stream"]
    tiles = {"ours": vae.tiles(network, vae.Clip(*settings["tiled"]), settings["tile"], device)}  # first what may be refused
    streams = vae.stream_memory(settings["streamed"], settings["lengths"], height, width, device, memory)
    figures: dict[str, Any] = {"tiles": tiles, "memory": streams}
    figures["ceilings"] = ceilings.of_autoencoders(first, network, settings["clip"], device, meter, 2 * config["pairs"] + 1)
    figures |= vae.cost(ours, settings["peers"], clip, config["pairs"], device, meter, memory)
    if "left_out" not in figures:
        small, tile = vae.Clip(*settings["peer_tiled"]), settings["peer_tile"]
        figures["tiles"] |= {name: vae.peer_tiles(name, small, tile, device) for name in settings["peers"]}
    return figures


def training(config: Config, device: str) -> dict[str, Any]:
    """Training steps of the ladder; the attention back end is the one that was asked for, or this ends."""
    from bench import presets, train

    settings, meter, rows = config["train"], _meter({**config, "repeats": 1}, device), []
    for name in settings["sizes"]:
        for samples, *latents in settings["batches"]:
            network = presets.dit(name, settings["vae"], settings["text_width"], settings["kernel"])
            load = train.Load(samples, tuple(latents), settings["text_tokens"])
            dtype = getattr(torch, settings["dtype"])
            row = train.measure(network, load, settings["steps"], dtype, settings["compiled"], settings["attention"], device, meter, config["memory"])
            rows.append({"size": name, **row})
            print(f"{name}, {samples} x {row['tokens']} tokens: {min(row['seconds']):.3f} s a step, compile start-up {row['start_s']:.1f} s")
            del network
            gc.collect()
    return {"rows": rows}


def ladder(config: Config, device: str) -> dict[str, Any]:
    """What a training step of each size asks of any device."""
    from bench import ladder, presets, train

    settings, rows = config["ladder"], []
    loads = [train.Load(samples, tuple(latents), settings["text_tokens"]) for samples, *latents in settings["batches"]]
    for name in settings["sizes"]:
        build = partial(presets.dit, name, settings["vae"], settings["text_width"])
        rows += [{"size": name, **row} for row in ladder.count(build, loads)]
    return {"rows": rows}


def _meter(config: Config, device: str) -> Any:
    from bench.measure import CpuMeter, CudaMeter

    return CudaMeter(config["repeats"]) if device.startswith("cuda") else CpuMeter(config["clock"])


if __name__ == "__main__":
    main()
