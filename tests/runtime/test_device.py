import pytest
import torch

from runtime import device
from runtime.device import autocast, pick_device, pick_precision, seeded


def test_bfloat16_is_taken_only_where_it_is_clearly_faster(monkeypatch):
    for narrow_s, wanted in ((0.5, "bfloat16"), (0.9, "float32"), (5.0, "float32")):
        monkeypatch.setattr(device, "linear_s", lambda precision, where, narrow_s=narrow_s: narrow_s if precision == "bfloat16" else 1.0)
        assert pick_precision("auto", "cpu") == wanted
    assert pick_precision("float32", "cpu") == "float32"


def test_the_measurement_measures():
    assert 0 < device.linear_s("float32", "cpu", rows=64, width=64, repeats=1) < 5


def test_autocast_changes_matrix_products_and_nothing_else():
    x = torch.ones(2, 2)
    with autocast("bfloat16", "cpu"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast("float32", "cpu"):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize(("call", "key"), [(lambda: pick_device("cuda:7"), "device"), (lambda: pick_precision("float16", "cpu"), "precision")])
def test_what_is_not_there_is_refused_with_its_key(call, key):
    with pytest.raises(ValueError, match=f"Set trainer\\.{key}"):
        call()


def test_initial_weights_follow_from_the_seed_alone():
    def weights(seed):
        with seeded(seed):
            return torch.randn(3)

    torch.manual_seed(5)
    first = weights(1)
    expected = torch.randn(1)
    torch.manual_seed(5)
    assert torch.equal(first, weights(1))
    assert torch.equal(torch.randn(1), expected)  # the global generator goes on as if nothing had happened
    assert not torch.equal(first, weights(2))
    assert not torch.equal(first, weights(1 + 2**32))  # all 64 bits of the seed count
