"""How fast clips come out of files: our readers against bare PyAV and decord loops in the same run, and what a second worker brings.

python scripts/bench_data.py [what=[read] rounds=24]. Ratios are medians of pairs that ran one after the other; above 1 is faster.
"""

import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from data.files.media import Media
from data.files.probe import Probe, probe
from data.files.reader import DecordReader, Limits, PyAVReader, VideoReader
from data.files.torchcodec_reader import TorchcodecReader
from data.workers import UNWATCHED, Pool, Watch
from runtime.config import Config, ConfigError, entry
from runtime.seeding import Stream, generator

FRAMES, STRIDE, FILE_FRAMES = 17, 2, 300
Read = Callable[[np.ndarray], np.ndarray]  # frame numbers -> t h w 3


@dataclass(frozen=True, slots=True)
class Case:
    """A file of FILE_FRAMES frames at 30 fps, and the size that its frames are wanted in (None: as they are)."""

    name: str
    size: tuple[int, int]
    gop: int
    cover: tuple[int, int] | None = None


CASES = [
    Case("256x256, key frame every 12", (256, 256), 12),
    Case("256x256, key frame every 250", (256, 256), 250),
    Case("720p, key frame every 12", (720, 1280), 12),
    Case("720p, key frame every 250", (720, 1280), 250),
    Case("720p to 256 px, key frame every 12", (720, 1280), 12, (256, 455)),
    Case("720p to 256 px, key frame every 250", (720, 1280), 250, (256, 455)),
]


@entry("bench_data")
def main(config: Config) -> None:
    parts = {"read": read_speed, "workers": worker_scaling, "open": open_memory}
    if not isinstance(config["what"], list) or not set(config["what"]) <= set(parts):
        raise ConfigError(f"what={config['what']!r} must be a list of {', '.join(parts)}. Set what.")
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in config["what"]:
        results[name] = parts[name](out, config)
        (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(out / "results.json")


def read_speed(out: Path, config: Config) -> dict[str, Any]:
    """CPU time of a random clip of FRAMES frames, the file opened each time, all readers taking turns."""
    results = {}
    for case in CASES:
        path = clip_file(out, case)
        ways = contenders(path, case)
        times = timed(ways, config["rounds"])
        fps = {name: FRAMES / median(each) for name, each in times.items()}
        faster = min(("bare PyAV", "bare decord"), key=lambda name: median(times.get(name, [float("inf")])))
        print(f"{case.name}  (the faster bare loop: {faster}, {fps[faster]:.0f} frames/s)")
        for name in times:
            others = [other for other in dict.fromkeys((f"bare {name.removeprefix('our ')}", faster)) if other in times and other != name]
            ratios = {other: median(a / b for a, b in zip(times[other], times[name], strict=True)) for other in others}
            print(f"  {name:16} {fps[name]:7.0f} frames/s  " + "  ".join(f"{ratio:.2f} x {other}" for other, ratio in ratios.items()))
            results[f"{case.name}: {name}"] = {"frames_per_s": fps[name], "ratios": ratios}
    return results


def contenders(path: Path, case: Case) -> dict[str, Read]:
    """The ways to read a clip, by name; each was tried once and gives what the first one gives. What is not installed is left out."""
    found = probe(Media.of(path), Limits())
    ways: dict[str, Read] = {"bare PyAV": lambda numbers: bare_pyav(path, numbers, case.cover), "our PyAV": ours(PyAVReader(), path, found, case)}
    ways |= {"bare decord": lambda numbers: bare_decord(path, numbers, case.cover), "our decord": ours(DecordReader(), path, found, case)}
    ways |= {"our torchcodec": lambda numbers: TorchcodecReader().read(Media.of(path), found, numbers, case.cover)}
    numbers, expected = np.arange(20, 20 + FRAMES * STRIDE, STRIDE), None
    for name, way in list(ways.items()):
        try:
            clip = way(numbers).astype(int)
        except (ImportError, RuntimeError) as error:
            if case == CASES[0]:
                print(f"{name} is left out: {str(error).splitlines()[0]}")
            del ways[name]
            continue
        expected = clip if expected is None else expected
        if clip.shape != expected.shape or np.abs(clip - expected).mean() > 2:
            raise RuntimeError(f"{name} gives other frames than bare PyAV: the figures would compare unlike work")
    return ways


def ours(reader: VideoReader, path: Path, found: Probe, case: Case) -> Read:
    return lambda numbers: reader.read(Media.of(path), found, numbers, case.cover)


def bare_pyav(path: Path, numbers: np.ndarray, cover: tuple[int, int] | None) -> np.ndarray:
    """As short a loop as reads these frames of a file of known, constant rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        wanted = [round(int(number) / 30 / stream.time_base) for number in numbers]
        container.seek(wanted[0], stream=stream, backward=True)
        frames, convert = [], VideoReformatter()
        for frame in container.decode(stream):
            if frame.pts == wanted[len(frames)]:
                height, width = cover or (frame.height, frame.width)
                frames.append(convert.reformat(frame, width, height, "rgb24", threads=1).to_ndarray())
                if len(frames) == len(wanted):
                    break
    return np.stack(frames)


def bare_decord(path: Path, numbers: np.ndarray, cover: tuple[int, int] | None) -> np.ndarray:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    height, width = cover or (-1, -1)
    return decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, width=width, height=height).get_batch(numbers).asnumpy()


def timed(ways: dict[str, Read], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of this process for each way and round; every way reads the same clips, and a round holds one of each."""
    starts = generator(0, Stream.CROP, 1).integers(FILE_FRAMES - FRAMES * STRIDE, size=rounds)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number, start in enumerate(starts.tolist()):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for name in order:
            begun = time.process_time()
            ways[name](np.arange(start, start + FRAMES * STRIDE, STRIDE))
            times[name].append(time.process_time() - begun)
    return times


class ReadJob:
    """Random clips of one file, as a loader's worker reads them: four of them an item."""

    def __init__(self, path: Path, case: Case) -> None:
        self.media, self.cover = Media.of(path), case.cover
        self.probe, self.reader = probe(self.media, Limits()), PyAVReader()

    def run(self, item: int, watch: Watch = UNWATCHED) -> np.ndarray:
        clips = []
        for start in generator(0, Stream.CROP, item).integers(FILE_FRAMES - FRAMES * STRIDE, size=4).tolist():
            with watch(0):
                clips.append(self.reader.read(self.media, self.probe, np.arange(start, start + FRAMES * STRIDE, STRIDE), self.cover))
        return np.stack(clips)

    def give_up(self, token: int, kind: str, detail: str) -> None:
        raise RuntimeError(detail)


def worker_scaling(out: Path, config: Config) -> dict[str, Any]:
    """Wall-clock frames/s that arrive in this process from one worker and from two, taking turns; needs two idle cores."""
    results = {}
    for case in (CASES[0], CASES[4]):
        path = clip_file(out, case)
        pools = {workers: Pool(ReadJob(path, case), workers, 60.0) for workers in (1, 2)}
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(max(3, config["rounds"] // 4)):
            for workers, pool in pools.items():
                arriving = pool.map(range(10_000))
                for _ in range(4):
                    next(arriving)  # the queue is full and every worker has begun
                begun = time.monotonic()
                count = sum(len(next(arriving)) for _ in range(24))
                rates[workers].append(count * FRAMES / (time.monotonic() - begun))
        for pool in pools.values():
            pool.close()
        scaling = median(b / a for a, b in zip(rates[1], rates[2], strict=True))
        print(f"{case.name}: {median(rates[1]):.0f} frames/s from 1 worker, {median(rates[2]):.0f} from 2: {scaling:.2f} x")
        results[case.name] = {"frames_per_s": {str(workers): median(each) for workers, each in rates.items()}, "scaling": scaling}
    return results


def open_memory(out: Path, config: Config) -> dict[str, Any]:
    """MB that this process has grown by over many openings, a probe and a clip of two frames each; the first 100 warm up."""
    path, results = clip_file(out, CASES[0]), {}
    media = Media.of(path)
    for name, reader in readers():
        before = 0.0
        for number in range(100 + config["opens"]):
            found = probe(media, Limits())
            reader.read(media, found, [number % (FILE_FRAMES - 1), number % (FILE_FRAMES - 1) + 1])
            if number == 99:
                before = resident_mb()
        results[name] = resident_mb() - before
        print(f"{name}: {results[name]:+.1f} MB over {config['opens']} openings")
    return results


def readers() -> Iterator[tuple[str, VideoReader]]:
    yield "PyAV", PyAVReader()
    yield "decord", DecordReader()


def resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak, which only grows
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return pages * resource.getpagesize() / 2**20


def clip_file(out: Path, case: Case) -> Path:
    """A texture that pans under a moving sprite, H.264, made once."""
    height, width = case.size
    path = out / f"{width}x{height}-{case.gop}.mp4"
    if not path.exists():
        part = path.with_suffix(".part.mp4")
        encode(part, moving(height, width), case)
        part.rename(path)
    return path


def moving(height: int, width: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    ground = np.zeros((height + 400, width + 700, 3), np.float32)
    for cell in (4, 8, 16, 32, 64):
        coarse = rng.random((ground.shape[0] // cell + 1, ground.shape[1] // cell + 1, 3), dtype=np.float32)
        ground += cell * coarse.repeat(cell, 0).repeat(cell, 1)[: ground.shape[0], : ground.shape[1]]
    ground = (ground / ground.max() * 255).astype(np.uint8)
    sprite = 255 - ground[: height // 4, : width // 4]
    for number in range(FILE_FRAMES):
        frame = ground[number * 4 // 3 :, number * 2 :][:height, :width].copy()
        top, left = int(height * 0.35 * (1 + np.sin(number / 11))), int(width * 0.35 * (1 + np.cos(number / 17)))
        frame[top : top + height // 4, left : left + width // 4] = sprite
        yield frame


def encode(path: Path, frames: Iterator[np.ndarray], case: Case) -> None:
    with av.open(str(path), "w") as container:
        options = {"preset": "faster", "crf": "21", "g": str(case.gop), "keyint_min": str(case.gop), "sc_threshold": "0", "bf": "2"}
        stream = container.add_stream("libx264", rate=30, options=options)
        (stream.height, stream.width), stream.pix_fmt = case.size, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
