"""Index a public set that is on disk: python scripts/make_index.py set=ucf101|sky_timelapse|openvid|panda70m root=FOLDER [out=FOLDER ...].

Nothing is copied or moved. Every file that is left out is listed with its reason in left_out.txt.
"""

import shlex
import sys
from pathlib import Path

import yaml

from data.public.listing import MISSING, Listing, with_validation, write_index
from runtime.config import CONFIGS, Config, ConfigError, build, check, entry
from runtime.files import write_text

SETS = {"ucf101": "labels", "sky_timelapse": "unconditional", "openvid": "text", "panda70m": "text"}  # and the experiment after the VAE's
SHOWN = 10  # names on the screen; left_out.txt has them all


@entry("make_index")
def main(config: Config) -> None:
    check(config)
    check_top(config)
    name, root = config["set"], Path(config["root"]).resolve()
    out = root if config["out"] is None else Path(config["out"]).resolve()
    listing = build(config[name]).find(root)
    if not listing.train:
        raise ValueError(f"no clip of {name} in {root}. {summary(listing) or 'There is no file of a fitting kind'}. Set root, or the keys of {name}.")
    listing = with_validation(listing, config["hold_out"])
    write(listing, root, out, config["overwrite"])
    show(listing, name, root, out)
    if listing.missing_share > config["missing_limit"]:
        print(
            f"{listing.missing_share:.1%} of the files that the set names are not there, more than missing_limit={config['missing_limit']:g}. "
            "The index holds the others; set missing_limit=1 if you have a part of the set only.",
            file=sys.stderr,
        )
        raise SystemExit(1)


def check_top(config: Config) -> None:
    """Refuse wrong values of the keys that no constructor takes.

    Raises: ConfigError naming the key.
    """
    if config["set"] not in SETS:
        raise ConfigError(f"set={config['set']}: choose one of {', '.join(SETS)}, for example set=ucf101 root=/data/UCF-101.")
    for key in ("root", "out"):
        if not isinstance(config[key], str) and not (key == "out" and config[key] is None):
            raise ConfigError(f"{key}={config[key]!r} is no name of a folder. Set {key}, for example {key}=/data/UCF-101.")
    if not Path(config["root"]).is_dir():
        raise ConfigError(f"root={config['root']} is no folder. Set root to the folder that holds the set's videos.")
    for key, most in {"hold_out": 0.5, "missing_limit": 1}.items():
        if type(config[key]) not in (int, float) or not 0 <= config[key] <= most:
            raise ConfigError(f"{key}={config[key]!r} must be a number from 0 to {most}. Set {key}.")
    if not isinstance(config["overwrite"], bool):
        raise ConfigError(f"overwrite={config['overwrite']!r} must be true or false. Set overwrite.")


def write(listing: Listing, root: Path, out: Path, overwrite: bool) -> None:
    """The index files and what belongs to them; all are checked before the first is written.

    Raises: ValueError if one is there with other rows.
    """
    splits = {out / "train.jsonl": listing.train, out / "val.jsonl": listing.val}
    for path, clips in splits.items():
        if not overwrite and path.exists() and path.read_text(encoding="utf-8") != "".join(f"{clip.line()}\n" for clip in clips):
            raise ValueError(f"{path} holds other rows than are found now. Set overwrite=true to replace it, or out to another folder.")
    for path, clips in splits.items():
        if clips:
            write_index(path, clips, root)
        else:
            path.unlink(missing_ok=True)
    if listing.classes:
        write_text(out / "classes.txt", "".join(f"{name}\n" for name in listing.classes))
    write_text(out / "left_out.txt", "".join(f"{reason}\t{name}\n" for reason, names in sorted(listing.left_out.items()) for name in names))


def show(listing: Listing, name: str, root: Path, out: Path) -> None:
    """What was found and left out, and the commands to go on with."""
    print(f"train     {len(listing.train)} clips{f' of {len(listing.classes)} classes' if listing.classes else ''}: {out / 'train.jsonl'}")
    print(f"val       {len(listing.val)} clips{f': {out}/val.jsonl' if listing.val else ', so set data.val yourself'}")
    if listing.left_out:
        print(f"left out  {summary(listing)}: {out / 'left_out.txt'}")
        for missing in listing.left_out.get(MISSING, ())[:SHOWN]:
            print(f"          {MISSING}: {missing}")
    folders = f"videos={shlex.quote(str(root))}" + ("" if out == root else f" index={shlex.quote(str(out))}")
    print(f"next      python train.py experiment={name}/vae {folders} run=runs/{name}-vae")
    other = listing.classes and not set(listing.classes) <= set(shipped_labels())
    labels = f' "objective.text.labels=[$(paste -sd, {shlex.quote(str(out / "classes.txt"))})]"' if other else ""
    print(f"then      python train.py experiment={name}/{SETS[name]} {folders} vae_run=runs/{name}-vae run=runs/{name}-{SETS[name]}{labels}")


def shipped_labels() -> list[str]:
    """The classes that experiment=ucf101/labels knows without being told."""
    return yaml.safe_load((CONFIGS / "objective" / "text" / "ucf101.yaml").read_text(encoding="utf-8"))["labels"]


def summary(listing: Listing) -> str:
    """How many names were left out for which reason."""
    return "; ".join(f"{len(names)} {reason}" for reason, names in sorted(listing.left_out.items(), key=lambda item: -len(item[1])))


if __name__ == "__main__":
    main()
