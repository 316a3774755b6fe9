"""Laws of the network whose features distances are taken over: what it looks at, what it costs, and the measure its features are given in."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.attention import Products
from models.video_encoder import VideoEncoder


def encoder(dimensions: int = 4) -> VideoEncoder:
    torch.manual_seed(0)
    made = VideoEncoder(frames=8, patch=(4, 4, 4), width=24, depth=2, heads=2, dimensions=dimensions, kernel=Products())  # which are counted
    for p in made.parameters():  # blocks start silent
        torch.nn.init.normal_(p, std=0.2)
    return made


def clips(count: int, height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.randn(count, 3, 8, height, width, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@torch.no_grad()
def test_only_visible_patches_are_looked_at_each_at_its_place() -> None:
    network, video = encoder(), clips(2)
    seen = torch.tensor([[0, 5, 7], [1, 2, 11]])  # of 2 x 2 x 3 tokens
    told = network(video, seen)
    hidden = video.clone()
    hidden[0, :, :4, :4, 4:8] = 0.9  # token 1 of the first clip
    assert torch.equal(network(hidden, seen), told)
    hidden[0, :, 4:, 4:, 4:8] = 0.9  # token 10
    assert torch.equal(network(hidden, seen)[0], told[0])
    hidden[0, :, 4:, :4, 4:8] = 0.9  # token 7
    assert not torch.allclose(network(hidden, seen)[0], told[0], atol=1e-3)
    everything = torch.arange(12).expand(2, -1)
    assert torch.allclose(network(video, everything), network(video), atol=1e-5)
    assert torch.allclose(network(video, everything.flip(1)), network(video), atol=1e-5)
    for turned in (video.flip(2), video.flip(3), video.flip(4)):  # the same patches but for their insides, elsewhere
        assert not torch.allclose(network(turned), network(video), atol=1e-3)
    plain = torch.full((1, 3, 8, 8, 12), 0.3)
    assert not torch.allclose(network(plain, torch.tensor([[0]])), network(plain, torch.tensor([[7]])), atol=1e-3)


@torch.no_grad()
def test_features_have_deviation_one_in_directions_that_are_not_correlated() -> None:
    network, video = encoder(), clips(40)
    network.set_statistics(network(video))
    found = network.features(video)
    assert found.shape == (40, 4)
    assert torch.allclose(found.mean(dim=0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(torch.cov(found.T), torch.eye(4), atol=2e-3)
    means = network(video)
    kept = torch.linalg.lstsq(found, means - means.mean(dim=0)).solution
    left = (means - means.mean(dim=0) - found @ kept).var(dim=0).sum()
    assert left < sum(sorted(torch.linalg.eigvalsh(torch.cov(means.T)).tolist())[:-4]) * 1.01  # the main ones: no four leave less


def test_so_few_clips_that_a_direction_is_chance_are_refused() -> None:
    network = encoder()
    with pytest.raises(ValueError, match=r"4 validation clips give no 4 directions.*Set data\.val_samples"):
        network.set_statistics(torch.randn(4, 24))


@pytest.mark.parametrize("size", [(8, 12), (9, 6)])
def test_flops_are_what_a_pass_computes(size: tuple[int, int]) -> None:
    network, video = encoder(), clips(3, *size)
    t, h, w = network.tokens(*size)
    for visible, tokens in ((None, t * h * w), (torch.arange(3).expand(3, -1), 3)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(video, visible)
        assert network.flops(3, tokens) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"frames": 6}, "the first dividing frames"),
        ({"patch": (4, 4)}, "wanted three sizes"),
        ({"dimensions": 25}, "1 to width dimensions"),
        ({"heads": 5}, "Set width or heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict, said: str) -> None:
    sizes = {"frames": 8, "patch": (4, 4, 4), "width": 24, "depth": 1, "heads": 2, "dimensions": 4}
    with pytest.raises(ValueError, match=said):
        VideoEncoder(**{**sizes, **wrong})
    with pytest.raises(ValueError, match=r"wanted \(b, 3, 8, h, w\)"):
        encoder()(torch.zeros(1, 3, 9, 8, 8))
