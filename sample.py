"""Video from a run folder: from words, pictures and clips, as mp4 files, each with a JSON sidecar that says how it was made.

  python sample.py run=runs/demo/dit --prompt "a red circle moves up"
  python sample.py run=runs/demo/dit --prompt "it grows" --image first.png seed=3 out=clips
  python sample.py run=runs/demo/dit --prompt "a blue square" --prompt "" variations=4 solver=heun steps=20 guidance.scale=4 formats=[mp4,gif]
  python sample.py run=... task=extend --video clip.mp4 task.side=both ; python sample.py run=... --prompts jobs.jsonl processes=2 out=clips
  python sample.py from=clips/000-it-grows.mp4 out=again      # the same frames again, or all reasons why not

--prompt TEXT          once per prompt, taken word for word; "" lets the model choose    --prompts FILE   .txt or .jsonl, a job a line
--negative TEXT        what clips are led away from                                      --then TEXT      what the prompt gives way to
--image FILE           the first frame of every clip; pictures and videos of any size are cut to the clip's shape
--last FILE --video FILE --keyframe SECONDS=FILE --mask FILE --storyboard FILE     what other tasks are given: configs/task/*.yaml
key=value              all keys, with what they mean: configs/sample.yaml
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data.provenance import Fingerprint, Origin, Record, given, make_record, payload
from data.remake import asked as asked_again
from data.remake import verdict, why_not
from data.watermark import Marked
from runtime.build import build
from runtime.config import Config, ConfigError, check, run
from runtime.device import pick_device
from tasks.clips import FORMATS, Decoded, finished, next_number, shown, slug, there, writable, write
from tasks.command import Words, split_command_line, wants_help, without
from tasks.orders import Order, Planned, batches, check_files, orders, texts_of
from tasks.record import again, asked_for, reasons, record_of, settings_of
from tasks.task import Plan
from training.inference import Networks, load_networks
from training.maker import Maker, task_node


def check_numbers(config: Config) -> None:
    """Refuse values that make no clip before anything is loaded.

    Raises: ConfigError naming the key.
    """
    whole = {"variations": 1, "steps": 1, "batch_size": 1, "seed": 0, "processes": 1, "rank": 0, "ranks": 1, "frames": 1, "height": 1, "width": 1}
    for key, least in whole.items():
        value = config[key]
        optional = value is None and key in ("frames", "height", "width")
        if not optional and (type(value) is not int or value < least):
            raise ConfigError(f"{key}={value!r} must be a whole number >= {least}. Set {key}.")
    if config["seed"] >= 2**64:
        raise ConfigError(f"seed={config['seed']} must be below 2**64. Set seed.")
    if config["rank"] >= config["ranks"]:
        raise ConfigError(f"rank={config['rank']} of ranks={config['ranks']} is none: wanted 0 to ranks - 1. Set rank.")
    if config["fps"] is not None and (type(config["fps"]) not in (int, float) or not 0 < config["fps"] <= 1000):
        raise ConfigError(f"fps={config['fps']!r} must be a number above 0 and at most 1000. Set fps.")
    if type(config["known_level"]) not in (int, float) or not 0 <= config["known_level"] < 1:
        raise ConfigError(f"known_level={config['known_level']!r} must be a flow time of at least 0 and below 1. Set known_level.")
    for key in ("whole", "as_given", "untrained", "expand_given"):
        if type(config[key]) is not bool:
            raise ConfigError(f"{key}={config[key]!r} must be true or false. Set {key}.")
    formats = config["formats"]
    if formats is not None and (not isinstance(formats, list) or not formats or any(name not in FORMATS for name in formats)):
        raise ConfigError(f"formats={formats!r} must be a list of {', '.join(FORMATS)}: formats=[mp4,gif]. Set formats.")
    groups = ("task", "rollout", "refine", "noise", "solver", "guidance", "expander", "style", "watermark", "kernel", "rope")
    check({key: config[key] for key in groups if config[key] is not None})


def make(config: Config, words: Words, arguments: Sequence[str]) -> None:
    """Sample and write every clip of a command."""
    check_numbers(config)
    if config["processes"] > 1:
        spread(arguments, config["processes"])
        return
    device = pick_device(config["device"], "device")
    if words.again is not None:
        make_again(config, words, words.again, device)
        return
    networks = load_networks(words.run, device, build(config["kernel"]))
    config = config | {key: getattr(networks.shape, key) for key in ("height", "width") if config[key] is None}
    maker = Maker(networks, config, device)
    fps = maker.usual_fps(words.files) if config["fps"] is None else config["fps"]
    every = orders(words, config | {"fps": fps}, maker.style)
    check_files(every)
    # Several processes agree on names without a word: a clip is called by its place in the whole command.
    alone = config["ranks"] == 1
    out = writable(folder(words))
    made_by = origin(words.run, networks, device), helpers(config["guidance"], device)
    press = Press(maker, *made_by, out, next_number(out) if alone else 0, skip=not alone)
    maker.prepare(every)
    share = every[config["rank"] :: config["ranks"]]
    made = press.run(share, config["batch_size"])
    shapes, whose = " or ".join(dict.fromkeys(shape for shape in made)), f"rank={config['rank']} of ranks={config['ranks']}"
    if not share:
        print(f"{whose} has no share: the command makes {len(every)} clip{'s' * (len(every) > 1)}")
    elif not made:
        print(f"every clip of {'this command' if alone else whose} is in {out} already")
    else:
        print(f"{len(made)} clip{'s' * (len(made) > 1)} of {shapes} in {out}")
    print("more: variations=4, seed=1, steps=24, guidance.scale=3; how a clip was made stands in the .json beside it")


def make_again(config: Config, words: Words, path: str, device: str) -> None:
    """The clip of a record, by the same networks, settings and files.

    Raises: ConfigError or ValueError with all reasons why that cannot be; RuntimeError if its frames came out otherwise.
    """
    record, folders = record_of(path), [Path(path).parent, Path()]
    run_folder = words.run or record["run"]
    networks = load_networks(run_folder, device, build(record.get("kernel")))
    torch.set_num_threads(record["threads"])  # sums are cut by them, and so rounded
    here = origin(run_folder, networks, device)
    others = helpers(record.get("guidance"), device)
    found = why_not(record, here, others, folders)
    if found:
        raise ConfigError(reasons(path, found))
    order, config, place = again(asked_again(record, folders), config)
    maker = Maker(networks, config, device)
    out = writable(folder(replace(words, run=run_folder)))
    press = Press(maker, here, others, out, next_number(out), record=record, keep=place)
    # Kernels may round otherwise for another number of clips: as many as then are made, all of them this one.
    press.run([order] * config["batch_size"], config["batch_size"])


class Press:
    """Makes orders a batch at a time and writes each clip as soon as it can.

    Args:
        here, others: the networks, and further ones that take part.
        first: number of the first clip's files.
        skip: leave out clips that are there already.
        record: of a clip that is made again, which it keeps; `keep` is its place in the batch, and no other clip is written.
    """

    def __init__(
        self,
        maker: Maker,
        here: Origin,
        others: Mapping[str, Origin],
        out: Path,
        first: int,
        skip: bool = False,
        record: Record | None = None,
        keep: int | None = None,
    ) -> None:
        self.maker, self.config, self.out, self.first, self.skip = maker, maker.config, out, first, skip
        self.here, self.others = here, others
        self.record, self.keep = record, keep
        self.settings, self.given = settings_of(maker.config), cache(given)

    def run(self, every: Sequence[Order], size: int) -> list[str]:
        """What each clip is, in words."""
        done, count, made = 0, len(every), []
        with tqdm(unit="step", disable=None, leave=False) as bar:

            def progress(step: int, steps: int) -> None:
                bar.total, bar.n = steps, step
                bar.refresh()

            for batch in batches(self._planned(every), size, lambda plan: self.maker.rollout(plan) is not None):
                bar.set_description(f"{done + 1}-{done + len(batch)} of {count}" if len(batch) > 1 else f"{done + 1} of {count}", refresh=False)
                begun, parts = time.monotonic(), self.maker.latents(batch, progress)
                if len(batch) > 1:
                    clips = [iter([own]) for own in torch.cat(list(parts), dim=2).split(1)]
                else:
                    clips = [parts]  # made while it is written
                sampling_s = (time.monotonic() - begun) / len(batch)
                for place, ((order, plan), latents) in enumerate(zip(batch, clips, strict=True)):
                    if self.keep in (None, place):
                        file, seconds = self._write(order, plan, latents, {"clips": len(batch), "place": place}, sampling_s)
                        bar.write(f"{file}  {seconds:.2f} s  {shown(order.prompt)}", file=sys.stdout)
                        made.append(f"{plan.frames} frame{'s' * (plan.frames > 1)}, {order.width}x{order.height}, {order.fps:g} fps")
                done += len(batch)
        return made

    def _planned(self, every: Sequence[Order]) -> Iterator[Planned]:
        for order in every:
            try:
                plan = self.maker.plan(order)
            except ValueError as error:
                raise ConfigError(f"{order.where}: {error}" if order.where else str(error)) from None
            if not self.skip or not finished(self._stem(order), self._asked(order, plan) | networks_of(self.here), self._formats(plan)):
                yield order, plan

    def _stem(self, order: Order) -> Path:
        return self.out / f"{self.first + order.number:03d}-{slug(order.prompt)}"

    def _formats(self, plan: Plan) -> list[str]:
        return self.config["formats"] or (["mp4"] if plan.frames > 1 else ["png"])

    def _asked(self, order: Order, plan: Plan) -> Config:
        task, rollout = task_node(self.config, order.files), self.maker.rollout(plan)
        return asked_for(order, plan, texts_of(self.maker.prompt(order, plan)), task, rollout, self.settings, self.given)

    def _write(self, order: Order, plan: Plan, latents: Iterator[Tensor], batch: Mapping[str, int], sampling_s: float) -> tuple[Path, float]:
        record = self.record
        if record is None:
            record = make_record({**self._asked(order, plan), "shift": self.maker.generator.shift, "batch": dict(batch)}, self.here, self.others)
        given = plan.as_given(self.maker.generator.frames) if self.config["as_given"] else None
        video = Decoded(self.maker.generator, latents, plan.frames, plan.canvas.cyclic, given)
        marked = Fingerprint(Marked(video, self.maker.watermark, payload(record)))
        stem = self._stem(order)
        formats = dict.fromkeys([*self._formats(plan), *there(stem)])  # another format of a clip goes with those that are there: one record for all
        file, seconds = write(stem, marked, list(formats), record, sampling_s)
        if self.record is not None:
            assert marked.sha256 is not None
            same, told = verdict(self.record, marked.sha256, self.here)
            if not same:
                raise RuntimeError(f"{file}: {told}.")
            print(told)
        return file, seconds


def origin(run_folder: str, networks: Networks, device: str) -> Origin:
    return Origin(run_folder, networks.step, networks.config_sha256, networks.weights_sha256, device, torch.get_num_threads())


def helpers(guidance: Mapping[str, Any] | None, device: str) -> dict[str, Origin]:
    """The weaker networks that guidance=auto leads away from."""
    if guidance is None or guidance.get("run") is None:
        return {}
    return {"guidance": origin(guidance["run"], load_networks(guidance["run"], device, step=guidance["step"]), device)}


def networks_of(here: Origin) -> Config:
    return {"config_sha256": here.config_sha256, "weights_sha256": here.weights_sha256}


def folder(words: Words) -> Path:
    return Path(words.out) if words.out else Path(words.run) / "videos"


def spread(arguments: Sequence[str], processes: int) -> None:
    """The same command in several processes of this machine, each with its share of the clips; on GPUs in turn.

    Raises: RuntimeError if one of them fails; the others come to their end.
    """
    cores, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    rest, started = without(arguments, ("processes", "rank", "ranks")), []
    for rank in range(processes):
        own = {"OMP_NUM_THREADS": str(max(1, cores // processes))} | os.environ
        if gpus > 1:
            own["CUDA_VISIBLE_DEVICES"] = str(rank % gpus)
        command = [sys.executable, str(Path(__file__).resolve()), *rest, f"rank={rank}", f"ranks={processes}"]
        started.append(subprocess.Popen(command, env=own))
    failed = [rank for rank, process in enumerate(started) if process.wait() != 0]
    if failed:
        told = ", ".join(map(str, failed))
        raise RuntimeError(f"{len(failed)} of {processes} processes failed (rank {told}); their messages stand above, finished clips are kept.")


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a prompt may hold what the terminal cannot show
    if wants_help(arguments):
        print(__doc__)
        return
    try:
        words, rest = split_command_line(arguments)
    except ConfigError as error:
        print(f"error: {error}\n`python sample.py` alone shows examples.", file=sys.stderr)
        raise SystemExit(1) from None
    run("sample", lambda config: make(config, words, arguments), rest)


if __name__ == "__main__":
    main()
