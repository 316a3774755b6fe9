"""From the record of a clip back to what was asked for: whether the same frames can be made again here, and all reasons why not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PureWindowsPath
from typing import Any

from data.provenance import LATE, OWN, Origin, content_sha256, is_given
from runtime.machine import versions

DIGITS = 12  # of a sha256, for people


def why_not(record: Mapping[str, Any], here: Origin, others: Mapping[str, Origin] | None = None, folders: Sequence[Path] = ()) -> list[str]:
    """All reasons why the same frames cannot be made again with these networks and files, each what, got, wanted; empty if there is none.

    Args:
        here, others: as for `data.provenance.make_record`.
        folders: where files are looked for by their name, after the path that the record has.
    """
    then, now = {"": record, **record.get("others", {})}, {"": here, **(others or {})}
    reasons = []
    for name in dict.fromkeys([*then, *now]):
        if name not in now:
            reasons.append(f"{name}: these networks took part in the clip ({then[name]['run']}, step {then[name]['step']}) and are not given here.")
        elif name not in then:
            reasons.append(f"{name}: the clip was made without these networks ({now[name].run}).")
        else:
            reasons += _unlike(f"{name}: " if name else "", then[name], now[name])
    for file in files(record):
        place, same = _find(file, folders)
        name, wanted = _name(file["path"]), file["sha256"][:DIGITS]
        if place is None:
            looked = ", ".join([file["path"], *(str(folder) for folder in folders)])
            reasons.append(f"the given file {name} (sha256 {wanted}) is missing; looked for it as or in {looked}.")
        elif not same:
            reasons.append(f"the given file {place} is another one: sha256 {content_sha256(place)[:DIGITS]}, the clip was made from {wanted}.")
    return reasons


def notes(record: Mapping[str, Any], here: Origin) -> list[str]:
    """What else is not as it was: other versions, threads or another device may tip the last bits, and so a level of 255 here and there."""
    then = {**record["versions"], "device": record["device"], "threads": record["threads"]}
    now = {**versions(), "device": here.device, "threads": here.threads}
    return [f"{key} is {now.get(key, 'missing')} here and was {was}: the last bits may differ" for key, was in then.items() if now.get(key) != was]


def verdict(record: Mapping[str, Any], frames_sha256: str, here: Origin) -> tuple[bool, str]:
    """Whether frames that were made again are the clip's, bit for bit, and that in words."""
    wanted = record["frames_sha256"]
    if frames_sha256 == wanted:
        return True, f"the same frames, bit for bit (sha256 {wanted[:DIGITS]})"
    why = "; ".join(notes(record, here)) or "weights, files, versions and threads are as they were, so this is a defect: please report it"
    return False, f"not bit for bit the same frames: sha256 {frames_sha256[:DIGITS]}, the clip's is {wanted[:DIGITS]} ({why})"


def asked(record: Mapping[str, Any], folders: Sequence[Path] = ()) -> dict[str, Any]:
    """What `make_record` was given, with each file's path where it is here.

    Raises: ValueError if one is not there; `why_not` tells of all.
    """

    def located(value: Any) -> Any:
        if isinstance(value, list):
            return [located(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if not is_given(value):
            return {name: located(inner) for name, inner in value.items()}
        place, same = _find(value, folders)
        if place is None or not same:
            raise ValueError(f"the given file {value['path']} (sha256 {value['sha256'][:DIGITS]}) is not here.")
        return {**value, "path": str(place)}

    return located({key: value for key, value in record.items() if key not in OWN and key not in LATE})


def files(record: Any) -> Iterator[dict[str, str]]:
    """Every file that a record names, wherever it stands."""
    if isinstance(record, Mapping):
        if is_given(record):
            yield dict(record)
        else:
            for value in record.values():
                yield from files(value)
    elif isinstance(record, list):
        for item in record:
            yield from files(item)


def _unlike(what: str, then: Mapping[str, Any], here: Origin) -> Iterator[str]:
    now = asdict(here)
    for key, words in (("weights_sha256", "weights"), ("config_sha256", "config")):
        if then[key] != now[key]:
            got = f"{now['run']} at step {now['step']} has {now[key][:DIGITS]}"
            yield f"{what}the {words} differ: {got}, the clip was made by {then[key][:DIGITS]} ({then['run']}, step {then['step']}). Set run to it."


def _find(file: Mapping[str, str], folders: Sequence[Path]) -> tuple[Path | None, bool]:
    """(place, whether it is the same) of a file: the same one if it is anywhere, else another of its name, else (None, False)."""
    places = [Path(file["path"]), *(Path(folder) / _name(file["path"]) for folder in folders)]
    there = [place for place in places if place.is_file() or place.is_dir()]  # a pipe or a device would be read for ever
    same = next((place for place in there if content_sha256(place) == file["sha256"]), None)
    return (there[0] if there else None, False) if same is None else (same, True)


def _name(path: str) -> str:
    return PureWindowsPath(path).name
