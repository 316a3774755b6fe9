"""The only instantiation: a config node becomes an object only if its target is a class of this project, written by its own name."""

import importlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

PACKAGES = ("models", "flow", "data", "training", "evaluation", "tasks", "ablation", "accounting", "runtime")
# Classes of other projects that a config may name, and functions of ours. Functions are listed one by one because some of them write files,
# and a config may come from a stranger's checkpoint.
LISTED = ("torch.optim.AdamW", "torch.optim.Muon")


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key and the remedy."""


def nearest(name: str, names: Sequence[str]) -> str:
    """' (did you mean x?)', or the names there are if none is near."""
    close = get_close_matches(name, names, n=1, cutoff=0.55)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (there are: {', '.join(names)})" if names else ""


def resolve(target: Any) -> Any:
    """The class that a `_target_` names.

    A prefix alone would be a hole (`data.files.reader.os.system` begins with one of our packages), so the class's own module and name must equal
    the written path, or the path must stand in `LISTED`.

    Raises: ConfigError if the target is not allowed or does not exist.
    """
    if not isinstance(target, str) or target.count(".") < 1:
        raise ConfigError(f"_target_={target!r} is not the path of a class. Write package.module.Class.")
    module_name, name = target.rsplit(".", 1)
    if target in LISTED:
        return getattr(importlib.import_module(module_name), name)
    if module_name.split(".")[0] not in PACKAGES:
        raise ConfigError(f"_target_={target} is refused: only classes of {', '.join(PACKAGES)} and {', '.join(LISTED)} may be built.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module exists, but something that it imports does not
        raise ConfigError(f"_target_={target} is refused: there is no module {module_name}.") from None
    found = getattr(module, name, None)
    own = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if not inspect.isclass(found) or own != target:
        classes = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module_name]
        raise ConfigError(f"_target_={target} is refused: {module_name} defines no class {name}{nearest(name, classes)}.")
    return found


def check(node: Any, at: str = "") -> None:
    """Refuse a config with unknown targets, misspelt keys or wrong types before anything is built.

    Required arguments that are missing are left to `build`, which knows the objects that code adds.

    Raises: ConfigError naming the full key.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _arguments(node, {}, at)
        for key, value in node.items():
            check(value, f"{at}.{key}" if at else str(key))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            check(value, f"{at}[{number}]")


def build(node: Any, **objects: Any) -> Any:
    """The object that a plain config node describes; nested nodes with a `_target_` are built first.

    Args:
        node: plain Python (dict, list, scalar), as `runtime.config.run` hands it out.
        objects: further arguments of the outermost constructor (a network, a loader): what a config cannot hold. They replace keys of the node.
    Raises: ConfigError if a target is not allowed, a key is unknown or missing, or a value has the wrong type.
    """
    if isinstance(node, Mapping):
        if "_target_" not in node:
            assert not objects, f"objects {sorted(objects)} need a node with a _target_"
            return {key: build(value) for key, value in node.items()}
        arguments = _arguments(node, objects, "")
        target = resolve(node["_target_"])
        built = {key: value if key in objects else build(value) for key, value in arguments.items()}
        missing = [
            name
            for name, parameter in _parameters(target).items()
            if parameter.default is parameter.empty and name not in built and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if missing:
            raise ConfigError(f"{node['_target_']} needs the keys {', '.join(missing)}, which the config does not give.")
        return target(**built)
    if isinstance(node, list | tuple):
        return type(node)(build(value) for value in node)
    return node


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # a type known to the checker alone: nothing to compare with
        return {}


def _arguments(node: Mapping[str, Any], objects: Mapping[str, Any], at: str) -> dict[str, Any]:
    """The constructor's arguments with lists turned into tuples where the constructor wants them; refuses unknown names and wrong types."""
    name, prefix = node["_target_"], f"{at}: " if at else ""
    try:
        target = resolve(name)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
    parameters, hints = _parameters(target), _hints(target)
    arguments = {key: value for key, value in node.items() if key != "_target_"} | dict(objects)
    for key, value in arguments.items():
        if key not in parameters:
            raise ConfigError(f"{prefix}{name} has no key '{key}'{nearest(str(key), list(parameters))}.")
        if key not in objects and key in hints and not _built_later(value):
            fitting, arguments[key] = _fit(value, hints[key])
            if not fitting:
                wanted = hints[key].__name__ if inspect.isclass(hints[key]) else str(hints[key]).replace("typing.", "")
                raise ConfigError(f"{at}.{key}={value!r} has the wrong type: {name} wants {wanted}.".lstrip("."))
    return arguments


def _built_later(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _fit(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a plain value is what a type hint asks for, and the value with lists as tuples and integers as floats where asked for.

    Hints that plain values say nothing about (protocols, classes) fit only an object that is built, or what nobody can tell.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if _built_later(value) or hint is Any:
        return True, value
    if origin in (typing.Union, types.UnionType):
        fits = [_fit(value, option) for option in inner]
        return next((fit for fit in fits if fit[0]), (False, value))
    if origin is typing.Literal:
        return value in inner, value
    if value is None:
        return hint is type(None), value
    if hint in (bool, str, type(None)):
        return isinstance(value, hint), value
    if hint in (int, float):
        fitting = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return fitting, float(value) if fitting and hint is float else value
    kind = origin or hint
    if kind in (tuple, list, Sequence):
        if not isinstance(value, list | tuple):
            return False, value
        fixed = kind is tuple and inner and inner[-1] is not Ellipsis
        if fixed and len(inner) != len(value):
            return False, value
        fits = [_fit(item, inner[number] if fixed else inner[0] if inner else Any) for number, item in enumerate(value)]
        return all(fit for fit, _ in fits), (tuple if kind is tuple else list)(item for _, item in fits)
    if kind in (dict, Mapping):
        if not isinstance(value, Mapping):
            return False, value
        fits = {key: _fit(item, inner[1] if inner else Any) for key, item in value.items()}
        return all(fit for fit, _ in fits.values()), {key: item for key, (_, item) in fits.items()}
    return True, value
