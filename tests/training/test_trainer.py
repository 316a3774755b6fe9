import json
import os
import signal

import pytest
import torch

from runtime.checkpoint import CheckpointError, read
from runtime.run_folder import RunFolder


class Killed(Exception):
    pass


def killer(at):
    def after(step):
        if step == at:
            raise Killed

    return after


@pytest.mark.parametrize("recipe", ["adamw", "muon"])
@pytest.mark.parametrize("killed_at", [3, 5, 7, 9])
def test_resume_is_bitwise(tmp_path, toys, recipe, killed_at):
    make = getattr(toys, recipe)
    toys.fit(tmp_path / "whole", recipe=make())
    with pytest.raises(Killed):
        toys.fit(tmp_path / "cut", loader=toys.Loader(after=killer(killed_at)), recipe=make())
    toys.fit(tmp_path / "cut", recipe=make())
    assert toys.rows(tmp_path / "cut") == toys.rows(tmp_path / "whole")
    assert toys.digests(tmp_path / "cut", 10) == toys.digests(tmp_path / "whole", 10)


def test_resume_is_bitwise_under_autocast_and_accumulation(tmp_path, toys):
    same = {"precision": "bfloat16", "checkpoint_every": 2}
    toys.fit(tmp_path / "whole", loader=toys.Loader(6, 2), **same)
    with pytest.raises(Killed):
        toys.fit(tmp_path / "cut", loader=toys.Loader(6, 2, after=killer(5)), **same)
    toys.fit(tmp_path / "cut", loader=toys.Loader(6, 2), **same)
    assert toys.rows(tmp_path / "cut") == toys.rows(tmp_path / "whole")
    assert toys.digests(tmp_path / "cut", 10) == toys.digests(tmp_path / "whole", 10)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_leaves_with_its_code(tmp_path, toys, number, code, capsys):
    toys.fit(tmp_path / "whole")

    class Interrupted(toys.Objective):
        def loss(self, batch, rng):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 4:  # in the middle of a step, and off every cadence
                os.kill(os.getpid(), number)
            return super().loss(batch, rng)

    with pytest.raises(SystemExit) as stopped:
        toys.fit(tmp_path / "cut", objective=Interrupted())
    assert stopped.value.code == code
    assert "saved at step 4" in capsys.readouterr().err
    toys.fit(tmp_path / "cut")
    assert toys.rows(tmp_path / "cut") == toys.rows(tmp_path / "whole")
    assert toys.digests(tmp_path / "cut", 10) == toys.digests(tmp_path / "whole", 10)


def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(tmp_path, toys):
    toys.fit(tmp_path / "whole", checkpoint_every=3)
    with pytest.raises(Killed):
        toys.fit(tmp_path / "cut", loader=toys.Loader(after=killer(8)), checkpoint_every=3)
    weights = tmp_path / "cut/checkpoints/step-00000006/weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.warns(UserWarning, match="sha256.*Falling back"):
        toys.fit(tmp_path / "cut", checkpoint_every=3)
    assert toys.rows(tmp_path / "cut") == toys.rows(tmp_path / "whole")
    assert toys.digests(tmp_path / "cut", 10) == toys.digests(tmp_path / "whole", 10)


def test_micro_batches_add_up_to_the_batch(tmp_path, toys):
    # AdamW divides by a gradient's size, which blows rounding up where a gradient is near 0: losses and gradient norms are compared.
    toys.fit(tmp_path / "one", loader=toys.Loader(6, 6), recipe=toys.adamw(), log_every=1)
    toys.fit(tmp_path / "cut", loader=toys.Loader(6, 4), recipe=toys.adamw(), log_every=1)  # 4 + 2: unlike parts
    one, cut = ([row for row in toys.rows(tmp_path / name) if row["kind"] == "train"] for name in ("one", "cut"))
    assert [row["loss"] for row in cut] == pytest.approx([row["loss"] for row in one], rel=1e-6)
    assert [row["grad_norm"] for row in cut] == pytest.approx([row["grad_norm"] for row in one], rel=1e-5)


def test_training_lowers_the_validation_loss(tmp_path, toys):
    toys.fit(tmp_path, max_steps=60, validate_every=10)
    losses = [row["loss"] for row in toys.rows(tmp_path) if row["kind"] == "val"]
    assert losses[-1] < 0.9 * losses[0]


def test_a_logged_loss_is_the_mean_over_its_interval(tmp_path, toys):
    toys.fit(tmp_path / "each", log_every=1, recipe=toys.adamw())
    toys.fit(tmp_path / "five", log_every=5, recipe=toys.adamw())
    each = [row["loss"] for row in toys.rows(tmp_path / "each") if row["kind"] == "train"]
    five = [row["loss"] for row in toys.rows(tmp_path / "five") if row["kind"] == "train"]
    assert five == pytest.approx([sum(each[:5]) / 5, sum(each[5:]) / 5], rel=1e-6)


def test_a_non_finite_step_changes_nothing_and_is_written_down(tmp_path, toys):
    seen = []

    def spoil(batch):
        seen.append(batch.samples)
        return len(seen) == 3

    class Watch(toys.Objective):
        before, after = None, None

        def loss(self, batch, rng):
            if len(seen) == 2:
                self.before = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
            if len(seen) == 3:
                self.after = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
            return super().loss(batch, rng)

    watch = toys.fit(tmp_path, objective=Watch(spoil))
    assert all(torch.equal(watch.before[name], watch.after[name]) for name in watch.before)
    skips = [row for row in toys.rows(tmp_path) if row["kind"] == "skip"]
    assert [(row["step"], tuple(row["samples"]), row["loss"]) for row in skips] == [(3, seen[2], "nan")]
    saved = read(tmp_path / "checkpoints/step-00000010")
    assert all(torch.isfinite(tensor).all() for part in saved.parts.values() for tensor in part.values())
    assert all(isinstance(row["loss"], float) for row in toys.rows(tmp_path) if row["kind"] == "train")


def test_a_loss_that_stays_non_finite_ends_the_run(tmp_path, toys):
    calls = []

    def spoil(batch):
        calls.append(batch)
        return len(calls) > 6

    with pytest.raises(RuntimeError, match=r"3 steps in a row \(step 9"):
        toys.fit(tmp_path, objective=toys.Objective(spoil))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_validation_sees_averaged_weights_and_refreshed_buffers_and_training_does_not(tmp_path, toys):
    objective = toys.fit(tmp_path)
    saved = read(tmp_path / "checkpoints/step-00000010")
    row = [row for row in toys.rows(tmp_path) if row["kind"] == "val"][-1]
    assert row["weight"] == pytest.approx(float(saved.parts["ema"]["toy.out.weight"].sum()), abs=1e-6)
    assert torch.equal(objective.net.out.weight, saved.parts["weights"]["toy.out.weight"])
    assert not torch.equal(saved.parts["ema"]["toy.out.weight"], saved.parts["weights"]["toy.out.weight"])
    # The buffer that follows from the weights was computed from the averages, and stands in both parts.
    expected = saved.parts["ema"]["toy.out.weight"].sum(dim=1)
    assert torch.equal(saved.parts["ema"]["toy.statistics"], expected)
    assert torch.equal(saved.parts["weights"]["toy.statistics"], expected)


def test_another_checkpoint_cadence_trains_the_same_weights(tmp_path, toys):
    toys.fit(tmp_path / "a", checkpoint_every=1, validate_every=1)
    toys.fit(tmp_path / "b", checkpoint_every=0, validate_every=0)
    assert toys.digests(tmp_path / "a", 10) == toys.digests(tmp_path / "b", 10)


def test_a_complete_run_is_left_alone(tmp_path, toys, capsys):
    toys.fit(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "run.lock"}
    toys.fit(tmp_path)
    assert "all 10 steps are done" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "run.lock"}


def test_a_checkpoint_of_another_network_is_refused_with_a_table(tmp_path, toys):
    toys.fit(tmp_path)
    other = toys.Objective()
    other.net.out = torch.nn.Linear(8, 4, bias=False)
    other.net.hidden = torch.nn.Linear(4, 9)
    other.net.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError) as refused:
        toys.fit(tmp_path, objective=other)
    for line in ("missing     toy.extra.weight (2, 2)", "unexpected  toy.out.bias (4,)", "mismatched  toy.hidden.weight: saved (8, 4)"):
        assert line in str(refused.value)


def test_a_budget_fixes_the_end_once_and_keeps_it(tmp_path, toys):
    toys.fit(tmp_path, max_steps=40, budget_s=1000.0)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["max_steps"] == 40  # the budget pays for more
    toys.fit(tmp_path / "short", max_steps=None, budget_s=1e-6)
    assert json.loads((tmp_path / "short/state.json").read_text())["max_steps"] == 13
    assert (tmp_path / "short/checkpoints/step-00000013").is_dir()


def test_a_budget_trains_at_most_max_steps_even_too_few_to_be_timed(tmp_path, toys):
    toys.fit(tmp_path, max_steps=5, budget_s=1000.0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    assert toys.rows(tmp_path)[-1]["step"] == 5


def test_a_resume_computes_in_the_precision_that_was_chosen_once(tmp_path, toys, monkeypatch):
    import training.trainer as module

    monkeypatch.setattr(module, "pick_precision", lambda name, device: "bfloat16")
    with pytest.raises(Killed):
        toys.fit(tmp_path, precision="auto", loader=toys.Loader(after=killer(7)))
    monkeypatch.setattr(module, "pick_precision", lambda name, device: "float32")
    toys.fit(tmp_path, precision="auto")
    assert json.loads((tmp_path / "checkpoints/step-00000010/manifest.json").read_text())["facts"]["precision"] == "bfloat16"


def test_the_precision_is_measured_under_the_runs_own_threads(tmp_path, toys, monkeypatch):
    import training.trainer as module

    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(module, "pick_precision", lambda name, device: seen.append(torch.get_num_threads()) or "float32")
    try:
        with RunFolder(tmp_path / "asked", {}) as folder:
            toys.trainer(precision="auto", threads=before + 1).precision_of(folder)
        torch.set_num_threads(before)
        toys.fit(tmp_path / "fit", precision="auto", threads=before + 1, max_steps=1)
    finally:
        torch.set_num_threads(before)
    assert seen == [before + 1] * 2


def test_previews_are_written(tmp_path, toys):
    toys.fit(tmp_path, preview_every=5)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-00000005.png", "step-00000010.png"]


def test_what_a_run_cost_survives_a_resume(tmp_path, toys):
    with pytest.raises(Killed):
        toys.fit(tmp_path, loader=toys.Loader(after=killer(7)))
    toys.fit(tmp_path)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["samples"], cost["flop"], cost["energy_j"]) == (60, 60_000, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_steps", None),
        ("max_steps", 0),
        ("budget_s", 0.0),
        ("clip_norm", -1.0),
        ("log_every", 0),
        ("keep_last", 1),
        ("ema_decay", 1.0),
        ("device", "cuda:99"),
    ],
)
def test_settings_out_of_range_are_refused_with_their_key(tmp_path, toys, key, value):
    with pytest.raises(ValueError, match=key):
        toys.fit(tmp_path, **{key: value})
