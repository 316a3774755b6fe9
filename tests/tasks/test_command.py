"""The command line: free texts come through word for word, whatever is in them, and what cannot be meant is refused by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.build import ConfigError
from tasks.command import split_command_line, wants_help, without
from tasks.task import Files


@settings(deadline=None, max_examples=100)
@given(prompts=st.lists(st.text(), min_size=1, max_size=3), negative=st.text(), image=st.text(min_size=1), out=st.text(min_size=1))
def test_texts_and_paths_are_taken_word_for_word(prompts, negative, image, out):
    spread = [part for text in prompts for part in ("--prompt", text)]
    words, rest = split_command_line([f"out={out}", "run=r", *spread, f"--negative={negative}", "--image", image, "seed=3"])
    assert words.prompts == tuple(prompts)
    assert (words.negative, words.files.images, words.run, words.out) == (negative, (image,), "r", out)
    assert rest == ["seed=3"]


def test_every_option_has_its_place():
    options = ["--last", "l", "--video", "v", "--video=w", "--keyframe", "1.5=a=b.png", "--keyframe=0=c", "--mask", "m", "--storyboard", "s"]
    words, _ = split_command_line(["run=r", *options, "--then", "t"])
    assert words.files == Files((), "l", ("v", "w"), ((1.5, "a=b.png"), (0.0, "c")), "m", "s", "t")
    assert words.prompts == ("",)  # what is given may stand alone
    assert words.negative is None
    words, _ = split_command_line(["run=r", "--prompts", "p.txt"])
    assert words.jobs == "p.txt"


def test_what_people_mean_is_what_hydra_is_told():
    _, rest = split_command_line(["run=r", "--prompt", "", "guidance=3", "task=null", "rollout=null", "refine=null", "guidance.scale=2"])
    assert rest == ["guidance.scale=3", "rollout=none", "refine=none", "guidance.scale=2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "x"], "run=... is missing"),
        (["run="], "run=... is missing"),
        (["run=r"], "--prompt is missing"),
        (["run=r", "--then", "x"], "--prompt is missing"),
        (["run=r", "--prompt"], "--prompt wants a value"),
        (["run=r", "--prompt", "x", "--prompts", "y"], "--prompt and --prompts were both given"),
        (["run=r", "--mask", "x", "--mask", "y"], "--mask was given 2 times, wanted once"),
        (["run=r", "--vidoe", "x"], "--vidoe is no option of sample.py (did you mean '--video'?)"),
        (["run=r", "--keyframe", "a.png"], "--keyframe a.png does not say when and what"),
        (["run=r", "--keyframe", "x=a.png"], "wanted SECONDS=FILE"),
        (["run=r", "--keyframe", "-1=a.png"], "seconds from 0 on"),
        (["run=r", "--keyframe", "nan=a.png"], "seconds from 0 on"),
        (["run=r", "--keyframe", "1="], "wanted SECONDS=FILE"),
        (["from=a.mp4", "seed=1"], "from=a.mp4 makes that clip as it was, and seed=1 would make another"),
        (["from=a.mp4", "--prompt", "x"], "and --prompt would make another"),
    ],
)
def test_commands_that_cannot_be_meant_are_refused(arguments, says):
    with pytest.raises(ConfigError) as error:
        split_command_line(arguments)
    assert says in str(error.value)


def test_help_is_asked_for_anywhere_but_in_a_text():
    assert all(map(wants_help, ([], ["help"], ["-h"], ["run=r", "--help"], ["run=r", "--prompt", "x", "-h"])))
    assert not any(map(wants_help, (["--prompt", "-h"], ["--prompt=--help"], ["run=r", "help"], ["--negative", "--help", "run=r"])))


def test_keys_are_left_out_and_texts_that_look_like_them_are_not():
    rest = without(["run=r", "rank=1", "--prompt", "rank=2", "--then=ranks=3", "ranks=4", "seed=5", "--prompt"], ("rank", "ranks"))
    assert rest == ["run=r", "--prompt", "rank=2", "--then", "ranks=3", "seed=5", "--prompt"]


def test_a_clip_is_made_again_from_its_file_alone():
    words, rest = split_command_line(["from=a b.mp4", "device=cpu", "formats=[gif]", "out=o"])
    assert (words.again, words.run, words.out, rest) == ("a b.mp4", "", "o", ["device=cpu", "formats=[gif]"])
