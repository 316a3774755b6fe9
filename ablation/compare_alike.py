"""Whether two evaluations were made alike: only figures that were are subtracted, and what was not is said with the command that mends it."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Any

import yaml

from evaluation.report import read_json
from runtime.config import CONFIGS, Config

# What may differ between protocols of evaluation.json: whose figures they are and what computed them, and parts that figures of their own tell of.
APART = ("weights_sha256", "step", "config_sha256", "seconds", "machine", "versions", "neighbours", "features")
SETTABLE = ("seed", "world", "clips", "prompts", "seen", "animated", "neighbours", "steps")  # what evaluate.py takes as it stands
GROUPS = {"solver": "solver", "guidance": "guidance", "rope": "objective/dit/rope"}  # folders of configs/ that name its parts
HELD_OUT = "held out by the run"


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, its config, where its evaluation lies, and the content of evaluation.json, empty where there is none."""

    run: Path
    config: Config
    folder: Path
    evaluation: Mapping[str, Any]

    @classmethod
    def of(cls, run: Path, config: Config) -> "Measured":
        """In the run's own folder; else in measured-*/ below it, where ablations measure, if there is exactly one."""
        own = sorted(path.parent for path in run.glob("measured-*/evaluation.json"))
        folder = own[0] if len(own) == 1 and not (run / "evaluation.json").exists() else run
        return cls(run, config, folder, read_json(folder / "evaluation.json"))


def faults(own: Measured, wanted: Measured | None) -> list[dict[str, Any]]:
    """Why a run's figures cannot be set against the first's, or not without a word: {what, command, apart}.

    Args:
        wanted: the first that was measured.
    """
    run, protocol = own.run, wanted.evaluation.get("protocol", {}) if wanted else {}
    mend = _command(run, protocol)
    if wanted is None or not own.evaluation:
        return [{"what": f"{run} has no evaluation.json, so none of its figures is known", "command": mend, "apart": True}]
    found, mine = [], own.evaluation.get("protocol", {})
    unlike = _unlike(mine, protocol)
    if unlike:
        what = f"{run} was measured in another way than {wanted.run}: {'; '.join(unlike)}"
        found.append({"what": what, "command": mend, "apart": True})
    elif any(one != other for one, other in zip(asked(own.folder), asked(wanted.folder), strict=False)):
        what = f"{run} was measured on other prompts or clips than {wanted.run}, though its protocol reads the same"
        found.append({"what": what, "command": mend, "apart": True})
    elif mine.get("videos") == HELD_OUT and _split(own.config) != _split(wanted.config):
        what = f"{run} held out other clips than {wanted.run}: give both the same clips, which neither was trained on"
        found.append({"what": what, "command": f"python scripts/evaluate.py run={shlex.quote(str(run))} videos=FOLDER", "apart": True})
    newest = max((int(folder.name[5:]) for folder in (run / "checkpoints").glob("step-*") if folder.name[5:].isdigit()), default=0)
    if mine.get("step", newest) < newest:
        what = f"{run} was trained on to step {newest} after it was measured at step {mine['step']}"
        found.append({"what": what, "command": mend, "apart": False})
    return found


def _unlike(mine: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Every key of a protocol in which two differ, and every frozen network that is another under the same name."""
    keys = [key for key in dict.fromkeys((*wanted, *mine)) if key not in APART]
    found = [f"{key} = {_told(mine, key)}, wanted {_told(wanted, key)}" for key in keys if _place(mine, key) != _place(wanted, key)]
    own, theirs = (protocol.get("features", {}) for protocol in (mine, wanted))
    others = [name for name in theirs if name in own and own[name] != theirs[name]]
    return found + [f"{name} with weights {own[name]:.12}, wanted {theirs[name]:.12}" for name in others]


def _told(protocol: Mapping[str, Any], key: str) -> str:
    return str(protocol[key]) if key in protocol else "not set"


def _place(protocol: Mapping[str, Any], key: str) -> Any:
    """A folder however it is written, and a part with or without what it says to be null."""
    value = protocol.get(key)
    if key in GROUPS and isinstance(value, str):
        return re.sub(r", [a-z_]+ None\b", "", value)
    return normpath(value) if key in ("world", "videos") and isinstance(value, str) else value


def asked(folder: Path) -> list[str]:
    """What the samples that an evaluation shows were asked for; without those beyond the drawn ones, which are failures of this run alone."""
    samples = read_json(folder / "evaluation" / "gallery.json")
    items = samples["prompts"][: samples["drawn"]] if samples.get("prompts") else samples.get("reconstructions", [])
    return [item.get("prompt", item.get("caption")) for item in items]


def _split(config: Config) -> list[Any]:
    """What decides which clips a run holds out, and how they are cut."""
    return [config["data"].get(key) for key in ("train", "val", "hold_out", "root", "fps", "shape", "crop")]


def _command(run: Path, protocol: Mapping[str, Any]) -> str:
    """The command that measures a run under a protocol; under evaluate.py's own where there is none."""
    words = [f"{key}={protocol[key]}" for key in SETTABLE if key in protocol]
    words += [f"videos={protocol['videos']}"] if protocol.get("videos") not in (None, HELD_OUT) else []
    if "steps" in protocol:  # a flow run, whose samples have the shape that is asked for
        words += [f"{key}={size}" for key, size in zip(("frames", "height", "width"), (protocol["frames"], *protocol["size"]), strict=True)]
    for name, group in GROUPS.items():
        if name not in protocol:
            continue
        target, *settings = re.split(r", (?=[a-z_]+ )", str(protocol[name]))
        nodes = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (CONFIGS / group).glob("*.yaml")}
        option = next((stem for stem, node in nodes.items() if node["_target_"].rpartition(".")[2] == target), target)
        words.append(f"{group if group == name else f'{group}@{name}'}={option}")
        said = {key: "null" if value == "None" else value for key, _, value in (setting.partition(" ") for setting in settings)}
        unsaid = {key: "null" for key, value in nodes.get(option, {}).items() if key != "_target_" and key not in said and value is not None}
        words += [f"{name}.{key}={value}" for key, value in (said | unsaid).items()]
    kinds = (name.partition(":") for name in protocol.get("features", {}))  # the folders are not written down, only their own names
    named = ",".join(f"{kind}:FOLDER/{own}" for kind, _, own in kinds)
    words += [f"features=[{named}]"] if named else []
    return shlex.join(["python", "scripts/evaluate.py", f"run={run}", *words])
