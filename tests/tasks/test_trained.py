"""What a plan relies on follows from what stands on its canvas; what training did not show of it is named."""

from dataclasses import replace

import pytest
import yaml

from tasks.given import Connect, Extend, FirstAndLast, ImageToVideo, InBetween, Keyframes, ReCut
from tasks.remix import Remix
from tasks.storyboard import Storyboard
from tasks.task import Files
from tasks.text import Loop, TextToImage, TextToVideo
from tasks.trained import missing, missing_for_level, missing_for_windows, needs

LATE = ("last_n", "ends", "span", "keyframes")


@pytest.fixture
def plans(desk, media, tmp_path):
    image, last, video = f"{media}/a.png", f"{media}/b.png", Files(videos=(f"{media}/clip.mp4",))
    shots = [{"from_s": 0, "to_s": 2.125, "prompt": "a"}]
    boards = {"quiet": {"shots": shots}, "pictured": {"shots": shots, "given": [{"at_s": 1, "image": image}]}}
    for name, board in boards.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(board))
    return {
        "t2v": TextToVideo().begin(Files(), desk()),
        "t2i": TextToImage().begin(Files(), desk()),
        "loop": Loop().begin(Files(), desk(16)),
        "remix": Remix(0.0).begin(video, desk()),
        "i2v": ImageToVideo().begin(Files(images=(image,)), desk()),
        "first_last": FirstAndLast().begin(Files(images=(image,), last=last), desk()),
        "keyframes": Keyframes().begin(Files(keyframes=((0.5, image),)), desk()),
        "after": Extend("after").begin(video, desk()),
        "odd": Extend("after", 0.75).begin(video, desk()),
        "before": Extend("before").begin(video, desk()),
        "short before": Extend("before", 0.25).begin(video, desk(9)),
        "both": Extend("both").begin(video, desk()),
        "recut": ReCut((0.0, 1.125)).begin(video, desk()),
        "connect": Connect(0.5).begin(Files(videos=video.videos * 2), desk()),
        "inbetween": InBetween(4).begin(video, desk()),
        **{name: Storyboard().begin(Files(storyboard=f"{tmp_path}/{name}.yaml"), desk()) for name in boards},
    }


def test_what_is_needed_follows_from_the_plan(plans):
    first = ("first", "first_n", "ends", "keyframes")
    wanted = {
        **{name: [("none",)] for name in ("t2v", "loop", "remix", "quiet")},
        "t2i": [("picture",)],
        "i2v": [("first", "first_n")],
        "first_last": [first, LATE],
        **{name: [LATE] for name in ("keyframes", "short before", "pictured")},
        "after": [("first_n",)],
        "odd": [("first_n", "ends"), LATE],
        "before": [("last_n", "span"), LATE],
        "both": [("span",), LATE],
        "recut": [("first_n",)],
        "connect": [("ends",), LATE],
        "inbetween": [first, LATE],
    }
    assert {name: needs(plan) for name, plan in plans.items()} == wanted


def test_patterns_that_training_did_not_show_are_named(plans):
    shown = {"weights": {"none": 0.5, "first": 0.5, "last_n": 0.0}, "windows": 0.0}
    late = "objective.conditioning.weights has no last_n or ends or span or keyframes"
    assert missing(plans["t2v"], shown, 9) == missing(plans["i2v"], shown, 9) == missing(plans["quiet"], shown, 9) == []
    assert missing(plans["connect"], shown, 9) == ["objective.conditioning.weights has no ends", late]
    assert missing(plans["pictured"], shown, 9) == missing(plans["short before"], shown, 9) == [late]
    assert missing(plans["odd"], {"weights": {"first_n": 1.0}}, 9) == [late, "a beginning of 5 frames instead of 7 would hold no pictures"]
    assert missing(plans["loop"], shown, 9) == ["objective.conditioning.windows is 0: it never saw a piece of a longer video"]
    assert missing(plans["loop"], {"weights": {"none": 1.0}}, 9) == missing(plans["loop"], shown, 9)  # a run from before there were windows
    assert missing(plans["t2i"], shown, 9) == ["objective.conditioning.weights has no picture"]
    assert missing(plans["t2i"], shown, 1) == []  # it was trained on pictures


def test_windows_rely_on_beginnings_and_backwards_on_ends(desk):
    plan = TextToVideo().begin(Files(), desk(33))
    every = {"weights": {"first_n": 1.0}, "windows": 0.5}
    assert missing_for_windows(plan, every) == []
    assert missing_for_windows(replace(plan, begin=3), every) == ["objective.conditioning.weights has no last_n"]
    assert len(missing_for_windows(plan, {"weights": {"none": 1.0}})) == 2


def test_given_frames_under_more_noise_than_in_training_are_named():
    assert missing_for_level(0.1, {"noise": 0.1}) == missing_for_level(0.0, {}) == []
    assert missing_for_level(0.2, {"noise": 0.1}) == ["objective.conditioning.noise is 0.1: what was given never stood under more"]
    assert len(missing_for_level(0.1, {})) == 1
