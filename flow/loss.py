"""The velocity loss as sums and counts, so that batches, micro-batches and ranks of unlike size add up to the same mean."""

import torch
from torch import Tensor

from flow.path import per_frame


def frame_errors(predicted: Tensor, target: Tensor, unknown: Tensor) -> Tensor:
    """Squared error summed over each latent frame; known frames give exactly 0 and get no gradient, whatever was predicted there.

    Args:
        predicted, target: velocities, b c f h w; the error is taken in float32 (float64 stays float64).
        unknown: (b, f) bool, True where the loss counts.
    Returns: (b, f).
    Raises: ValueError if the shapes disagree.
    """
    if predicted.shape != target.shape or predicted.ndim != 5 or unknown.shape != (target.shape[0], target.shape[2]):
        raise ValueError(
            f"the velocity loss wants predicted and target b c f h w and unknown (b, f), "
            f"got {tuple(predicted.shape)}, {tuple(target.shape)} and {tuple(unknown.shape)}"
        )
    if predicted.dtype != torch.float64:
        predicted, target = predicted.float(), target.float()
    # The difference is masked, not the error: a NaN under the mask would come back through the square's gradient.
    difference = torch.where(per_frame(unknown), predicted - target, 0.0)  # b c f h w
    return difference.square().sum(dim=(1, 3, 4))  # b f


def velocity_loss(predicted: Tensor, target: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of squared errors over all unknown latent values, how many values that are), both scalars on the device of `predicted`."""
    errors = frame_errors(predicted, target, unknown)
    return errors.sum(), unknown.sum() * values_per_frame(target)


def values_per_frame(latents: Tensor) -> int:
    """Numbers in one latent frame of b c f h w."""
    return latents.shape[1] * latents.shape[3] * latents.shape[4]


def loss_by_time(errors: Tensor, unknown: Tensor, t: Tensor, values: int, bins: int) -> tuple[Tensor, Tensor]:
    """The loss of each bin of flow time, as sums and counts over the unknown frames in it.

    Args:
        errors: (b, f) of `frame_errors`.
        unknown: (b, f) bool.
        t: (b, f) in [0, 1].
        values: numbers per latent frame.
        bins: number of bins of equal width; t = 1 falls into the last.
    Returns: sums (bins,), counts (bins,), without gradient and without waiting for the device.
    """
    place = (t.detach() * bins).long().clamp(0, bins - 1).flatten()  # b*f
    sums = torch.zeros(bins, dtype=errors.dtype, device=errors.device).index_add_(0, place, errors.detach().flatten())
    seen = unknown.to(errors.dtype).flatten()
    counts = torch.zeros_like(sums).index_add_(0, place, seen) * values
    return sums, counts
