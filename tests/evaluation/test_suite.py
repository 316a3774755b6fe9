"""Laws of the suite's inputs: real clips come with what is true of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from data.world.captions import claim
from data.world.folder import World, make_world
from evaluation.reconstruction import box_psnr_db, psnr_db
from evaluation.statistics import wilson
from evaluation.suite import Clip, Plan, evaluate_flow, evaluate_vae, read_clips

WORLD = World("easy", seed=4, clips=0, val=0, heldout=3, frames=17, fps=8, height=64, width=64, crf=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(WORLD, root, processes=1)
    return root / "heldout"


def test_clips_come_with_their_claims_and_boxes(folder: Path) -> None:
    clips = read_clips(folder, 10)
    assert [clip.claim for clip in clips] == [claim(WORLD.scene("heldout", number)) for number in range(3)]
    assert len(read_clips(folder, 2)) == 2
    for clip in clips:
        assert clip.video.shape == (17, 64, 64, 3)
        # Painting over everything inside the boxes leaves nothing but the plain background.
        flat, seen = clip.video.astype(int), np.zeros(clip.video.shape[:3], bool)
        for frame, ((left, top, right, bottom),) in enumerate(clip.boxes):
            seen[frame, max(0, int(top) - 2) : int(bottom) + 3, max(0, int(left) - 2) : int(right) + 3] = True
        assert np.abs(flat[~seen] - np.median(flat[~seen], axis=0)).max() <= 12  # what H.264 leaves around edges
        changed = clip.video.copy()
        changed[~seen] ^= 1
        inside = box_psnr_db(clip.video, changed, clip.boxes)
        assert inside is not None
        assert inside > psnr_db(clip.video, changed)


def test_the_ceiling_of_a_perfect_vae_is_the_clips_themselves(folder: Path) -> None:
    figures = evaluate_vae(read_clips(folder, 3), lambda videos: videos, seed=0).figures
    assert figures["ceiling"]["value"] == figures["ceiling"]["mp4"]["value"] == 1
    assert figures["vae"]["flicker"] == 0


def test_a_clip_in_another_size_keeps_its_object_in_its_box(folder: Path) -> None:
    for clip in read_clips(folder, 3):
        assert clip.fitted(64, 64) is clip
        for height, width in ((96, 96), (64, 48), (96, 128)):
            other = clip.fitted(height, width)
            assert other.video.shape == (17, height, width, 3)
            flat, seen = other.video.astype(int), np.zeros(other.video.shape[:3], bool)
            for frame, ((left, top, right, bottom),) in enumerate(other.boxes):
                seen[frame, max(0, int(top) - 5) : max(0, int(bottom) + 6), max(0, int(left) - 5) : max(0, int(right) + 6)] = True
            assert 0.02 < seen.mean() < 0.5
            assert np.abs(flat[~seen] - np.median(flat[~seen], axis=0)).max() <= 12


def judged(clips: Sequence[Clip], prompts: int, made: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """Figures of a generator that makes these videos by the number of the sample, and else the first clip."""
    return evaluate_flow(
        Plan(prompts=prompts, seen=2, animated=2, difficulty="easy", seed=WORLD.seed),
        clips,
        clips,
        lambda prompts, samples: [made.get(sample, clips[0].video) for sample in samples],
        lambda firsts, captions, samples: [clips[0].video for _ in firsts],
        lambda given: given,
    ).figures


def test_what_the_edge_cuts_off_counts_as_not_framed(folder: Path) -> None:
    """Samples whose object is wholly there, half there, or gone after the first frames."""
    clips = read_clips(folder, 3)
    ((left, _, right, _),) = clips[0].boxes[8]
    cut = np.ascontiguousarray(clips[0].video[8:9, :, int((left + right) / 2) :][:, :, :32]).repeat(17, axis=0)
    gone = clips[0].video.copy()
    gone[5:] = np.median(gone[0].reshape(-1, 3), axis=0)
    made = {0: clips[0].video, 1: cut, 2: gone}
    figures = judged(clips, 3, made)
    following = figures["prompt_following"]
    assert following["framed_of"] == [1, 0, pytest.approx(5 / 17, abs=1e-4)]
    assert following["framed"]["value"] == pytest.approx(fmean(following["framed_of"]), abs=1e-4)
    assert figures["ceiling"]["framed"]["value"] == figures["ceiling"]["mp4"]["framed"]["value"] == 1


def test_an_index_and_a_truth_of_unlike_clips_are_refused(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "truth.jsonl").read_text().splitlines()
    (tmp_path / "truth.jsonl").write_text("\n".join(reversed(lines)))
    (tmp_path / "index.jsonl").write_text((folder / "index.jsonl").read_text())
    with pytest.raises(ValueError, match=r"where truth\.jsonl has"):
        read_clips(tmp_path, 3)


def test_first_frames_are_lent_by_clips_of_held_out_and_of_seen_combinations(folder: Path, tmp_path: Path) -> None:
    make_world(replace(WORLD, val=2, heldout=0), tmp_path, processes=1)
    heldout, seen = read_clips(folder, 3), read_clips(tmp_path / "val", 2)
    videos = {clip.video[:1].tobytes(): clip.video for clip in [*heldout, *seen]}
    plan = Plan(prompts=2, seen=2, animated=2, difficulty="easy", seed=0)
    figures = evaluate_flow(
        plan,
        heldout,
        seen,
        lambda prompts, samples: [heldout[0].video for _ in prompts],
        lambda firsts, captions, samples: [videos[first.tobytes()] for first in firsts],
        lambda given: given,
    ).figures
    for part in ("image_to_video", "image_to_video_seen"):
        assert figures[part]["motion"]["all"] == wilson([True, True]).as_dict()
    assert sum(share["n"] for share in figures["image_to_video"]["motion"]["kinds"].values()) == 2
    assert figures["image_to_video_seen"]["motion"]["kinds"] == {}


def test_single_verdicts_are_kept_in_the_order_of_the_prompts(folder: Path) -> None:
    """Two generators that were asked the same are compared prompt by prompt."""
    clips = read_clips(folder, 3)
    # The first prompts of this seed are those of the clips themselves, which are made for all but one of them.
    made = {0: clips[0].video, 1: clips[0].video, 2: clips[2].video}
    figures = judged(clips, 4, made)
    following = figures["prompt_following"]
    assert following["all_of"] == [True, False, True, False]
    assert following["all"] == wilson(following["all_of"]).as_dict()
    assert fmean(following["graded_of"]) == pytest.approx(following["graded"]["value"], abs=1e-4)
    assert [graded == 1 for graded in following["graded_of"]] == following["all_of"]
    assert wilson(following["seen_of"]).as_dict().items() <= following["seen"].items()
    assert figures["ceiling_of"] == [True] * 3


def test_a_plan_that_measures_nothing_is_refused() -> None:
    plan = Plan(prompts=2, seen=2, animated=2, difficulty="easy", seed=0)
    with pytest.raises(ValueError, match="prompts=1"):
        replace(plan, prompts=1)
