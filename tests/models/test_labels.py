"""A label is a name with vectors of its own; nothing but a name that was learnt is understood."""

import pytest
import torch
import yaml

from models.attention import Fused
from models.dit import DiT
from models.labels import ClassLabels
from models.mixing import Cross, Joint, Prefix
from models.modulation import PerBlock
from models.text import Text
from runtime.config import CONFIGS

NAMES = ["ApplyEyeMakeup", "ApplyLipstick", "Tai Chi"]


def encoder(labels=NAMES, tokens=2) -> ClassLabels:
    torch.manual_seed(0)
    return ClassLabels(labels, 16, tokens)


def same(a: Text, b: Text) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.pooled, b.pooled)


def test_a_prompt_is_a_name_in_any_case_and_names_differ():
    text = encoder()
    out = text([*NAMES, ""])
    assert out.tokens.shape == (4, 2, 16)
    assert out.pooled.shape == (4, 16)
    assert len({tuple(row.tolist()) for row in out.pooled}) == 4, "each class, and no class, is a vector of its own"
    for name in NAMES:
        assert same(text([name]), text([f" {name.upper()}\n"]))
        assert not same(text([name]), text([""]))
    assert same(text([""]), text([" \t\n"]))


def test_a_label_does_not_depend_on_its_neighbours_and_only_its_own_vectors_learn():
    text = encoder()
    assert torch.equal(text(["Tai Chi", "", "ApplyLipstick"]).tokens[1:], text(["", "ApplyLipstick"]).tokens)
    text(["ApplyLipstick", ""]).pooled.sum().backward()
    assert text.embedding.weight.grad is not None
    moved = text.embedding.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [True, False, True, False]


def test_an_unknown_label_is_refused_with_the_nearest_names():
    text = encoder()
    with pytest.raises(ValueError, match=r"'applyeyemakup' is none of the 3 labels .*ApplyEyeMakeup.*objective.text.labels"):
        text(["Tai Chi", "applyeyemakup"])
    with pytest.raises(ValueError, match="none of the 3 labels"):
        text(["\ud800" + "x" * 100_000])
    with pytest.raises(ValueError, match="none of the 0 labels"):
        encoder([])(["TaiChi"])


def test_without_labels_there_is_the_empty_prompt_alone():
    assert encoder([], tokens=1)(["", ""]).tokens.shape == (2, 1, 16)


def test_names_that_cannot_be_told_apart_are_refused():
    for labels in (["Punch", "punch "], ["Punch", ""]):
        with pytest.raises(ValueError, match=r"differ in more than case.*objective.text.labels"):
            encoder(labels)
    with pytest.raises(ValueError, match="tokens=0"):
        encoder(tokens=0)
    with pytest.raises(ValueError, match="list of at least one string"):
        encoder()("Tai Chi")


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("mixing", [Joint, Cross, Prefix])
def test_every_mixing_hears_the_label(mixing, tokens):
    text = encoder(tokens=tokens)
    dit = DiT(4, 32, 2, 2, text.width, mixing=mixing(), modulation=PerBlock(), kernel=Fused())
    for part in dit.parameters():
        if part.abs().max() == 0:
            torch.nn.init.normal_(part, std=0.1)
    noisy, t = torch.randn(1, 4, 2, 4, 4).expand(3, -1, -1, -1, -1), torch.full((3, 2), 0.5)
    out = dit(noisy, t, text(["Tai Chi", "ApplyLipstick", ""]), torch.tensor([0, 0.5]).expand(3, -1))
    assert all((out[a] - out[b]).abs().max() > 1e-3 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_shipped_labels_are_the_101_classes():
    labels = yaml.safe_load((CONFIGS / "objective/text/ucf101.yaml").read_text(encoding="utf-8"))["labels"]
    assert len(encoder(labels).labels) == 101
    assert labels == sorted(labels, key=str.casefold), "classInd.txt's order"
