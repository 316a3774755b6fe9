"""Laws of kept frames: what was given is compared, nothing else, and with the autoencoder's own error."""

from math import log10

import numpy as np
import pytest

from evaluation.reconstruction import HIGHEST_DB
from evaluation.tasks.given import WITHIN_DB, kept, summary

GIVEN = np.arange(17) < 5


def off(video: np.ndarray, levels: int) -> np.ndarray:
    return np.where(video > 127, video - levels, video + levels).astype(np.uint8)


@pytest.mark.parametrize(("levels", "right"), [(16, True), (17, False)])
def test_given_frames_may_be_half_a_decibel_worse_than_the_autoencoders_own(clips, levels: int, right: bool) -> None:
    # 16 levels of error for 16 are no worse, 17 for 16 are 0.53 dB worse.
    results = [kept(clip.video, off(clip.video, levels), off(clip.video, 16), GIVEN) for clip in clips]
    figures = summary(results)
    assert figures["kept"]["value"] == right
    assert figures["worse_db"]["value"] == pytest.approx(20 * log10(levels / 16), abs=1e-9)
    assert (figures["worse_db"]["value"] <= WITHIN_DB) == right


def test_frames_and_pixels_that_were_not_given_do_not_count(clips) -> None:
    source = clips[0].video
    made, box = source.copy(), np.zeros((64, 64), bool)
    made[5:] = 255 - made[5:]
    assert kept(source, made, source, GIVEN).psnr_db == HIGHEST_DB
    box[:, 32:] = True
    made[:, :, :32] = 255 - source[:, :, :32]
    assert not kept(source, made, source, GIVEN).kept
    assert kept(source, made, source, GIVEN, box).psnr_db == HIGHEST_DB
    assert kept(source, made, source, GIVEN, np.broadcast_to(box, source.shape[:3])).kept


def test_one_forgotten_frame_of_five_is_not_kept(clips) -> None:
    source = clips[0].video
    made = off(source, 2)
    made[4] = source[16]
    assert not kept(source, made, off(source, 2), GIVEN).kept


def test_what_cannot_be_compared_is_refused(clips) -> None:
    video = clips[0].video
    with pytest.raises(ValueError, match="three videos of one shape"):
        kept(video, video[1:], video, GIVEN)
    with pytest.raises(ValueError, match="nothing of the clip was given"):
        kept(video, video, video, np.zeros(17, bool))
    with pytest.raises(ValueError, match="a mask of pixels"):
        kept(video, video, video, GIVEN, np.ones((32, 32), bool))
