"""The DiT: shapes of any kind in one sequence, one flow time per frame, zero at the start."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.attention import Fused, Products
from models.dit import DiT
from models.geometry import Layout
from models.layers import SwiGLU
from models.mixing import Cross, Double, Hybrid, Joint, Pooled, Prefix
from models.modulation import LowRank, PerBlock, Shared
from models.patterns import Causal, Factorised, Full, Tiled
from models.text import Text


def half() -> Hybrid:
    return Hybrid(0.5)


def low_rank() -> LowRank:
    return LowRank(4)


MIXINGS = (Joint, Prefix, Cross, Double, half, Pooled)
MODULATIONS = (PerBlock, Shared, low_rank)
PATTERNS = (Full(), Causal(), Tiled((2, 2, 2)), Factorised())
TEXT = 6


def network(depth: int = 2, mixing: Any = Joint, modulation: Any = PerBlock, width: int = 32, awake: bool = True, **parts: Any) -> DiT:
    """A tiny DiT; awake: with random numbers where training starts from zeros, so that everything matters."""
    torch.manual_seed(0)
    dit = DiT(4, width, depth, 2, 16, mixing=mixing(), modulation=modulation(), **parts)
    if awake:
        for weights in dit.parameters():
            if weights.ndim == 1 or weights.abs().max() == 0:
                nn.init.normal_(weights, std=0.2)
    return dit


def batch(samples: int = 2, size: tuple[int, int, int] = (3, 4, 6), seed: int = 0) -> tuple[Tensor, Tensor, Text, Tensor]:
    random = torch.Generator().manual_seed(seed)
    text = Text(torch.randn(samples, TEXT, 16, generator=random), torch.randn(samples, 16, generator=random))
    noisy, t = torch.randn(samples, 4, *size, generator=random), torch.rand(samples, size[0], generator=random)
    return noisy, t, text, 3 * torch.rand(samples, size[0], generator=random) - 1  # moments of any order: the network takes all that are finite


def row(inputs: tuple[Tensor, Tensor, Text, Tensor], i: int) -> tuple[Tensor, Tensor, Text, Tensor]:
    noisy, t, text, moments = inputs
    return noisy[i : i + 1], t[i : i + 1], Text(text.tokens[i : i + 1], text.pooled[i : i + 1]), moments[i : i + 1]


def gradients(dit: DiT, loss: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(dit.parameters()))])


def near(a: Tensor, b: Tensor, limit: float) -> bool:
    return bool((a - b).norm() <= limit * b.norm())


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("modulation", MODULATIONS)
def test_starts_at_exactly_zero_with_gradients(mixing, modulation):
    dit = network(mixing=mixing, modulation=modulation, awake=False)
    noisy, t, text, moments = batch()
    out = dit(noisy, t, text, moments)
    assert out.shape == noisy.shape
    assert out.abs().max() == 0
    (out - noisy).square().mean().backward()
    assert dit.head.weight.grad is not None
    assert dit.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("modulation", MODULATIONS)
def test_every_parameter_learns_within_a_few_steps(mixing, modulation):
    dit = network(mixing=mixing, modulation=modulation, awake=False)
    noisy, t, text, moments = batch()
    optimiser = torch.optim.SGD(dit.parameters(), lr=0.1)
    moved: set[str] = set()
    for _ in range(5):
        optimiser.zero_grad()
        (dit(noisy, t, text, moments) - noisy).square().mean().backward()
        moved |= {name for name, part in dit.named_parameters() if part.grad is not None and part.grad.abs().max() > 0}
        optimiser.step()
    assert moved == {name for name, _ in dit.named_parameters()}


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: type(pattern).__name__)
@pytest.mark.parametrize("registers", [0, 2])
def test_packed_equals_alone_in_outputs_and_gradients(mixing, pattern, registers):
    dit = network(mixing=mixing, pattern=pattern, registers=registers)
    samples = [batch(1, size, seed) for seed, size in enumerate([(3, 4, 6), (1, 5, 3), (2, 4, 6)])]
    text = Text(torch.cat([text.tokens for _, _, text, _ in samples]), torch.cat([text.pooled for _, _, text, _ in samples]))
    t, moments = torch.cat([t[0] for _, t, _, _ in samples]), torch.cat([moments[0] for *_, moments in samples])
    packed = dit.forward_packed([noisy[0] for noisy, *_ in samples], t, text, moments)
    alone = [dit(*sample)[0] for sample in samples]
    for ours, theirs in zip(packed, alone, strict=True):
        assert near(ours, theirs, 5e-6)
    weights = [torch.randn_like(part) for part in alone]
    together, apart = (sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True)) for parts in (packed, alone))
    assert near(gradients(dit, together), gradients(dit, apart), 1e-5)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("pattern", [Full(), Tiled((2, 2, 2))], ids=lambda pattern: type(pattern).__name__)
def test_batched_equals_one_by_one_in_outputs_and_gradients(mixing, pattern):
    dit, inputs = network(mixing=mixing, pattern=pattern, registers=1), batch(3)
    together, apart = dit(*inputs), torch.cat([dit(*row(inputs, i)) for i in range(3)])
    assert near(together, apart, 1e-6)
    weights = torch.randn_like(apart)
    assert near(gradients(dit, (together * weights).sum()), gradients(dit, (apart * weights).sum()), 1e-5)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_nothing_crosses_from_sample_to_sample(mixing):
    dit = network(mixing=mixing, registers=2)
    noisy, t, text, moments = batch()
    tokens, pooled = text.tokens.clone().requires_grad_(), text.pooled.clone().requires_grad_()
    noisy, t = noisy.requires_grad_(), t.requires_grad_()
    out = dit(noisy, t, Text(tokens, pooled), moments)
    parts = (noisy, t, pooled, *([] if mixing is Pooled else [tokens]))
    for gradient in torch.autograd.grad(out[0].square().sum(), parts):
        assert gradient[1].abs().max() == 0
        assert gradient[0].abs().max() > 0


def test_the_flow_time_of_a_frame_modulates_that_frame_alone():
    dit = network(depth=1)
    noisy, t, text, moments = batch()
    rows: list[Tensor] = []
    dit.trunk.blocks[0].modulation.register_forward_hook(lambda _, __, out: rows.append(out))
    other = t.clone()
    other[1, 1] = 1 - other[1, 1]
    dit(noisy, t, text, moments)
    dit(noisy, other, text, moments)
    changed = (rows[0] != rows[1]).any(dim=1)
    assert changed.tolist() == [index == 4 for index in range(2 * 3 + 2)], "rows: 2 x 3 frames, then 2 texts"


def test_without_blocks_a_frame_depends_on_its_own_time_alone():
    dit = network(depth=0)
    noisy, t, text, moments = batch()
    other = t.clone()
    other[1, 1] = 1 - other[1, 1]
    changed = (dit(noisy, t, text, moments) != dit(noisy, other, text, moments)).flatten(3).any(dim=3).any(dim=1)
    assert changed.tolist() == [[False] * 3, [False, True, False]]


@pytest.mark.parametrize("mixing", MIXINGS)
def test_words_pooled_text_and_moments_all_matter(mixing):
    dit = network(mixing=mixing)
    noisy, t, text, moments = batch()
    out = dit(noisy, t, text, moments)
    other_words = dit(noisy, t, Text(text.tokens + torch.randn_like(text.tokens), text.pooled), moments)
    for changed in (other_words, dit(noisy, t, Text(text.tokens, text.pooled + 1), moments), dit(noisy, t, text, moments * 2)):
        if changed is other_words and mixing is Pooled:
            assert torch.equal(out, changed), "pooled text alone"
        else:
            assert (out - changed).abs().mean() > 1e-3 * out.abs().mean()


def test_scores_do_not_know_where_the_clip_is_but_frames_know_their_order(monkeypatch):
    dit, elsewhere = network(mixing=Pooled, registers=0), network(mixing=Pooled, registers=0)  # what has no place tells where the clip is
    noisy, t, text, moments = batch()
    turns, places = elsewhere.rope.turns, (2.25, -1.5, 3.0)
    monkeypatch.setattr(elsewhere.rope, "turns", lambda positions, axis: turns(positions + places[axis], axis))
    assert near(elsewhere(noisy, t, text, moments), dit(noisy, t, text, moments), 1e-5)
    monkeypatch.setattr(elsewhere.rope, "turns", lambda positions, axis: turns(positions * 1.5, axis))
    elsewhere.rope._tables.clear()
    assert not near(elsewhere(noisy, t, text, moments), dit(noisy, t, text, moments), 1e-3), "distances do matter"
    t = t[:, :1].expand(-1, 3)
    straight, reverse = dit(noisy, t, text, moments), dit(noisy.flip(2), t, text, moments)
    assert not near(straight, reverse.flip(2), 1e-2)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 9), (1, 3, 4)])
def test_odd_sizes_are_accepted(size):
    inputs = batch(2, size)
    assert network()(*inputs).shape == (2, 4, *size)


@pytest.mark.parametrize(
    ("mixing", "kernel", "parts"),
    [*((mixing, Fused(), {"registers": 2}) for mixing in MIXINGS), (Joint, Products(), {}), (Joint, Fused(), {"mlp": SwiGLU()})],
)
def test_bf16_autocast_stays_near_float32(mixing, kernel, parts):
    dit, inputs = network(mixing=mixing, kernel=kernel, width=64, **parts), batch(4)
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    truth = dit(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = dit(*inputs)
    assert out.dtype == torch.float32
    assert near(out, truth, 1e-2)
    ours, theirs = gradients(dit, (out * weights).sum()), gradients(dit, (truth * weights).sum())
    assert torch.cosine_similarity(ours, theirs, dim=0) >= 0.999


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("registers", [0, 2])
def test_flops_agree_with_the_counter(mixing, modulation, registers):
    dit, inputs = network(mixing=mixing, modulation=modulation, kernel=Fused(), registers=registers), batch(3)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        dit(*inputs)
    assert dit.flops(Layout.batch(3, (3, 2, 3), TEXT)) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: type(pattern).__name__)
def test_packed_flops_agree_with_the_counter(mixing, pattern):
    dit = network(mixing=mixing, pattern=pattern, kernel=Fused())
    a, b = batch(1, (3, 4, 6)), batch(1, (1, 5, 3))
    text = Text(torch.cat([a[2].tokens, b[2].tokens]), torch.cat([a[2].pooled, b[2].pooled]))
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        dit.forward_packed([a[0][0], b[0][0]], torch.cat([a[1][0], b[1][0]]), text, torch.cat([a[3][0], b[3][0]]))
    assert dit.flops(Layout(((3, 2, 3), (1, 3, 2)), (TEXT, TEXT))) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_same_seed_same_weights_and_one_thread_equals_two():
    inputs, threads = batch(4), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            dit = network(width=64)
            out = dit(*inputs)
            results.append((out, gradients(dit, out.square().sum())))
    finally:
        torch.set_num_threads(threads)
    for out, gradient in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_shard_units_hold_most_of_the_weights_and_share_none():
    dit = network(depth=3)
    inside = [id(part) for unit in dit.shard_units() for part in unit.parameters()]
    assert len(dit.shard_units()) == 3
    assert len(set(inside)) == len(inside)
    assert len(inside) == sum(1 for name, _ in dit.named_parameters() if ".blocks." in name)


def test_builds_on_the_meta_device():
    with torch.device("meta"):
        dit = DiT(16, 1024, 2, 8, 512, modulation=Shared())
    assert all(part.is_meta for part in dit.parameters())


def test_bad_input_names_both_numbers_and_the_key():
    noisy, t, text, moments = batch()
    dit = network()
    for match, call in (
        (r"t must lie in \[0, 1\], got .* to 1\.5", lambda: dit(noisy, t.clamp(0.5) * 0 + 1.5, text, moments)),
        (r"t must lie in \[0, 1\]", lambda: dit(noisy, t * float("nan"), text, moments)),
        (r"t has shape \(2,\), wanted \(2, 3\)", lambda: dit(noisy, t[:, 0], text, moments)),
        (r"\(2, 3, 3, 4, 6\), wanted \(b, 4, f, h, w\).*latent_channels", lambda: dit(noisy[:, :3], t, text, moments)),
        (r"moments must be finite seconds, got inf", lambda: dit(noisy, t, text, moments.abs() / 0)),
        (r"moments has shape \(2,\), wanted \(2, 3\).*models\.geometry\.moments", lambda: dit(noisy, t, text, torch.tensor([8.0, 24.0]))),
        (r"moments has shape \(1,\), wanted \(3,\)", lambda: dit.forward_packed([noisy[0]], t[0], row(batch(), 0)[2], torch.tensor([8.0]))),
        (r"2 videos came with 1 prompts", lambda: dit(noisy, t, Text(text.tokens[:1], text.pooled[:1]), moments)),
        (r"text is 8 wide.*text_width=16", lambda: dit(noisy, t, Text(text.tokens[..., :8], text.pooled), moments)),
        (r"wanted \(3,\): one flow time per latent frame", lambda: dit.forward_packed([noisy[0]], t[0, :2], row(batch(), 0)[2], moments[0, :2])),
        (r"at least one video", lambda: dit.forward_packed([], t[0], text, moments)),
        (r"width=32 .*heads=3", lambda: DiT(4, 32, 1, 3, 16)),
        (r"sum to 12, but a head has 16 channels", lambda: DiT(4, 32, 1, 2, 16, rope_axes=(4, 4, 4))),
        (r"patch=\(2, 2, 2\).*must be \(1, h, w\)", lambda: DiT(4, 32, 1, 2, 16, patch=(2, 2, 2))),
        (r"registers=-1 must be 0", lambda: DiT(4, 32, 1, 2, 16, registers=-1)),
        (r"rank=32 is not below the width=32.*modulation.rank", lambda: DiT(4, 32, 1, 2, 16, modulation=LowRank(32))),
        (r"rank=0 leaves no update.*modulation.rank", lambda: LowRank(0)),
        (r"double_blocks=3 must lie between 0 and depth=2.*mixing.double_blocks", lambda: DiT(4, 32, 2, 2, 16, mixing=Double(3))),
        (r"share=1\.5 of double blocks.*mixing.share", lambda: Hybrid(1.5)),
        (r"multiple=0 .*mlp.multiple", lambda: SwiGLU(0)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("mixing", MIXINGS)
def test_overfits_one_clip(mixing):
    torch.manual_seed(0)
    dit = DiT(4, 64, 2, 2, 16, mixing=mixing())
    clean, _, text, moments = batch(1, (3, 4, 4))
    clean, optimiser = clean.expand(8, -1, -1, -1, -1), torch.optim.AdamW(dit.parameters(), lr=3e-3)
    text = Text(text.tokens.expand(8, -1, -1), text.pooled.expand(8, -1))
    losses = []
    for step in range(200):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (200 - step) / 100)
        noise, t = torch.randn_like(clean), torch.rand(8, 1).expand(-1, 3) * 0.9 + 0.1
        factor = t[:, None, :, None, None]
        loss = (dit((1 - factor) * clean + factor * noise, t, text, moments.expand(8, -1)) - (noise - clean)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 <= 0.1 * losses[0]


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_token_knows_where_it_stands(mixing):
    """Each in a clip that is everywhere the same: only what has no place (text, registers) tells the places apart."""
    dit = network(mixing=mixing)
    _, t, text, moments = batch()
    with torch.no_grad():
        answer = dit(torch.ones(2, 4, 3, 4, 6), torch.full_like(t, 0.5), text, moments)
    patches = answer.unflatten(3, (2, 2)).unflatten(5, (3, 2)).mean((4, 6))  # b c f h w
    assert (patches[:, :, 1] - patches[:, :, 1, :1, :1]).abs().max() > 1e-4 * patches.abs().max()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_prompts_without_tokens_are_refused_where_tokens_are_read(mixing):
    noisy, t, text, moments = batch()
    empty = Text(text.tokens[:, :0], text.pooled)
    if mixing is Pooled:
        assert torch.isfinite(network(mixing=mixing)(noisy, t, empty, moments)).all()
        return
    with pytest.raises(ValueError, match=r"0 text tokens.*Set objective/dit/mixing=pooled"):
        network(mixing=mixing)(noisy, t, empty, moments)
