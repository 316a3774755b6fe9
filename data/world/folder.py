"""Writes the world to disk as ordinary mp4 files with an index; stopped at any moment, the same call goes on where it was."""

import fcntl
import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.world.captions import captions, facts
from data.world.render import render
from data.world.sampling import LEVELS
from data.world.scene import Clip, Scene, shots
from data.world.splits import check_difficulty
from data.world.stories import PARTS, check_stories, draw_clip
from data.world.truth import FrameState, truth
from data.writer import write_mp4, write_whole

FORMAT = 1  # raised whenever the same settings would give other clips, captions or truths
CHUNK = 32  # clips a process takes at a time


@dataclass(frozen=True, slots=True)
class World:
    """Everything the files depend on.

    Args:
        clips, val, heldout: how many clips of each split; `heldout` holds the combinations that the others never show.
        crf: of H.264, lower is better.
        stories: how many clips of a part that holds stories alone, which training does not see; see data.world.stories.
    """

    difficulty: str
    seed: int
    clips: int
    val: int
    heldout: int
    frames: int
    fps: float
    height: int
    width: int
    crf: int
    stories: int = 0

    def __post_init__(self) -> None:
        check_difficulty(self.difficulty)
        least = {"seed": 0, "clips": 0, "val": 0, "heldout": 0, "stories": 0, "crf": 0, "frames": 1, "height": 2, "width": 2}
        for key, low in least.items():
            value = getattr(self, key)
            if type(value) is not int or value < low:
                raise ValueError(f"{key}={value!r} must be a whole number >= {low}. Set {key}.")
        if type(self.fps) not in (int, float) or not 0 < self.fps <= 1000:
            raise ValueError(f"fps={self.fps!r} must be a number of frames per second above 0. Set fps.")
        if self.crf > 51:
            raise ValueError(f"crf={self.crf} must lie between 0 (best) and 51. Set crf.")
        if self.height % 2 or self.width % 2:
            raise ValueError(
                f"height={self.height} width={self.width}: H.264 in yuv420p needs even sizes. "
                f"Set height={self.height + self.height % 2} width={self.width + self.width % 2}."
            )

        if self.stories:
            check_stories(self.difficulty, self.frames)

    def count(self, split: str) -> int:
        return {"train": self.clips, "val": self.val, "heldout": self.heldout, "stories": self.stories}[split]

    def scene(self, split: str, number: int) -> Clip:
        return draw_clip(self.seed, number, self.difficulty, split, self.width / self.height, self.frames)

    def record(self) -> dict[str, Any]:
        """As world.json holds it. What was added after the first worlds stands in it where it is used, so that theirs stay the same."""
        return {key: value for key, value in {"format": FORMAT, **asdict(self)}.items() if key != "stories" or value}


def make_world(world: World, out: Path, processes: int = 2) -> None:
    """Writes <out>/<split>/{clips/000000.mp4, index.jsonl, truth.jsonl} for the splits that have clips, and prints its progress.

    Clips that are there already are kept: they were made from the same settings, or the call is refused.

    Args:
        processes: how many work at once; changes nothing but the time.
    Raises: ValueError if the folder holds something else; RuntimeError if it was made with other settings or another process is writing.
    """
    _check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _claim_folder(world, out)
        for split in PARTS:
            for litter in [*(out / split).glob(".*.part"), *(out / split / "clips").glob(".*.part")]:
                litter.unlink()
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for split in PARTS:
                if world.count(split):
                    _make_split(world, out / split, split, pool)


def _make_split(world: World, folder: Path, split: str, pool: ProcessPoolExecutor) -> None:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    total = world.count(split)
    starts = range(0, total, CHUNK)
    jobs = [pool.submit(_chunk, world, folder, split, range(start, min(start + CHUNK, total))) for start in starts]
    began, told = time.monotonic(), time.monotonic()

    def write(index_part: Path) -> None:
        nonlocal told

        def write_truth(truth_part: Path) -> None:
            nonlocal told
            with index_part.open("w", encoding="utf-8") as index, truth_part.open("w", encoding="utf-8") as states:
                for start, job in zip(starts, jobs, strict=True):
                    rows, truths = job.result()
                    index.write(rows)
                    states.write(truths)
                    done = min(start + CHUNK, total)
                    if time.monotonic() - told > 5 and done < total:
                        told = time.monotonic()
                        left_s = (told - began) * (total - done) / done
                        print(f"{split}: {done} of {total} clips, {left_s:.0f} s left", flush=True)

        write_whole(folder / "truth.jsonl", write_truth)

    try:
        write_whole(folder / "index.jsonl", write)
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    print(f"{split}: {total} clips in {time.monotonic() - began:.0f} s, {folder / 'index.jsonl'}", flush=True)


def _chunk(world: World, folder: Path, split: str, numbers: range) -> tuple[str, str]:
    """Writes the clips that are missing; returns the lines of index and truth of all."""
    rows, truths = [], []
    for number in numbers:
        clip = world.scene(split, number)
        name = f"clips/{number:06d}.mp4"
        path = folder / name
        if not path.exists() or not path.stat().st_size:
            write_mp4(path, render(clip, world.frames, world.height, world.width), world.fps, world.crf)
        rows.append(_line(index_row(world, split, number, clip, name)))
        truths.append(_line(_truth_row(world, clip, name)))
    return "".join(rows), "".join(truths)


def index_row(world: World, split: str, number: int, clip: Clip, name: str) -> dict[str, Any]:
    """What a reader needs to know of a clip, and what is true of it; of a story shot by shot: nothing that lasts is true of the whole."""
    counter, level = number + (PARTS.index(split) << 40), LEVELS[world.difficulty]
    row = {"path": name, "frames": world.frames, "fps": world.fps, "width": world.width, "height": world.height}
    if isinstance(clip, Scene):
        return row | {"captions": captions(clip, world.seed, counter, level.captions, level.most_words), "labels": asdict(facts(clip))}
    told, start = [], 0
    for shot, (scene, share) in enumerate(shots(clip, world.frames)):
        end = start + len(share)
        texts = captions(scene, world.seed, counter + (shot << 48), level.captions, level.most_words)
        told.append({"start_s": start / world.fps, "end_s": end / world.fps, "captions": texts})
        start = end
    return row | {"captions": {}, "shots": told, "labels": {"shots": [asdict(facts(scene)) for scene in (clip.first, clip.second)]}}


def _truth_row(world: World, clip: Clip, name: str) -> dict[str, Any]:
    states = truth(clip, world.frames, world.height, world.width, world.fps)
    frames = [_state_row(state) for state in states]
    if isinstance(clip, Scene):
        return {"path": name, "frames": frames, "scene": asdict(clip)}
    for frame, state in zip(frames, states, strict=True):
        frame["shot"] = state.shot
    return {"path": name, "frames": frames, "story": asdict(clip)}


def _state_row(state: FrameState) -> dict[str, Any]:
    """A frame as JSON; a thousandth of a pixel is exact enough for any measure."""
    objects = [
        {
            "centre": [round(v, 3) for v in one.centre],
            "radius": round(one.radius, 3),
            "angle": round(one.angle, 4),
            "box": [round(v, 3) for v in one.box],
            "visible": round(one.visible, 4),
        }
        for one in state.objects
    ]
    view = [round(v, 3) for v in state.view]
    return {"time_s": round(state.time_s, 4), "objects": objects, "view": view, "magnification": round(state.magnification, 4), "light": state.light}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"


def _check_folder(out: Path) -> None:
    """A world gets a folder of its own: an empty `out` would be the checkout itself."""
    if out.exists() and not (out / "world.json").exists() and any(path.name != ".lock" for path in out.iterdir()):
        raise ValueError(f"out={out} holds other files and no world.json. Set out to a new folder.")


def _claim_folder(world: World, out: Path) -> None:
    """Records the settings in an empty folder, or holds them against the recorded ones."""
    record = out / "world.json"
    wanted = world.record()
    if not record.exists():
        write_whole(record, lambda part: part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8"))
        return
    found = json.loads(record.read_text(encoding="utf-8"))
    unlike = [f"{key}={found.get(key)}, now {wanted.get(key)}" for key in sorted(wanted | found) if found.get(key) != wanted.get(key)]
    if unlike:
        raise RuntimeError(f"{out} was made with {'; '.join(unlike)}. Set another out, or delete that folder.")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two writers in one folder would sweep away each other's unfinished files. The lock dies with its process."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{out}: another process is writing this world. Wait for it, or set another out.") from None
        yield
