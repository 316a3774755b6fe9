"""From a command line to a plain config, and from a saved config to the question whether it is still the same run.

Hydra composes and does nothing else: the task runs after it, on a plain dict, so no Hydra object, folder or log reaches the code below.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runtime.build import ConfigError, build, check, nearest

__all__ = ["CONFIGS", "Config", "ConfigError", "build", "check", "compose", "differences", "dump", "entry", "flatten", "load_run_config", "run"]

Config = dict[str, Any]
Task = Callable[[Config], None]

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


# Reads a key of a config that is composed but not yet resolved, and returns nodes to put in, by dotted key.
Complete = Callable[[Callable[[str], Any]], Config]


def entry(config_name: str, complete: Complete | None = None) -> Callable[[Task], Callable[[], None]]:
    """Make a task on a plain config the main function of a script: `@entry("train")` above `def main(config)`."""

    def decorate(task: Task) -> Callable[[], None]:
        return lambda: run(config_name, task, complete=complete)

    return decorate


def run(config_name: str, task: Task, arguments: Sequence[str] | None = None, complete: Complete | None = None) -> None:
    """Compose configs/<config_name>.yaml with the overrides of the command line and hand the task a plain, resolved dict.

    A wrong key, group or value, and any ValueError, RuntimeError or OSError that this project's own code raises, ends the process with
    its message and exit code 1. Anything else is a defect and keeps its traceback; HYDRA_FULL_ERROR=1 shows every traceback.

    Args:
        arguments: the command line without the program's name; default `sys.argv[1:]`. Prompts are taken out before (see sample.py).
        complete: see `compose`.
    """
    if str(ROOT) not in sys.path:  # python scripts/x.py puts scripts/ there, not the checkout
        sys.path.insert(0, str(ROOT))
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if any(argument.startswith("-") for argument in arguments):
            _hydra_flags(config_name, arguments)
            return
        task(compose(config_name, arguments, complete))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or not (isinstance(error, ConfigError) or _ours(error)):
            raise
        print(f"{type(error).__name__ if not isinstance(error, ValueError) else 'error'}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def compose(config_name: str, overrides: Sequence[str], complete: Complete | None = None) -> Config:
    """The plain, resolved config of configs/<config_name>.yaml with overrides in Hydra's grammar.

    Args:
        complete: puts in what other files know (the VAE of another run), so that interpolations can refer to it.
    Raises: ConfigError, on a line or two, with the nearest name.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = [_quoted(override) for override in overrides]
    for override in overrides:
        key, equals, _ = override.partition("=")
        if override.startswith(("+", "~")) and not set("/.@") & set(key):
            raise ConfigError(f"{override}: the top keys are fixed{nearest(key.lstrip('+~'), _names(config_name)[0])}.")
        if not equals and not override.startswith("~"):
            raise ConfigError(f"'{override}' is not key=value. Quote values with spaces, commas or brackets: \"key='a b'\".")
        try:
            OverridesParser.create().parse_override(override)
        except HydraException:
            raise ConfigError(f"'{override}' cannot be read. Quote values with commas, brackets or quotation marks: \"key='a, b'\".") from None
    try:
        config = _compose(config_name, overrides)
        absent = [key for key, value in flatten(OmegaConf.to_container(config, resolve=False)).items() if value == "???"]
        if absent:
            raise ConfigError(f"{', '.join(absent)} {'has' if len(absent) == 1 else 'have'} no value. Set {'=... '.join(absent)}=... .")
        if complete is not None:
            for at, node in complete(lambda key: OmegaConf.select(config, key, throw_on_missing=True)).items():
                OmegaConf.update(config, at, node, merge=False, force_add=True)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, config_name, overrides)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _quoted(override: str) -> str:
    """The override as Hydra's grammar takes it, which knows ASCII letters alone: data.train=/home/müller/set-{0..3}.tar is meant as it stands.

    Lists, mappings, choices and what is quoted already are left as they are.
    """
    key, _, value = override.partition("=")
    odd = re.search(r"[^\w./:%@?|*$+ -]|[^\x00-\x7f]", value)  # letters of any alphabet are \w
    if not odd or value[0] in "[{(" or re.search(r"""[,'"\\]""", value):
        return override
    return f"{key}='{value}'"


def load_run_config(run_folder: str | Path) -> Config:
    """The config that a run was made with, as plain YAML without resolvers.

    Raises: ConfigError if the folder is not a run.
    """
    path = Path(run_folder) / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{run_folder} is not a run folder: it has no config.yaml. Give the folder that train.py was given as run=.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no mapping of keys to values.")
    return config


def dump(config: Mapping[str, Any]) -> str:
    """A config as YAML, in its own order."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=150)


def flatten(node: Any, at: str = "") -> Config:
    """Dotted keys to leaves; lists are leaves."""
    if not isinstance(node, Mapping) or not node:
        return {at: list(node) if isinstance(node, tuple) else node}
    return {name: leaf for key, value in node.items() for name, leaf in flatten(value, f"{at}.{key}" if at else str(key)).items()}


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], may_change: Sequence[str] = ()) -> list[str]:
    """One line for each key in which two configs differ: 'key=saved, now value'.

    Args:
        may_change: keys, or beginnings of keys up to a dot, that are left out.
    """
    before, after = flatten(saved), flatten(now)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        if any(key == free or key.startswith(f"{free}.") for free in may_change):
            continue
        old, new = (repr(flat[key]) if key in flat else "absent" for flat in (before, after))
        if old != new:
            lines.append(f"{key}={old}, now {new}")
    return lines


def _compose(config_name: str, overrides: Sequence[str]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONFIGS), job_name=config_name, version_base="1.3"):
        return hydra_compose(config_name, overrides=list(overrides))


def _hydra_flags(config_name: str, arguments: list[str]) -> None:
    """--help, --cfg job and their like, by Hydra itself; nothing is run."""
    import hydra

    if any(argument in ("-m", "--multirun") for argument in arguments):
        raise ConfigError("--multirun would run every job in one process. Start one process a run.")
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        hydra.main(str(CONFIGS), config_name, version_base="1.3")(lambda _: None)()
    finally:
        sys.argv = given


def _ours(error: BaseException) -> bool:
    """Whether this project's own code raised the error: then its message is written for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    raised_in = Path(trace.tb_frame.f_code.co_filename)
    return ROOT in raised_in.parents and ".venv" not in raised_in.parts and "site-packages" not in raised_in.parts


def _names(config_name: str, overrides: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """(top keys, all dotted keys) of the config with those overrides that compose alone, whatever is wrong with the others."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for tried in ([override for override in overrides if "." not in override.partition("=")[0]], []):
        try:
            config = _compose(config_name, tried)
        except (HydraException, OmegaConfBaseException):
            continue
        plain = OmegaConf.to_container(config, resolve=False, throw_on_missing=False)
        assert isinstance(plain, dict)
        return [str(key) for key in plain], list(_every_key(plain))
    return [], []


def _every_key(node: Mapping[Any, Any], at: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(f"{at}{key}")
        if isinstance(value, Mapping):
            keys += _every_key(value, f"{at}{key}.")
    return keys


def _choice(missing: str, overrides: Sequence[str]) -> tuple[str, str]:
    """The group and the option that a missing file stands for, as the command line wrote them where it did."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if f"{key.partition('@')[0]}/{value}" == missing:
            return key.partition("@")[0], value
    group, _, option = missing.rpartition("/")
    return group, option


def _explain(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """A composition error in a line or two, with the nearest name."""
    text = str(error)
    missing = getattr(error, "missing_cfg_file", None)
    if missing and getattr(error, "options", None) is not None:
        group, option = _choice(str(missing), overrides)
        options = [str(path.relative_to(CONFIGS / group).with_suffix("")) for path in sorted((CONFIGS / group).rglob("*.yaml"))]
        return f"{group}={option} does not exist{nearest(option, options)}."
    broken, where = re.search(r"Interpolation key '([^']+)'", text), re.search(r"full_key: (\S+)", text)
    if broken and where:
        return f"{where[1]} refers to {broken[1]}, which is not there."
    key = re.search(r"[Cc]ould not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key:
        top, every = _names(config_name, overrides)
        name = key[1].lstrip("+~").partition("@")[0]
        parent, _, leaf = name.rpartition(".")
        siblings = [k for k in every if k.rpartition(".")[0] == parent]
        candidates = siblings or every or top
        close = nearest(name, candidates)
        if close.startswith(" (there"):  # none near beside it: perhaps the leaf is right and the path is not
            same = [k for k in every if k.rpartition(".")[2] == leaf]
            close = f" (did you mean '{same[0]}'?)" if same else close
        return f"there is no key or group '{name}'{close}."
    override = next((o for o in overrides if o in text), None)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{override or config_name}: {' '.join(lines[:2])}"
