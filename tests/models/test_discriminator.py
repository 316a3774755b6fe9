"""The patch discriminator: no logit hears of another sample or of what lies far away, and its FLOP are counted."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.discriminator import PatchDiscriminator

STRIDES = ((1, 2, 2), (2, 2, 2))


def network(widths=(8, 12), strides=STRIDES) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(widths, strides)


def clips(count: int, frames: int = 5, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.randn(count, 3, frames, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "logits"), [((5, 16, 24), (3, 4, 6)), ((1, 16, 16), (1, 4, 4)), ((17, 7, 9), (9, 2, 3))])
def test_clips_and_pictures_of_any_size_have_logits_in_every_place(size, logits):
    assert network()(clips(2, *size)).shape == (2, 1, *logits)


def test_a_logit_sees_its_own_sample_alone():
    video = clips(3).requires_grad_()
    network()(video)[1].sum().backward()
    assert video.grad[1].abs().sum() > 0
    assert video.grad[[0, 2]].abs().max() == 0


def test_a_logit_sees_a_bounded_part():
    video = clips(1, 33, 48, 48).requires_grad_()
    network()(video)[0, 0, 8, 6, 6].backward()
    seen = video.grad[0].abs().sum(dim=0).nonzero()
    spans = (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist()
    assert spans == [9, 15, 15]


def test_logits_start_small_and_alike_for_any_width():
    for widths in ((8, 12), (64, 96)):
        logits = network(widths)(clips(8, 9, 32, 32))
        assert 0.2 < float(logits.detach().std()) < 2


def test_an_update_changes_every_layer_by_the_same_share():
    stored = [layer.weight.std().item() for layer in network((64, 96)).shard_units()]
    assert stored == pytest.approx([0.1] * 3, rel=0.1)


@pytest.mark.parametrize("size", [(5, 16, 24), (1, 9, 7)])
def test_flops_agree_with_the_counter(size):
    model = network()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clips(1, *size))
    assert model.flops(*size) == counter.get_total_flops()


@pytest.mark.parametrize(("widths", "strides"), [((8,), STRIDES), ((), ()), ((0, 8), STRIDES), ((8, 8), ((1, 2, 2), (0, 2, 2)))])
def test_sizes_that_do_not_fit_are_refused(widths, strides):
    with pytest.raises(ValueError, match=r"Set objective\.adversary\.discriminator\.widths"):
        PatchDiscriminator(widths, strides)
