"""What a command says in free text, taken word for word: Hydra's grammar and OmegaConf would break or interpret it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from runtime.build import ConfigError, nearest
from tasks.task import Files

# Options with an example each; those of MANY may be given several times.
EXAMPLES = {
    "--prompt": '"a red circle moves up"',
    "--prompts": "prompts.txt",
    "--negative": '"blurry"',
    "--then": '"it turns blue"',
    "--image": "first.png",
    "--last": "last.png",
    "--video": "clip.mp4",
    "--keyframe": "1.5=picture.png",
    "--mask": "mask.png",
    "--storyboard": "board.yaml",
}
MANY = ("--prompt", "--video", "--keyframe")
FOLDERS = ("run", "out", "from")  # keys whose values are paths, and so anything
FREE = ("device", "formats")  # keys that change no frame
NONE = ("rollout", "refine", "expander", "style", "watermark")  # groups, of which Hydra takes no null


@dataclass(frozen=True, slots=True)
class Words:
    """The free texts of a command.

    Args:
        prompts: at least one, unless `jobs` or `again` is given.
        jobs: a file of prompts.
        negative: what clips are led away from; None: what their style says.
        files: what is given.
        run: the run folder; empty only with `again`.
        out: where clips go; None: <run>/videos.
        again: a clip that is to be made again.
    """

    prompts: tuple[str, ...]
    jobs: str | None
    negative: str | None
    files: Files
    run: str
    out: str | None
    again: str | None = None


HELP = ("-h", "--help")


def parts(arguments: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """A command line in pieces: (an option, which may be unknown, with its value where it has one), (None, [any other argument])."""
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name in EXAMPLES:
            yield name, [name, *([value] if equals else islice(waiting, 1))]
        else:
            yield (name if argument.startswith("-") else None), [argument]


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether an argument asks for help; a text that says so does not."""
    return not arguments or arguments[0] == "help" or any(name in HELP for name, _ in parts(arguments))


def without(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """A command line without these keys; texts that look like one stay."""
    kept = [part for name, part in parts(arguments) if name or part[0].partition("=")[0] not in keys]
    return [argument for part in kept for argument in part]


def split_command_line(arguments: Sequence[str]) -> tuple[Words, list[str]]:
    """The free texts, and what is left for Hydra.

    Raises: ConfigError if run= or every prompt is missing, or an option is unknown, has no value or is given too often.
    """
    found: dict[str, list[str]] = {name: [] for name in EXAMPLES}
    folders: dict[str, str] = {}
    rest: list[str] = []
    for option, (argument, *text) in parts(arguments):
        name, equals, value = argument.partition("=")
        if option in EXAMPLES:
            if not text:
                raise ConfigError(f"{name} wants a value: {name} {EXAMPLES[name]}.")
            found[option] += text
        elif option is not None:
            raise ConfigError(f"{name} is no option of sample.py{nearest(name, list(EXAMPLES))}. All else is key=value, see configs/sample.yaml.")
        elif name in FOLDERS and equals:
            folders[name] = value
        elif name == "guidance" and re.fullmatch(r"[-+]?\d+(\.\d*)?", value):
            rest.append(f"guidance.scale={value}")  # what people mean by it
        elif name in NONE and value == "null":
            rest.append(f"{name}=none")
        elif argument != "task=null":  # which is the default, and nothing to Hydra
            rest.append(argument)
    for name, texts in found.items():
        if len(texts) > 1 and name not in MANY:
            raise ConfigError(f"{name} was given {len(texts)} times, wanted once. Start sample.py once for each, or see --prompts.")
    single = {name: texts[0] if texts else None for name, texts in found.items()}
    files = Files(
        tuple(found["--image"]),
        single["--last"],
        tuple(found["--video"]),
        tuple(map(_keyframe, found["--keyframe"])),
        single["--mask"],
        single["--storyboard"],
        single["--then"],
    )
    out, again = folders.get("out") or None, folders.get("from") or None
    if again is not None:
        refused = [name for name, texts in found.items() if texts] + [key for key in rest if key.partition("=")[0] not in FREE]
        if refused:
            raise ConfigError(
                f"from={again} makes that clip as it was, and {refused[0]} would make another. Only run, out, {' and '.join(FREE)} may be set."
            )
        return Words((), None, None, files, folders.get("run", ""), out, again), rest
    if not folders.get("run"):
        raise ConfigError("run=... is missing: the folder of a trained flow model, for example run=runs/demo/dit.")
    if found["--prompt"] and found["--prompts"]:
        raise ConfigError("--prompt and --prompts were both given. Put all prompts into the file, or start sample.py twice.")
    if not found["--prompt"] and not found["--prompts"] and not files.paths:
        raise ConfigError('--prompt is missing: --prompt "a red circle moves up", or --prompt "" to let the model choose.')
    return Words(tuple(found["--prompt"]) or ("",), single["--prompts"], single["--negative"], files, folders["run"], out), rest


def _keyframe(text: str) -> tuple[float, str]:
    second, equals, path = text.partition("=")
    try:
        at_s = float(second)
    except ValueError:
        at_s = -1.0
    if not equals or not path or not 0 <= at_s < 1e6:
        raise ConfigError(f"--keyframe {text} does not say when and what: wanted SECONDS=FILE, seconds from 0 on. Write --keyframe 1.5=picture.png.")
    return at_s, path
