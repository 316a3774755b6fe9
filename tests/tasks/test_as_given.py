"""What was given is shown as the VAE has it by itself, whatever is made beside it."""

import numpy as np
import pytest
import torch

from tasks.clips import Decoded
from tasks.given import planned
from tasks.task import Files, Segment
from tasks.text import TextToVideo


def frames_of(generator, latents) -> np.ndarray:
    return torch.cat(list(generator.frames(latents)), dim=1)[0].numpy()


@pytest.mark.parametrize(
    ("start", "stop", "pieces"),
    [
        (0, 9, [(0, 3)]),
        (4, 17, [(4, 4)]),
        (8, 9, [(8, 1)]),
        (7, 17, [(7, 1), (8, 3)]),  # one frame before the first that ends a latent frame
        (6, 15, [(6, 1), (7, 1), (8, 2), (13, 1), (14, 1)]),  # and two behind the last
        (9, 11, [(9, 1), (10, 1)]),
    ],
)
def test_every_given_frame_is_in_one_piece(desk, cut, start, stop, pieces):
    found = desk().pieces([Segment(start, cut(start, stop))])
    assert sorted((piece.frame, piece.latents.shape[2]) for piece in found) == pieces
    covered = [piece.frame + number for piece in found for number in range(1 + 4 * (piece.latents.shape[2] - 1))]
    assert sorted(covered) == list(range(start, stop))


def test_late_pieces_are_shown_as_the_vae_has_them_and_a_beginning_as_it_is_decoded(desk, cut, generator):
    plan = planned(desk(), [Segment(0, cut(0, 1)), Segment(8, cut(8, 17))], 17)
    shown = plan.as_given(generator.frames)
    assert sorted(shown) == list(range(8, 17))
    alone = frames_of(generator, desk().latents(cut(8, 17)))
    assert all(np.array_equal(shown[8 + number], alone[number]) for number in range(9))
    latents = generator.paint(plan.canvas, ["a"], 0, [0])
    walked = [*Decoded(generator, [latents], 17)]
    clip = [*Decoded(generator, [latents], 17, given=shown)]
    assert all(np.array_equal(clip[number], shown.get(number, walked[number])) for number in range(17))
    assert not np.array_equal(walked[10], clip[10])
    # A beginning needs no putting in place: its decoding looks back on nothing that was made.
    assert np.array_equal(clip[0], frames_of(generator, desk().encode(cut(0, 1)))[0])


def test_what_is_not_given_as_frames_is_shown_as_it_is_made(desk, generator):

    assert TextToVideo().begin(Files(), desk()).as_given(generator.frames) == {}
