"""Long video in windows: every frame made once, what is given kept, latents handed on as they are, and memory that does not grow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.generate import Generator, Timed
from flow.guidance import NoGuidance
from flow.rollout import Rollout
from flow.solvers import Euler

CHANNELS, H, W = 2, 3, 5


def encode(prompts):
    return torch.tensor([[float(sum(map(ord, prompt)) % 23)] for prompt in prompts]) / 20


class Network:
    """Notes what it was shown."""

    def __init__(self):
        self.calls = []

    def __call__(self, noisy, t, text, moments):
        self.calls.append((noisy.clone(), t.clone(), text, moments.clone()))
        return noisy - 0.5 * noisy.mean(dim=2, keepdim=True) + text[:, :, None, None, None] * t[:, None, :, None, None]


def make(network=None, steps=2, **changes):
    decode = lambda chunks: (latents[:, :1].repeat(1, 3, 1, 1, 1) for latents in chunks)  # noqa: E731
    return Generator(network or Network(), encode, decode, CHANNELS, Euler(), NoGuidance(), steps, 1.0, **changes)


def walked(rollout, frames, network=None, begin=0, canvas=None, prompts=("a", "b"), seed=0):
    generator = make(network)
    canvas = generator.blank(2, (frames, H, W), 8.0) if canvas is None else canvas
    return list(rollout.paint(generator, canvas, prompts, seed, [0, 1], begin))


@settings(max_examples=200, deadline=None)
@given(window=st.integers(2, 9), overlap=st.integers(1, 8), frames=st.integers(1, 60), begin=st.integers(0, 70))
def test_windows_make_every_frame_once_next_to_what_is_made(window, overlap, frames, begin):
    if overlap >= window:
        return
    made: list[int] = []
    for number, piece in enumerate(Rollout(window, overlap).pieces(frames, begin)):
        assert 0 <= piece.start < piece.stop <= frames
        assert piece.stop - piece.start == min(frames, window + (piece.start == 0))
        before = set(made) & set(range(piece.start, piece.stop))
        assert len(before) >= (min(overlap, len(made)) if number else 0)
        assert set(piece.made) == set(range(piece.start, piece.stop)) - before
        made += piece.made
    assert sorted(made) == list(range(frames))
    if begin == 0:
        assert made == sorted(made)


@pytest.mark.parametrize("begin", [0, 5, 8, 99])
def test_each_window_is_shown_what_the_one_before_it_made(begin):
    network = Network()
    pieces = walked(Rollout(4, 2), 12, network, begin)
    whole = torch.zeros(2, CHANNELS, 12, H, W)
    for frames, latents in pieces:
        whole[:, :, frames.start : frames.stop] = latents
    for piece, (noisy, t, _, _) in zip(Rollout(4, 2).pieces(12, begin), network.calls[::2], strict=True):
        handed = [k for k in range(piece.start, piece.stop) if k not in piece.made]
        for k in range(piece.start, piece.stop):
            place = k - piece.start
            assert bool((t[:, place] == (0 if k in handed else 1)).all())
            assert not handed or k not in handed or torch.equal(noisy[:, :, place], whole[:, :, k])


def test_what_is_handed_on_is_noised_for_the_network_and_stays_as_it_was():
    network = Network()
    (first, a), (second, _), *_ = walked(Rollout(4, 2, level=0.25), 9, network)
    noisy, t, *_ = network.calls[2]
    assert t[0].tolist() == [0.25, 0.25, 1.0, 1.0]
    assert not torch.equal(noisy[:, :, 0], a[:, :, 3])
    assert (first, second) == (range(5), range(5, 7))


def test_what_is_handed_on_is_shown_under_noise_that_it_was_not_made_from():
    """Its own noise would not hide it: what a network made of that noise can be told from it, which training never shows."""
    network = Network()
    walked(Rollout(4, 2, level=0.9), 9, network)
    began, shown = network.calls[0][0][:, :, 3:5], network.calls[2][0][:, :, :2]  # frames 3 and 4, in the first window and handed on
    assert network.calls[0][1].min() == 1
    assert abs(float(torch.corrcoef(torch.stack([began.flatten(), shown.flatten()]))[0, 1])) < 0.35


def test_a_clip_that_fits_is_made_at_once():
    generator = make()
    canvas = generator.blank(2, (5, H, W), 8.0)
    ((frames, latents),) = Rollout(4, 1).paint(generator, canvas, ["a", "b"], 3, [0, 1])
    assert frames == range(5)
    assert torch.equal(latents, generator.paint(canvas, ["a", "b"], 3, [0, 1]))


def test_moments_of_a_later_window_are_those_of_a_piece_in_training():
    network = Network()
    walked(Rollout(4, 2), 12, network)
    assert network.calls[0][3][0].tolist() == [0, 0.5, 1, 1.5, 2]
    assert all(call[3][0].tolist() == [0.5, 1, 1.5, 2] for call in network.calls[2:])


def test_noise_hangs_on_the_place_in_the_whole_clip():
    one, other = Network(), Network()
    walked(Rollout(4, 2), 12, one)
    walked(Rollout(4, 1), 12, other)
    assert torch.equal(one.calls[2][0][:, :, 2:], other.calls[2][0][:, :, 1:3])  # frames 5 and 6, each time under noise alone


@pytest.mark.parametrize("begin", [0, 4, 8])
def test_given_frames_and_pictures_stay_what_they_are(begin):
    generator = make(Network())
    canvas = generator.blank(2, (12, H, W), 8.0)
    known = torch.zeros(2, 12, dtype=torch.bool)
    known[:, begin : begin + 3] = True
    latents = torch.randn(2, CHANNELS, 12, H, W)
    canvas = canvas.keep(latents, known).beside(torch.full((2, CHANNELS, 1, H, W), 7.0), torch.full((2, 1), 4.4))
    whole = torch.zeros_like(latents)
    network = Network()
    for frames, part in walked(Rollout(4, 2), 12, network, begin, canvas):
        whole[:, :, frames.start : frames.stop] = part
    assert torch.equal(whole[:, :, known[0]], latents[:, :, known[0]])
    seen = [(noisy[:, :, -1] == 7).all() for noisy, *_ in network.calls]
    inside = [piece.start <= 9 < piece.stop for piece in Rollout(4, 2).pieces(12, begin) for _ in range(2)]  # 4.4 s lie in latent frame 9
    assert [bool(one) for one in seen] == inside


def test_a_window_hears_the_prompts_of_its_own_time():
    network, weights = Network(), torch.zeros(2, 12)
    weights[0, :6], weights[1, 6:] = 1, 1
    walked(Rollout(4, 2), 12, network, prompts=[Timed(("a", "c"), weights)] * 2)
    pieces = Rollout(4, 2).pieces(12)
    for piece, call in zip(pieces, network.calls[::2], strict=True):
        both = piece.start < 6 < piece.stop
        assert len(call[0]) == (4 if both else 2)
        assert both or torch.equal(call[2], encode(["a" if piece.stop <= 6 else "c"] * 2))


@pytest.mark.parametrize("frames", [10, 20])
def test_prompts_over_another_time_than_the_clip_s_are_refused(frames):
    with pytest.raises(ValueError, match=f"of {frames} latent frames, the clip has 12"):
        walked(Rollout(4, 2), 12, prompts=[Timed(("a", "c"), torch.full((2, frames), 0.5))] * 2)


def test_a_blank_canvas_takes_no_memory_however_long_it_is():
    assert make().blank(1, (100_000, 64, 64), 8.0).latents.untyped_storage().nbytes() == 4


@pytest.mark.parametrize(("settings", "names"), [((4, 4), "rollout.overlap"), ((4, 0), "rollout.overlap"), ((4, 1, 1.0), "rollout.level")])
def test_impossible_windows_are_refused(settings, names):
    with pytest.raises(ValueError, match=names):
        Rollout(*settings)


def test_a_loop_is_not_cut_into_windows():
    generator = make()
    canvas = generator.blank(1, (12, H, W), 8.0)
    loop = type(canvas)(canvas.latents, canvas.start, canvas.stop, canvas.moments, canvas.shown, cyclic=True)
    with pytest.raises(ValueError, match="a loop is made at once"):
        list(Rollout(4, 2).paint(generator, loop, ["a"], 0, [0]))
