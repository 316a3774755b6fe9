"""A latent frame stands at its moment and nowhere else: not at its place in the sequence, and at no distance from the clip's beginning."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.attention import Products
from models.dit import DiT
from models.geometry import moments
from models.mixing import Cross, Double, Joint, Pooled, Prefix
from models.patterns import Factorised, Full, Pattern
from models.text import Text

MIXINGS = (Joint, Prefix, Cross, Double, Pooled)
ORDER = torch.tensor([3, 0, 4, 1, 2])


def network(mixing: Any, pattern: Pattern | None = None, **parts: Any) -> DiT:
    """A tiny DiT with random numbers where training starts from zeros."""
    torch.manual_seed(0)
    dit = DiT(4, 32, 2, 2, 16, mixing=mixing(), pattern=pattern, **parts)
    for weights in dit.parameters():
        if weights.ndim == 1 or weights.abs().max() == 0:
            nn.init.normal_(weights, std=0.2)
    return dit


def batch(samples: int = 2, size: tuple[int, int, int] = (5, 4, 6), seed: int = 0) -> tuple[Tensor, Tensor, Text]:
    random = torch.Generator().manual_seed(seed)
    text = Text(torch.randn(samples, 3, 16, generator=random), torch.randn(samples, 16, generator=random))
    return torch.randn(samples, 4, *size, generator=random), torch.rand(samples, size[0], generator=random), text


def near(a: Tensor, b: Tensor, limit: float) -> bool:
    return bool((a - b).norm() <= limit * b.norm())


@pytest.mark.parametrize("shift", [-7.3, 2.25, 40.0])
@pytest.mark.parametrize("pattern", [Full(), Factorised()], ids=lambda pattern: type(pattern).__name__)
def test_differences_of_moments_are_all_that_frames_tell_each_other(pattern, shift):
    dit, (noisy, t, text) = network(Pooled, pattern, registers=0), batch()  # words and registers have no place: they tell where a clip is
    seconds = moments(5, torch.tensor([8.0, 12.0]), 4)
    out = dit(noisy, t, text, seconds)
    assert near(dit(noisy, t, text, seconds + shift), out, 1e-5)
    seconds[:, -1] += shift
    assert not near(dit(noisy, t, text, seconds), out, 1e-3), "one frame alone at another moment is another clip"


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("pattern", [Full(), Factorised()], ids=lambda pattern: type(pattern).__name__)
def test_frames_in_another_order_with_their_moments_are_the_same_clip(mixing, pattern):
    dit, (noisy, t, text) = network(mixing, pattern, registers=2), batch()
    seconds = moments(5, torch.tensor([8.0, 12.0]), 4)
    seconds[1, 4] = 6.5  # a picture from far behind the clip's end
    out = dit(noisy, t, text, seconds)
    assert near(dit(noisy[:, :, ORDER], t[:, ORDER], text, seconds[:, ORDER]), out[:, :, ORDER], 5e-6)
    assert not near(dit(noisy[:, :, ORDER], t[:, ORDER], text, seconds), out[:, :, ORDER], 1e-2), "moments that stay behind give another clip"


@pytest.mark.parametrize("mixing", MIXINGS)
def test_packed_equals_alone_at_unlike_moments(mixing):
    dit, samples = network(mixing, registers=2), [batch(1, size, seed) for seed, size in enumerate([(3, 4, 6), (4, 4, 6), (1, 2, 2)])]
    seconds = [torch.tensor([0.0, 0.5, 9.0]), torch.tensor([1.5, -1.0, 1.5, 0.25]), torch.tensor([-40.0])]
    text = Text(torch.cat([text.tokens for *_, text in samples]), torch.cat([text.pooled for *_, text in samples]))
    packed = dit.forward_packed([noisy[0] for noisy, *_ in samples], torch.cat([t[0] for _, t, _ in samples]), text, torch.cat(seconds))
    for ours, sample, at in zip(packed, samples, seconds, strict=True):
        assert near(ours, dit(*sample, at[None])[0], 5e-6)


def test_a_table_is_kept_from_step_to_step_where_values_cannot_be_looked_at():
    """As on a GPU, where comparing values would wait for the device."""
    with torch.device("meta"):
        dit, seconds = DiT(4, 32, 1, 2, 16, kernel=Products()), torch.zeros(2, 3)
        noisy, t, text = torch.zeros(2, 4, 3, 4, 4), torch.zeros(2, 3), Text(torch.zeros(2, 3, 16), torch.zeros(2, 16))
        tables = []
        for _ in range(2):
            dit(noisy, t, text, seconds)
            (kept,) = dit.rope._tables.values()
            tables.append(kept[2])
    assert tables[0] is tables[1]
