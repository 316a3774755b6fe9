"""The small parts against their definitions."""

import torch
import torch.nn.functional as F

from models.layers import MLP, TimeEmbedding, gated_sum, linear, modulated_norm
from models.packing import Groups


def test_modulation_follows_the_group_of_each_token():
    random = torch.Generator().manual_seed(0)
    x, update = (torch.randn(12, 8, generator=random) for _ in range(2))
    shift, scale, gate = (torch.randn(3, 1, 8, generator=random) for _ in range(3))
    groups = Groups(4, None)
    normed, summed = modulated_norm(x, shift, scale, groups), gated_sum(x, gate, update, groups)
    for token in range(12):
        row = token // 4
        truth = F.layer_norm(x[token], (8,), eps=1e-6) * (1 + scale[row, 0]) + shift[row, 0]
        assert torch.allclose(normed[token], truth, atol=1e-6)
        assert torch.allclose(summed[token], x[token] + gate[row, 0] * update[token], atol=1e-6)


def test_modulation_has_the_gradients_of_its_definition():
    random = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(12, 8, generator=random, dtype=torch.float64) for _ in range(2))
    shift, scale = (torch.randn(3, 1, 8, generator=random, dtype=torch.float64) for _ in range(2))
    parts, twins = ([part.clone().requires_grad_() for part in (x, shift, scale)] for _ in range(2))
    (modulated_norm(*parts, Groups(4, None)) * weights).sum().backward()
    normed = F.layer_norm(twins[0], (8,), eps=1e-6).unflatten(0, (3, 4))
    ((normed * (1 + twins[2]) + twins[1]).flatten(0, 1) * weights).sum().backward()
    for ours, truth in zip(parts, twins, strict=True):
        assert ours.grad is not None
        assert truth.grad is not None
        assert torch.allclose(ours.grad, truth.grad, rtol=1e-10, atol=1e-12)


def test_gated_sum_keeps_the_precision_of_the_stream():
    x = torch.full((4, 8), 1 + 2**-12)
    out = gated_sum(x, torch.zeros(1, 1, 8), torch.ones(4, 8, dtype=torch.bfloat16), Groups(4, None))
    assert torch.equal(out, x), "a residual stream in bf16 would lose the 2**-12"


def test_gain_zero_starts_silent_but_learns():
    mlp = MLP(8, 16, gain=0)
    x = torch.randn(4, 8)
    out = mlp(x)
    assert out.abs().max() == 0
    (out - 1).square().sum().backward()
    assert mlp.down.weight.grad is not None
    assert mlp.down.weight.grad.abs().max() > 0


def test_linear_keeps_the_size_of_its_input():
    torch.manual_seed(0)
    out = linear(512, 512)(torch.randn(1000, 512))
    assert 0.9 < out.std().item() < 1.1


def test_flow_times_are_told_apart_also_under_autocast():
    torch.manual_seed(0)
    embed = TimeEmbedding(32)
    t = torch.tensor([0.0, 1e-3, 0.5, 0.501, 0.999, 1.0])
    seen: list[torch.Tensor] = []
    embed.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        embed(t)
    distances = torch.cdist(seen[0].double(), seen[0].double()) + torch.eye(6) * 10
    assert seen[0].dtype == torch.float32
    assert distances.min() > 0.1
    assert embed(t).shape == (6, 32)
