"""What a run takes over from another: every weight that fits, each other one named, and nothing a second time."""

import json
import re
import shutil

import pytest
import torch

from models.dit import DiT
from models.mixing import Cross, Double, Hybrid, Joint, Pooled, Prefix
from models.modulation import LowRank, PerBlock, Shared
from models.packing import patchify, unpatchify
from models.text import ByteTokenizer, Text, TextTransformer, WordTokenizer
from runtime.checkpoint import Checkpoints, write
from runtime.config import CONFIGS, ConfigError, dump
from runtime.run_folder import RunFolder, read_facts
from training.ema import network_state
from training.warm_start import READS_TEXT, Source, load, read_source, warm_start

DIT = {"_target_": "models.dit.DiT", "latent_channels": 4, "width": 32, "depth": 2, "heads": 2, "text_width": 8, "patch": [1, 2, 2]}
TEXT = {"_target_": "models.text.TextTransformer", "tokenizer": {"_target_": "models.text.WordTokenizer", "buckets": 4}, "width": 8, "max_tokens": 3}


def networks(seed=0, tokenizer=None, max_tokens=3, moved=True, **dit):
    """A small flow model; `moved`: away from its start, where much is zero."""
    torch.manual_seed(seed)
    sizes = {key: value for key, value in DIT.items() if key != "_target_"}
    text = TextTransformer(tokenizer or WordTokenizer(4), dit.get("text_width", 8), 1, 1, max_tokens)
    made = {"dit": DiT(**(sizes | dit)), "text": text}
    with torch.no_grad():
        for p in network_state(made).values():
            p.add_(0.1 * torch.randn(p.shape) * moved)
    return made


def config(text=None, **dit):
    return {"dit": DIT | dit, "text": TEXT | (text or {})}


def saved(folder, made, objective, step=7, **parts):
    """A run folder with one checkpoint, whose raw weights are not its averages."""
    state = network_state(made)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(dump({"objective": objective}))
    raw = {name: tensor + 1 for name, tensor in state.items()}
    Checkpoints(folder / "checkpoints").save(step, {"weights": raw, "ema": state} | parts, {})
    return folder


def start(run, source, made, objective=None):
    with RunFolder(run, {"run": str(run), "init_from": str(source)}) as folder:
        warm_start(str(source), made, objective or config(), folder)
    return read_facts(run).get("init_from")


def velocity(dit, noisy, text_width=8):
    text = Text(torch.linspace(-1, 1, 3 * text_width).reshape(1, 3, -1), torch.linspace(0, 1, text_width)[None])
    return dit(noisy, torch.full((1, noisy.shape[2]), 0.3), text, torch.arange(noisy.shape[2])[None] / 2)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_the_same_architecture_takes_over_every_bit_of_the_averages(tmp_path, capsys):
    source, mine = networks(1), networks(2)
    facts = start(tmp_path / "b", saved(tmp_path / "a", source, config()), mine)
    assert same(network_state(mine), network_state(source))
    assert (facts["step"], facts["resized"], facts["fresh"], facts["unused"]) == (7, [], [], [])
    assert facts["loaded"] == len(network_state(mine))
    digest = json.loads((tmp_path / "a/checkpoints/step-00000007/manifest.json").read_text())["files"]["ema.safetensors"]["sha256"]
    assert facts["sha256"] == digest
    said = capsys.readouterr().err
    assert said == f"start       from {tmp_path}/a step 7: {facts['loaded']} tensors, 0 resized, 0 fresh ({tmp_path}/b/init_from.txt has them)\n"
    listed = (tmp_path / "b/init_from.txt").read_text()
    assert all(f"loaded   {name}\n" in listed for name in network_state(mine))


def test_weights_go_by_name_wherever_they_stand_in_the_file(tmp_path):
    source, mine = networks(1), networks(2)
    folder = saved(tmp_path / "a", source, config())
    read = read_source(str(folder))
    backwards = dict(reversed(list(read.tensors.items())))
    load(type(read)(read.name, read.step, read.sha256, backwards, read.objective), mine, config())
    assert same(network_state(mine), network_state(source))


def test_images_and_small_videos_start_longer_and_larger_ones(tmp_path):
    """Nothing depends on size: what the source makes of a picture, the new run makes of it, and it takes a long large clip."""
    source, mine = networks(1), networks(2)
    facts = start(tmp_path / "b", saved(tmp_path / "a", source, config()), mine)
    picture, clip = torch.randn(1, 4, 1, 4, 4), torch.randn(1, 4, 5, 12, 8)
    assert facts["fresh"] == []
    assert torch.equal(velocity(mine["dit"], picture), velocity(source["dit"], picture))
    assert velocity(mine["dit"], clip).shape == clip.shape


def test_other_positions_are_said(tmp_path, capsys):
    source = saved(tmp_path / "a", networks(1), config(rope_theta=100.0))
    start(tmp_path / "b", source, networks(2), config(rope_theta=1000.0))
    assert "note: positions are not what these weights learnt: objective.dit.rope_theta=100.0, now 1000.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"patch": [1, 4, 4]}, "note: positions are not what these weights learnt: objective.dit.patch=[1, 2, 2], now [1, 4, 4]"),
        (
            {"heads": 1},
            "note: these weights learnt other heads: their channels are shared out anew, so attention is not what it was: objective.dit.heads=2",
        ),
        ({"heads": 3, "width": 48}, ""),
    ],
)
def test_other_patches_and_other_heads_at_the_same_width_are_said(tmp_path, capsys, changed, note):
    start(tmp_path / "b", saved(tmp_path / "a", networks(1), config()), networks(2, **changed), config(**changed))
    said = capsys.readouterr().err
    assert note in said
    assert note.replace("note: ", "note     ") in (tmp_path / "b/init_from.txt").read_text()
    assert said.count("note: ") == bool(note)


CLEAN = {"_target_": "flow.prediction.Clean", "t_least": 0.05}
VELOCITY = {"_target_": "flow.prediction.Velocity"}


@pytest.mark.parametrize(
    ("before", "now", "note"),
    [
        (VELOCITY, CLEAN, "objective.prediction=Velocity(), now Clean(t_least=0.05)"),
        (None, CLEAN, "objective.prediction=Velocity(), now Clean(t_least=0.05)"),
        (CLEAN, VELOCITY, "objective.prediction=Clean(t_least=0.05), now Velocity()"),
        (CLEAN, CLEAN | {"t_least": 0.1}, "objective.prediction=Clean(t_least=0.05), now Clean(t_least=0.1)"),
        (None, VELOCITY, ""),  # before there was a choice
        (CLEAN, CLEAN, ""),
    ],
)
def test_an_output_that_stood_for_something_else_is_said(tmp_path, capsys, before, now, note):
    source = saved(tmp_path / "a", networks(1), config() | ({"prediction": before} if before else {}))
    assert start(tmp_path / "b", source, networks(2), config() | {"prediction": now})["fresh"] == []
    said = capsys.readouterr().err
    assert note in said
    assert note in (tmp_path / "b/init_from.txt").read_text()
    assert said.count("note: ") == bool(note)


@pytest.mark.parametrize(("before", "now"), [((1, 1, 1), (1, 2, 2)), ((1, 2, 2), (1, 4, 4)), ((1, 2, 2), (1, 3, 4))])
def test_a_larger_patch_reads_and_writes_an_enlarged_patch_as_the_source_its_own(before, now):
    old, mine = networks(1, patch=before), networks(2, patch=now)
    source = Source("a", 0, "", network_state(old), config(patch=list(before)))
    report = load(source, mine, config(patch=list(now)))
    assert list(report.resized) == ["dit.video_in.weight", "dit.head.weight", "dit.head.bias"]
    assert report.fresh == {}
    latents = torch.randn(1, 4, 1, 1 * before[1], 1 * before[2])
    enlarged = torch.nn.functional.interpolate(latents[:, :, 0], size=now[1:], mode="bilinear", antialias=True)[:, :, None]
    read, again = old["dit"].video_in(patchify(latents, before)), mine["dit"].video_in(patchify(enlarged, now))
    assert torch.allclose(read, again, atol=1e-5)
    tokens = torch.randn(1, 32)
    small = unpatchify(old["dit"].head(tokens), before, before)[:, :, 0]
    large = unpatchify(mine["dit"].head(tokens), now, now)[:, :, 0]
    assert torch.allclose(torch.nn.functional.interpolate(small, size=now[1:], mode="bilinear", antialias=True), large, atol=1e-5)


def test_a_smaller_patch_is_read_as_if_it_were_enlarged_and_flat_patches_stay_flat():
    old, mine = networks(1, patch=(1, 4, 4)), networks(2)
    with torch.no_grad():
        for p in (old["dit"].head.weight, old["dit"].head.bias):
            p.unflatten(0, (4, 16)).copy_(p.unflatten(0, (4, 16))[:, :1].clone())
    load(Source("a", 0, "", network_state(old), config(patch=[1, 4, 4])), mine, config())
    latents = torch.randn(1, 4, 1, 2, 2)
    enlarged = torch.nn.functional.interpolate(latents[:, :, 0], size=(4, 4), mode="bilinear")[:, :, None]
    read, again = old["dit"].video_in(patchify(enlarged, (1, 4, 4))), mine["dit"].video_in(patchify(latents, (1, 2, 2)))
    assert torch.allclose(read, again, atol=1e-5)
    tokens = torch.randn(1, 32)
    large, small = unpatchify(old["dit"].head(tokens), (1, 4, 4), (1, 4, 4)), unpatchify(mine["dit"].head(tokens), (1, 2, 2), (1, 2, 2))
    assert torch.allclose(large[..., :2, :2], small, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 6])
def test_other_latent_channels_copy_what_both_have_and_leave_the_rest_as_it_was_drawn(channels):
    old, mine, drawn = networks(1), networks(2, moved=False, latent_channels=channels), networks(2, moved=False, latent_channels=channels)
    report = load(Source("a", 0, "", network_state(old), config()), mine, config(latent_channels=channels))
    assert list(report.resized) == ["dit.video_in.weight", "dit.head.weight", "dit.head.bias"]
    both = min(channels, 4) * 4
    assert torch.allclose(mine["dit"].video_in.weight[:, :both], old["dit"].video_in.weight[:, :both], atol=1e-6)
    assert torch.equal(mine["dit"].video_in.weight[:, both:], drawn["dit"].video_in.weight[:, both:])
    assert torch.allclose(mine["dit"].head.weight[:both], old["dit"].head.weight[:both], atol=1e-6)
    assert torch.equal(mine["dit"].head.bias[both:], drawn["dit"].head.bias[both:])


def test_another_text_encoder_leaves_what_read_the_old_one_as_it_was_drawn(tmp_path):
    mine, drawn = (networks(2, tokenizer=ByteTokenizer()) for _ in range(2))
    objective = config(text={"tokenizer": {"_target_": "models.text.ByteTokenizer"}})
    source = networks(1)
    facts = start(tmp_path / "b", saved(tmp_path / "a", source, config()), mine, objective)
    ours, theirs, fresh = (network_state(made) for made in (mine, source, drawn))
    reads = {name for name in ours if name.startswith(READS_TEXT)}
    assert set(facts["fresh"]) == reads
    assert {"dit.text_in.weight", "dit.pooled_in.weight"} < reads  # the same shapes here, another meaning
    assert all(torch.equal(ours[name], fresh[name] if name in reads else theirs[name]) for name in ours)
    assert "another text encoder, objective.text.tokenizer" in (tmp_path / "b/init_from.txt").read_text()


def test_longer_captions_keep_the_places_that_were_learnt():
    old, mine = networks(1), networks(2, max_tokens=5)
    report = load(Source("a", 0, "", network_state(old), config()), mine, config(text={"max_tokens": 5}))
    assert list(report.resized) == ["text.position.weight"]
    assert torch.equal(mine["text"].position.weight[:3], old["text"].position.weight)


@pytest.mark.parametrize("mixing", [Joint, Prefix, Cross, Double])
@pytest.mark.parametrize("modulation", [PerBlock(), Shared(), LowRank(4)])
def test_a_deeper_network_computes_what_the_source_did_and_every_new_block_can_learn(mixing, modulation):
    sizes = {"mixing": mixing(), "modulation": modulation}
    old, mine = networks(1, **sizes), networks(2, moved=False, depth=4, **sizes)
    report = load(Source("a", 0, "", network_state(old), config()), mine, config(depth=4))
    assert all(re.match(r"dit\.trunk\.blocks\.([23]\.|1\.text)", name) for name in report.fresh)  # the last double block has less of a text
    noisy = torch.randn(1, 4, 2, 4, 4)
    assert torch.allclose(velocity(mine["dit"], noisy), velocity(old["dit"], noisy), atol=1e-6)
    velocity(mine["dit"], noisy).square().sum().backward()
    assert all(any(p.grad is not None and bool(p.grad.any()) for p in unit.parameters()) for unit in mine["dit"].shard_units())


@pytest.mark.parametrize("mixing", [Joint, Prefix, Cross, Double])
@pytest.mark.parametrize("modulation", [PerBlock(), Shared(), LowRank(4)])
def test_a_deepened_network_that_is_cut_again_is_what_it_was(mixing, modulation):
    sizes = {"mixing": mixing(), "modulation": modulation}
    old, deep, cut = networks(1, **sizes), networks(2, depth=4, **sizes), networks(3, **sizes)
    load(Source("a", 0, "", network_state(old), config()), deep, config(depth=4))
    report = load(Source("b", 0, "", network_state(deep), config(depth=4)), cut, config())
    assert report.fresh == {}
    assert same(network_state(cut), network_state(old))


@pytest.mark.parametrize("modulation", [PerBlock(), Shared(), LowRank(4)])
@pytest.mark.parametrize(("width", "depth"), [(48, 2), (48, 3), (96, 2)])
def test_no_shift_becomes_a_gate_in_a_wider_double_network(width, depth, modulation):
    """Where the parts of a modulation stand follows from the width; at three times the width a bias of six parts looks like one of two."""
    sizes = {"mixing": Double(), "modulation": modulation}
    old, mine, drawn = networks(1, **sizes), *(networks(2, width=width, heads=width // 16, depth=depth, **sizes) for _ in range(2))
    report = load(Source("a", 0, "", network_state(old), config()), mine, config(width=width, depth=depth))
    assert report.resized == {}
    parts = [name for name in network_state(mine) if ".text.modulation." in name]
    assert parts
    assert set(parts) <= set(report.fresh)
    assert all(torch.equal(network_state(mine)[name], network_state(drawn)[name]) for name in parts)


@pytest.mark.parametrize(("mixing", "depth", "changed"), [(Hybrid(), 6, "1"), (Double(1), 6, ""), (Hybrid(), 4, ""), (Joint(), 3, "0")])
def test_blocks_that_change_kind_are_said_and_without_them_a_deeper_hybrid_computes_what_its_source_did(mixing, depth, changed):
    old, mine = networks(1, mixing=Hybrid(), depth=3), networks(2, moved=False, mixing=mixing, depth=depth)
    notes = load(Source("a", 0, "", network_state(old), config(depth=3)), mine, config(depth=depth)).notes
    noisy = torch.randn(1, 4, 2, 4, 4)
    assert torch.allclose(velocity(mine["dit"], noisy), velocity(old["dit"], noisy), atol=1e-6) == (not changed)
    double = {6: 2, 3: 0}.get(depth)
    keep = "To keep them: objective/dit/mixing=double objective.dit.mixing.double_blocks=1"
    wanted = f"1 double blocks there, {double} here: 1 blocks are of another kind and start fresh ({changed}). {keep}"
    assert notes == ([wanted] if changed else [])


@pytest.mark.parametrize(
    ("mixing", "keep"), [(Cross, "cross"), (Prefix, "prefix"), (Pooled, "pooled"), (Joint, "double objective.dit.mixing.double_blocks=0")]
)
def test_where_blocks_become_double_the_start_names_the_mixing_that_keeps_them(mixing, keep):
    before = config(mixing={"_target_": f"models.mixing.{mixing.__name__}"})
    notes = load(Source("a", 0, "", network_state(networks(1, mixing=mixing())), before), networks(2, mixing=Hybrid(0.5)), config()).notes
    wanted = "0 double blocks there, 1 here: 1 blocks are of another kind and start fresh (0). To keep them: objective/dit/mixing="
    assert notes == [wanted + keep]
    assert (CONFIGS / f"objective/dit/mixing/{keep.partition(' ')[0]}.yaml").is_file()


def test_a_checkpoint_without_its_runs_config_fits_as_it_is_with_a_note_or_is_refused(tmp_path, capsys):
    source = saved(tmp_path / "a", networks(1), config())
    moved = tmp_path / "moved/far/step-00000007"
    shutil.copytree(source / "checkpoints/step-00000007", moved)
    mine = networks(2)
    start(tmp_path / "b", moved, mine)
    assert same(network_state(mine), network_state(networks(1)))
    said = capsys.readouterr().err
    assert "has no config.yaml two folders up" in said
    assert "text encoder, patch, latent channels, heads, positions and prediction are taken to be this run's" in said
    assert said.count("note: ") == 1
    objective = config(text={"tokenizer": {"_target_": "models.text.ByteTokenizer"}})
    for name, other, why in (
        ("c", networks(2, tokenizer=ByteTokenizer()), r"1 tensors do not \(text\.embedding\.weight: mismatch"),
        ("d", networks(2, depth=3), r"10 tensors do not .* is not in the source"),
        ("e", networks(2, depth=1), r"10 tensors do not .* is not here"),
    ):
        before = {key: tensor.clone() for key, tensor in network_state(other).items()}
        with pytest.raises(ConfigError, match=why) as refused:
            start(tmp_path / name, moved, other, objective)
        assert "\n" not in str(refused.value)
        assert same(network_state(other), before)


def test_a_wider_network_names_each_mismatch_with_both_shapes(tmp_path):
    facts = start(tmp_path / "b", saved(tmp_path / "a", networks(1), config()), networks(2, width=48, heads=3), config(width=48, heads=3))
    assert "dit.video_in.weight" in facts["fresh"]
    assert "fresh    dit.video_in.weight: mismatch, (32, 16) there, (48, 16) here" in (tmp_path / "b/init_from.txt").read_text()


def test_fresh_parts_are_drawn_as_without_a_start(tmp_path):
    mine, drawn = networks(2, depth=3), networks(2, depth=3)
    facts = start(tmp_path / "b", saved(tmp_path / "a", networks(1), config()), mine, config(depth=3))
    assert facts["fresh"]
    assert all(torch.equal(network_state(mine)[name], network_state(drawn)[name]) for name in facts["fresh"])


def test_a_run_with_a_checkpoint_never_loads_again(tmp_path):
    source = saved(tmp_path / "a", networks(1), config())
    start(tmp_path / "b", source, networks(2))
    Checkpoints(tmp_path / "b/checkpoints").save(3, {"weights": {"x": torch.ones(1)}}, {})
    for file in source.rglob("*.safetensors"):
        file.unlink()  # and needs its source no more
    mine, before = networks(3), networks(3)
    facts = start(tmp_path / "b", source, mine)
    assert same(network_state(mine), network_state(before))
    assert facts["step"] == 7
    with pytest.raises(ConfigError, match=r"init_from=.*a', now .*elsewhere") as refused:
        start(tmp_path / "b", tmp_path / "elsewhere", mine)
    assert "allow_drift=[init_from]" in str(refused.value)


def test_a_checkpoint_and_a_bundle_are_sources_too(tmp_path):
    source = saved(tmp_path / "a", networks(1), config(), step=7)
    saved(source, networks(4), config(), step=9)
    mine = networks(2)
    assert start(tmp_path / "b", source / "checkpoints/step-00000007", mine)["step"] == 7
    assert same(network_state(mine), network_state(networks(1)))

    bundle, vae = tmp_path / "vae", torch.nn.Linear(2, 3)
    bundle.mkdir()
    (bundle / "config.yaml").write_text(dump({"_target_": "models.vae.VideoVAE", "widths": [8]}))
    write(bundle, {"weights": vae.state_dict()}, {"source": "v", "source_step": 5, "source_sha256": "0"})
    ours = {"vae": torch.nn.Linear(2, 3), "discriminator": torch.nn.Linear(1, 1)}
    facts = start(tmp_path / "c", bundle, ours, {"vae": {"widths": [8]}})
    assert (facts["step"], facts["loaded"], facts["fresh"]) == (5, 2, ["discriminator.weight", "discriminator.bias"])
    assert torch.equal(ours["vae"].weight, vae.weight)


def test_a_source_of_another_kind_is_refused_in_one_line(tmp_path):
    source = saved(tmp_path / "v", {"vae": torch.nn.Linear(2, 3)}, {"vae": {}})
    with pytest.raises(ConfigError, match="holds weights of vae, and this run trains dit, text") as refused:
        start(tmp_path / "b", source, networks(2))
    assert "\n" not in str(refused.value)
    alien = saved(tmp_path / "w", {"dit": torch.nn.Linear(2, 3)}, {})
    with pytest.raises(ConfigError, match="none of its 2 tensors fits"):
        start(tmp_path / "c", alien, networks(2))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("objective: {}")
    with pytest.raises(ConfigError, match=r"init_from: .*begun cannot be used: it has no complete checkpoint yet"):
        start(tmp_path / "d", tmp_path / "begun", networks(2))
    for nothing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="is no run folder, no checkpoint and no bundle"):
            start(tmp_path / "d", nothing, networks(2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name_and_nothing_is_copied(tmp_path, value):
    bad, mine, before = networks(1), networks(2), networks(2)
    with torch.no_grad():
        bad["dit"].head.weight[0, :3] = value
    with pytest.raises(ConfigError, match=r"3 of the 512 values of dit\.head\.weight are not finite"):
        start(tmp_path / "b", saved(tmp_path / "a", bad, config()), mine)
    assert same(network_state(mine), network_state(before))


def test_a_damaged_source_is_refused_by_file(tmp_path):
    source = saved(tmp_path / "a", networks(1), config())
    with open(source / "checkpoints/step-00000007/ema.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(ConfigError, match=r"init_from: .*sha256.*Set init_from"):
        start(tmp_path / "b", source / "checkpoints/step-00000007", networks(2))
