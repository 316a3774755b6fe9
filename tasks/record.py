"""What a clip's record says of how it was asked for, and the way back from it to the same clip."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from data.files.pictures import SUFFIXES
from data.provenance import Record, read_record
from flow.rollout import Rollout
from runtime.build import ConfigError
from runtime.config import Config
from tasks.orders import Order
from tasks.task import Files, Plan

Given = Callable[[str], Mapping[str, str]]  # a path as it stands in a record
SETTINGS = ("steps", "solver", "guidance", "noise", "refine", "whole", "known_level", "as_given", "kernel", "rope", "tile", "watermark", "untrained")
PROMPTING = ("style", "expander")  # told for people: what they made of the prompt stands in `texts`


def settings_of(config: Mapping[str, Any]) -> Config:
    """What all clips of a command share."""
    expander = dict(config["expander"])
    if "path" in expander:  # of a folder of this machine, which is nobody's business
        expander["path"] = Path(expander["path"]).name
    return {**{key: config[key] for key in SETTINGS}, "style": config["style"], "expander": expander}


def asked_for(
    order: Order, plan: Plan, texts: Sequence[str], task: Mapping[str, Any], rollout: Rollout | None, settings: Mapping[str, Any], given: Given
) -> Config:
    """What frames of a clip depend on, besides the networks, as plain JSON.

    Args:
        texts: what the network is told.
        task: its config node.
        rollout: by which it is made; None: at once.
        settings: of `settings_of`.
        given: a path as it stands in a record.
    """
    windows = None if rollout is None else {"_target_": f"{Rollout.__module__}.{Rollout.__name__}", **asdict(rollout)}
    return {
        "prompt": order.prompt,
        "texts": list(texts),
        "negative": order.negative,
        "seed": order.seed,
        "sample": order.sample,
        "frames": plan.frames,
        "height": order.height,
        "width": order.width,
        "fps": order.fps,
        "task": dict(task),
        "files": _files(order.files, given),
        "read": [given(path) for path in plan.read],
        "rollout": windows,
        **settings,
    }


def again(asked: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Order, Config, int]:
    """The one clip of a record, the command's config with the record's settings, and the clip's place in its batch.

    Raises: ConfigError if the record lacks something that sample.py writes.
    """
    try:
        found = asked["files"]
        files = Files(
            images=tuple(one["path"] for one in found.get("images", ())),
            last=found["last"]["path"] if "last" in found else None,
            videos=tuple(one["path"] for one in found.get("videos", ())),
            keyframes=tuple((at_s, one["path"]) for at_s, one in found.get("keyframes", ())),
            mask=found["mask"]["path"] if "mask" in found else None,
            storyboard=found["storyboard"]["path"] if "storyboard" in found else None,
            second=found.get("second"),
        )
        own = {field.name: asked[field.name] for field in fields(Order) if field.name not in ("number", "files", "where", "texts")}
        order = Order(number=0, files=files, texts=tuple(asked["texts"]), **own)
        settings = {key: asked[key] for key in (*SETTINGS, "rollout", "task")}
        return order, {**config, **settings, "batch_size": asked["batch"]["clips"]}, asked["batch"]["place"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"the record lacks what sample.py writes ({error!r:.100}): it is of a clip that something else made.") from None


def record_of(path: str | Path) -> Record:
    """The record of a clip; that of a picture, which holds none itself, from the .json beside it.

    Raises: as `read_record`.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES or not file.exists():
        return read_record(file)
    beside = file.with_name(file.name.removesuffix(file.suffix).removesuffix(".strip") + ".json")
    if not beside.exists():
        raise ConfigError(f"{file}: a picture holds no record of how it was made, and there is no {beside.name} beside it.")
    return read_record(beside)


def reasons(path: str, found: Sequence[str]) -> str:
    """All reasons why a clip cannot be made again, for an error."""
    return f"{path} cannot be made again:\n" + "\n".join(f"  - {reason}" for reason in found)


def _files(files: Files, given: Given) -> Config:
    held = {
        "images": [given(path) for path in files.images],
        "last": files.last and given(files.last),
        "videos": [given(path) for path in files.videos],
        "keyframes": [[at_s, given(path)] for at_s, path in files.keyframes],
        "mask": files.mask and given(files.mask),
        "storyboard": files.storyboard and given(files.storyboard),
        "second": files.second,
    }
    return {name: value for name, value in held.items() if value}
