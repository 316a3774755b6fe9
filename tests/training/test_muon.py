"""StackedMuon is torch's Muon, apart from rounding."""

import copy

import pytest
import torch
from torch import nn

from training.muon import StackedMuon

SHAPES = [(16, 16), (16, 48), (48, 16), (16, 48), (24, 16)]


def _matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_stacked_steps_are_torchs_steps(adjust: str) -> None:
    ours, theirs = _matrices(), _matrices()
    start = copy.deepcopy(ours)
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "adjust_lr_fn": adjust}
    pair = StackedMuon(ours, **options), torch.optim.Muon(theirs, **options)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for optimizer in pair:
            optimizer.step()
    for p, q, before in zip(ours, theirs, start, strict=True):
        moved = (q - before).norm()
        # five bfloat16 iterations, 2^-8 each, that amplify one another's rounding
        assert (p - q).norm() <= 0.03 * moved
        assert torch.equal(pair[0].state[p]["momentum_buffer"], pair[1].state[q]["momentum_buffer"])


def test_a_matrix_without_a_gradient_stays() -> None:
    matrices = _matrices()
    before = matrices[0].detach().clone()
    for p in matrices[1:]:
        p.grad = torch.ones_like(p)
    StackedMuon(matrices, lr=0.1).step()
    assert torch.equal(matrices[0], before)


def test_updates_are_nearly_orthogonal() -> None:
    matrices = [nn.Parameter(torch.zeros(16, 48)) for _ in range(3)]
    generator = torch.Generator().manual_seed(1)
    for p in matrices:
        p.grad = torch.randn(p.shape, generator=generator)
    StackedMuon(matrices, lr=1.0, weight_decay=0.0).step()
    for p in matrices:
        singular = torch.linalg.svdvals(p.detach())
        # the iteration ends between 0.5 and 1.5, not at 1 (Jordan et al. 2024)
        assert float(singular.min()) > 0.3
        assert float(singular.max()) < 1.6
