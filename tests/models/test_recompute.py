"""Recomputing changes memory and time, and not one bit of loss or gradient."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.dit import DiT
from models.recompute import Everything, Keep, Selective
from models.text import Text

WAYS = [Keep, Everything, Selective]


class Noisy(nn.Module):
    """A block with dropout before, between and after its linear layers, and attention by torch's fused kernel."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.qkv, self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.drop, self.runs = nn.Dropout(0.3), 0

    def forward(self, x, setting):
        self.runs += 1
        q, k, v = self.qkv(self.drop(F.layer_norm(x, x.shape[-1:])) * setting.scale).unflatten(1, (3, 1, 2, -1)).unbind(1)  # n 1 h d
        x = x + F.scaled_dot_product_attention(*(part.permute(1, 2, 0, 3) for part in (q, k, v)))[0].transpose(0, 1).flatten(1)
        return x + self.drop(self.down(self.drop(F.gelu(self.up(x)))))


def learnt(run, blocks, bfloat16):
    """Loss, and all gradients, of two micro-batches of one step."""
    torch.manual_seed(1)
    scale = torch.ones(16, requires_grad=True)
    setting = SimpleNamespace(scale=scale)
    total = torch.zeros(())
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            x = start = torch.randn(12, 16, requires_grad=True)
            for block in blocks:
                x = run(block, x, setting)
            loss = x.float().square().sum()
        loss.backward()
        total += loss.detach()
    assert start.grad is not None
    return [total, start.grad, scale.grad, *(p.grad for block in blocks for p in block.parameters())]


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("way", [Everything, Selective])
def test_loss_and_gradients_are_the_same_bits_with_dropout(way, bfloat16):
    found = {}
    for name in (Keep, way):
        torch.manual_seed(0)
        found[name] = learnt(name(), [Noisy(), Noisy()], bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(found[Keep], found[way], strict=True))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_dit_learns_the_same_bits_however_it_recomputes(bfloat16):
    found = []
    for way in WAYS:
        torch.manual_seed(0)
        dit = DiT(4, 32, 2, 2, 8, recompute=way())
        with torch.no_grad():
            for p in dit.parameters():  # gates are zero at the start
                p.add_(0.05 * torch.randn_like(p))
        noisy, t, text = torch.randn(2, 4, 2, 4, 4), torch.rand(2, 2), Text(torch.randn(2, 3, 8), torch.randn(2, 8))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = dit(noisy, t, text, torch.tensor([[0, 0.5], [0, 0.25]])).square().sum()
        loss.backward()
        found.append([loss, *(p.grad for p in dit.parameters())])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_weights_used_twice_under_one_autocast_get_the_same_gradients_but_for_rounding():
    """Autocast has their casts at hand the second time, and not when the block runs again."""
    found = {}
    for name in (Keep, Selective):
        torch.manual_seed(0)
        block = Noisy()
        found[name] = torch.stack([gradient.norm() for gradient in learnt(name(), [block, block], bfloat16=True)])
    assert torch.allclose(found[Keep], found[Selective], rtol=0.02)


def test_a_block_runs_again_only_where_it_is_asked_to_and_never_without_gradients():
    def runs(way):
        block = Noisy()
        way()(block, torch.randn(4, 16, requires_grad=True), SimpleNamespace(scale=1.0)).sum().backward()
        with torch.no_grad():
            way()(block, torch.randn(4, 16), SimpleNamespace(scale=1.0))
        return block.runs

    assert [runs(way) for way in WAYS] == [2, 3, 3]


def test_selective_runs_no_linear_layer_and_no_attention_a_second_time():
    from torch.utils.flop_counter import FlopCounterMode

    def flop(way):
        torch.manual_seed(0)
        block = Noisy(64)
        with FlopCounterMode(display=False) as counter:
            way()(block, torch.randn(32, 64, requires_grad=True), SimpleNamespace(scale=1.0)).sum().backward()
        return counter.get_total_flops()

    keep, everything, selective = (flop(way) for way in WAYS)
    assert selective == keep
    assert 1.25 * keep < everything < 1.4 * keep


def test_recomputing_holds_less_for_the_backward_pass():
    def held(way):
        sizes, seen = 0, set()

        def pack(tensor):
            nonlocal sizes
            if tensor.untyped_storage().data_ptr() not in seen:
                seen.add(tensor.untyped_storage().data_ptr())
                sizes += tensor.untyped_storage().nbytes()
            return tensor

        block, x = Noisy(64), torch.randn(32, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = way()(block, x, SimpleNamespace(scale=1.0))
        del kept
        return sizes

    assert held(Everything) < 0.3 * held(Keep)
