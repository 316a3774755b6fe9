"""Laws of drift: attributes are judged window by window, in bounded memory, and two rollouts in pairs."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from data.world.render import render
from data.world.vocabulary import COLOURS
from evaluation.tasks.controls import frozen
from evaluation.tasks.course import mean_speed
from evaluation.tasks.drift import compared, curve, drift, windows


@pytest.fixture
def few(clips):
    return clips[:4]


def rollouts(clips, holds: int, length: int = 4) -> list[np.ndarray]:
    """Each clip again and again, in another colour from window `holds` on."""
    found = []
    for clip in clips:
        body = clip.scene.objects[0]
        other = next(colour for colour in COLOURS if colour != body.colour)
        changed = render(replace(clip.scene, objects=(replace(body, colour=other),)), 17, 64, 64)
        found.append(np.concatenate([clip.video if k < holds else changed for k in range(length)]))
    return found


def test_attributes_hold_as_long_as_they_do(few) -> None:
    speeds = [mean_speed(clip.course) for clip in few]
    figures = curve([drift([video], clip.claim, 17) for video, clip in zip(rollouts(few, 2), few, strict=True)], speeds)
    assert figures["lengths"] == [1, 2, 3, 4]
    assert [point["value"] for point in figures["held"]] == [1, 1, 0, 0]
    assert [point["value"] for point in figures["attributes"]["colour"]] == [1, 1, 0, 0]
    assert [point["value"] for point in figures["attributes"]["shape"]] == [1, 1, 1, 1]
    assert [point["value"] for point in figures["moves"]] == [1, 1, 1, 1]


def test_a_frozen_rollout_holds_everything_and_does_not_move(few) -> None:
    still = [np.concatenate([clip.video, *[frozen(clip.video)] * 2]) for clip in few]
    speeds = [mean_speed(clip.course) for clip in few]
    figures = curve([drift([video], clip.claim, 17) for video, clip in zip(still, few, strict=False)], speeds)
    # A size is claimed of none that grows, so nothing is lost when it stops.
    assert [point["value"] for point in figures["held"]] == [1, 1, 1]
    assert [point["value"] for point in figures["moves"]] == [1, 0, 0]
    assert [point["value"] for point in figures["lasting"]] == [1, 0, 0]
    moving = [drift([np.concatenate([clip.video] * 3)], clip.claim, 17) for clip in few]
    frozen_ = [drift([video], clip.claim, 17) for video, clip in zip(still, few, strict=True)]
    assert [point["value"] for point in compared(moving, frozen_, speeds)["lasting"]] == [0, 1, 1]
    assert compared(moving, frozen_)["mean"]["value"] == 0  # where nothing need move


def test_pieces_of_any_length_make_the_same_windows() -> None:
    video = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    whole = list(windows([video], 17))
    assert [int(part[0, 0, 0, 0]) for part in whole] == [0, 17, 34, 51, 68]
    for size in (1, 5, 17, 40):
        pieces = list(windows((video[k : k + size] for k in range(0, 100, size)), 17))
        assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_a_window_is_handed_on_before_the_next_piece_is_read() -> None:
    read: list[int] = []

    def pieces() -> Iterator[np.ndarray]:
        for k in range(6):
            read.append(k)
            yield np.zeros((4, 2, 2, 3), np.uint8)

    for number, _ in enumerate(windows(pieces(), 8)):
        assert len(read) == 2 * (number + 1)


def test_two_rollouts_are_compared_prompt_by_prompt(few) -> None:
    longer, shorter = ([drift([video], clip.claim, 17) for video, clip in zip(rollouts(few, holds), few, strict=True)] for holds in (3, 1))
    figures = compared(longer, shorter)
    assert [point["value"] for point in figures["lasting"]] == [0, 1, 1, 0]
    assert figures["mean"]["value"] == pytest.approx(0.5)
    assert figures["mean"]["low"] > 0
    assert compared(shorter, longer)["mean"]["value"] == pytest.approx(-0.5)


def test_unlike_rollouts_are_refused(clips) -> None:
    one, two = (drift([np.concatenate([clips[0].video] * length)], clips[0].claim, 17) for length in (1, 2))
    with pytest.raises(ValueError, match="as many windows of every clip"):
        curve([one, two])
    with pytest.raises(ValueError, match="prompt by prompt"):
        compared([one], [one, one])
    with pytest.raises(ValueError, match="shorter than one window"):
        drift([clips[0].video[:16]], clips[0].claim, 17)
