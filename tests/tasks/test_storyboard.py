"""A storyboard: each latent frame hears the shot that it is in, and what is given stands at its time."""

from itertools import pairwise

import pytest
import torch
import yaml

from runtime.build import ConfigError
from tasks.make import Job, latents
from tasks.storyboard import Storyboard
from tasks.task import Files

SHOTS = [{"from_s": 0, "to_s": 1, "prompt": "a"}, {"from_s": 1, "to_s": 2.125, "prompt": "b"}]


def board(folder, shots=SHOTS, **more) -> Files:
    (folder / "board.yaml").write_text(yaml.safe_dump({"shots": shots, **more}))
    return Files(storyboard=str(folder / "board.yaml"))


def test_each_latent_frame_hears_the_shot_that_most_of_it_is_in(desk, tmp_path):
    plan = Storyboard().begin(board(tmp_path), desk())
    spoken = plan.script("")
    assert plan.frames == 17
    assert spoken.texts == ("a", "b")
    # The second shot begins with pixel frame 8, the last of latent frame 2; of latent frame 3 it has every one.
    assert spoken.weights[1].tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(spoken.weights.sum(dim=0), torch.ones(5))
    assert plan.script("at night,").texts == ("at night, a", "at night, b")


def test_a_gap_between_shots_is_the_shot_before_it(desk, tmp_path):
    shots = [{"from_s": 0.25, "to_s": 0.5, "prompt": "a"}, {"from_s": 1.5, "to_s": 2, "prompt": "b"}]
    assert Storyboard().begin(board(tmp_path, shots), desk(17)).script("").weights[0].tolist() == [1, 1, 1, 1, 0]


def test_what_is_given_stands_at_its_time_and_is_told_of(desk, generator, media, tmp_path):
    given = [{"at_s": 0, "video": str(media / "other.mp4")}, {"at_s": 2, "image": str(media / "a.png")}]
    plan = Storyboard().begin(board(tmp_path, given=given), desk())
    assert plan.canvas.given[0].tolist() == [True, True, True, False, False, True]
    assert plan.canvas.moments[0, 5] == 2
    assert plan.read == (str(media / "other.mp4"), str(media / "a.png"))
    (made,) = latents(generator, [plan], Job([plan.script("")], [0], 0))
    assert torch.equal(made[:, :, :3], plan.canvas.latents[:, :, :3])


def test_each_shot_is_made_as_under_its_own_prompt_where_it_stands_alone(desk, generator, tmp_path):
    alone = [{"from_s": 0, "to_s": 2.125, "prompt": "a"}]
    plan = Storyboard().begin(board(tmp_path, alone), desk())
    (one,), (other,) = (latents(generator, [plan], Job([prompt], [0], 0)) for prompt in (plan.script(""), "a"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("shots: [", "cannot be read"),
        ("- a", "shots"),
        ("shots: []", "has no shots"),
        ("shots: {a: 1}", "shots is a dict, wanted a list"),
        ("shots: [{from_s: 0, to_s: 1, prompt: a}, {from_s: 0.5, to_s: 2, prompt: b}]", "begins before the one from 0 s ends, at 1 s"),
        ("shots: [{from_s: 1, to_s: 1, prompt: a}]", "lasts from 1 to 1 s"),
        ("shots: [{from_s: -1, to_s: 1, prompt: a}]", "from_s=-1"),
        ("shots: [{from_s: 0, to_s: .nan, prompt: a}]", "to_s=nan"),
        ("shots: [{from_s: 0, to_s: 1, prompt: [a]}]", "wanted a text"),
        ("shots: [{from_s: 0, to_s: 1, promt: a}]", "unknown key 'promt' (did you mean 'prompt'?)"),
        ("shots: [{from_s: 0, to_s: 1, prompt: a}]\ngiven: [{at_s: 0}]", "wants one file, image or video"),
        ("shots: [{from_s: 0, to_s: 1, prompt: a}]\ngiven: [{at_s: 9, image: a.png}]", "stands at 9 s, the clip ends at"),
        ("shots: [{from_s: 0, to_s: 1, prompt: a}]\nmusic: x", "music"),
    ],
)
def test_boards_that_cannot_be_meant_are_refused_by_entry(desk, tmp_path, content, says):
    (tmp_path / "board.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        Storyboard().begin(Files(storyboard=str(tmp_path / "board.yaml")), desk())
    assert says in str(error.value)
    assert "board.yaml" in str(error.value)


def test_a_shot_that_no_latent_frame_is_in_is_refused(desk, tmp_path):
    cuts = [0, 1, 1.1, 2]
    shots = [{"from_s": start, "to_s": stop, "prompt": f"p{stop}"} for start, stop in pairwise(cuts)]
    with pytest.raises(ConfigError, match=r"board\.yaml: the shot from 1 to 1\.1 s, 'p1\.1', is never heard: .* Let it last 0\.5 s or more"):
        Storyboard().begin(board(tmp_path, shots), desk())
    assert Storyboard().begin(board(tmp_path, shots[::2]), desk()).script("").weights.any(dim=1).all()


def test_clips_that_reach_beyond_the_end_are_told_of(desk, media, tmp_path):
    plan = Storyboard().begin(board(tmp_path, given=[{"at_s": 1.5, "video": str(media / "clip.mp4")}]), desk())
    assert len(plan.notes) == 1
    assert "clip.mp4: the last 12 of its 17 frames lie beyond the clip's end" in plan.notes[0]


def test_a_shot_beyond_the_clip_is_refused(desk, tmp_path):
    with pytest.raises(ConfigError, match=r"a shot begins at 1 s, the clip ends at 0\.625 s\. Set frames higher"):
        Storyboard().begin(board(tmp_path), desk(5))
    with pytest.raises(ConfigError, match="Give --storyboard FILE"):
        Storyboard().begin(Files(), desk())
