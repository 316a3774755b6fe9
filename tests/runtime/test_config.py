import resource
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.config import CONFIGS, ConfigError, compose, differences, dump, load_run_config, run

ROOT = CONFIGS.parent
RUN = "run=runs/never"
PLAIN = [RUN, "objective=vae", "data.train=a", "data.val=b"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_step=3"], "there is no key or group 'trainer.max_step' (did you mean 'trainer.max_steps'?)"),
        (["trianer.max_steps=3"], "there is no key or group 'trianer.max_steps' (did you mean 'trainer.max_steps'?)"),
        (["max_steps=3"], "there is no key or group 'max_steps' (did you mean 'trainer.max_steps'?)"),
        (["trackng=none"], "there is no key or group 'trackng' (did you mean 'tracking'?)"),
        (["optim=moun"], "optim=moun does not exist (did you mean 'muon'?)"),
        (["data/reader=decrod"], "data/reader=decrod does not exist (did you mean 'decord'?)"),
        (["objectiv/timesteps=uniform"], "objectiv/timesteps"),
        (["+foo=1"], "the top keys are fixed"),
        (["foo"], "'foo' is not key=value"),
        (["seed=[1"], "'seed=[1' cannot be read"),
        (["seed=${nothing}"], "nothing"),
    ],
)
def test_a_wrong_override_is_refused_with_the_nearest_name_on_two_lines(overrides, message):
    with pytest.raises(ConfigError) as refused:
        compose("train", [*PLAIN, *overrides])
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2


def test_a_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"run has no value. Set run="):
        compose("train", PLAIN[1:])


def test_missing_values_are_named_before_another_file_is_asked_for():
    with pytest.raises(ConfigError, match=r"\brun\b.*have no value"):
        compose("train", ["objective=flow"], lambda look: {"objective.vae": look("run")})


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a run folder"):
        load_run_config(tmp_path / "file")


def test_composing_gives_plain_python_without_hydras_own_keys():
    config = compose("train", [*PLAIN, "seed=7"])
    assert type(config) is dict
    assert type(config["optim"]["rest"]["betas"]) is list
    assert config["seed"] == 7
    assert "hydra" not in config


def test_nodes_that_other_files_know_are_there_before_interpolations_are_resolved():
    def complete(look):
        assert look("run") == "runs/never"
        return {"objective.vae": {"latent_channels": 7, "stride_t": 4, "stride_s": 8}}

    config = compose("train", [RUN, "data.train=a", "data.val=b", "objective=flow"], complete)
    assert config["objective"]["dit"]["latent_channels"] == 7


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["trainer.max_stps=3"], ["trainer.max_steps=abc"]])
def test_a_wrong_command_ends_in_seconds_with_a_line_and_no_litter(tmp_path, arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = command(*PLAIN[1:], f"run={tmp_path / 'x'}", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5  # seconds of processor: neighbours do not count
    assert not list(tmp_path.iterdir())


def test_hydras_flags_show_the_config_and_run_nothing(tmp_path):
    done = command(f"run={tmp_path / 'x'}", "--cfg", "job")
    assert done.returncode == 0
    assert "warmup_steps" in done.stdout
    assert not list(tmp_path.iterdir())


def test_errors_of_our_own_code_are_a_line_and_others_keep_their_traceback(capsys):
    def ours(config):
        load_run_config("/nonexistent")

    with pytest.raises(SystemExit) as ended:
        run("train", ours, PLAIN)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: /nonexistent is not a run folder")

    def theirs(config):
        import json

        json.loads("{")  # a ValueError, but not one that was written for a user

    with pytest.raises(ValueError, match="Expecting"):
        run("train", theirs, PLAIN)


def test_a_config_survives_its_file_bit_for_bit(tmp_path):
    config = {"a": {"x": 1e-8, "y": [0.9, 1], "z": None, "text": "${oc.env:HOME}", "unicode": "größe: 1"}, "run": "runs/a b"}
    (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
    assert load_run_config(tmp_path) == config  # the interpolation is text now: nothing resolves it


@pytest.mark.parametrize("content", ["- 1", "a: [", "\x00", "!!python/object/apply:os.system [true]"])
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_run_config(tmp_path)


def test_differences_name_each_key_once_and_skip_what_may_change():
    saved = {"a": {"b": 1, "c": [1, 2]}, "tracking": {"mode": "x"}, "gone": 1}
    now = {"a": {"b": 2, "c": (1, 2)}, "tracking": {"mode": "y", "new": 1}, "here": None}
    assert differences(saved, now, ["tracking"]) == ["a.b=1, now 2", "gone=1, now absent", "here=absent, now None"]
    assert differences(saved, saved) == []


def test_no_config_writes_logs_or_folders_by_hydra():
    for path in CONFIGS.glob("*.yaml"):
        text = Path(path).read_text(encoding="utf-8")
        assert "output_subdir: null" in text or "\n  - train\n" in text, f"{path.name} lacks hydra.output_subdir: null"


@pytest.mark.parametrize("path", ["/home/müller/ein Ordner", "日本/x.mp4", "a(1)", "a&b#c", "set-{0000..0003}.tar", "set-*.tar", "C:\\clips"])
def test_paths_are_taken_as_they_stand(path):
    assert compose("train", [RUN, "objective=vae", f"data.train={path}"])["data"]["train"] == path


def test_lists_and_mappings_are_still_hydras():
    sets = compose("train", [RUN, "objective=vae", "data.train=[{path: a, weight: 2}, 'b, c']"])["data"]["train"]
    assert sets == [{"path": "a", "weight": 2}, "b, c"]
    with pytest.raises(ConfigError, match="quotation marks"):
        compose("train", [RUN, "objective=vae", "data.train=it's"])
