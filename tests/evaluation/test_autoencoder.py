"""Laws of an autoencoder's figures: bits of its latents, and clips that nobody labelled."""

import json
from math import log2

import numpy as np
import pytest
import torch

from evaluation.autoencoder import Tokenizer, evaluate_videos, in_words, latent_bits

TOKENIZER = Tokenizer((4, 8, 8), 2, 4, 163.2, 0.1, 0.005, 0.007, 840_000)


def test_latents_that_say_nothing_cost_no_bits_and_a_sharper_posterior_costs_its_logarithm() -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    shape = (1, 2, 400, 5, 5)
    prior = mean[:, None, None, None].expand(shape), (2 * std.log())[:, None, None, None].expand(shape)
    assert latent_bits(*prior, mean, std) == pytest.approx(0, abs=1e-3)
    # Means spread so that samples have the prior's deviation again: log2 of how much sharper the posterior is, per value.
    sharper, values = 8.0, prior[0].numel()
    draws = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    spread = prior[0] + draws * (std * (1 - sharper**-2) ** 0.5)[:, None, None, None]
    told = latent_bits(spread, prior[1] - 2 * np.log(sharper), mean, std)
    assert told / values == pytest.approx(log2(sharper), rel=0.01)


def test_clips_of_unlike_shapes_without_captions_are_measured_and_shown() -> None:
    rng = np.random.default_rng(1)
    videos = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 16, 24, 3), (1, 24, 16, 3), (9, 16, 16, 3))]
    result = evaluate_videos(videos, ["a", "b", "c"], lambda parts: [part // 2 for part in parts], 0, TOKENIZER)
    assert result.figures["vae"]["n"] == len(result.figures["vae"]["psnr_db_of"]) == 3
    assert result.figures["vae"]["psnr_box_db"] is None
    assert set(result.figures["vae"]["edge_ratio"]) == {"patch", "stride"}
    assert "ceiling" not in result.figures
    assert [item["caption"] for item in result.gallery["reconstructions"]] == ["a", "b", "c"]
    assert len(result.sheet) == 6
    json.dumps(result.figures, allow_nan=False)
    lines = in_words(result.figures)
    assert lines[0] == "stride 4x8x8: 4 channels, 163.2 values to one, 0.1 bits per pixel"
    assert any("not measured" in line for line in lines)
    assert "Frechet and kernel distances leave out 3 of 3 clips, which are smaller than 8x32x32 frames and pixels" in lines
