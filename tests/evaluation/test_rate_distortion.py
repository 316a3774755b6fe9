"""Laws of the table: equal training FLOP, pairs of clips, no figure lost, and a page that a command can fill again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.rate_distortion import HEAD, Arm, between, chart, table, verdict


def evaluation(psnr: list[float], channels: int = 16, distance: float | None = 2e-3) -> dict[str, Any]:
    tokenizer = {"stride": [4, 8, 8], "patch": 2, "latent_channels": channels, "values_ratio": 40.8, "bits_per_pixel": 0.25}
    tokenizer |= {"encode_tflop": 0.005, "decode_tflop": 0.007, "parameters": 840_000}
    vae = {"psnr_db_of": psnr, "ssim": 0.9, "flicker": 2.0, "edge_ratio": {"patch": None, "stride": 1.02}}
    return {"vae": vae | {"frechet": {"random-conv-64": {"value": distance}}}, "tokenizer": tokenizer}


def arm(name: str, psnr: list[float], peer: bool = False, **given: Any) -> Arm:
    return Arm(name, peer, [evaluation(psnr, **given)], 700, 4 * 10**12)


def test_every_arm_has_a_line_with_all_its_figures_and_a_missing_one_is_a_dash() -> None:
    lines = table([arm("ours c16", [30.0, 32.0]), arm("small set", [20.0, 21.0], distance=None)]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells[0]) == len(HEAD)
    first = dict(zip(cells[0], cells[2], strict=True))
    assert first["stride"] == "4x8x8"
    assert first["PSNR, dB [95 %]"].startswith("31.00 [30.00, 32.00]")
    assert first["Frechet random-conv-64, x 1e4"] == "20"
    assert first["seams patch / stride"] == "– / 1.02"
    assert (first["weights, M"], first["training TFLOP"], first["steps"]) == ("0.84", "4.00", "700")
    assert cells[3][6 + 2] == "–"


def test_seeds_are_averaged_clip_by_clip() -> None:
    both = Arm("x", False, [evaluation([30.0, 40.0]), evaluation([32.0, 44.0])], 1, 1)
    assert both.psnr_db_of == [31.0, 42.0]
    assert both.mean("vae", "ssim") == pytest.approx(0.9)
    assert both.mean("vae", "edge_ratio", "patch") is None
    with pytest.raises(ValueError, match="arm x has no evaluation"):
        Arm("x", False, [], 1, 1)


def test_ours_is_held_against_the_best_peer_of_its_latent_size_on_the_same_clips() -> None:
    """Clips differ by 20 dB, the two autoencoders by exactly one: the interval knows the latter alone."""
    hard = np.random.default_rng(0).normal(30, 20, 50)
    arms = [
        arm("ours c16", hard.tolist()),
        arm("ours c8", (hard + 9).tolist(), channels=8),
        arm("wide peer", (hard - 5).tolist(), peer=True),
        arm("narrow peer", (hard - 1).tolist(), peer=True),
    ]
    ours, peer = hard.mean(), hard.mean() - 1
    told = f"- ours c16 {ours:.2f} dB, narrow peer {peer:.2f} dB (the best of 2) at the same training FLOP: +1.00 dB [+1.00, +1.00], 50 clips"
    assert verdict(arms) == told
    assert verdict(arms[:2]) == ""


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    chart([arm("ours", [30.0, 32.0]), arm("peer", [29.0, 30.0], peer=True)], tmp_path / "new" / "chart.png")
    assert (tmp_path / "new" / "chart.png").read_bytes()[:4] == b"\x89PNG"


def test_a_page_is_filled_between_its_marks_and_nowhere_else() -> None:
    page = "# Title\n<!-- figures -->\nold\n<!-- end figures -->\nafter\n"
    assert between(page, "figures", "\nnew\n\n") == "# Title\n<!-- figures -->\nnew\n<!-- end figures -->\nafter\n"
    assert between(between(page, "figures", "x"), "figures", "old") == page
    for wrong in ("no marks\n", page + page, page.replace("<!-- figures -->", "<!-- other -->"), "<!-- end figures -->\n<!-- figures -->\n"):
        with pytest.raises(ValueError, match="once each, in this order"):
            between(wrong, "figures", "new")
