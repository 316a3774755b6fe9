"""The parts of the VAE: what a position sees, and that a block on a stream is the block on the whole."""

import pytest
import torch

from models.vae_blocks import NEIGHBOURS, CausalBlock, Merge, Split, neighbours, norm


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
    seen = neighbours(x)
    assert seen.shape == x.shape
    for number, (down, right) in enumerate(NEIGHBOURS):
        for row in range(3):
            for column in range(4):
                there = (row + down, column + right)
                inside = 0 <= there[0] < 3 and 0 <= there[1] < 4
                want = x[:, :, there[0], there[1], 2 * number : 2 * number + 2] if inside else torch.zeros(2, 2, 2)
                assert torch.equal(seen[:, :, row, column, 2 * number : 2 * number + 2], want)


@pytest.mark.parametrize("look_back", [0, 1])
def test_block_on_pieces_is_the_block_on_the_whole(look_back: int):
    torch.manual_seed(0)
    block, x = CausalBlock(16, 32, look_back), features(2, 5, 4, 4, 16)
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
    assert moved.nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
