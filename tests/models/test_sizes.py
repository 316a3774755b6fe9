"""The size ladder: every size has the parameters that its comment says, and the FLOP that torch counts; built without memory for weights."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.attention import Products
from models.geometry import Layout
from models.text import Text
from runtime.config import CONFIGS, Config, build, compose

CHANNELS, TEXT_WIDTH, TEXT = 16, 512, 8
# Millions of parameters with 16 latent channels and 512-wide text.
SIZES = {"nano": 2.0, "small": 32.8, "base": 91.3, "large": 313.0, "xl": 459.7, "1b": 1080.8, "5b": 4997.7, "11b": 10859.0, "30b": 29343.1}


# By hand: blocks x (attention + MLP) in width ** 2, which is nearly all there is where modulation is shared.
LEADING = {"base": 12 * 12, "large": 24 * 12, "xl": 28 * 12, "1b": 28 * 16, "5b": 30 * (8 + 2 * 14 / 3), "11b": (20 * 2 + 40) * 12, "30b": 48 * 16}


def composed(size: str) -> Config:
    given = [f"+objective.vae.latent_channels={CHANNELS}", "+objective.vae.stride_t=4", f"+objective.text.width={TEXT_WIDTH}"]
    return compose(f"objective/dit/{size}", given)["objective"]["dit"]


def test_every_size_is_listed():
    assert set(SIZES) == {path.stem for path in (CONFIGS / "objective" / "dit").glob("*.yaml") if not path.stem.startswith("_")}


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_its_parameters_and_its_flop(size):
    config = composed(size)
    with torch.device("meta"):
        dit = build(config, kernel=Products())  # torch has no autocast on the meta device, which the fused kernel leaves
    count = sum(part.numel() for part in dit.parameters())
    assert count / 1e6 == pytest.approx(SIZES[size], abs=0.1)
    if size in LEADING:
        assert 1 <= count / (LEADING[size] * dit.width**2) <= 1.08
    assert size == "nano" or dit.width == 128 * config["heads"], "heads of 128 channels"
    dit.trunk.blocks = dit.trunk.blocks[:: max(1, len(dit.trunk.blocks) // 6)]  # some of each kind tell the FLOP as well as all
    grid, text = (2, 4, 4), Text(torch.zeros(1, TEXT, TEXT_WIDTH, device="meta"), torch.zeros(1, TEXT_WIDTH, device="meta"))
    noisy, t = torch.zeros(1, CHANNELS, 2, 8, 8, device="meta"), torch.zeros(1, 2, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        dit(noisy, t, text, torch.zeros_like(t))
    assert dit.flops(Layout.batch(1, grid, TEXT)) == pytest.approx(counter.get_total_flops(), rel=0.01)
