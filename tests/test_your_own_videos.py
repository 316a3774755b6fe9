"""A folder as a phone leaves it, by the commands of docs/your_own_videos.md: checked, trained from raw files, sampled."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data.files.media import Media
from data.files.probe import probe
from data.files.reader import Limits, read_video

ROOT = Path(__file__).resolve().parents[1]
TINY_VAE = ["objective.vae.widths=[8,16]", "objective.vae.encoder_depths=[1,1]", "objective.vae.decoder_depths=[1,1]"]
TINY_DIT = ["objective.dit.width=32", "objective.dit.depth=1", "objective.dit.heads=2", "objective.text.width=32", "objective.text.depth=1"]
TINY = ["trainer=toy", "trainer.max_steps=3", "trainer.threads=1", "tracking=none"]


def film(
    path: Path,
    size: tuple[int, int, int],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rotation: int = 0,
    sound: bool = False,
    uneven: bool = False,
) -> None:
    """A clip of frames x height x width at 12 fps, with sound or an uneven frame rate if asked for."""
    frames, height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=12, options={"preset": "10"} if codec == "libsvtav1" else {})
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        stream.codec_context.time_base = Fraction(1, 120)
        if rotation:
            stream.set_display_rotation(rotation)
        track = container.add_stream("aac", rate=16000) if sound else None
        for number in range(frames):
            picture = np.full((height, width, 3), 40 + 150 * number // frames, np.uint8)
            picture[height // 4 : height // 2, number % (width // 2) :][:, : width // 4] = (200, 40, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, 120)
            frame.pts = number * 10 + (number % 3 if uneven else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if track is not None:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), format="fltp", layout="mono")
            tone.sample_rate = 16000
            container.mux(track.encode(tone))
            container.mux(track.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 files in 7 shapes, each with its caption."""
    folder = tmp_path_factory.mktemp("own") / "Meine Filme, 日本"
    folder.mkdir()
    film(folder / "portrait.mp4", (30, 48, 96), rotation=90)
    film(folder / "upside down.mov", (30, 48, 96), rotation=180)
    film(folder / "uneven.mp4", (30, 64, 64), uneven=True)
    film(folder / "ten bits.mp4", (30, 64, 64), pixels="yuv420p10le")
    film(folder / "av1.mp4", (24, 64, 96), codec="libsvtav1")
    film(folder / "sound.mp4", (30, 64, 96), sound=True)
    film(folder / "old.avi", (14, 64, 64), codec="mpeg4")
    film(folder / "short.mkv", (3, 64, 64), codec="libvpx-vp9")
    for number in range(7):
        film(folder / f"clip {number}.mp4", (30 - number % 2 * 16, 64, 64))
    film(folder / "wide.webm", (30, 32, 128), codec="libvpx-vp9")
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"a red box, {path.stem}\n", encoding="utf-8")
    return folder


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_sixteen_files_in_seven_shapes_train_sixteen_samples_an_epoch_and_can_be_sampled(folder: Path, tmp_path: Path) -> None:
    data = [f"data.train='{folder}'", f"data.probes={tmp_path}/probes", "data.batch_tokens=320"]
    said = run("scripts/check_data.py", *data)
    assert "16 of 16 rows" in said
    assert "each of 16 clips of weight 1 exactly once" in said
    vae = run("train.py", "objective=vae", "data/crop=detail", *data, *TINY_VAE, *TINY, f"run={tmp_path}/vae")
    assert "16 clips in 7 shapes; an epoch is 16 samples" in vae
    run("train.py", "objective=flow", "objective/dit=nano", *data, *TINY_DIT, *TINY, f"vae_run={tmp_path}/vae", f"run={tmp_path}/dit")
    steps = [json.loads(line) for line in (tmp_path / "dit/metrics.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in steps if row["kind"] == "train"][-1] >= 8
    assert not (tmp_path / "dit/bad_files.txt").exists()
    run("sample.py", f"run={tmp_path}/dit", "--prompt", "a red box, über alles", f"out={tmp_path}/out", "steps=2")
    (made,) = (tmp_path / "out").glob("*.mp4")
    assert read_video(made).shape[0] in (13, 17)


def test_rotated_files_are_trained_upright(folder: Path) -> None:
    found = probe(Media.of(folder / "portrait.mp4"), Limits())
    assert (found.width, found.height) == (48, 96)
