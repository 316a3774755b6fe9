import sys
import types

import pytest

from runtime.build import ConfigError, build, check, nearest, resolve

SCHEDULE = {"_target_": "training.schedule.Schedule", "warmup_steps": 3, "decay_share": 0.5}

FORBIDDEN = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.optim.adam.torch.serialization.os.getpid",
    "models.vae.torch.hub.load",
    "data.files.reader.os.system",
    "data.files.reader.os",
    "training.schedule.dataclass",
    "training.ema.nn.Module",
    "training.ema.EMA.update",
    "runtime.build.build",
    "runtime.run_folder.write_text",
    "training.optim.torch.optim.AdamW",
    "runtime.run_folder.ConfigError",
    "training..schedule.Schedule",
    "../training.schedule.Schedule",
    "torch.load",
    "pickle.loads",
    "Schedule",
    "",
    None,
    7,
]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_only_classes_written_by_their_own_name_are_built(target):
    with pytest.raises(ConfigError):
        resolve(target)
    with pytest.raises(ConfigError):
        build({"_target_": target})


def test_a_forbidden_target_is_refused_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="refused"):
        build({"_target_": "hostile.Thing"})
    assert not (tmp_path / "canary").exists()


def test_a_forbidden_target_is_refused_however_deep_it_stands():
    with pytest.raises(ConfigError, match=r"parts\[1\]\.x: .*os\.system"):
        check({"parts": [SCHEDULE, {"x": {"_target_": "os.system", "command": "true"}}]})


def test_listed_classes_of_other_projects_are_allowed():
    assert resolve("torch.optim.AdamW").__name__ == "AdamW"


def test_nested_nodes_are_built_and_objects_are_passed_as_they_are():
    recipe = build({"_target_": "training.optim.Muon", "lr": 1, "momentum": 0.9, "weight_decay": 0.0, "adjust": "original", "adamw_layers": []}
                   | {"rest": {"_target_": "training.optim.AdamW", "lr": 0.1, "betas": [0.9, 0.99], "weight_decay": 0.0, "eps": 1e-8}})  # fmt: skip
    assert recipe.rest.betas == (0.9, 0.99)  # the list became the tuple that the constructor asks for
    assert recipe.lr == 1.0
    assert isinstance(recipe.lr, float)
    rest = recipe.rest
    node = {"_target_": "training.optim.Muon", "lr": 1, "momentum": 0.9, "weight_decay": 0.0, "adjust": "original", "adamw_layers": []}
    assert build(node, rest=rest).rest is rest


def test_a_misspelt_key_is_named_with_its_neighbour():
    with pytest.raises(ConfigError, match=r"trainer\.schedule: .*Schedule has no key 'warmup_stps' \(did you mean 'warmup_steps'\?\)"):
        check({"trainer": {"schedule": SCHEDULE | {"warmup_stps": 1}}})
    with pytest.raises(ConfigError, match="did you mean 'warmup_steps'"):
        build(SCHEDULE | {"warmup_stps": 1})


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="decay_share"):
        build({"_target_": "training.schedule.Schedule", "warmup_steps": 1})


@pytest.mark.parametrize("value", ["abc", 1.5, True, None, [1], {"a": 1}])
def test_a_value_of_the_wrong_type_is_refused_with_its_key(value):
    with pytest.raises(ConfigError, match=r"schedule\.warmup_steps"):
        check({"schedule": SCHEDULE | {"warmup_steps": value}})


def test_types_inside_containers_and_choices_are_checked():
    node = {"_target_": "training.optim.AdamW", "lr": 0.1, "betas": [0.9], "weight_decay": 0.0, "eps": 1e-8}
    with pytest.raises(ConfigError, match="betas"):
        build(node)
    with pytest.raises(ConfigError, match="mode"):
        build({"_target_": "runtime.tracking.Wandb", "project": "x", "mode": "onlin", "patience_s": 1})


def test_an_error_inside_one_of_our_modules_is_not_taken_for_a_misspelt_target(monkeypatch):
    broken = types.ModuleType("training.broken_on_purpose")
    monkeypatch.setitem(sys.modules, "training.broken_on_purpose", broken)
    with pytest.raises(ConfigError, match="defines no class Thing"):
        resolve("training.broken_on_purpose.Thing")
    with pytest.raises(ConfigError, match="no module training\\.nothing_here"):
        resolve("training.nothing_here.Thing")


def test_nearest_name():
    assert nearest("widht", ["width", "depth"]) == " (did you mean 'width'?)"
    assert nearest("zzz", ["width", "depth"]) == " (there are: width, depth)"
