"""Laws of features that a run of ours learnt: whole clips in the size that the network knows, under a name that no other weights have."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.frozen_features import read_features
from evaluation.learnt_features import LearntFeatures, run_of
from evaluation.report_sets import from_real, known_to_features


def encode(video: Tensor) -> Tensor:
    """First frame's and last frame's mean, height."""
    ends = video[:, :, [0, -1]].mean(dim=(1, 3, 4))
    return torch.cat([ends, torch.full((len(video), 1), float(video.shape[3]))], dim=1)


def learnt(folder: str = "mine", sha256: str = "0123456789abcdef") -> LearntFeatures:
    return LearntFeatures(folder, sha256, encode, frames=4, height=6, width=8)


def clip(frames: int) -> np.ndarray:
    return np.broadcast_to((20 * np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, 12, 16, 3)).copy()


def test_a_clip_is_a_sample_for_each_stretch_in_the_size_that_was_trained_on() -> None:
    found = learnt()(clip(11))
    assert found.dtype == np.float64
    assert (found[:, :2] * 127.5 + 127.5) / 20 == pytest.approx(np.array([[0, 3], [4, 7]]), abs=1e-3)  # what is left over is left out
    assert (found[:, 2] == 6).all()


def test_a_short_clip_is_spread_over_a_stretch() -> None:
    assert learnt()(clip(1)) == pytest.approx(learnt()(np.repeat(clip(1), 4, axis=0)))
    assert (learnt()(clip(2))[0, :2] * 127.5 + 127.5) / 20 == pytest.approx([0, 1], abs=1e-3)


def test_the_name_is_the_run_and_the_weights() -> None:
    features = learnt()
    assert (features.name, features.key) == ("learnt:mine@01234567", "0123456789abcdef")
    assert run_of("learnt:runs/mine") == ("runs/mine", "")
    assert run_of("learnt:a@b/mine@0123") == ("a@b/mine", "0123")
    assert run_of("learnt:a@b/mine") == ("a@b/mine", "")
    assert run_of("learnt:runs/mine@v2") == ("runs/mine@v2", "")
    assert run_of("learnt:runs/mine@22@0123") == ("runs/mine@22", "0123")
    assert run_of("learnt:") == ("", "")
    assert [each.name for each in read_features(["learnt:runs/mine"], learnt=lambda given: learnt(run_of(given)[0]))] == ["learnt:runs/mine@01234567"]
    with pytest.raises(ValueError, match=r"is not one of videomae:<folder>, .*learnt:<folder>"):
        read_features(["learnt:runs/mine"])
    with pytest.raises(ValueError, match="hold learnt:mine@01234567 twice"):
        read_features(["learnt:a/mine", "learnt:b/mine"], learnt=lambda _: learnt())


def test_the_page_says_which_of_them_know_the_clips_that_they_judge() -> None:
    saw = {"learnt:a<b": {"clips": 3, "note": "learnt at 4 fps"}, "learnt:c": {"clips": 0}, "learnt:d": {"why": "<gone>"}}
    told = known_to_features({"features_saw": saw})
    assert "<code>learnt:a&lt;b</code> were trained on 3 of the real clips" in told
    assert "<code>learnt:a&lt;b</code> learnt at 4 fps" in told
    assert "<code>learnt:d</code> may have been trained on some of the real clips: &lt;gone&gt;" in told  # unlike none at all
    assert "learnt:c" not in told
    assert known_to_features({}) == ""
    assert told in from_real({"generated": {"n": 4, "frechet": {}, "kernel": {}}, "features_saw": saw})
