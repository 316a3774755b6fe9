"""Every task around given pictures and clips: what it gives stands where it belongs and comes back bit for bit through the whole chain."""

import numpy as np
import pytest
import torch

from runtime.build import ConfigError
from tasks.given import Connect, Extend, FirstAndLast, ImageToVideo, InBetween, Keyframes, ReCut
from tasks.make import Job, latents
from tasks.sources import clip, picture
from tasks.task import Files


def at(media, name):
    return f"{media}/{name}"


def begun(task, files, studio):
    return task.begin(files, studio)


def cases(media):
    clips, image = (at(media, "clip.mp4"),), (at(media, "a.png"),)
    far = Keyframes(), Files(keyframes=((0.5, image[0]), (1.0, at(media, "b.png"))))
    return [
        (ImageToVideo(), Files(images=image), [0], []),
        (FirstAndLast(), Files(images=image, last=at(media, "b.png")), [0, 8], [8]),
        (*far, [4, 8], [4, 8]),
        (Extend("after"), Files(videos=clips), range(17), []),
        (Extend("after", 0.5), Files(videos=clips), range(5), []),
        (Extend("before"), Files(videos=clips), range(8, 25), [8, 12]),
        (Extend("both"), Files(videos=clips), range(4, 21), [4, 8]),
        (ReCut((0.5, 1.25)), Files(videos=clips), range(4, 10), [4, 8, 9]),
        (Connect(0.5), Files(videos=(clips[0], at(media, "other.mp4"))), [*range(17), *range(24, 33)], [24, 28]),
        (InBetween(4), Files(videos=clips), range(0, 17, 4), [4, 8, 12, 16]),
    ]


@pytest.mark.parametrize("number", range(10))
def test_what_is_given_stands_in_its_place_and_comes_back_bit_for_bit(desk, generator, media, number):
    task, files, given, pictures = cases(media)[number]
    plan = task.begin(files, desk())
    assert plan.given.nonzero()[0].tolist() == list(given)
    assert plan.canvas.moments[0, plan.canvas.shown :].tolist() == pytest.approx([frame / 8 for frame in pictures])
    (made,) = latents(generator, [plan], Job(["x"], [3], 1))
    known = plan.canvas.given[0, : plan.canvas.shown]
    assert torch.equal(made[:, :, known], plan.canvas.latents[:, :, : plan.canvas.shown][:, :, known])
    assert made.shape[2] == plan.canvas.shown == 1 + (plan.frames - 1) // 4
    assert not known.all()


def test_known_latents_are_those_of_the_source_under_the_vae(desk, media):
    source = desk().latents(clip(at(media, "clip.mp4"), 8.0, 16, 24))
    for task, first, known in ((Extend("after"), 0, range(5)), (Extend("before"), 2, range(4, 7)), (Extend("both"), 1, range(3, 6))):
        canvas = task.begin(Files(videos=(at(media, "clip.mp4"),)), desk()).canvas
        assert canvas.given[0, : canvas.shown].nonzero()[:, 0].tolist() == list(known)
        for k in known:
            assert torch.allclose(canvas.latents[:, :, k], source[:, :, k - first], atol=1e-5)  # kernels round by shape


def test_a_first_picture_is_cut_to_the_clip(desk, media):
    plan = ImageToVideo().begin(Files(images=(at(media, "wide.mp4"),)), desk())
    assert torch.equal(plan.canvas.latents[:, :, 0], desk().encode(picture(at(media, "wide.mp4"), 16, 24))[:, :, 0])


def test_windows_go_outwards_from_what_is_given(desk, media):
    files = Files(videos=(at(media, "clip.mp4"),))
    assert Extend("after").begin(files, desk(65)).begin == 0
    before = Extend("before").begin(files, desk(65))
    assert before.begin == 12  # the segment begins with pixel frame 48, the last of latent frame 12
    assert ReCut((0.5, 1.0)).begin(files, desk()).begin == 1
    assert all(task.begin(files, desk(65)).windows for task in (Extend("after"), Extend("both")))
    assert Extend("both").begin(files, desk(25)).given.nonzero()[0].tolist() == list(range(4, 21))  # the least: a latent frame on each side


@pytest.mark.parametrize(("curve", "passage"), [("linear", [0.2, 0.4, 0.6, 0.8]), ("smooth", [0.104, 0.352, 0.648, 0.896]), ("step", [0, 0, 1, 1])])
def test_connected_clips_go_from_one_prompt_to_the_other(desk, media, curve, passage):
    plan = Connect(2.0, curve).begin(Files(videos=(at(media, "other.mp4"), at(media, "other.mp4")), second="b"), desk())
    spoken = plan.script("a")
    assert spoken.texts == ("a", "b")
    weights = spoken.weights
    assert torch.allclose(weights.sum(dim=0), torch.ones(plan.canvas.shown))
    assert weights[0, :3].tolist() == [1, 1, 1]
    assert weights[1, -3:].tolist() == [1, 1, 1]
    assert weights[1, 3:-3].tolist() == pytest.approx(passage)
    assert Connect(2.0).begin(Files(videos=(at(media, "other.mp4"),) * 2), desk()).script("a") == "a"


def test_an_inbetween_rises_above_the_sources_own_rate_and_keeps_every_frame(desk, media):
    files = Files(videos=(at(media, "clip.mp4"),))  # 17 frames at 8 a second
    task = InBetween(4)
    assert task.rate(files) == 32
    plan = task.begin(files, desk(fps=32.0))
    assert plan.frames == 65
    assert plan.notes == ()
    assert np.array_equal(plan.source[::4], clip(at(media, "clip.mp4"), 8.0, 16, 24))
    # The network is shown slow motion: moments as far from each other as in training, where clips have 8 frames a second.
    assert plan.canvas.moments[0, : plan.canvas.shown].tolist() == pytest.approx([k * 4 / 8 for k in range(17)])
    assert plan.canvas.moments[0, plan.canvas.shown :].tolist() == pytest.approx([k * 4 / 8 for k in range(1, 17)])
    slower = task.begin(files, desk())
    assert slower.notes == (
        f"12 of the 17 frames of {files.videos[0]} are not used, as fps=8 and task.factor=4 read it at 2 fps. Leave out fps to use them all.",
    )
    assert InBetween(3).begin(files, desk(fps=24.0)).given.sum() == 17  # 49 frames
    odd = InBetween(2).begin(Files(videos=(at(media, "other.mp4"),)), desk(fps=12.0))  # 9 frames at 8 a second, read at 6: 7 of them
    assert (odd.frames, int(odd.given.sum())) == (13, 7)
    assert InBetween(3).begin(Files(videos=(at(media, "other.mp4"),)), desk(fps=16.0)).frames == 17  # 6 frames become 16, and one more
    assert task.rate(Files(videos=(at(media, "a.png"),))) is None


def test_connected_clips_have_as_many_frames_as_are_asked_for_or_none(desk, media):
    files = Files(videos=(at(media, "clip.mp4"),) * 2)
    with pytest.raises(ValueError, match=r"frames=35 .*33 or 37"):
        Connect(1.0).begin(files, desk(35))
    assert Connect(1.0).begin(files, desk(37)).frames == 37


def test_clips_that_reach_beyond_the_end_are_told_of(desk, media):
    plan = Keyframes().begin(Files(keyframes=((0.0, at(media, "a.png")), (0.75, at(media, "clip.mp4")))), desk())
    (told,) = plan.notes
    assert told.startswith(f"--keyframe 0.75={media}/clip.mp4: the last 14 of its 17 frames lie beyond the clip's end and are left out.")


def test_an_inbetween_keeps_every_frame_of_a_slow_clip(desk, media):
    plan = InBetween(2).begin(Files(videos=(at(media, "clip.mp4"),)), desk(fps=16.0))
    source = clip(at(media, "clip.mp4"), 8.0, 16, 24)
    assert plan.frames == 33
    assert np.array_equal(plan.source[::2], source)


REFUSED = [
    (ImageToVideo, (), {"images": ("a.png",)}, 1, "fill all 1 frames of the clip"),
    (ImageToVideo, (), {"images": ("none.png",)}, None, "none.png cannot be used (missing"),
    (FirstAndLast, (), {"images": ("a.png",)}, None, "Give --last FILE"),
    (FirstAndLast, (), {"last": "a.png"}, None, "task=first_last wants one --image, got 0"),
    (Keyframes, (), {}, None, "Give --keyframe SECONDS=FILE"),
    (Keyframes, (), {"keyframes": ((1.2, "a.png"),)}, None, "lies outside the clip, which ends at 1 s"),
    (Extend, ("after",), {"videos": ("clip.mp4",)}, 17, "frames=17 leaves nothing to add to the 17 frames"),
    (Extend, ("after",), {"videos": ("a.yaml",)}, None, "cannot be used"),
    (ReCut, ((3.0, 4.0),), {"videos": ("clip.mp4",)}, None, "is no span of"),
    (ReCut, ((1.0, 0.5),), {"videos": ("clip.mp4",)}, None, "is no span of"),
    (ReCut, ((0.0, 9.0),), {"videos": ("clip.mp4",)}, None, "fill all 17 frames"),
    (Connect, (1.0,), {"videos": ("clip.mp4",)}, None, "wants two videos, got 1"),
    (Extend, ("both",), {"videos": ("clip.mp4",)}, 21, "frames=21 leaves nothing to add to the 17 frames"),
    (Connect, (1.0,), {"videos": ("clip.mp4", "clip.mp4")}, 33, "has no room between 17 and 17"),
    (InBetween, (4,), {"videos": ("a.png",)}, None, "too few to make some between them"),
    (InBetween, (4,), {"videos": ("clip.mp4",)}, 9, "become 17 by task.factor=4"),
]


@pytest.mark.parametrize(("task", "arguments", "given", "frames", "says"), REFUSED)
def test_what_cannot_be_is_refused_in_words(desk, media, task, arguments, given, frames, says):
    def located(value):
        return tuple(map(located, value)) if isinstance(value, tuple) else at(media, value) if isinstance(value, str) else value

    with pytest.raises(ConfigError) as error:
        task(*arguments).begin(Files(**{key: located(value) for key, value in given.items()}), desk(frames))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("task", "arguments", "says"),
    [
        (Extend, ("left",), "task.side='left'"),
        (Extend, ("after", 0.0), "task.context_s=0.0 must be above 0"),
        (Extend, ("both", 1.0), "Set task.context_s=null"),
        (Connect, (0.0,), "task.gap_s=0.0"),
        (Connect, (1.0, "cosine"), "task.curve='cosine' is unknown"),
        (InBetween, (1,), "task.factor=1 makes no frames"),
    ],
)
def test_settings_out_of_range_name_their_key(task, arguments, says):
    with pytest.raises(ConfigError) as error:
        task(*arguments)
    assert says in str(error.value)
