"""Laws of image to video: what is given, what is held against what."""

from collections.abc import Sequence
from dataclasses import replace
from math import log10

import numpy as np
import pytest

from data.world.captions import captions, claim
from data.world.render import render
from data.world.sampling import draw_scene
from evaluation.image_to_video import KEPT_DB, Given, animate_all, summary
from evaluation.reconstruction import HIGHEST_DB

SCENES = [draw_scene(0, number, "easy", "heldout") for number in range(4)]
CLIPS = [
    Given(render(scene, 17, 64, 64), claim(scene), captions(scene, 0, number)["short"][0], captions(scene, 0, number)["motion"][0])
    for number, scene in enumerate(SCENES)
]


def whole(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
    """A perfect generator: the clip that begins with the given frame."""
    return [next(clip.video for clip in CLIPS if np.array_equal(clip.video[:1], first)) for first in firsts]


def unchanged(videos: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return videos


def test_the_true_clip_is_right_under_every_caption() -> None:
    figures = summary(animate_all(whole, unchanged, CLIPS))
    assert set(figures) == {"full", "motion", "empty"}
    for mode, node in figures.items():
        asked = ("shape", "colour", "background", "all", "first_frame_kept", *(() if mode == "empty" else ("motion",)))
        assert all(node[name]["value"] == 1 for name in asked)
        assert node["first_frame_psnr_db"] == node["vae_first_frame_psnr_db"] == HIGHEST_DB
    assert "motion" not in figures["empty"]


def test_a_frozen_first_frame_keeps_shape_and_colour_and_fails_the_motion() -> None:
    def freeze(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [np.repeat(first, 17, axis=0) for first in firsts]

    figures = summary(animate_all(freeze, unchanged, CLIPS))
    assert (figures["motion"]["shape"]["value"], figures["motion"]["colour"]["value"]) == (1, 1)
    assert figures["motion"]["motion"]["value"] == figures["motion"]["all"]["value"] == 0
    assert figures["empty"]["all"]["value"] == 1


def test_what_is_kept_is_counted_per_kind_of_held_out_combination() -> None:
    def first_kept(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [video if number == 0 else np.zeros_like(video) for video, number in zip(whole(firsts, texts, samples), samples, strict=True)]

    clips = [replace(clip, kind=kind) for clip, kind in zip(CLIPS, ("triple", "triple", "shape_colour", None), strict=True)]
    kinds = summary(animate_all(first_kept, unchanged, clips))["motion"]["kinds"]
    assert {kind: (share["value"], share["n"]) for kind, share in kinds.items()} == {"shape_colour": (0, 1), "triple": (0.5, 2)}


def test_another_object_is_not_kept() -> None:
    def swapped(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [np.concatenate([video[:1], video[1:, :, :, ::-1]]) for video in whole(firsts, texts, samples)]

    blue_for_red = summary(animate_all(swapped, unchanged, CLIPS))
    assert blue_for_red["empty"]["colour"]["value"] < 1


def test_the_generator_sees_the_first_frame_alone_and_the_captions_in_turn() -> None:
    asked: list[tuple[tuple[int, ...], tuple[str, ...], tuple[int, ...]]] = []

    def note(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        asked.append((tuple(len(first) for first in firsts), tuple(texts), tuple(samples)))
        return whole(firsts, texts, samples)

    animate_all(note, unchanged, CLIPS, first_sample=50, batch_size=3)
    assert asked[:3] == [
        ((1, 1, 1), tuple(clip.full for clip in CLIPS[:3]), (50, 51, 52)),
        ((1, 1, 1), tuple(clip.motion for clip in CLIPS[:3]), (50, 51, 52)),
        ((1, 1, 1), ("", "", ""), (50, 51, 52)),
    ]
    assert [samples for _, _, samples in asked[3:]] == [(53,)] * 3


@pytest.mark.parametrize(("extra", "kept"), [(0, 1.0), (1, 0.0)])
def test_the_first_frame_is_kept_when_it_is_as_good_as_the_vae_alone(extra: int, kept: float) -> None:
    def off(video: np.ndarray, levels: int) -> np.ndarray:
        return np.where(video > 127, video - levels, video + levels).astype(np.uint8)

    def worse(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [off(video, 2 + extra) for video in whole(firsts, texts, samples)]

    figures = summary(animate_all(worse, lambda videos: [off(video, 2) for video in videos], CLIPS))
    for node in figures.values():
        assert node["vae_first_frame_psnr_db"] == pytest.approx(20 * log10(255 / 2))
        assert node["first_frame_psnr_db"] == pytest.approx(20 * log10(255 / (2 + extra)))
        assert node["first_frame_kept"]["value"] == kept
    assert 20 * log10(3 / 2) > KEPT_DB
