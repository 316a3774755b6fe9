"""Each part runs from end to end, and without diffusers ours alone is measured."""

import json
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import ceilings, presets, vae
from bench.contenders import Inputs, Size, matches
from bench.fresh import Job, peaks_mb
from bench.ladder import count
from bench.measure import CpuMeter, count_flop
from bench.presets import dit
from bench.targets import TARGETS
from bench.train import Load, Step, attention_of, measure
from models.vae_tiles import tiling
from runtime.config import compose

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_model.py"
TINY = Size(64, 3, 16, (4, 2, 8, 8), 4, 16)
TINY_DIT = ["dit.width=64", "dit.depth=2", "dit.head_width=16", "dit.latents=[4,2,8,8]", "dit.text_tokens=4", "dit.text_width=16"]
TINY_VAE = ["vae.presets=[toy]", "vae.clip=[5,16,16]", "vae.lengths=[5,9]", "vae.stream=[32,32]", "vae.tiled=[5,8,96]", "vae.tile=16"]
TINY_TRAIN = ["train.sizes=[nano]", "train.batches=[[2,2,4,4]]", "train.text_tokens=4", "train.text_width=8", "train.steps=2", "train.compiled=false"]


def measured(monkeypatch, out: Path, part: str, *arguments: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["bench_model.py", f"what=[{part}]", f"out={out}", "pairs=1", "core=null", "device=cpu", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return json.loads((out / f"{part}-cpu.json").read_text(encoding="utf-8"))


@pytest.fixture
def without_diffusers(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)


def test_the_transformers_run_and_ours_alone_without_diffusers(without_diffusers, monkeypatch, tmp_path, capsys):
    raw = measured(monkeypatch, tmp_path, "dit", *TINY_DIT, "dit.peers=[wan,ltx,hunyuan]", "dit.cases=[[float32,train],[bfloat16,forward]]")
    rows = raw["figures"]["rows"]
    assert [row["match"] for row in rows] == ["wan", "hunyuan"], "one for each of our shapes"
    assert "pip install -e '.[bench]'" in rows[0]["left_out"]
    for row in rows:
        assert row["ours"]["flop"]["attention"] > 0
        assert [(case["dtype"], case["run"]) for case in row["cases"]] == [("float32", "train"), ("bfloat16", "forward")]
        assert all(list(case["seconds"]) == ["ours"] and len(case["seconds"]["ours"]) == 1 for case in row["cases"])
    assert {"cpu", "gpu", "logical_cores", "system"} == set(raw["machine"])
    assert raw["versions"]["torch"] == torch.__version__.split("+")[0] or raw["versions"]["torch"] == torch.__version__
    assert "pip install" in capsys.readouterr().out


def test_the_autoencoders_run_and_ours_alone_without_diffusers(without_diffusers, monkeypatch, tmp_path):
    figures = measured(monkeypatch, tmp_path, "vae", *TINY_VAE, "memory=false")["figures"]
    assert list(figures["coders"]) == ["toy"]
    assert figures["megapixels"] == pytest.approx(5 * 16 * 16 / 1e6)
    assert len(figures["matches"][0]["decode"]["seconds"]["ours"]) == 1
    assert figures["ceilings"]["own_flop_s"]["toy"] > 0
    assert figures["memory"]["encode"] == {"5": [], "9": []}, "not asked for"
    assert figures["coders"]["toy"]["peak_mb"] == {"encode": [], "decode": []}
    ours = figures["tiles"]["ours"]
    assert min(ours["tiles"].values()) > 1, "one tile is the whole: it differs by nothing"
    assert 0 <= ours["decode"] < 1e-4


def test_tiles_that_are_not_cut_are_refused():
    toy = vae.preset("toy", "cpu")
    assert vae.tiles(toy, vae.Clip(1, 8, 96), 16, "cpu")["tiles"] == {"encode": 6, "decode": 6}
    message = r"vae.tiled=\[1, 8, 56\] at vae.tile=16 gives 4 tiles to encode and 1 to decode, wanted 2 .* Set vae.tiled larger"
    with pytest.raises(ValueError, match=message):
        vae.tiles(toy, vae.Clip(1, 8, 56), 16, "cpu")


def test_the_shipped_settings_cut_the_size_that_is_timed():
    settings = compose("bench_model", [])["vae"]
    with torch.device("meta"):
        large = presets.vae(settings["presets"][0])
    _, height, width = settings["tiled"]
    for halo in large.halo:
        cut = tiling(height // large.stride[1], width // large.stride[1], large.stride[1], halo, settings["tile"])
        assert len(cut.rows) * len(cut.columns) > 1


def test_a_stream_whose_kept_frames_would_not_stand_out_is_refused(monkeypatch):
    monkeypatch.setattr(vae, "peaks_mb", lambda job, rounds: [138.0, 130.0, 137.0])
    with pytest.raises(ValueError, match=r"would add 4.5 MB to a peak of 137.0, wanted at least 27.4 to see them. Set vae.stream"):
        vae.stream_memory("large", [33, 129], 64, 64, "cpu", True)
    settings = compose("bench_model", [])["vae"]
    height, width = settings["stream"]
    figures = vae.stream_memory(settings["streamed"], settings["lengths"], height, width, "cpu", True)
    assert figures["kept_mb"] == 72.0


LEAKING = """
from bench import vae

def streaming(device, name, way, frames, height, width):
    network = vae.preset(name, device)
    stream = network.decode_stream
    network.decode_stream = lambda pieces: iter(list(stream(pieces)))  # all frames lie there before the first is handed out
    return vae.stream(network, way, frames, height, width, device)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is told by Linux alone")
def test_a_decoder_that_keeps_its_frames_misses_the_target(monkeypatch, tmp_path):
    (tmp_path / "leaking.py").write_text(LEAKING, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = compose("bench_model", [])["vae"]
    target = next(target for target in TARGETS if "memory of decoding" in target.name)
    for make, verdict in (("bench.vae:streaming", "**pass**"), ("leaking:streaming", "**fail**")):
        jobs = {str(frames): Job(make, "cpu", [settings["streamed"], "decode", frames, *settings["stream"]]) for frames in settings["lengths"]}
        raw = {"vae-cpu": {"figures": {"coders": {"": {}}, "memory": {"decode": {frames: peaks_mb(job, 1) for frames, job in jobs.items()}}}}}
        assert target.row(raw)[3] == verdict, raw


@pytest.mark.parametrize("name", ["toy", "large"])
def test_what_ours_may_reach_is_measured_on_layers_of_its_own_blocks(name, monkeypatch):
    ran = set()
    monkeypatch.setattr(ceilings, "_convolution_rate", lambda *_: 1.0)
    monkeypatch.setattr(ceilings, "_seconds", lambda call, meter, rounds: (call(), 1.0)[1])
    convolve = ceilings.F.conv2d
    monkeypatch.setattr(ceilings.F, "conv2d", lambda x, kernel, padding: (ran.add(tuple(kernel.shape)), convolve(x[..., :1, :1], kernel, padding=1)))
    with torch.device("meta"):
        network = presets.vae(name)
    found = ceilings.of_autoencoders(name, network, [1, 8, 8], "meta", CpuMeter("process"), 1)
    wide = {256, 512, 1024} if name == "large" else set()
    assert {kernel[0] for kernel in ran} == wide
    assert all(kernel[2:] == (3, 3) for kernel in ran)
    assert found["own_flop_s"][name] > 0


def test_training_steps_run_and_fill_a_page(monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: train-cpu -->\nold\n<!-- end -->\n", encoding="utf-8")
    figures = measured(monkeypatch, tmp_path, "train", *TINY_TRAIN, f"write={page}")["figures"]
    (row,) = figures["rows"]
    assert row["size"] == "nano"
    assert row["tokens"] == 8
    assert len(row["seconds"]) == 2
    assert row["mfu"] is None, "a CPU has no peak here"
    assert "| nano (2 M, 128 wide) | 2 x 8 |" in page.read_text(encoding="utf-8")


def test_another_attention_than_the_one_that_was_asked_for_ends_the_run():
    network = dit("nano", "toy", 8)
    step = Step.of(network, Load(1, (1, 4, 4), 4), "cpu", torch.float32)
    assert "flash_attention" in attention_of(step, None)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(Step, "velocity", lambda self: seen.append(torch.is_grad_enabled()))
        attention_of(step, None)
    assert seen == [True], "torch may choose another where gradients are wanted"
    with pytest.raises(RuntimeError, match=r"attention runs as .*flash.*, wanted cudnn everywhere: torch fell back. Set train.kernel"):
        attention_of(step, "cudnn")


def test_every_row_compiles_from_nothing_and_asks_for_memory_only_if_told(monkeypatch):
    done = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: done.append("reset"))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: done.append("compile"))
    meter = CpuMeter("process")
    monkeypatch.setattr(meter, "peak_mb", lambda call: done.append("memory"))
    measure(dit("nano", "toy", 8), Load(1, (1, 4, 4), 4), 1, torch.float32, True, None, "cpu", meter, False)
    assert done[:2] == ["reset", "compile"]
    assert set(done[1:]) == {"compile"}


def test_ours_counts_its_own_flop_and_is_as_wide_as_each_peer():
    for match in matches(TINY).values():
        assert (match.ours.size.width, match.ours.size.depth) == (match.theirs.size.width, match.theirs.size.depth)
    for name in ("wan", "hunyuan", "cogvideox"):
        contender = matches(TINY)[name].ours
        network, inputs = contender.network("cpu"), Inputs.of(TINY, "cpu", torch.float32)
        assert network.flops(TINY.layout) == pytest.approx(count_flop(lambda: contender.run(network, TINY, inputs)).total, rel=0.01)  # noqa: B023
        assert all(bool(weights.any()) for weights in network.parameters()), "a silent layer is no work"


@pytest.mark.parametrize("written", [["float16", "train"], ["float32"], ["float32", "both"]])
def test_an_unknown_case_is_refused(monkeypatch, tmp_path, written, capsys):
    with pytest.raises(SystemExit):
        measured(monkeypatch, tmp_path, "dit", f"dit.cases=[[{','.join(written)}]]")
    assert "is not [float32 or bfloat16, forward or train]. Set dit.cases." in capsys.readouterr().err


@pytest.mark.slow
def test_every_peer_runs_beside_ours_at_the_same_flop_and_head_width():
    pytest.importorskip("diffusers", reason="extra [bench]")
    size = replace(TINY, width=128, depth=6, head_width=32)  # Hunyuan splits depth in three, Latte in two
    for name, match in matches(size).items():
        flop = {}
        for side, contender in (("ours", match.ours), ("peer", match.theirs)):
            network, inputs = contender.network("cpu"), Inputs.of(contender.size, "cpu", torch.float32)
            flop[side] = count_flop(lambda: contender.run(network, contender.size, inputs))  # noqa: B023
        assert name == "wan64" or match.ours.size.head_width == match.theirs.size.head_width
        rel = 0.1 if name == "latte" else 0.05  # its blocks in time have no cross attention, ours all do
        assert flop["ours"].total == pytest.approx(flop["peer"].total, rel=rel), name


def test_the_ladder_is_counted_without_weights_and_is_what_the_network_says():
    loads = [Load(2, (2, 8, 8), 4), Load(1, (4, 8, 8), 4)]
    for load, row in zip(loads, count(lambda: dit("nano", "toy", 8), loads), strict=True):
        network = dit("nano", "toy", 8)
        assert row["matmul_flop"] + row["attention_flop"] == pytest.approx(network.flops(load.layout(network.patch)), rel=0.01)
        assert (row["parameters"], row["head_width"], row["samples"]) == (sum(p.numel() for p in network.parameters()), 32, load.samples)
