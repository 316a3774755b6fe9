"""The sign convention: t = 0 is clean, t = 1 is noise, velocity points from clean to noise."""

import torch

from flow.path import from_clean, interpolate, to_clean, to_noise, velocity


def case():
    random = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 3, 4, 2, 2, generator=random, dtype=torch.float64) for _ in range(2))
    return latents, noise, torch.rand(2, 4, generator=random, dtype=torch.float64)


def test_zero_is_clean_and_one_is_noise():
    latents, noise, _ = case()
    assert torch.equal(interpolate(latents, noise, torch.zeros(2, 4)), latents)
    assert torch.equal(interpolate(latents, noise, torch.ones(2, 4)), noise)


def test_each_frame_is_mixed_by_its_own_time():
    latents, noise, t = case()
    noisy = interpolate(latents, noise, t)
    for b in range(2):
        for f in range(4):
            assert torch.allclose(noisy[b, :, f], (1 - t[b, f]) * latents[b, :, f] + t[b, f] * noise[b, :, f], rtol=1e-15)


def test_velocity_points_from_clean_to_noise():
    latents, noise, t = case()
    step = 1e-6
    slope = (interpolate(latents, noise, t + step) - interpolate(latents, noise, t)) / step
    assert torch.allclose(slope, velocity(latents, noise), atol=1e-8)


def test_velocity_leads_back_to_both_ends():
    latents, noise, t = case()
    noisy, v = interpolate(latents, noise, t), velocity(latents, noise)
    assert torch.allclose(to_clean(noisy, v, t), latents, atol=1e-14)
    assert torch.allclose(to_noise(noisy, v, t), noise, atol=1e-14)
    assert torch.allclose(from_clean(noisy, latents, t), v, atol=1e-13)  # t is 0.02 and more


def test_a_known_frame_keeps_its_bits():
    latents, noise, t = case()
    t[:, 0] = 0
    assert torch.equal(interpolate(latents.float(), noise.float(), t.float())[:, :, 0], latents.float()[:, :, 0])
