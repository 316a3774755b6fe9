import contextlib

import pytest
import torch
from torch import nn

from training.ema import EMA, network_state


def constant(value: float, dtype=torch.float32) -> dict[str, nn.Module]:
    layer = nn.Linear(3, 2).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(value)
    return {"net": layer}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_average_of_a_jump_is_one_minus_decay_to_the_n(dtype, tolerance):
    networks = constant(0.0, dtype)
    ema = EMA(networks, 0.99, ramp=False)
    with torch.no_grad():
        for parameter in networks["net"].parameters():
            parameter.fill_(1.0)
    for step in range(200):
        ema.update(step)
    assert ema.averages["net.weight"].dtype == dtype
    assert torch.allclose(ema.averages["net.weight"], torch.tensor(1 - 0.99**200, dtype=dtype), rtol=0, atol=tolerance)


def test_early_steps_forget_faster():
    ema = EMA(constant(0.0), 0.995)
    assert [ema.at(0), ema.at(8), ema.at(10_000)] == [1 / 10, 9 / 18, 0.995]


def test_bfloat16_weights_are_averaged_in_float32():
    networks = constant(1.0, torch.bfloat16)
    ema = EMA(networks, 0.999, ramp=False)
    narrow = torch.ones(())  # the control: what the average would be, kept in bfloat16
    narrow = narrow.bfloat16()
    with torch.no_grad():
        for parameter in networks["net"].parameters():
            parameter.fill_(2.0)
    for step in range(1000):
        ema.update(step)
        narrow.lerp_(torch.tensor(2.0).bfloat16(), 1 - 0.999)
    assert ema.averages["net.weight"].dtype == torch.float32
    assert torch.allclose(ema.averages["net.weight"], torch.tensor(2 - 0.999**1000), atol=1e-4)
    assert float(narrow) == 1.0  # steps of 0.001 round away: bfloat16 stands still


def test_applied_swaps_in_the_averages_and_brings_every_bit_back():
    torch.manual_seed(0)
    networks = {"net": nn.BatchNorm1d(3)}
    ema = EMA(networks, 0.5)
    with torch.no_grad():
        networks["net"].weight.copy_(torch.randn(3))
    ema.update(5)
    weights = networks["net"].weight.clone()
    with contextlib.suppress(RuntimeError), ema.applied():
        assert torch.equal(networks["net"].weight, ema.averages["net.weight"])
        assert not torch.equal(networks["net"].weight, weights)
        networks["net"].running_mean.fill_(7.0)
        raise RuntimeError
    assert torch.equal(networks["net"].weight, weights)
    assert (networks["net"].running_mean == 7.0).all()  # a buffer set inside stays


def test_state_has_averaged_parameters_and_present_buffers_under_the_networks_names():
    networks = {"net": nn.BatchNorm1d(3)}
    ema = EMA(networks, 0.5)
    with torch.no_grad():
        networks["net"].weight.fill_(3.0)
        networks["net"].running_mean.fill_(5.0)
    state = ema.state()
    assert list(state) == list(network_state(networks))
    assert (state["net.weight"] == 1.0).all()
    assert (state["net.running_mean"] == 5.0).all()


def test_tied_weights_are_averaged_under_both_names():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    ema = EMA({"net": net}, 0.5, ramp=False)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    ema.update(0)
    state = ema.state()
    assert torch.equal(state["net.0.weight"], state["net.1.weight"])
    with ema.applied():
        assert torch.equal(net[0].weight, state["net.0.weight"])


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"trainer\.ema_decay"):
        EMA(constant(0.0), 1.0)
