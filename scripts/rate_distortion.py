"""Train and measure the autoencoders of configs/rate_distortion.yaml at equal training FLOP: python scripts/rate_distortion.py

Runs train.py and scripts/evaluate.py as anyone would, one after the other; an arm that is done is not repeated. The raw figures, and from them the
table in docs/vae.md and the chart, are written at the end; train=false writes page and chart again from the raw figures alone.
"""

import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ablation.engines import Engine, Local
from ablation.jobs import Job
from ablation.plan import step_cost, steps_for
from ablation.watch import work
from evaluation.rate_distortion import Arm, between, chart, table, verdict
from runtime.config import Config, ConfigError, build, entry
from runtime.files import write_text
from runtime.preemption import StopRequest


@dataclass(frozen=True, slots=True)
class Run:
    """One arm under one seed."""

    arm: str
    peer: bool
    job: Job
    flop_per_step: int
    steps: int


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
    publish(read(raw), raw, config["page"], config["mark"])


def trained(config: Config) -> list[Arm]:
    """The arms of `only`, run to their end, and all others that are done.

    Raises: RuntimeError if one failed.
    """
    engine: Engine = build(config["engine"])
    folder = Path(config["out"]) / "world"
    world = Job("world", folder, "world.json", (("scripts/make_world.py", f"out={folder}", *config["world"]),), folder.with_name("made"))
    runs, known = plan(config), planned(config)
    with StopRequest() as stop:
        failed = work(Local(processes=1, threads=None), [world], stop) or work(engine, [run.job for run in runs], stop)
    if failed:
        raise RuntimeError(f"{len(failed)} of {1 + len(runs)} jobs failed, see above. Mend the cause, then run the same command again.")
    undone = {run.arm for run in known if not run.job.done}
    return gathered([run for run in known if run.arm not in undone], config)  # what is done under every seed stays on the page


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


def plan(config: Config) -> list[Run]:
    """Every arm under every seed, seeds outermost, so that one that is stopped early compares all arms on the first seed."""
    runs = []
    for seed in config["seeds"]:
        for group, own in (("arms", config["ours"]), ("peers", config["theirs"])):
            for name, overrides in config[group].items():
                if config["only"] is not None and name not in config["only"]:
                    continue
                given = [*config["common"], *own, *overrides, f"seed={seed}"]
                flop, _ = step_cost(given)
                steps = steps_for(1e12 * config["budget_tflop"], flop)
                folder = Path(config["out"]) / re.sub(r"[^0-9a-z]+", "-", f"{name} {steps} steps seed {seed}".lower())
                world = f"world={config['out']}/world"
                train = ("train.py", f"run={folder}", *given, world, f"trainer.max_steps={steps}")
                measure = ("scripts/evaluate.py", f"run={folder}", world, f"clips={config['clips']}")
                runs.append(Run(name, group == "peers", Job(folder.name, folder, "evaluation.json", (train, measure)), flop, steps))
    return runs


def planned(config: Config) -> list[Run]:
    """All arms, whatever `only` says; those whose extra is not installed here are named and left out."""
    runs = []
    for name in [*config["arms"], *config["peers"]]:
        try:
            runs += plan(config | {"only": [name]})
        except ImportError as error:
            print(f"{name} is not on the page: {error}")
    return runs


def gathered(runs: Sequence[Run], config: Config) -> list[Arm]:
    """The arms with what their runs measured.

    Raises: RuntimeError if a run cost something else than was planned.
    """
    arms = []
    for name in dict.fromkeys(run.arm for run in runs):
        own = [run for run in runs if run.arm == name]
        for run in own:
            spent = json.loads((run.job.folder / "cost.json").read_text(encoding="utf-8"))["flop"]
            if spent != run.steps * run.flop_per_step:
                told = (
                    f"{run.job.folder} spent {spent} FLOP in training, planned were {run.steps * run.flop_per_step}: an epoch's last batch is short"
                )
                raise RuntimeError(f"{told}. Set clips in world to a multiple of every data.batch_size, and remove {config['out']}.")
        evaluations = [measured(run.job.folder) for run in own]
        arms.append(Arm(name, own[0].peer, evaluations, own[0].steps, own[0].steps * own[0].flop_per_step))
    return arms


def measured(run: Path) -> Config:
    """What a table needs of evaluation.json."""
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return {key: found[key] for key in ("vae", "tokenizer", "protocol")}


def publish(found: Config, raw: Path, page: str | None, mark: str) -> None:
    """Table and verdict into the page, between the lines <!-- mark --> and <!-- end mark -->; the chart beside the raw figures."""
    arms = [Arm(**arm) for arm in found["arms"]]
    protocol = arms[0].evaluations[0]["protocol"]
    size = " x ".join(map(str, [protocol["frames"], *protocol["size"]]))
    what = f"{found['budget_tflop']:g} TFLOP of training for each, {len(found['seeds'])} seed{'s' * (len(found['seeds']) > 1)}"
    on = f"{protocol['clips']} held-out clips of {size} of the `{protocol['difficulty']}` world"
    words = f"`{found['command']}`: {what}, {on}; {protocol['machine']}, torch {protocol['versions']['torch']}."
    content = "\n\n".join(part for part in (words, table(arms), verdict(arms)) if part)
    chart(arms, raw.with_suffix(".png"))
    if page is not None:
        write_text(Path(page), between(Path(page).read_text(encoding="utf-8"), mark, content))
    print(f"\n{content}\n\n{raw}, {raw.with_suffix('.png')}{'' if page is None else f', {page}'}")


if __name__ == "__main__":
    main()
