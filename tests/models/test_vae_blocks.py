"""The parts of the VAE: what a position sees, and that a block on a stream is the block on the whole."""

import pytest
import torch
import torch.nn.functional as F

from models.vae_blocks import NEIGHBOURS, CausalBlock, Convolution, Merge, Shift, Split, neighbours, norm, smooth


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_norm_sees_its_own_position_alone():
    x = features(1, 2, 3, 3, 8)
    changed = x.clone()
    changed[0, 1, 2, 2] = 100.0
    assert torch.equal(norm(x)[0, 0], norm(changed)[0, 0])
    assert torch.equal(norm(x)[0, 1, :2], norm(changed)[0, 1, :2])
    assert torch.allclose(norm(x).square().mean(-1), torch.ones(1, 2, 3, 3), atol=1e-4)


def test_each_neighbour_gives_its_share_and_outside_is_zero():
    x = features(2, 2, 3, 4, 16)
    seen = torch.cat(neighbours(x), dim=-1)
    assert seen.shape == x.shape
    for number, (down, right) in enumerate(NEIGHBOURS):
        for row in range(3):
            for column in range(4):
                there = (row + down, column + right)
                inside = 0 <= there[0] < 3 and 0 <= there[1] < 4
                want = x[:, :, there[0], there[1], 2 * number : 2 * number + 2] if inside else torch.zeros(2, 2, 2)
                assert torch.equal(seen[:, :, row, column, 2 * number : 2 * number + 2], want)


@pytest.mark.parametrize("mixing", [Shift(), Convolution()], ids=["shift", "conv"])
@pytest.mark.parametrize("look_back", [0, 1])
def test_block_on_pieces_is_the_block_on_the_whole(look_back: int, mixing):
    torch.manual_seed(0)
    block, x = CausalBlock(16, 32, look_back, mixing), features(2, 5, 4, 4, 16)
    whole, _ = block(x)
    past, pieces = None, []
    for piece in x.split([2, 1, 2], dim=1):
        y, past = block(piece, past)
        pieces.append(y)
    assert (past is None) == (look_back == 0)
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-6)  # kernels differ by shape


def test_merge_and_split_keep_places():
    torch.manual_seed(0)
    merged = Merge(8, 16)
    x = features(1, 1, 4, 4, 8)
    changed = x.clone()
    changed[0, 0, 3, 2] += 1.0
    moved = (merged(x) != merged(changed)).any(-1)[0, 0]
    assert moved.tolist() == [[False, False], [False, True]]
    split = Split(16, 8)
    coarse = features(1, 1, 2, 2, 16)
    changed = coarse.clone()
    changed[0, 0, 0, 1] += 1.0
    moved = (split(coarse) != split(changed)).any(-1)[0, 0]
    assert moved.nonzero().tolist() == [[row, column] for row in (0, 1, 2) for column in (1, 2, 3)]  # its own 2x2 and what the window adds


def test_convolution_is_a_causal_one_over_time_and_space():
    torch.manual_seed(0)
    block, x = CausalBlock(8, 24, 1, Convolution()), features(2, 4, 5, 6, 8)
    mixed = Convolution()(block.mix, x, torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1))
    now, before = block.mix.weight.view(24, 3, 3, 2, 8).permute(0, 4, 3, 1, 2).unbind(2)  # o i y x
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 1, 0))  # b d t h w: zeros around each frame, and one frame of them in front
    want = F.conv3d(padded, torch.stack([before, now], dim=2), block.mix.bias)
    assert torch.allclose(mixed.permute(0, 4, 1, 2, 3), want, atol=1e-5)
    assert block.mix.weight.ndim == 2  # what an optimiser of matrices moves


def test_convolution_copies_nothing_to_reach_channels_last():
    block, x, before = CausalBlock(8, 24, 1, Convolution()), features(2, 4, 5, 6, 8), features(2, 4, 5, 6, 8)
    with torch.profiler.profile() as profile:
        y = Convolution()(block.mix, x, before)
    assert y.is_contiguous()
    assert "aten::clone" not in {event.key for event in profile.key_averages()}


def test_a_square_reaches_over_its_neighbours_halves():
    """Without overlap each position paints its own 2x2, and the borders stay visible."""
    split = Split(8, 8)
    torch.nn.init.zeros_(split.paint.bias)
    torch.nn.init.ones_(split.paint.weight)
    coarse = torch.zeros(1, 1, 3, 3, 8)
    coarse[0, 0, 1, 1, 0] = 1.0
    reach = torch.tensor([0, 1, 3, 3, 1, 0]) / 4
    assert torch.allclose(split(coarse)[0, 0, :, :, 5], reach[:, None] * reach)
    assert torch.allclose(smooth(torch.ones(1, 1, 5, 5, 8))[0, 0, 1:-1, 1:-1], torch.ones(3, 3, 8))
