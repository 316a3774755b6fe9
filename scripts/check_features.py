"""Prints what features of clips can see, with the procedural world as ground truth: python scripts/check_features.py [features=[learnt:RUN] ...]."""

import json
from functools import partial
from pathlib import Path

from evaluation.feature_sight import BLIND, FAULTS, PROBED, Sees, pools, sight
from evaluation.frozen_features import read_features
from evaluation.video_features import WINDOW, Pixels, RandomConvolutions, Spectrum, Values, Video, windows
from runtime.config import Config, ConfigError, entry
from runtime.device import pick_device
from runtime.files import write_text
from training.learnt import load_features


def of_windows(features: Pixels | Spectrum | RandomConvolutions) -> Sees:
    """Features of windows as a clip's samples."""
    return lambda video: features(windows(video, WINDOW))


def kept(sees: Sees) -> Sees:
    """The same, each clip looked at once."""
    found: dict[int, Values] = {}

    def look(video: Video) -> Values:
        if id(video) not in found:
            found[id(video)] = sees(video)
        return found[id(video)]

    return look


def in_words(share: float) -> str:
    """A mean over kinds of which some are not seen at all may lie above all clips."""
    return "blind" if share >= BLIND else "> 100 %" if share > 1 else f"{100 * share:.0f} %"


def check_keys(config: Config) -> None:
    """Refuse at the door what would end the script after minutes.

    Raises: ConfigError naming the key.
    """
    given = config["features"]
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ConfigError(f"features={given!r} must be a list of texts like learnt:<run>. Set features.")
    for key, least in {"clips": 2, "honest": 4, "scenes": 4, "draws": 1, "dimensions": 1, "seed": 0}.items():
        if type(config[key]) is not int or config[key] < least:
            raise ConfigError(f"{key}={config[key]!r} must be a whole number >= {least}. Set {key}.")
    if config["honest"] < 2 * config["clips"]:
        raise ConfigError(f"honest={config['honest']} clips make no two sets of clips={config['clips']}. Set honest={2 * config['clips']} or more.")
    if config["clips"] <= config["dimensions"]:
        what = f"sets of clips={config['clips']} give no Frechet distance over dimensions={config['dimensions']}"
        raise ConfigError(f"{what}. Set clips to more than dimensions.")
    out = config["out"]
    if out is not None and (not isinstance(out, str) or not Path(out).resolve().parent.is_dir()):
        raise ConfigError(f"out={out!r} is no file in a folder that exists. Set out.")


@entry("check_features")
def main(config: Config) -> None:
    check_keys(config)
    device = pick_device(config["device"], "device")
    try:
        frozen = read_features(config["features"], device, partial(load_features, device=device))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(str(error)) from None
    given = pools(config["honest"], config["clips"], config["scenes"], config["seed"])
    own: dict[str, Sees] = {features.name: of_windows(features) for features in (Pixels(), Spectrum(), RandomConvolutions())}
    results = {}
    names = [*PROBED, *FAULTS]
    print(f"{'features':40s}" + "".join(f"{name:>12s}" for name in names))
    for name, sees in {**own, **{features.name: features for features in frozen}}.items():
        look = kept(sees)
        for dimensions in (None, config["dimensions"]) if name in own else (None,):
            try:
                found = sight(given, look, config["clips"], config["seed"], config["draws"], dimensions)
            except ValueError as error:
                raise ConfigError(f"{name}: {error} Set clips and honest, or features.") from None
            title = name if dimensions is None else f"{name}, {dimensions} main directions"
            results[title] = found
            cells = [f"{100 * found['probe'][attribute]:.0f} %" for attribute in PROBED] + [in_words(found[group]["mean"]) for group in FAULTS]
            print(f"{title:40s}" + "".join(f"{cell:>12s}" for cell in cells), flush=True)
            for group in FAULTS:
                print(f"  {group}: " + ", ".join(f"{kind} {in_words(share)}" for kind, share in found[group].items() if kind != "mean"), flush=True)
        if config["out"] is not None:
            write_text(Path(config["out"]), json.dumps(results, indent=1) + "\n")  # what is measured stays, whatever comes after


if __name__ == "__main__":
    main()
