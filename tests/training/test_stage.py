"""What a trained run makes for evaluations: the same as its Generator makes alone, whatever is made beside it, with what was given in its place."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.tasks import stage as asked
from flow.generate import Generator, Timed
from flow.rollout import Rollout
from training.inference import Networks, Shape, load_networks, make_generator
from training.stage import LINK, Stage

SAMPLING = {"solver": {"_target_": "flow.solvers.Euler"}, "guidance": {"_target_": "flow.guidance.ClassifierFree", "scale": 2.0}, "steps": 2}
PROMPTS, SAMPLES = ["a red circle", "it grows", "x"], [3, 4, 5]


@pytest.fixture(scope="module")
def networks(flow_runs) -> Networks:
    return load_networks(flow_runs.root / "every")


def staged(networks: Networks, batch_size: int = 8) -> Stage:
    return Stage(make_generator(networks, SAMPLING | {"batch_size": batch_size}, whole=True), networks, 0, Rollout(2, 1))


@pytest.fixture(scope="module")
def stage(networks: Networks) -> Stage:
    return staged(networks)


@pytest.fixture(scope="module")
def videos() -> list[np.ndarray]:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 9, 4, 6, 3), dtype=np.uint8)
    return list(coarse.repeat(4, axis=2).repeat(4, axis=3))


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """As near as latents within 1e-5 come: a rounding to 8 bits may tip here and there."""
    apart = np.abs(one.astype(int) - other)
    return one.shape == other.shape and int(apart.max()) <= 1 and float(apart.mean()) < 0.01


def test_it_is_what_the_suite_asks(stage: Stage) -> None:
    held: asked.Stage = stage  # by its types
    for name, wanted in vars(asked.Stage).items():
        if not name.startswith("_"):
            assert hasattr(held, name)
            if inspect.isfunction(wanted):
                assert list(inspect.signature(wanted).parameters) == list(inspect.signature(getattr(Stage, name)).parameters), name
    assert (stage.frames, stage.height, stage.width, stage.stride_t) == (9, 16, 24, 4)


def calls(videos: list[np.ndarray]) -> Callable[[list[int]], dict[str, Any]]:
    """Numbers of clips, of three -> each way of making them."""
    kept = np.ones((16, 24), bool)
    kept[:, 16:] = False
    given = [[(0, videos[0][:1])], [(0, videos[1][:5])], [(4, videos[2][4:7]), (8, videos[2][8:])]]  # with no, and with two pictures beside them

    def of(places: list[int]) -> dict[str, Any]:
        prompts, samples, own = [PROMPTS[k] for k in places], [SAMPLES[k] for k in places], [videos[k] for k in places]
        return {
            "words": lambda stage: stage.words(prompts, samples),
            "other shape": lambda stage: stage.words(prompts, samples, (13, 24, 16)),
            "around": lambda stage: stage.around([given[k] for k in places], 9, prompts, samples)[1],
            "timed": lambda stage: stage.timed([(text, "a b") for text in prompts], [(1, 5, 8)[k] for k in places], 9, samples),
            "loops": lambda stage: stage.loops(8, prompts, samples),
            "remixed": lambda stage: stage.remixed(own, 0.5, prompts, samples),
            "painted": lambda stage: stage.painted(own, kept, prompts, samples),
            "drafted": lambda stage: stage.drafted(prompts, samples, 2),
            "refined": lambda stage: stage.refined(prompts, samples, 2, 0.6),
            "rolled out": lambda stage: list(np.concatenate(list(stage.rolled_out(17, prompts, samples)), axis=1)),
            "chained": lambda stage: list(np.concatenate(list(stage.chained(17, prompts, samples)), axis=1)),
        }

    return of


FRAMES = {"other shape": (13, 24, 16), "loops": (8, 16, 24), "refined": (9, 32, 48), "rolled out": (17, 16, 24), "chained": (17, 16, 24)}


@pytest.mark.parametrize("way", list(calls([np.zeros((9, 16, 24, 3), np.uint8)] * 3)([0])))
def test_a_clip_depends_on_nothing_that_is_made_beside_it(networks: Networks, videos: list[np.ndarray], way: str) -> None:
    of = calls(videos)
    alone = [of([place])[way](staged(networks, 1))[0] for place in range(3)]
    assert [video.shape for video in alone] == [(*FRAMES.get(way, (9, 16, 24)), 3)] * 3
    for places, batch_size in (([0, 1, 2], 8), ([2, 0, 1], 2)):
        for place, video in zip(places, of(places)[way](staged(networks, batch_size)), strict=True):
            assert near(video, alone[place])
    assert not near(alone[0], alone[1])


def test_noise_hangs_on_the_number(stage: Stage) -> None:
    one, other, again = (stage.words(["x"], [number])[0] for number in (3, 4, 3))
    assert (one == again).all()
    assert not near(one, other)


def test_given_frames_decode_as_the_vae_has_them(stage: Stage, videos: list[np.ndarray]) -> None:
    through = stage.reconstructed(videos)
    for length in (1, 5):
        _, made = stage.around([[(0, video[:length])] for video in videos], 9, PROMPTS, SAMPLES)
        alone = stage.reconstructed([video[:length] for video in videos])
        for video, own, whole in zip(made, alone, through, strict=True):
            assert near(video[:length], own)
            assert near(video[:length], whole[:length])  # nothing that comes later is seen
            assert not near(video[length:], whole[length:])


def test_a_remix_goes_from_the_vae_to_words_alone(stage: Stage, videos: list[np.ndarray]) -> None:
    ends = [stage.remixed(videos, strength, PROMPTS, SAMPLES) for strength in (0.0, 1.0)]
    assert (np.stack(ends[0]) == np.stack(stage.reconstructed(videos))).all()
    for one, other in zip(ends[1], stage.words(PROMPTS, SAMPLES), strict=True):
        assert near(one, other)


def test_a_second_prompt_begins_with_the_latent_frame_of_the_switch(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Timed] = []
    paint = Generator.paint

    def noted(self, canvas, prompts, *others):
        seen.extend(prompts)
        return paint(self, canvas, prompts, *others)

    monkeypatch.setattr(Generator, "paint", noted)
    stage.timed([("a", "b")] * 3, [1, 5, 8], 9, SAMPLES)
    # Latent frames hold pixel frames 0, 1 to 4, 5 to 8: a switch within one takes all of it.
    assert [one.weights[1].tolist() for one in seen] == [[0, 1, 1], [0, 0, 1], [0, 0, 1]]
    assert all(one.texts == ("a", "b") for one in seen)


def test_kept_positions_stay_and_what_is_seen_of_them_lies_inside(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = staged(replace(networks, shape=Shape(9, 16, 64, 8)))
    source = np.random.default_rng(1).integers(0, 256, (9, 16, 64, 3), dtype=np.uint8)
    kept = np.zeros((16, 64), bool)
    kept[:, :43] = True
    found: list[torch.Tensor] = []
    paint = Generator.paint

    def noted(self, *given):
        found.append(paint(self, *given))
        return found[-1]

    monkeypatch.setattr(Generator, "paint", noted)
    (made,) = wide.painted([source], kept, ["x"], [0])
    (latents,), own = found, wide.studio().latents(source)
    # Of eight columns five are wholly kept; the fifth sees what is made anew.
    assert (latents[..., :4] == own[..., :4]).all()
    assert not torch.isclose(latents[..., 4:], own[..., 4:]).any()
    seen = wide.seen(kept)
    assert (seen == (np.arange(64) < 24)).all()
    (through,) = wide.reconstructed([source])
    apart = np.abs(made.astype(int) - through).mean(axis=(0, 1, 3))
    assert apart[:24].mean() < 0.1 * apart[40:].mean()


def test_a_rollout_of_the_trained_length_is_a_clip_from_words_bit_for_bit(stage: Stage) -> None:
    parts = list(stage.rolled_out(9, PROMPTS, SAMPLES))
    assert [part.shape[1] for part in parts] == [1, 4, 4]
    assert (np.concatenate(parts, axis=1) == np.stack(stage.words(PROMPTS, SAMPLES))).all()


def test_a_rollout_is_yielded_before_its_end_is_made(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    paint = Generator.paint

    def noted(self, canvas, *others):
        made.append(canvas.shown)
        return paint(self, canvas, *others)

    monkeypatch.setattr(Generator, "paint", noted)
    parts = stage.rolled_out(33, ["x"], [0])
    assert next(parts).shape == (1, 1, 16, 24, 3)
    assert made == [3]
    assert 1 + sum(part.shape[1] for part in parts) == 33
    assert made == [3] + [2] * 6  # windows of two, each with one latent frame of the one before


def test_each_link_of_a_chain_goes_on_from_the_last_frame(stage: Stage) -> None:
    first, second, third = stage.chained(20, PROMPTS, SAMPLES)
    assert [part.shape for part in (first, second, third)] == [(3, count, 16, 24, 3) for count in (9, 8, 3)]
    assert (first == np.stack(stage.words(PROMPTS, SAMPLES))).all()
    for part, before, done in ((second, first, 9), (third, second, 17)):
        links, _ = stage.around([[(0, video[-1:])] for video in before], 9, PROMPTS, [number + done * LINK for number in SAMPLES])
        assert (np.stack(links)[:, 1 : 1 + part.shape[1]] == part).all()
        pictures = stage.reconstructed([video[-1:] for video in before])
        assert all(near(link[:1], picture) for link, picture in zip(links, pictures, strict=True))  # which is left out: it was shown
