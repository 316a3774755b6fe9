"""What a trained VAE shows: no edges of the patches and levels that it is made of."""

import numpy as np
import pytest
import torch

from data.transforms import DetailCrop, to_float, to_uint8
from data.world.render import render
from data.world.sampling import draw_scene
from evaluation.reconstruction import edge_ratio
from runtime.config import build, compose
from training.optim import AdamW, Muon


def clips(count: int, first: int) -> list[np.ndarray]:
    """Textured clips of the world, uint8 t h w c."""
    return [render(draw_scene(0, number, "standard"), 9, 64, 64) for number in range(first, first + count)]


@pytest.mark.slow
def test_trained_on_textured_clips_it_shows_no_block_edges():
    """Without overlapping splits and blended means: 2.2 at 2 px, 1.9 at 4 px and 2.0 at 8 px after as many steps."""
    steps, crop, train = 300, DetailCrop(32), clips(200, 0)
    torch.manual_seed(0)
    vae = build(compose("train", ["run=x", "data=world", "objective=vae", "objective.vae.latent_channels=4"])["objective"]["vae"])
    optimizers = Muon(8e-3, 0.95, 0.0, "original", AdamW(2e-3, (0.9, 0.95), 0.0, 1e-8), []).optimizers({"vae": vae})
    for step in range(steps):
        samples = range(8 * step, 8 * step + 8)
        video = to_float(torch.from_numpy(np.stack([crop(train[sample % len(train)], 0, sample) for sample in samples])))
        with torch.autocast("cpu", torch.bfloat16):
            error = vae.decode_posterior(vae.posterior(video).mean) - video
        (error.square().mean() + 0.2 * error.abs().mean()).backward()
        optimizers.step(min(1.0, (steps - step) / (0.65 * steps)))
        optimizers.zero_grad()
    source = to_float(torch.from_numpy(np.stack(clips(32, 200))))
    with torch.no_grad():
        result = vae.decode_posterior(vae.posterior(source).mean)
    shown, wanted = (to_uint8(video).flatten(0, 1).numpy() for video in (result, source))
    for block in (2, 4, 8):
        ratio = edge_ratio(wanted, shown, block)
        assert ratio is not None
        assert ratio <= 1.1
