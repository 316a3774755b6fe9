"""With rates scaled by width a step changes every layer's output alike at all widths; without, it changes wide networks more."""

from math import log

import pytest
import torch
from torch import nn

from models.dit import DiT
from models.text import Text, TextTransformer, WordTokenizer
from runtime.config import ConfigError
from training.optim import AdamW, Muon
from training.width import Scaled, Unscaled

WIDTHS = (64, 192)
LAYERS = ("video_in", "trunk.blocks.0", "trunk.blocks.1.attention", "trunk.blocks.1.mlp", "head")


def config(width, **ends):
    sizes = {"latent_channels": 4, "width": width, "depth": 2, "heads": width // 16, "text_width": 8}
    return {"_target_": "models.dit.DiT"} | sizes | ends


def built(width, **ends):
    torch.manual_seed(0)
    return DiT(**{key: value for key, value in config(width, **ends).items() if key != "_target_"})


def adamw(scaling=None, lr=3e-3, weight_decay=0.0):
    return AdamW(lr, (0.9, 0.99), weight_decay, 1e-8, scaling)


def muon(adjust):
    """By AdamW: the head, which `test_rates` has under Muon, and gains of heads, which are no matrix."""
    return lambda scaling, lr=3e-3: Muon(lr, 0.95, 0.0, adjust, adamw(lr=lr), ["dit.head.*", "*log_gain"], scaling)


RECIPES = {"adamw": adamw, "match_rms_adamw": muon("match_rms_adamw"), "original": muon("original")}


def outputs(dit):
    """What each of LAYERS puts out for some noise, and the loss."""
    found, generator = {}, torch.Generator().manual_seed(1)
    hooks = [dit.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: found.update({name: out.detach()})) for name in LAYERS]
    noisy, words, pooled, wanted = (torch.randn(size, generator=generator) for size in ((2, 4, 2, 4, 4), (2, 3, 8), (2, 8), (2, 4, 2, 4, 4)))
    velocity = dit(noisy, torch.tensor([[0.2, 0.4], [0.6, 0.8]]), Text(words, pooled), torch.tensor([[0.0, 0.5]]).expand(2, -1))
    for hook in hooks:
        hook.remove()
    return found, (velocity - wanted).square().mean()


def changes(width, recipe, steps=4):
    """Root mean square of how much a few steps change the output of each of LAYERS."""
    dit = built(width)
    recipe.width_scaling.prepare({"dit": dit}, {"dit": config(width)})
    optimizers = recipe.optimizers({"dit": dit})
    before, loss = outputs(dit)
    for _ in range(steps):
        optimizers.zero_grad()
        loss.backward()
        optimizers.step(1.0)
        after, loss = outputs(dit)
    return [float((after[name] - before[name]).square().mean().sqrt()) for name in LAYERS]


def slopes(make):
    """Exponents of those changes as powers of the width."""
    narrow, wide = changes(WIDTHS[0], make()), changes(WIDTHS[-1], make())
    return {name: log(b / a) / log(WIDTHS[-1] / WIDTHS[0]) for name, a, b in zip(LAYERS, narrow, wide, strict=True)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_few_steps_change_every_layers_output_alike_at_all_widths(recipe):
    found = slopes(lambda: RECIPES[recipe](Scaled(WIDTHS[0])))
    assert all(abs(slope) < 0.25 for slope in found.values()), found  # measured: at most 0.18; from 64 to 512 at most 0.09


@pytest.mark.parametrize(("recipe", "least"), [("adamw", 0.4), ("match_rms_adamw", 0.4)])
def test_without_scaling_they_change_wide_networks_more(recipe, least):
    found = slopes(lambda: RECIPES[recipe](Unscaled()))
    assert min(found[name] for name in ("trunk.blocks.1.attention", "trunk.blocks.1.mlp", "head")) > least, found


def rates(recipe, width=256, **ends):
    dit = built(width, **ends)
    recipe.width_scaling.prepare({"dit": dit}, {"dit": config(width, **ends)})
    names = {p: name for name, p in dit.named_parameters()}
    made = recipe.optimizers({"dit": dit}).optimizers
    return {names[p]: group["lr"] for optimizer in made.values() for group in optimizer.param_groups for p in group["params"]}


def test_rates_at_four_times_the_base_width_are_those_of_the_tables():
    hidden, reads, writes, vector = "trunk.blocks.0.mlp.up.weight", "video_in.weight", "head.weight", "video_in.bias"
    found = rates(adamw(Scaled(64), lr=1.0))
    assert [found[name] for name in (hidden, reads, writes, vector)] == pytest.approx([1 / 4, 1, 1 / 4, 1])
    for adjust, wanted in {"match_rms_adamw": [1 / 2, 1, 1 / 4, 1], "original": [1, 1, 1 / 2, 1]}.items():
        found = rates(Muon(1.0, 0.95, 0.0, adjust, adamw(lr=1.0), [], Scaled(64)))
        assert [found[name] for name in (hidden, reads, writes, vector)] == pytest.approx(wanted)


@pytest.mark.parametrize(("channels", "more"), [(64, 1), (144, 1.5), (256, 2), (1024, 2)])
def test_ends_of_more_channels_than_the_base_width_get_more_of_muon_as_the_table_says(channels, more):
    reads, writes = "text_in.weight", "head.weight"
    ends = {"text_width": channels, "latent_channels": channels // 4}  # of patches of 2 x 2
    assert [rates(adamw(Scaled(64), lr=1.0), **ends)[name] for name in (reads, writes)] == pytest.approx([1, 1 / 4])
    for adjust, head in {"match_rms_adamw": 1 / 4, "original": 1 / 2}.items():
        found = rates(Muon(1.0, 0.95, 0.0, adjust, adamw(lr=1.0), [], Scaled(64)), **ends)
        assert [found[name] for name in (reads, writes)] == pytest.approx([more, more * head])


def test_at_the_base_width_nothing_changes():
    scaled, plain = built(64), built(64)
    recipe = adamw(Scaled(64))
    recipe.width_scaling.prepare({"dit": scaled}, {"dit": config(64)})
    assert all(torch.equal(a, b) for a, b in zip(scaled.parameters(), plain.parameters(), strict=True))
    groups = [made.optimizers({"dit": scaled}).optimizers["adamw"].param_groups for made in (recipe, adamw())]
    assert [[(group["lr"], len(group["params"])) for group in found] for found in groups] == [
        [(3e-3, len(found["params"])) for found in groups[1]]
    ] * 2


def test_the_text_encoder_has_a_width_of_its_own():
    torch.manual_seed(0)
    networks = {"dit": built(128), "text": TextTransformer(WordTokenizer(4), 8, 1, 1, 3)}
    before = [p.detach().clone() for p in networks["text"].parameters()]
    recipe = adamw(Scaled(64))
    recipe.width_scaling.prepare(networks, {"dit": config(128)})
    groups = recipe.optimizers(networks).optimizers["adamw"].param_groups
    own = {p: group["lr"] for group in groups for p in group["params"]}
    assert {own[p] for p in networks["text"].parameters()} == {3e-3}
    assert all(torch.equal(a, b) for a, b in zip(before, networks["text"].parameters(), strict=True))


def test_decay_takes_the_same_share_of_the_weights_at_every_width():
    recipe = adamw(Scaled(64), weight_decay=0.1)
    recipe.width_scaling.prepare({"dit": (dit := built(256))}, {"dit": config(256)})
    groups = recipe.optimizers({"dit": dit}).optimizers["adamw"].param_groups
    assert {round(group["lr"] * group["weight_decay"], 9) for group in groups} == {3e-4, 0.0}
    assert groups[0]["lr"] == 3e-3  # what the log shows


def test_what_cannot_be_scaled_is_refused_with_the_key():
    with pytest.raises(ConfigError, match=r"this run trains vae\. Set optim/width_scaling=none"):
        Scaled(64).prepare({"vae": nn.Linear(1, 1)}, {})
    with pytest.raises(ConfigError, match="base_width=40 is no multiple of the 16 channels of a head"):
        Scaled(40).prepare({"dit": built(64)}, {"dit": config(64)})
    with pytest.raises(ValueError, match="base_width=0"):
        Scaled(0)
    with pytest.raises(ValueError, match="Set optim/width_scaling instead"):
        Muon(1.0, 0.95, 0.0, "original", adamw(Scaled(64)), [])
