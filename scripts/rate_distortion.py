"""Train and measure the autoencoders of configs/rate_distortion.yaml at equal training FLOP: python scripts/rate_distortion.py

Runs train.py and scripts/evaluate.py as anyone would, one after the other; an arm that is done is not repeated. The raw figures, and from them the
table in docs/vae.md and the chart, are written at the end; train=false writes page and chart again from the raw figures alone.
"""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from data.batch import Batch
from evaluation.rate_distortion import Arm, between, chart, steps_for, table, verdict
from runtime.build import build
from runtime.config import ROOT, Config, ConfigError, compose, entry
from runtime.files import write_text


@dataclass(frozen=True, slots=True)
class Job:
    """One arm under one seed."""

    arm: str
    peer: bool
    run: Path
    overrides: tuple[str, ...]
    flop_per_step: int
    steps: int

    def commands(self, world: Path, clips: int) -> list[list[str]]:
        """Training, then measuring."""
        train = ["train.py", f"run={self.run}", *self.overrides, f"world={world}", f"trainer.max_steps={self.steps}"]
        return [train, ["scripts/evaluate.py", f"run={self.run}", f"world={world}", f"clips={clips}"]]


@entry("rate_distortion")
def main(config: Config) -> None:
    check(config)
    raw = Path(config["raw"])
    if config["train"]:
        begun = time.monotonic()
        arms = trained(config)
        raw.parent.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", "scripts/rate_distortion.py", *sys.argv[1:]])
        facts = {"command": command, "budget_tflop": config["budget_tflop"], "seeds": config["seeds"]}
        write_text(raw, json.dumps(facts | {"arms": [asdict(arm) for arm in arms]}, indent=1) + "\n")
        print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes")
    publish(read(raw), raw, config["page"])


def trained(config: Config) -> list[Arm]:
    """All arms, run to their end."""
    world = Path(config["out"]) / "world"
    jobs = plan(config)
    once(world, "world.json", [["scripts/make_world.py", f"out={world}", *config["world"]]])
    for number, job in enumerate(jobs):
        print(f"\n== {number + 1} of {len(jobs)}: {job.run.name}, {job.steps} steps of {job.flop_per_step / 1e9:.3g} GFLOP", flush=True)
        once(job.run, "evaluation.json", job.commands(world, config["clips"]))
    return gathered(jobs, config)


def read(raw: Path) -> Config:
    """Raises: ConfigError if there are no raw figures."""
    try:
        return json.loads(raw.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"raw={raw} holds no figures of this script ({error}). Run it with train=true, or set raw.") from None


def check(config: Config) -> None:
    """Raises: ConfigError naming the key."""
    if type(config["budget_tflop"]) not in (int, float) or not config["budget_tflop"] > 0:
        raise ConfigError(f"budget_tflop={config['budget_tflop']!r} must be a number above 0. Set budget_tflop.")
    if not config["arms"] or not config["seeds"]:
        raise ConfigError(f"got {len(config['arms'])} arms and seeds={config['seeds']}; wanted at least one of each. Set arms, seeds.")
    same = set(config["arms"]) & set(config["peers"])
    if same:
        raise ConfigError(f"{sorted(same)[0]} names an arm and a peer. Set another name in arms or peers.")
    unknown = set(config["only"] or ()) - set(config["arms"]) - set(config["peers"])
    if unknown or config["only"] == []:
        names = ", ".join([*config["arms"], *config["peers"]])
        raise ConfigError(f"only={config['only']} is not a choice of arms and peers; known are {names}. Set only, or null for all.")


def plan(config: Config) -> list[Job]:
    """Every arm under every seed, seeds outermost, so that a run that is stopped early compares all arms on the first seed."""
    jobs = []
    for seed in config["seeds"]:
        for group, own in (("arms", config["ours"]), ("peers", config["theirs"])):
            for name, overrides in config[group].items():
                if config["only"] is not None and name not in config["only"]:
                    continue
                given = [*config["common"], *own, *overrides, f"seed={seed}"]
                flop = step_flop(given)
                steps = steps_for(1e12 * config["budget_tflop"], flop)
                run = Path(config["out"]) / re.sub(r"[^0-9a-z]+", "-", f"{name} {steps} steps seed {seed}".lower())
                jobs.append(Job(name, group == "peers", run, tuple(given), flop, steps))
    return jobs


def step_flop(overrides: Sequence[str]) -> int:
    """What one optimiser step of a training config costs, forward and backward, by its own objective."""
    config = compose("train", ["run=x", *overrides])
    with torch.device("meta"):
        objective = build(config["objective"])
    count, shape, crop = config["data"]["batch_size"], config["data"]["shape"], config["data"]["crop"]
    height, width = (min(shape[side], crop["size"]) if crop else shape[side] for side in ("height", "width"))
    video = torch.empty(count, 3, shape["frames"], height, width, device="meta")
    return objective.flops(Batch(tuple(range(count)), (0,) * count, ({},) * count, torch.zeros(count), video=video))


def once(folder: Path, result: str, commands: list[list[str]]) -> None:
    """Run the commands that leave folder/result, unless these very ones have run to their end before."""
    note = folder / "done.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == commands and (folder / result).exists():
        print(f"{folder}: done before")
        return
    for command in commands:
        call(command)
    write_text(note, json.dumps(commands, indent=1) + "\n")


def call(command: list[str]) -> None:
    """Run it; Ctrl-C reaches it by itself, SIGTERM is passed on: it saves, and the same command goes on later.

    Raises: RuntimeError if it fails; its own message stands above. SystemExit if this was asked to stop.
    """
    print(f"$ python {shlex.join(command)}", flush=True)
    asked: list[int] = []
    with subprocess.Popen([sys.executable, *command], cwd=ROOT) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: (asked.append(143), process.terminate()))
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if asked:
        raise SystemExit(asked[0])
    if code:
        raise RuntimeError(
            f"python {shlex.join(command)} ended with exit code {code}; its message stands above. Mend the cause, then run this again."
        )


def gathered(jobs: Sequence[Job], config: Config) -> list[Arm]:
    """The arms with what their runs measured.

    Raises: RuntimeError if a run cost something else than was planned.
    """
    arms = []
    for name in dict.fromkeys(job.arm for job in jobs):
        own = [job for job in jobs if job.arm == name]
        for job in own:
            spent = json.loads((job.run / "cost.json").read_text(encoding="utf-8"))["flop"]
            if spent != job.steps * job.flop_per_step:
                told = f"{job.run} spent {spent} FLOP in training, planned were {job.steps * job.flop_per_step}: an epoch's last batch is short"
                raise RuntimeError(f"{told}. Set clips in world to a multiple of every data.batch_size, and remove {config['out']}.")
        evaluations = [measured(job.run) for job in own]
        arms.append(Arm(name, own[0].peer, evaluations, own[0].steps, own[0].steps * own[0].flop_per_step))
    return arms


def measured(run: Path) -> Config:
    """What a table needs of evaluation.json."""
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return {key: found[key] for key in ("vae", "tokenizer", "protocol")}


def publish(found: Config, raw: Path, page: str | None) -> None:
    """Table and verdict into the page, the chart beside the raw figures."""
    arms = [Arm(**arm) for arm in found["arms"]]
    protocol = arms[0].evaluations[0]["protocol"]
    size = " x ".join(map(str, [protocol["frames"], *protocol["size"]]))
    what = f"{found['budget_tflop']:g} TFLOP of training for each, {len(found['seeds'])} seed{'s' * (len(found['seeds']) > 1)}"
    on = f"{protocol['clips']} held-out clips of {size} of the `{protocol['difficulty']}` world"
    words = f"`{found['command']}`: {what}, {on}; {protocol['machine']}, torch {protocol['versions']['torch']}."
    content = "\n\n".join(part for part in (words, table(arms), verdict(arms)) if part)
    chart(arms, raw.with_suffix(".png"))
    if page is not None:
        write_text(Path(page), between(Path(page).read_text(encoding="utf-8"), "rate-distortion", content))
    print(f"\n{content}\n\n{raw}, {raw.with_suffix('.png')}{'' if page is None else f', {page}'}")


if __name__ == "__main__":
    main()
