"""Every shipped config composes, names constructors that exist with keys that they take, and builds."""

from pathlib import Path

import pytest
import torch

from runtime.config import CONFIGS, ROOT, Config, ConfigError, build, check, compose

EXPERIMENTS = sorted(str(path.relative_to(CONFIGS / "experiment").with_suffix("")) for path in (CONFIGS / "experiment").rglob("*.yaml"))
ENTRIES = {path.stem: [] for path in CONFIGS.glob("*.yaml")} | {"train": ["run=x", "data=world"], "make_world": ["out=x"], "report": ["root=x"]}
ENTRIES |= {"evaluate": ["run=x"], "showcase": ["run=x"], "check_data": ["data.train=x", "objective=vae"], "sample": ["run=x"]}
ENTRIES |= {"cache_latents": ["data.train=x", "vae_run=y"], "ablate": ["ablation=qk_norm"], "compare": ["runs=[x,y]"]}
# Options that need a file of the user's, with a stand-in; their config is checked, not built.
FROZEN = ["objective.text.path=x", "objective.text.width=8"]
NEEDS_A_FOLDER = {"objective/text/t5": FROZEN, "objective/text/gemma": FROZEN, "data/videos": ["data.train=x", "data.val=y"]}
NEEDS_A_FOLDER |= {"expander/language_model": ["expander.path=x"], "noise/towards": ["noise.seed=1"]}
NEEDS_A_FOLDER |= {"objective/vae/wan": ["objective.vae.base_dim=8"]}  # or an extra: diffusers
NEEDS_A_FOLDER |= {"objective/perceptual/lpips": ["objective.perceptual.path=x"], "objective/perceptual/learnt": ["objective.perceptual.run=x"]}
# Groups of objective=vae; of those inside another, what that one must be.
OF_A_VAE = ("objective/vae", "objective/part", "objective/perceptual", "objective/adversary")
INSIDE = {"objective/adversary/game": ["objective/adversary=patch"]}
# The others are groups of train.py.
OF_SAMPLE = ("solver", "guidance", "expander", "style", "watermark", "task", "rollout", "refine", "noise")
ENTRY_OF = {**dict.fromkeys(OF_SAMPLE, "sample"), "ablation": "ablate", "engine": "ablate"}


def _options() -> list[tuple[str, str]]:
    """(group, option) for every file in a group that `train.py` can swap; a name with an underscore is what options share."""
    groups = [folder for folder in CONFIGS.rglob("*") if folder.is_dir() and folder.name != "experiment" and "experiment" not in folder.parts]
    return sorted((str(folder.relative_to(CONFIGS)), file.stem) for folder in groups for file in folder.glob("[!_]*.yaml"))


def _compose(name: str, overrides: list[str]) -> Config:
    """Composed as train.py does, but with the shipped VAE where train.py reads the one that vae_run trained."""
    vae = compose("train", [*ENTRIES["train"], "objective=vae"])["objective"]["vae"]
    flow = ("train", "cache_latents")
    return compose(name, overrides, lambda look: {"objective.vae": vae} if name in flow and look("objective.dit") is not None else {})


def _build_objective(config: Config) -> object:
    """The networks of a composed training config, without memory for weights, and the objective around them."""
    with torch.device("meta"):
        return build(config["objective"])


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_composes(name: str) -> None:
    check(_compose(name, ENTRIES[name]))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds(name: str) -> None:
    config = _compose("train", [f"experiment={name}", "run=x", "vae_run=y"])
    check(config)
    for part in ("trainer", "optim", "tracking", "data"):
        build(config[part])
    _build_objective(config)


@pytest.mark.parametrize(("group", "option"), _options(), ids=lambda value: value)
def test_every_option_builds_in_its_group(group: str, option: str) -> None:
    needs = NEEDS_A_FOLDER.get(f"{group}/{option}", [])
    chosen = [f"{group}={option}", *needs]
    own = ["objective=vae"] if group.startswith(OF_A_VAE) else []
    entry = ENTRY_OF.get(group.split("/")[0], "train")
    config = _compose(entry, [*ENTRIES[entry], *own, *INSIDE.get(group, []), *chosen])
    check(config)
    if group.startswith("objective") and not needs:
        _build_objective(config)


def test_no_key_is_left_unread() -> None:
    """A key that no constructor takes is refused, so a YAML cannot hold a dead one."""
    config = _compose("train", ENTRIES["train"])
    config["objective"]["dit"]["witdh"] = 3
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        check(config)


def test_configs_say_what_their_keys_mean() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert "#" in path.read_text(encoding="utf-8"), f"{path.relative_to(ROOT)} has no comment"


def test_ignore_patterns_are_anchored() -> None:
    """An unanchored `data/` or `models/` would drop packages from git without a word."""
    lines = (Path(ROOT) / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.rstrip("/") in ("runs", "data", "models", "datasets", "outputs", "training", "evaluation")]
