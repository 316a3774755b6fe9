"""The one sign convention of the project: t = 0 is clean, t = 1 is noise, velocity = noise - latents.

Other codebases, for the same straight path:

| codebase | their time | their target | here |
|---|---|---|---|
| rectified flow, SiT, Lipman et al. (data at 1) | s | data - noise | t = 1 - s, velocity = -target |
| SD3, Flux, Wan, diffusers' FlowMatchEuler | sigma = timestep / 1000 | noise - data | t = sigma, velocity = target |
| Flux's shift | mu | | a = exp(mu) in `shift` |
"""

from torch import Tensor


def per_frame(t: Tensor) -> Tensor:
    """Flow times (b, f) as a factor of latents (b c f h w)."""
    return t[:, None, :, None, None]  # b 1 f 1 1


def interpolate(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The mixture (1 - t) * latents + t * noise; a frame at t = 0 is returned bit for bit.

    Args:
        latents, noise: b c f h w.
        t: (b, f) in [0, 1].
    """
    t = per_frame(t).to(latents.dtype)
    return (1 - t) * latents + t * noise


def velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """d noisy / d t = noise - latents."""
    return noise - latents


def to_clean(noisy: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The clean latents that a velocity points away from: noisy - t * velocity."""
    return noisy - per_frame(t).to(noisy.dtype) * velocity


def to_noise(noisy: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The noise that a velocity points to: noisy + (1 - t) * velocity."""
    return noisy + (1 - per_frame(t).to(noisy.dtype)) * velocity


def from_clean(noisy: Tensor, latents: Tensor, t: Tensor) -> Tensor:
    """The velocity that points away from clean latents, `to_clean` turned round: (noisy - latents) / t, where t > 0."""
    return (noisy - latents) / per_frame(t).to(noisy.dtype)
