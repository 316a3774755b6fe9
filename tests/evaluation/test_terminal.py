"""The terminal says what was measured, and why where nothing was."""

import pytest

from evaluation.terminal import lines, sets

SHARE = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 6, "expected": 1 / 7, "expected_high": 0.5}
READ = {"training_clips": 4, "of": 9, "unreadable": 2, "heldout": SHARE, "seen": SHARE}
VAE = {"psnr_db": 30.0, "psnr_box_db": None, "ssim": 0.9, "flicker": 1.0, "n": 2, "edge_ratio": {}, "frechet": {}, "kernel": {}}


@pytest.mark.parametrize(
    ("memorisation", "wanted"),
    [
        ({"why": "nowhere is gone"}, "is not measured: nowhere is gone"),
        (READ, "of 9, 2 more could not be read"),
        (READ, "held-out (expected 14.3, to 50)"),
        (READ, " 50.0 %   [10.0, 90.0]  n=6"),
    ],
)
def test_what_is_not_measured_has_its_reason(memorisation: dict, wanted: str) -> None:
    told = "\n".join(sets({"memorisation": memorisation, "generated": {"n": 6, "why": "a real clip has 6 frames"}}))
    assert wanted in told
    assert "not measured: a real clip has 6 frames" in told


def test_a_vae_ends_with_the_number_that_matters_and_features_say_what_they_know() -> None:
    saw = {"learnt:a": {"clips": 3}, "learnt:b": {"clips": 0}, "learnt:c": {"why": "gone", "note": "learnt at 4 fps"}}
    told = list(lines({"vae": VAE, "features_saw": saw}))
    assert told[-1] == "held-out PSNR 30.0 dB"
    assert [line.split()[0] for line in told if "learnt:" in line] == ["learnt:a", "learnt:c", "learnt:c"]
    assert "  learnt:c may have been trained on some of the real clips: gone" in told
