import shutil
from pathlib import Path

import pytest
import torch

from models.vae import VideoVAE
from runtime.checkpoint import CheckpointError, Checkpoints
from runtime.config import ConfigError, dump
from training.vae_bundle import bundle_folder, bundle_vae, latents_key, load_vae, vae_config

NODE = {"_target_": "models.vae.VideoVAE", "latent_channels": 4, "widths": [8, 16], "encoder_depths": [1, 1], "decoder_depths": [1, 1]}
NODE |= {"look_back": 1, "decoder_look_back": 1}


def made(seed=0):
    torch.manual_seed(seed)
    vae = VideoVAE(latent_channels=4, widths=(8, 16), encoder_depths=(1, 1), decoder_depths=(1, 1), look_back=1, decoder_look_back=1)
    vae.set_statistics(torch.full((4,), 0.5), torch.full((4,), 2.0))
    return vae


def decoder_moved(vae):
    with torch.no_grad():
        for module in vae.decoding():
            for p in module.parameters():
                p.add_(0.1)
    return vae


def vae_run(folder, step=1, seed=0, vae=None):
    vae = vae or made(seed)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(dump({"objective": {"vae": NODE}}))
    averages = {f"vae.{name}": tensor for name, tensor in vae.state_dict().items()}
    weights = {name: tensor + 1 for name, tensor in averages.items()}
    Checkpoints(folder / "checkpoints").save(step, {"weights": weights, "ema": averages, "optimizer": {}}, {})
    return vae


def test_the_copy_holds_the_averaged_weights_and_the_statistics_and_needs_its_source_no_more(tmp_path):
    vae, source, run = vae_run(tmp_path / "vae"), str(tmp_path / "vae"), tmp_path / "run"
    run.mkdir()
    bundle_vae(source, vae_config(source, str(run)), run)
    (tmp_path / "vae").rename(tmp_path / "gone")
    copy, key = load_vae(run)
    assert all(torch.equal(a, b) for a, b in zip(copy.state_dict().values(), vae.state_dict().values(), strict=True))
    assert not any(p.requires_grad for p in copy.parameters())
    assert len(key) == 64
    assert vae_config(None, str(run)) == NODE
    assert not list(run.glob("*.tmp*"))


def test_a_source_that_trained_on_is_refused_once_something_was_learnt_on_the_copy(tmp_path):
    vae_run(tmp_path / "vae")
    run = tmp_path / "run"
    run.mkdir()
    bundle_vae(str(tmp_path / "vae"), NODE, run)
    before = load_vae(run)[1]
    vae_run(tmp_path / "vae", step=2, seed=1)
    bundle_vae(str(tmp_path / "vae"), NODE, run)
    assert load_vae(run)[1] != before  # nothing was learnt yet: the copy follows
    Checkpoints(run / "checkpoints").save(1, {"weights": {}}, {})
    vae_run(tmp_path / "vae", step=3, seed=2)
    before = load_vae(run)[1]
    with pytest.raises(ConfigError, match="trained on since: its encoder differs in stem, encoder, to_posterior"):
        bundle_vae(str(tmp_path / "vae"), NODE, run)
    assert load_vae(run)[1] == before
    bundle_vae(None, NODE, run)


def learning(tmp_path):
    """A run with a checkpoint, on the VAE of seed 0."""
    vae_run(tmp_path / "vae")
    run = tmp_path / "run"
    run.mkdir()
    bundle_vae(str(tmp_path / "vae"), NODE, run)
    Checkpoints(run / "checkpoints").save(1, {"weights": {}}, {})
    return run


def test_another_decoder_is_taken_over_where_something_was_learnt_and_says_so(tmp_path, capsys):
    run, tuned = learning(tmp_path), decoder_moved(made())
    key = latents_key(run)
    vae_run(tmp_path / "tuned", vae=tuned)
    bundle_vae(str(tmp_path / "tuned"), NODE, run)
    assert capsys.readouterr().err == f"vae         {run} decodes with vae_run={tmp_path}/tuned at step 1 from now on; the encoder is the same\n"
    assert all(torch.equal(a, b) for a, b in zip(load_vae(run)[0].state_dict().values(), tuned.state_dict().values(), strict=True))
    assert latents_key(run) == key
    bundle_vae(str(tmp_path / "tuned"), NODE, run)
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "vae"]


def test_what_encodes_is_never_taken_over_where_something_was_learnt(tmp_path):
    run = learning(tmp_path)
    bit, whitened = decoder_moved(made()), decoder_moved(made())
    bit.stem.weight.data.view(torch.int32)[0, 0] ^= 1
    whitened.set_statistics(torch.full((4,), 0.5), torch.full((4,), 2.5))
    before = load_vae(run)[1]
    haar = NODE | {"stem": {"_target_": "models.vae_stems.Haar"}}
    for vae, config, differs in ((bit, NODE, "stem"), (whitened, NODE, "latent_std"), (decoder_moved(made()), haar, "stem={.*Patches.*Haar.*}")):
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        vae_run(tmp_path / "other", vae=vae)
        with pytest.raises(ConfigError, match=f"its encoder differs in {differs}. Use a new name"):
            bundle_vae(str(tmp_path / "other"), config, run)
        assert load_vae(run)[1] == before


@pytest.mark.parametrize("kill", range(5))
def test_a_kill_at_any_change_of_names_leaves_the_old_copy_or_the_new(tmp_path, monkeypatch, kill):
    run = learning(tmp_path)
    old = load_vae(run)[1]
    vae_run(tmp_path / "tuned", vae=decoder_moved(made()))
    calls, rename, rmtree = [], Path.rename, shutil.rmtree

    def dying(act):
        def change(path, *rest, **options):
            if path.parent == run:
                calls.append(path.name)
                if len(calls) > kill:  # from here on nothing happens any more, not even what cleans up
                    raise KeyboardInterrupt
            return act(path, *rest, **options)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(rename))
        patch.setattr(shutil, "rmtree", dying(rmtree))
        with pytest.raises(KeyboardInterrupt):
            bundle_vae(str(tmp_path / "tuned"), NODE, run)
    assert (load_vae(run)[1] == old) == (kill < 3)
    assert vae_config(None, str(run)) == NODE
    bundle_vae(str(tmp_path / "tuned"), NODE, run)
    assert load_vae(run)[1] != old
    assert bundle_folder(run) == run / "vae"
    assert not list(run.glob("vae.tmp*"))


def test_an_unfinished_source_is_named(tmp_path, capsys):
    for step, said in ((1, True), (2, False)):
        source, run = tmp_path / f"vae{step}", tmp_path / f"run{step}"
        vae_run(source, step)
        (source / "config.yaml").write_text(dump({"objective": {"vae": NODE}, "trainer": {"max_steps": 2}}))
        run.mkdir()
        bundle_vae(str(source), NODE, run)
        assert (f"stopped at step {step} of 2" in capsys.readouterr().err) == said


def test_what_is_no_vae_run_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("objective: {dit: 1}")
    with pytest.raises(ConfigError, match="trained no VAE"):
        vae_config(str(tmp_path), "x")
    (tmp_path / "config.yaml").write_text("objective: {dit: {}, vae: {}}")
    with pytest.raises(ConfigError, match="trained a flow model"):
        vae_config(str(tmp_path), "x")
    with pytest.raises(ConfigError, match="vae_run is null"):
        vae_config(None, "x")
    (tmp_path / "config.yaml").write_text("objective: {vae: {_target_: models.vae.VideoVAE, stride_t: '${oc.env:HOME}'}}")
    with pytest.raises(ConfigError, match="interpolation"):
        vae_config(str(tmp_path), "x")
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        bundle_vae(str(tmp_path), NODE, tmp_path)


def test_a_damaged_copy_is_refused(tmp_path):
    vae_run(tmp_path / "vae")
    run = tmp_path / "run"
    run.mkdir()
    bundle_vae(str(tmp_path / "vae"), NODE, run)
    path = run / "vae/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="bytes"):
        load_vae(run)
