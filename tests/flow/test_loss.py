"""The velocity loss is a sum over unknown values with its count, and nothing leaks out of known frames."""

import pytest
import torch

from flow.loss import frame_errors, loss_by_time, values_per_frame, velocity_loss

SHAPE = (3, 2, 4, 3, 5)  # b c f h w


def case():
    random = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(SHAPE, generator=random) for _ in range(2))
    unknown = torch.tensor([[True] * 4, [False, True, True, True], [False, False, False, True]])
    return predicted, target, unknown


def test_the_sum_runs_over_unknown_values_only():
    predicted, target, unknown = case()
    total, count = velocity_loss(predicted, target, unknown)
    values = [(predicted[b, :, f] - target[b, :, f]).double().square().sum() for b in range(3) for f in range(4) if unknown[b, f]]
    assert total.item() == pytest.approx(sum(values).item(), rel=1e-6)
    assert count.item() == 8 * 2 * 3 * 5


def test_parts_of_a_batch_add_up_to_the_whole():
    predicted, target, unknown = case()
    parts = [velocity_loss(predicted[i : i + 1], target[i : i + 1], unknown[i : i + 1]) for i in range(3)]
    total, count = velocity_loss(predicted, target, unknown)
    assert sum(part[0] for part in parts).item() == pytest.approx(total.item(), rel=1e-6)
    assert sum(part[1] for part in parts).item() == count.item()


def test_a_known_frame_gives_neither_loss_nor_gradient_even_where_it_is_not_finite():
    predicted, target, unknown = case()
    clean = velocity_loss(predicted, target, unknown)[0]
    broken = torch.where(unknown[:, None, :, None, None], predicted, torch.nan).requires_grad_()
    total, _ = velocity_loss(broken, target, unknown)
    total.backward()
    assert torch.equal(total.detach(), clean)
    assert torch.isfinite(broken.grad).all()
    assert not broken.grad.permute(0, 2, 1, 3, 4)[~unknown].any()
    assert broken.grad.permute(0, 2, 1, 3, 4)[unknown].all()


def test_bins_of_time_add_up_to_the_loss_and_separate_by_time():
    predicted, target, unknown = case()
    t = torch.tensor([[0.0, 0.3, 0.5, 1.0], [0.0, 0.9, 0.9, 0.9], [0.0, 0.0, 0.0, 0.24]])
    errors = frame_errors(predicted, target, unknown)
    sums, counts = loss_by_time(errors, unknown, t, values_per_frame(target), bins=4)
    total, count = velocity_loss(predicted, target, unknown)
    assert sums.sum().item() == pytest.approx(total.item(), rel=1e-6)
    assert counts.sum().item() == count.item()
    assert counts.tolist() == [2 * 30, 1 * 30, 1 * 30, 4 * 30]
    assert sums[1].item() == pytest.approx(errors[0, 1].item())


def test_half_precision_predictions_are_summed_in_float32():
    predicted = torch.full((1, 4, 2, 16, 16), 1.0, dtype=torch.bfloat16)
    total, _ = velocity_loss(predicted, torch.zeros(1, 4, 2, 16, 16), torch.ones(1, 2, dtype=torch.bool))
    assert total.dtype == torch.float32
    assert total.item() == 2048  # bfloat16 counts no further than 256


def test_shapes_that_disagree_are_refused():
    predicted, target, unknown = case()
    with pytest.raises(ValueError, match="unknown"):
        velocity_loss(predicted, target, unknown[:, :3])
