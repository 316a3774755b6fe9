import os
import subprocess
import sys

import pytest

from runtime.config import ConfigError
from runtime.run_folder import RunFolder

CONFIG = {"run": "r", "seed": 1, "objective": {"dit": {"depth": 12}}, "trainer": {"log_every": 5}, "data": {"workers": 2, "root": "a"}}


def changed(**sections):
    return CONFIG | sections


def begun(path, config=CONFIG):
    """A run that has saved something."""
    RunFolder(path, config).__exit__(None, None, None)
    (path / "checkpoints/step-00000001").mkdir(parents=True)
    (path / "checkpoints/step-00000001/manifest.json").write_text("{}")


def test_a_start_that_came_to_nothing_binds_nobody(tmp_path):
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.remember("max_steps", 7)
    with RunFolder(tmp_path, changed(seed=2)) as folder:
        assert folder.fact("max_steps") is None
    assert "seed: 2" in (tmp_path / "config.yaml").read_text()


def test_the_same_config_is_welcome_again(tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path / "r", CONFIG):
            pass


def test_another_config_is_refused_with_the_difference(tmp_path):
    begun(tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ConfigError) as refused:
        RunFolder(tmp_path, changed(objective={"dit": {"depth": 16, "width": 3}}, seed=2))
    message = str(refused.value)
    for line in ("seed=1, now 2", "objective.dit.depth=12, now 16", "objective.dit.width=absent, now 3", "Use a new name"):
        assert line in message
    assert (tmp_path / "config.yaml").read_text() == before
    RunFolder(tmp_path, CONFIG).__exit__(None, None, None)  # a refusal does not keep the lock


def test_cadences_workers_and_tracking_may_change_and_are_written_down(tmp_path):
    begun(tmp_path)
    now = changed(trainer={"log_every": 50}, data={"workers": 0, "root": "a"}, tracking={"mode": "online"})
    RunFolder(tmp_path, now).__exit__(None, None, None)
    assert "log_every: 50" in (tmp_path / "config.yaml").read_text()


def test_a_renamed_folder_is_the_same_run(tmp_path):
    def config(name):
        return changed(run=str(tmp_path / name), data={"workers": 2, "root": "a", "latents": str(tmp_path / name / "latents")})

    begun(tmp_path / "a", config("a"))
    (tmp_path / "a").rename(tmp_path / "b")
    RunFolder(tmp_path / "b", config("b")).__exit__(None, None, None)
    with pytest.raises(ConfigError, match=r"allow_drift=\[data\.latents\]"):
        RunFolder(tmp_path / "b", config("b") | {"data": {"workers": 2, "root": "a", "latents": "elsewhere"}})


def test_a_drift_passes_only_by_its_name(tmp_path):
    begun(tmp_path)
    now = changed(data={"workers": 2, "root": "b"}, seed=2)
    with pytest.raises(ConfigError, match="seed=1, now 2"):
        RunFolder(tmp_path, now, ["data.root"])
    RunFolder(tmp_path, now, ["data.root", "seed"]).__exit__(None, None, None)


def test_two_processes_cannot_share_a_folder_and_a_killed_one_frees_it(tmp_path):
    code = f"""
from runtime.run_folder import RunFolder
import os, sys, time
with RunFolder({str(tmp_path)!r}, {CONFIG!r}):
    if os.fork() == 0:
        time.sleep(30)  # a data worker that outlives its trainer
        os._exit(0)
    print("held", flush=True)
    time.sleep(30)
"""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, start_new_session=True)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"in use by pid {holder.pid}"):
            RunFolder(tmp_path, CONFIG)
        holder.kill()
        holder.wait()
        with RunFolder(tmp_path, CONFIG):
            pass
    finally:
        os.killpg(holder.pid, 9)
        holder.stdout.close()


def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be a run folder"):
        RunFolder(tmp_path / "file", CONFIG)
    begun(tmp_path / "strange")
    (tmp_path / "strange/config.yaml").unlink()
    with pytest.raises(ConfigError, match="no config"):
        RunFolder(tmp_path / "strange", CONFIG)


def test_choices_are_remembered(tmp_path):
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.fact("precision") is None
        assert folder.remember("precision", "bfloat16") == "bfloat16"
        folder.remember("max_steps", 7)
    with RunFolder(tmp_path, CONFIG) as folder:
        assert (folder.fact("precision"), folder.fact("max_steps")) == ("bfloat16", 7)
        assert len(folder.config_hash) == 64
