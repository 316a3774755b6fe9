"""What sampling of a flow run costs and what its settings give: python scripts/bench_sample.py [run=runs/demo/dit what=[overhead,seeds,memory]]

Seconds outside the networks, whether a seed gives the same clip however it is made, the memory of long videos, and prompts followed by solver, steps
and guidance. Each part is kept in `raw` as soon as it is measured, and what the oracle has judged is not made again; the tables go to `page`.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.sampling import Watch, chart, section, spent
from evaluation.prompt_following import follow, summary
from evaluation.rate_distortion import between
from evaluation.suite import draw_prompts
from flow.generate import Generator
from models.geometry import latent_grid
from runtime.checkpoint import Checkpoints
from runtime.config import ROOT, Config, ConfigError, entry
from runtime.files import write_text
from runtime.machine import provenance
from training.inference import Networks, load_networks, make_generator

# The peak that a script leaves, as it sees it itself: ru_maxrss outlives exec, and would be that of a larger parent.
METERED = """
import runpy, sys
path, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
with open("/proc/self/status", encoding="ascii", errors="replace") as status, open(path, "w", encoding="ascii") as file:
    file.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


@entry("bench_sample")
def main(config: Config) -> None:
    unknown = set(config["what"]) - set(PARTS)
    if unknown:
        raise ConfigError(f"what={config['what']} names {sorted(unknown)[0]}, which is no part; known are {', '.join(PARTS)}. Set what.")
    torch.set_num_threads(config["threads"])
    raw = Path(config["raw"])
    for name in config["what"]:
        PARTS[name](config, partial(keep, raw, name), read(raw).get(name, {}).get("figures", {}))
        print(f"{name} is in {raw}", flush=True)
    found = read(raw)
    content = section(found)
    if "steps" in found:
        chart(found["steps"]["figures"], Path(config["chart"]))
        content += f"\n\n![prompts followed over evaluations]({Path(config['chart']).parent.name}/{Path(config['chart']).name})"
    if config["page"] is not None:
        page = Path(config["page"])
        write_text(page, between(page.read_text(encoding="utf-8"), "sampling", content))
    print(f"\n{content}")


def read(raw: Path) -> Config:
    return json.loads(raw.read_text(encoding="utf-8")) if raw.is_file() else {}


Keep = Callable[[Mapping[str, Any]], None]


def keep(raw: Path, name: str, figures: Mapping[str, Any]) -> None:
    """Put a part's figures beside those of the others, with what they were measured on."""
    command = shlex.join(["python", "scripts/bench_sample.py", *sys.argv[1:]])
    raw.parent.mkdir(parents=True, exist_ok=True)
    part = {"command": command, "machine": provenance(), "load": round(os.getloadavg()[1], 1), "figures": figures}
    write_text(raw, json.dumps(read(raw) | {name: part}, indent=1) + "\n")


def overhead(config: Config, keep: Keep, _: Config) -> None:
    """Seconds of this process, one thread: what others take of the core does not count."""
    torch.set_num_threads(1)
    batches = config["overhead"]["batches"]
    networks, texts = networks_of(config["run"]), prompts_of(config, max(batches))
    generator, grid = generator_of(networks, config, max(batches)), grid_of(networks)
    text = networks.text
    assert isinstance(text, nn.Module), "every text encoder here is a module"

    def call(batch: int) -> dict[str, float]:
        made = partial(generator.latents, texts[:batch], grid, networks.shape.fps, config["seed"], list(range(batch)))
        return spent(made, networks.dit, text, time.process_time)

    calls: dict[str, list[dict[str, float]]] = {str(batch): [] for batch in batches}
    for batch in batches:
        call(batch)  # the first one of a shape finds its kernels
    for number in range(config["overhead"]["rounds"]):
        for batch in batches if number % 2 == 0 else batches[::-1]:
            calls[str(batch)].append(call(batch))
    keep({"steps": config["solver_steps"], "calls": calls})


def seeds(config: Config, keep: Keep, _: Config) -> None:
    """The same clips alone, in batches and in several processes."""
    own = config["seeds"]
    every, processes = list(range(own["clips"])), own["processes"]
    noise, alone = made(config, every, 1)
    ways = {f"in batches of {size}": made(config, every, size) for size in own["batches"]}
    with pool(config["threads"], processes) as run:
        parts = list(run(partial(made, config, size=own["clips"]), [every[rank::processes] for rank in range(processes)]))
    order = torch.tensor([place for rank in range(processes) for place in every[rank::processes]]).argsort()
    joint = [torch.cat(list(each))[order] for each in zip(*parts, strict=True)]
    ways[f"by {processes} processes"] = joint[0], joint[1]
    differences = {way: float((latents - alone).abs().max()) for way, (_, latents) in ways.items()}
    keep({"differences": differences, "noise_same": all(torch.equal(noise, other) for other, _ in ways.values())})


def made(config: Config, samples: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """Noise and latents b c f h w of such samples, so many at once."""
    networks = networks_of(config["run"])
    generator, texts = generator_of(networks, config, size), prompts_of(config, config["seeds"]["clips"])
    noise = generator.noise.draw(config["seed"], samples, generator.latent_channels, grid_of(networks), 0)
    return noise, generator.latents([texts[place] for place in samples], grid_of(networks), networks.shape.fps, config["seed"], samples)


def memory(config: Config, keep: Keep, _: Config) -> None:
    """The peak of sample.py as a user runs it, each time in a process of its own.

    Raises: RuntimeError if it failed, or the system tells no peak.
    """
    if not Path("/proc/self/status").is_file():
        raise RuntimeError("memory is read from /proc, which this system lacks. Leave memory out of what.")
    networks, own = networks_of(config["run"]), config["memory"]
    trained, stride = networks.shape.frames, networks.vae.stride[0]
    frames = {str(times): 1 + (times * trained - 1) // stride * stride for times in own["lengths"]}
    peaks: dict[str, list[float]] = {times: [] for times in frames}
    with tempfile.TemporaryDirectory() as folder:
        given = [f"run={config['run']}", "--prompt", prompts_of(config, 1)[0], f"out={folder}/clips", f"steps={own['steps']}", "device=cpu"]
        window = max(2, grid_of(networks)[0] - 1)
        given += ["rollout=windows", f"rollout.window={window}", f"rollout.overlap={window // 2}", "untrained=true"]
        environment = os.environ | {"OMP_NUM_THREADS": str(config["threads"])}
        for _round in range(own["rounds"]):
            for times, count in frames.items():
                command = [sys.executable, "-c", METERED, f"{folder}/peak", str(ROOT / "sample.py"), *given, f"frames={count}"]
                done = subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL)
                if done.returncode:
                    raise RuntimeError(f"sample.py ended with exit code {done.returncode}, see above.")
                peaks[times].append(int(Path(folder, "peak").read_text(encoding="ascii")) / 1024)
    keep({"frames": frames, "peak_mb": peaks})


def steps(config: Config, keep: Keep, before: Config) -> None:
    """Every solver at equal numbers of evaluations."""
    cells = []
    for count in config["steps"]["evaluations"]:
        for name, solver in config["steps"]["solvers"].items():
            own = {"solver": solver["node"], "guidance": config["guidance"], "steps": count // solver["each"]}
            cells.append({"name": name, "evaluations": count, "sampling": own})
    judge(config, config["steps"]["prompts"], cells, keep, before)


def guidances(config: Config, keep: Keep, before: Config) -> None:
    """Every guidance with the same solver and steps."""
    kept = [int(folder.name.rpartition("-")[2]) for folder in Checkpoints(Path(config["run"]) / "checkpoints").published()]
    cells = []
    for name, node in config["variants"]["of"].items():
        if "run" in node:
            if len(kept) < 2:
                print(f"{name} is left out: {config['run']} keeps one checkpoint alone")
                continue
            node = node | {"run": config["run"], "step": min(kept)}
        own = {"solver": config["solver"], "guidance": node, "steps": config["solver_steps"]}
        cells.append({"name": name, "evaluations": config["solver_steps"], "sampling": own})
    judge(config, config["variants"]["prompts"], cells, keep, before)


def judge(config: Config, prompts: int, cells: Sequence[Config], keep: Keep, before: Config) -> None:
    """Ask the oracle about every cell that it was not asked about under the same protocol."""
    protocol = {"weights_sha256": networks_of(config["run"]).weights_sha256, "prompts": prompts, "seed": config["seed"]}
    protocol |= {"difficulty": difficulty(config)}
    known = before.get("cells", {}) if before.get("protocol") == protocol else {}
    names = [f"{cell['name']}, {cell['evaluations']}" for cell in cells]
    done = {name: known[name] for name, cell in zip(names, cells, strict=True) if name in known and known[name]["sampling"] == cell["sampling"]}
    left = [(name, cell) for name, cell in zip(names, cells, strict=True) if name not in done]
    keep({"protocol": protocol, "cells": done})
    with pool(config["threads"], min(config["processes"], len(left))) as run:
        for (name, cell), result in zip(left, run(partial(followed, config, prompts), [cell for _, cell in left]), strict=True):
            done[name] = cell | result
            print(f"{name}: {100 * result['value']:.0f} % in {result['seconds']:.0f} s", flush=True)
            keep({"protocol": protocol, "cells": {name: done[name] for name in names if name in done}})


def followed(config: Config, count: int, cell: Config) -> dict[str, Any]:
    """How many prompts one way of sampling follows; all ways are asked the same and begin with the same noise."""
    networks = networks_of(config["run"])
    own = cell["sampling"] | {"batch_size": config["batch_size"]}
    generator, grid, begun = make_generator(networks, own), grid_of(networks), time.process_time()
    prompts = draw_prompts(count, config["seed"], difficulty(config), "heldout")

    def generate(texts: Sequence[str], samples: Sequence[int]) -> list[Any]:
        return list(generator.videos(generator.latents(texts, grid, networks.shape.fps, config["seed"], samples)).numpy())

    with Watch(networks.dit, time.process_time) as watch:
        found = summary(follow(generate, prompts, 0, config["batch_size"]))
    calls = watch.calls / -(-count // config["batch_size"])
    figures = {name: found[name] for name in ("value", "low", "high", "n")} | {"graded": found["graded"]["value"]}
    return figures | {"asked_network": calls, "seconds": time.process_time() - begun}


@contextmanager
def pool(threads: int, processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A map over so many processes; with one of them, in this one."""
    if processes < 2:
        torch.set_num_threads(threads)
        yield map
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (threads,)) as executor:
        yield executor.map


@cache
def networks_of(run: str) -> Networks:
    return load_networks(run)


def generator_of(networks: Networks, config: Config, batch_size: int) -> Generator:
    sampling = {"solver": config["solver"], "guidance": config["guidance"], "steps": config["solver_steps"], "batch_size": batch_size}
    return make_generator(networks, sampling)


def grid_of(networks: Networks) -> tuple[int, int, int]:
    shape = networks.shape
    return latent_grid(shape.frames, shape.height, shape.width, networks.vae.stride)


def prompts_of(config: Config, count: int) -> list[str]:
    return [prompt.text for prompt in draw_prompts(count, config["seed"], difficulty(config), "heldout")]


def difficulty(config: Config) -> str:
    """Raises: ConfigError if the run was trained on no world."""
    if config["difficulty"] is not None:
        return config["difficulty"]
    val = networks_of(config["run"]).config["data"].get("val")
    try:
        return json.loads((Path(val).parent.parent / "world.json").read_text(encoding="utf-8"))["difficulty"]
    except (OSError, TypeError, ValueError) as error:
        told = f"run={config['run']} does not say of which world its clips are ({error})"
        raise ConfigError(f"{told}. Set difficulty=easy, standard or hard.") from None


PARTS = {"overhead": overhead, "seeds": seeds, "memory": memory, "steps": steps, "guidance": guidances}

if __name__ == "__main__":
    main()
