"""Video from a run folder and prompts: mp4 files, each with a JSON sidecar that says how it was made.

  python sample.py run=runs/demo/dit --prompt "a red circle moves up"
  python sample.py run=runs/demo/dit --prompt "it grows" --image first.png seed=3 out=clips
  python sample.py run=runs/demo/dit --prompt "a blue square" --prompt "" variations=4 solver=heun steps=20 guidance.scale=4 formats=[mp4,gif]

--prompt TEXT   once per prompt, taken word for word; "" lets the model choose
--image FILE    the first frame of every clip: a picture of any size (cut to the clip's shape), or the first frame of a video
key=value       all keys, with what they mean: configs/sample.yaml
"""

import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.files.pictures import read_picture
from data.files.reader import VideoError
from data.writer import write_gif, write_mp4, write_png_strip
from flow.generate import Generator
from models.geometry import Grid, latent_grid
from runtime.build import build, nearest
from runtime.checkpoint import digest
from runtime.config import Config, ConfigError, check, run
from runtime.device import pick_device
from runtime.files import write_text
from training.inference import Networks, Shape, known_prefix, load_networks, make_generator

Known = tuple[Tensor, Tensor] | None  # latents b c f h w and mask (b, f) of given frames
Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Words:
    """What the command line says in free text: Hydra's grammar and OmegaConf would break or interpret it."""

    prompts: tuple[str, ...]
    image: str | None
    run: str
    out: str | None


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip to make; its noise hangs on (seed, sample) alone, so it does not matter what else is made beside it."""

    prompt: str
    sample: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """The frames of one clip, uint8 h w 3, made as they are asked for and not kept: gone through again, they are decoded again.

    Args:
        latents: 1 c f h w.
    """

    generator: Generator
    latents: Tensor
    shape: Shape

    def __len__(self) -> int:
        return self.shape.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        for frames in self.generator.frames(self.latents):
            yield from frames[0].numpy()


FORMATS: dict[str, Callable[[Path, Decoded, float, Mapping[str, str]], Path]] = {
    "mp4": lambda stem, video, fps, facts: write_mp4(f"{stem}.mp4", video, fps, metadata=facts),
    "gif": lambda stem, video, fps, facts: write_gif(f"{stem}.gif", video, fps),
    "strip": lambda stem, video, fps, facts: write_png_strip(f"{stem}.png", video, enlarge=max(1, 128 // video.shape.height)),
}


def split_command_line(arguments: Sequence[str]) -> tuple[Words, list[str]]:
    """The free texts, word for word, and what is left for Hydra.

    Raises: ConfigError if --prompt or run= is missing, an option has no value or is unknown.
    """
    prompts, images, folders, rest = [], [], {}, []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name in ("--prompt", "--image"):
            text = value if equals else next(waiting, None)
            if text is None:
                raise ConfigError(f'{name} wants a value: {name} "{"a red circle moves up" if name == "--prompt" else "first.png"}".')
            (prompts if name == "--prompt" else images).append(text)
        elif argument.startswith("-"):
            raise ConfigError(
                f"{name} is no option of sample.py{nearest(name, ['--prompt', '--image'])}. All else is key=value, see configs/sample.yaml."
            )
        elif name in ("run", "out") and equals:
            folders[name] = value
        elif name == "guidance" and re.fullmatch(r"[-+]?\d+(\.\d*)?", value):
            rest.append(f"guidance.scale={value}")  # what people mean by it
        else:
            rest.append(argument)
    if not folders.get("run"):
        raise ConfigError("run=... is missing: the folder of a trained flow model, for example run=runs/demo/dit.")
    if not prompts and not images:
        raise ConfigError('--prompt is missing: --prompt "a red circle moves up", or --prompt "" to let the model choose.')
    if len(images) > 1:
        raise ConfigError(f"--image was given {len(images)} times, but every clip has one first frame. Start sample.py once per picture.")
    return Words(tuple(prompts) or ("",), images[0] if images else None, folders["run"], folders.get("out") or None), rest


def check_numbers(config: Config) -> None:
    """Refuse values that make no clip before anything is loaded.

    Raises: ConfigError naming the key.
    """
    whole = {"variations": 1, "steps": 1, "batch_size": 1, "seed": 0, "frames": 1, "height": 1, "width": 1}
    for key, least in whole.items():
        value = config[key]
        optional = value is None and key in ("frames", "height", "width")
        if not optional and (type(value) is not int or value < least):
            raise ConfigError(f"{key}={value!r} must be a whole number >= {least}. Set {key}.")
    if config["seed"] >= 2**64:
        raise ConfigError(f"seed={config['seed']} must be below 2**64. Set seed.")
    if config["fps"] is not None and (type(config["fps"]) not in (int, float) or not 0 < config["fps"] <= 1000):
        raise ConfigError(f"fps={config['fps']!r} must be a number above 0 and at most 1000. Set fps.")
    formats = config["formats"]
    if not isinstance(formats, list) or not formats or any(name not in FORMATS for name in formats):
        raise ConfigError(f"formats={formats!r} must be a list of {', '.join(FORMATS)}: formats=[mp4,gif]. Set formats.")
    check({key: config[key] for key in ("solver", "guidance", "kernel", "rope") if config[key] is not None})


def make(config: Config, words: Words) -> None:
    """Sample and write every clip of a command."""
    check_numbers(config)
    device = pick_device(config["device"], "device")
    networks = load_networks(words.run, device, build(config["kernel"]))
    if config["rope"] is not None:
        networks.dit.rescale(build(config["rope"]))
    usual = networks.shape
    shape = Shape(*(getattr(usual, key) if config[key] is None else config[key] for key in ("frames", "height", "width", "fps")))
    grid = latent_grid(shape.frames, shape.height, shape.width, networks.vae.stride)
    known = first_frame(words.image, networks, grid)
    out = writable(Path(words.out) if words.out else Path(words.run) / "videos")
    for text in networks.text.cut(words.prompts):
        note(text)

    clips = [Clip(prompt, sample) for prompt in words.prompts for sample in range(config["variations"])]
    generator = make_generator(networks, config, device, config["tile"])
    facts = provenance(config, words, networks, shape)
    number, size = next_number(out), config["batch_size"]
    with tqdm(total=-(-len(clips) // size) * config["steps"], desc="sampling", unit="step", disable=None, leave=False) as bar:
        for start in range(0, len(clips), size):
            part = clips[start : start + size]
            begun = time.monotonic()
            latents = sample(generator, part, grid, shape.fps, config["seed"], known, lambda *_: bar.update())
            sampling_s = (time.monotonic() - begun) / len(part)
            for clip, own in zip(part, latents.split(1), strict=True):
                stem = out / f"{number:03d}-{slug(clip.prompt)}"
                about = {"prompt": clip.prompt, "seed": config["seed"], "sample": clip.sample, **facts}
                file, seconds = write(stem, Decoded(generator, own, shape), config["formats"], about, sampling_s)
                bar.write(f"{file}  {seconds:.2f} s  {shown(clip.prompt)}", file=sys.stdout)
                number += 1
    print(f"{len(clips)} clip{'s' * (len(clips) > 1)} of {shape.frames} frames, {shape.width}x{shape.height}, {shape.fps:g} fps in {out}")
    print("more: variations=4, seed=1, steps=24, guidance.scale=3; how a clip was made stands in the .json beside it")


def sample(generator: Generator, clips: Sequence[Clip], grid: Grid, fps: float, seed: int, known: Known, progress: Progress) -> Tensor:
    """The clips' latents b c f h w; all share one set of known frames."""
    latents, mask = (None, None) if known is None else (part.expand(len(clips), *part.shape[1:]) for part in known)
    prompts, samples = [clip.prompt for clip in clips], [clip.sample for clip in clips]
    return generator.latents(prompts, grid, fps, seed, samples, latents, mask, progress)


def first_frame(image: str | None, networks: Networks, grid: Grid) -> Known:
    """The known latents and mask of one clip whose first frame is given, or None.

    Raises: ConfigError if the file cannot be used.
    """
    if image is None:
        return None
    try:
        picture = read_picture(image)
    except VideoError as error:
        raise ConfigError(f"--image {image} cannot be used ({error.kind}: {error.detail}). Give a picture or a video file.") from None
    weights = networks.config["objective"]["conditioning"].get("weights", {})
    if not any(weights.get(name, 0) > 0 for name in ("first", "first_n")):
        note("this run was not trained with a given first frame (objective.conditioning.weights has no 'first'): expect little of --image")
    return known_prefix(networks.vae, picture[None], grid)


def writable(out: Path) -> Path:
    """The folder, made and tried.

    Raises: ConfigError if nothing can be written there.
    """
    probe = out / ".sample-writes-here"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written: {error}. Set out=<a folder that can>.") from None
    return out


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def provenance(config: Config, words: Words, networks: Networks, shape: Shape) -> dict[str, Any]:
    """What all clips of a command share."""
    return {
        "frames": shape.frames,
        "fps": shape.fps,
        "height": shape.height,
        "width": shape.width,
        "steps": config["steps"],
        "solver": config["solver"],
        "guidance": config["guidance"],
        "kernel": config["kernel"],
        "rope": config["rope"],
        "shift": networks.config["objective"]["shift"],
        "image": None if words.image is None else {"path": words.image, "sha256": digest(Path(words.image))},
        "run": words.run,
        "step": networks.step,
        "config_sha256": networks.config_sha256,
        "weights_sha256": networks.weights_sha256,
        "torch": torch.__version__,
    }


def write(stem: Path, video: Decoded, formats: Sequence[str], facts: Mapping[str, Any], sampling_s: float) -> tuple[Path, float]:
    """The files of one clip, decoded as they are written; the sidecar comes last, so a clip with a sidecar is whole.

    Returns: the first file, and the seconds that the clip took with those that its latents took.
    Raises: RuntimeError if the disk refuses.
    """
    metadata = {key: str(facts[key]) for key in ("prompt", "seed", "sample", "config_sha256", "weights_sha256")}
    begun = time.monotonic()
    try:
        files = [FORMATS[name](stem, video, video.shape.fps, metadata) for name in formats]
        seconds = sampling_s + time.monotonic() - begun
        write_text(Path(f"{stem}.json"), json.dumps({**facts, "seconds": round(seconds, 3)}, indent=1) + "\n")
    except OSError as error:
        raise RuntimeError(f"{stem} could not be written: {error}. The clips before it are kept. Set out=<a folder with space>.") from error
    return files[0], seconds


def next_number(out: Path) -> int:
    """One more than the highest number in the folder: no clip is ever overwritten."""
    numbers = [int(found[1]) for path in out.iterdir() if (found := re.match(r"(\d{3,})-", path.name))]
    return max(numbers, default=-1) + 1


def slug(prompt: str, length: int = 48) -> str:
    """A file name from a prompt: plain letters, digits and dashes, so that it can be written on any disk."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:length].rstrip("-")
    return words or ("clip" if prompt.strip() else "no-prompt")


def shown(prompt: str) -> str:
    """A prompt on one line of at most 80 characters, whatever is in it."""
    line = json.dumps(prompt, ensure_ascii=False)
    return line if len(line) <= 80 else f"{line[:76]}..."


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a prompt may hold what the terminal cannot show
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        return
    try:
        words, rest = split_command_line(arguments)
    except ConfigError as error:
        print(f"error: {error}\n`python sample.py` alone shows examples.", file=sys.stderr)
        raise SystemExit(1) from None
    run("sample", lambda config: make(config, words), rest)


if __name__ == "__main__":
    main()
