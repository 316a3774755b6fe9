"""What late pixel frames give under a causal encoder: known latents are the whole clip's bit for bit, and nothing given is lost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.given import Rule
from models.vae import VideoVAE

FRAMES = 25  # 7 latent frames


@pytest.mark.parametrize(
    ("segments", "known", "pictures"),
    [
        ([], "0000000", ()),
        ([(0, 1)], "1000000", ()),
        ([(0, 9)], "1110000", ()),
        ([(0, 11)], "1110000", (9, 10)),  # half a latent frame: each frame by itself
        ([(8, 25)], "0000111", (8, 12)),  # one that is given in part, one that looks back on it, then known ones
        ([(9, 25)], "0000111", (12,)),
        ([(24, 25)], "0000000", (24,)),
        ([(0, 1), (24, 25)], "1000000", (24,)),
        ([(0, 5), (16, 25)], "1100001", (16, 20)),
        ([(7, 8), (10, 11)], "0000000", (7, 10)),
        ([(0, 9), (9, 13)], "1111000", ()),
    ],
)
def test_what_a_segment_gives(segments, known, pictures):
    assert Rule(4, 1).split(segments, FRAMES) == (tuple(one == "1" for one in known), pictures)


def test_an_encoder_that_looks_back_further_knows_later():
    assert Rule(4, 2).split([(8, 25)], FRAMES) == (tuple(one == "1" for one in "0000011"), (8, 12, 16))
    assert Rule(4, 0).split([(8, 25)], FRAMES) == (tuple(one == "1" for one in "0001111"), (8,))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, FRAMES - 1), st.integers(1, 12)), max_size=3), st.integers(0, 2))
def test_every_given_frame_is_in_a_known_latent_frame_or_in_one_that_a_picture_stands_for(starts, look_back):
    rule, segments = Rule(4, look_back), [(start, min(FRAMES, start + length)) for start, length in starts]
    known, pictures = rule.split(segments, FRAMES)
    frames = {frame for start, stop in segments for frame in range(start, stop)}
    assert set(pictures) <= frames
    for k, exact in enumerate(known):
        own = set(rule.pixels(k)) & frames
        assert not exact or own == set(rule.pixels(k))
        assert not own or exact or own & set(pictures)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, FRAMES - 1), st.integers(1, FRAMES), st.sampled_from([1, 2]))
def test_known_latents_are_those_of_the_whole_clip_whatever_the_other_frames_hold(start, length, look_back):
    torch.manual_seed(0)
    vae = VideoVAE(widths=(8, 16), encoder_depths=(1, 2), decoder_depths=(1, 2), latent_channels=2, look_back=look_back).eval()
    segment = (start, min(FRAMES, start + length))
    known, _ = Rule(4, vae.look_back).split([segment], FRAMES)
    whole = torch.rand(1, 3, FRAMES, 8, 8) * 2 - 1
    other = torch.rand(1, 3, FRAMES, 8, 8) * 2 - 1
    other[:, :, segment[0] : segment[1]] = whole[:, :, segment[0] : segment[1]]
    with torch.no_grad():
        a, b = vae.encode(whole), vae.encode(other)
    mask = torch.tensor(known)
    assert torch.equal(a[:, :, mask], b[:, :, mask])
    later = [k for k in range(len(known)) if not known[k] and set(range(max(0, 4 * k - 3), 4 * k + 1)) <= set(range(*segment))]
    assert all(not torch.equal(a[:, :, k], b[:, :, k]) for k in later)  # what is not called known really sees the others


@pytest.mark.parametrize("segment", [(3, 3), (-1, 2), (20, 26)])
def test_segments_beyond_the_clip_are_refused(segment):
    with pytest.raises(ValueError, match="not within the clip's frames 0 to 24"):
        Rule(4, 1).split([segment], FRAMES)
