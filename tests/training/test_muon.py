"""StackedMuon is torch's Muon, apart from rounding."""

import copy
import weakref

import pytest
import torch
from torch import nn

import training.muon
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


def _at_once(matrices: list[nn.Parameter], buffers: list[torch.Tensor], group: dict) -> None:
    """The step as its definition has it: every direction first, then one stack for each shape."""
    stacks: dict[tuple[int, ...], list[tuple[nn.Parameter, torch.Tensor]]] = {}
    with torch.no_grad():
        for p, buffer in zip(matrices, buffers, strict=True):
            assert p.grad is not None
            buffer.lerp_(p.grad, 1 - group["momentum"])
            stacks.setdefault(tuple(sorted(p.shape)), []).append((p, p.grad.lerp(buffer, group["momentum"])))
        for pairs in stacks.values():
            wide = torch.stack([d if d.shape[0] <= d.shape[1] else d.T for _, d in pairs])
            for (p, _), update in zip(pairs, StackedMuon._orthogonal(wide.bfloat16(), group), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                rate = training.muon.ratio(group["adjust_lr_fn"], *p.shape)
                p.add_(update if p.shape[0] <= p.shape[1] else update.T, alpha=-group["lr"] * rate)


def test_stack_after_stack_moves_every_bit_as_all_at_once() -> None:
    ours, theirs = _matrices(), _matrices()
    optimizer, buffers = StackedMuon(ours, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), [torch.zeros_like(p) for p in theirs]
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        optimizer.step()
        _at_once(theirs, buffers, optimizer.param_groups[0])
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
    assert all(torch.equal(optimizer.state[p]["momentum_buffer"], buffer) for p, buffer in zip(ours, buffers, strict=True))


def test_a_step_holds_the_direction_of_one_matrix_and_no_second_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = [nn.Parameter(torch.randn(16, 16)) for _ in range(7)]
    for p in matrices:
        p.grad = torch.randn(p.shape)
    optimizer = StackedMuon(matrices, lr=0.1)
    optimizer.step()  # makes the momentum, which stays
    made, stacks = [], []
    momentum, orthogonal = StackedMuon._momentum, StackedMuon._orthogonal

    def direction(self: StackedMuon, p: torch.Tensor, group: dict) -> torch.Tensor:
        assert sum(one() is not None for one in made) <= 1, "directions pile up"
        made.append(weakref.ref(found := momentum(self, p, group)))
        return found

    def watched(x: torch.Tensor, group: dict) -> torch.Tensor:
        stacks.append(len(x))
        return orthogonal(x, group)

    monkeypatch.setattr(training.muon, "STACK", 3 * 16 * 16 + 1)
    monkeypatch.setattr(StackedMuon, "_momentum", direction)
    monkeypatch.setattr(StackedMuon, "_orthogonal", staticmethod(watched))
    monkeypatch.setattr(torch, "zeros_like", lambda *_, **__: pytest.fail("a zero buffer beside the momentum"))
    optimizer.step()
    assert (stacks, len(made)) == ([3, 3, 1], 7)
