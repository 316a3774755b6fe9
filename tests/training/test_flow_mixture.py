"""Training for every task at once: the mixture's loss is the sum over its samples, and nothing that is given is learnt."""

from dataclasses import replace

import pytest
import torch

from data.batch import Batch, Packed, Shot
from data.stills import StillFrames, encode_stills
from flow.autoguidance import Autoguidance
from flow.conditioning import PATTERNS, KnownFrames
from flow.given import Rule
from flow.guidance import NoGuidance
from flow.prediction import Velocity
from flow.solvers import Euler
from flow.timesteps import LogitNormal, shift
from models.dit import DiT
from models.geometry import Layout
from models.patterns import Causal, Tiled
from models.text import TextTransformer, WordTokenizer
from models.vae import VideoVAE
from runtime.seeding import Rng, Stream
from training.captions import CaptionPolicy
from training.flow_objective import FlowObjective

torch.set_num_threads(1)
ALL = KnownFrames(dict.fromkeys(PATTERNS, 1.0), windows=0.3, noise=0.2)
WORDS = ("a red circle", "a blue square", "a green star")
CUTS = (Shot(0, 5, {"short": ("first it moves",), "motion": ("first",)}), Shot(5, 9, {"short": ("then it turns",), "motion": ("then",)}))


def objective(conditioning=ALL, guidance=None, **of_dit) -> FlowObjective:
    torch.manual_seed(0)
    vae = VideoVAE(latent_channels=4, widths=(8, 16), encoder_depths=(1, 1), decoder_depths=(1, 1), look_back=1, decoder_look_back=1)
    text = TextTransformer(WordTokenizer(64), width=16, depth=1, heads=2, max_tokens=8)
    dit = DiT(latent_channels=4, width=32, depth=2, heads=2, text_width=16, **of_dit)
    for network in (dit, text.blocks):  # layers that end a branch start at 0: nothing would depend on anything
        for parameter in network.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.1)
    captions = CaptionPolicy(free={"short": 0.8, "none": 0.2}, known={"motion": 1.0})
    return FlowObjective(dit, text, vae, LogitNormal(0.0, 1.0), 2.0, Velocity(), conditioning, captions, 4, Euler(), guidance or NoGuidance(), 2, 2)


def videos(samples=range(12), size=(16, 16), shots=True, drawn=1) -> Batch:
    """Clips of 9 pixel frames, 3 latent frames; every other one has shots."""
    content = torch.from_numpy(Rng(5).normal(Stream.WORLD, list(samples), 9, (3, *size))).transpose(1, 2).clamp(-1, 1).contiguous()  # b c t h w
    captions = tuple({"short": (WORDS[sample % 3],), "motion": ("it moves",)} for sample in samples)
    own = tuple(CUTS if sample % 2 else () for sample in samples) if shots else ()
    numbers = StillFrames(4, drawn).table(list(samples), 9)
    fps = torch.tensor([8.0 + sample % 2 for sample in samples])
    return Batch(tuple(samples), tuple(samples), captions, fps, video=content, still_frames=numbers, shots=own)


def cached(toy, batch) -> Batch:
    with torch.no_grad():
        stills = None if batch.still_frames is None else encode_stills(toy.vae.encode, batch.video, batch.still_frames)
        return replace(batch, video=None, latents=toy.vae.encode(batch.video), stills=stills)


def alone(batch, row) -> Batch:
    one = slice(row, row + 1)
    names = ("samples", "rows", "captions", "fps", "video", "latents", "stills", "still_frames", "shots")
    return replace(batch, **{name: None if (field := getattr(batch, name)) is None else field[one] for name in names})


def agree(loss, losses, toy, other):
    loss.total.backward()
    for one in losses:
        one.total.backward()
    assert float(loss.total.detach()) == pytest.approx(sum(float(one.total.detach()) for one in losses), rel=1e-5)
    assert int(loss.count) == sum(int(one.count) for one in losses)
    for name, (total, count) in loss.logs.items():
        assert float(total) == pytest.approx(sum(float(one.logs[name][0]) for one in losses), rel=1e-5), name
        assert int(count) == sum(int(one.logs[name][1]) for one in losses), name
    for network, twin in zip(toy.networks.values(), other.networks.values(), strict=True):
        for (name, a), b in zip(network.named_parameters(), twin.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            assert a.grad is None or float((a.grad - b.grad).norm()) <= 1e-5 * float(b.grad.norm()), name


def test_a_batch_of_every_pattern_has_the_loss_and_the_gradient_of_its_samples_one_by_one():
    toy, other = objective(), objective()
    batch = cached(toy, videos(range(40)))
    given = ALL.draw(Rng(1), batch.samples, 3, Rule(4, 1), batch.still_frames.tolist())
    assert {one.frames for one in given} >= {1, 2, 3, 4, 5}  # pictures, windows, clips, and clips with pictures behind
    agree(toy.loss(batch, Rng(1)), [other.loss(alone(batch, row), Rng(1)) for row in range(40)], toy, other)


def test_a_pack_of_every_pattern_has_the_loss_and_the_gradient_of_its_samples_one_by_one():
    toy, other = objective(), objective()
    parts = [cached(toy, videos(range(9))), cached(toy, videos(range(20, 27), (16, 24), shots=False)), videos(range(30, 36), (8, 24))]
    losses = [other.loss(alone(part, row), Rng(1)) for part in parts for row in range(len(part))]
    agree(toy.loss(Packed(tuple(parts)), Rng(1)), losses, toy, other)


def test_pictures_that_are_encoded_here_train_like_those_of_the_cache():
    toy = objective(KnownFrames({"keyframes": 1.0, "last_n": 1.0}, noise=0.2))
    batch = videos(range(20))
    held = cached(toy, batch)
    with torch.no_grad():
        one, other, spoilt = (toy.loss(clips, Rng(1)) for clips in (batch, held, replace(held, stills=held.stills + 1)))
    assert int(one.count) == int(other.count)
    assert float(one.total) == pytest.approx(float(other.total), rel=1e-6)
    assert float(one.total) != pytest.approx(float(spoilt.total), rel=1e-3)


def spied(toy, answer):
    """What the network is shown in a pass of any sort, one sample after the other."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, noisy, t, text, moments):
            seen.extend(zip(noisy, t, strict=True))
            return torch.stack([answer(video, own) for video, own in zip(noisy, t, strict=True)])

        def forward_packed(self, noisy, t, text, moments):
            times = t.split([video.shape[1] for video in noisy])
            seen.extend(zip(noisy, times, strict=True))
            return [answer(video, own) for video, own in zip(noisy, times, strict=True)]

    toy.dit, toy.text = Spy(), lambda prompts: prompts
    return seen


def test_what_the_network_says_of_given_frames_is_never_heard():
    toy = objective(KnownFrames(dict.fromkeys(PATTERNS, 1.0), windows=0.3))
    batch = cached(toy, videos(shots=False))
    spied(toy, lambda video, t: torch.zeros_like(video))
    quiet = toy.loss(batch, Rng(1))
    spied(toy, lambda video, t: torch.where(t[:, None, None] > 0, 0.0, torch.nan).expand_as(video))
    loud = toy.loss(batch, Rng(1))
    assert torch.equal(loud.total, quiet.total)
    given = toy.conditioning.draw(Rng(1), batch.samples, 3, Rule(4, 1), batch.still_frames.tolist())
    assert int(quiet.count) == sum(len(one.known) - sum(one.known) for one in given) * 4 * 2 * 2


def test_the_loss_of_beginnings_is_that_of_the_formulas_bit_for_bit():
    toy = objective(KnownFrames({"none": 1.0, "first": 1.0}))
    batch = cached(toy, videos(shots=False))
    said = spied(toy, lambda video, t: 0.5 * video)
    loss = toy.loss(batch, Rng(1))
    noise = torch.from_numpy(Rng(1).normal(Stream.NOISE, batch.samples, 3, (4, 2, 2))).transpose(1, 2)
    first = torch.from_numpy(Rng(1).uniform(Stream.KNOWN, batch.samples)[:, 0] >= 0.5)
    t = shift(LogitNormal(0.0, 1.0).draw(Rng(1), batch.samples, 3), 2.0)
    t[first, 0] = 0
    times = t[:, None, :, None, None]
    noisy = (1 - times) * batch.latents + times * noise
    assert torch.equal(torch.stack([video for video, _ in said]), noisy)
    assert torch.equal(torch.stack([own for _, own in said]), t)
    errors = torch.where(times > 0, 0.5 * noisy - (noise - batch.latents), 0.0).square().sum(dim=(1, 3, 4))
    assert torch.equal(loss.total, errors.sum())
    assert int(loss.count) == int((t > 0).sum()) * 4 * 2 * 2


@pytest.mark.parametrize(
    ("weights", "windows", "frames"),
    [
        ({"first_n": 1.0}, 0.0, 3.0),
        ({"picture": 1.0}, 0.0, 1.0),
        ({"none": 1.0, "picture": 1.0}, 0.0, 2.0),
        ({"none": 1.0}, 0.5, 2.5),
        ({"keyframes": 1.0}, 0.0, 3 + 0.25 * 2 + 0.75 * 1.5),  # both ends of latent frames, or one or two stills
    ],
)
def test_flops_are_the_mean_over_the_mixture(weights, windows, frames):
    toy = objective(KnownFrames(weights, windows=windows))
    batch = cached(toy, videos(range(4)))
    cost = {count: toy.dit.flops(Layout.batch(1, (count, 1, 1), 8)) for count in range(1, 6)}
    low = int(frames)
    between = cost[low] + (frames - low) * (cost[low + 1] - cost[low])  # nearly straight: attention is a small part
    found = (toy.flops(batch) - 3 * toy.text.flops(4)) / 4 / 3
    assert found == pytest.approx(between, rel=0.1)  # 256 draws: a standard error of up to 3 %
    drawn = [one.frames for one in toy.conditioning.draw(Rng(0), range(256), 3, Rule(4, 1), [(4, 8)] * 256)]
    assert found == pytest.approx(sum(cost[count] for count in drawn) / 256, rel=1e-6)


def test_late_pictures_without_stills_are_refused_by_name():
    with pytest.raises(ValueError, match=r"Set data\.stills"):
        objective(KnownFrames({"none": 1.0, "keyframes": 0.1})).loss(videos(drawn=0), Rng(1))


def test_hidden_pictures_are_as_noisy_as_the_clip_and_nothing_of_it_is_given():
    toy = objective(KnownFrames({"ends": 1.0}, hidden=0.5))
    batch = cached(toy, videos(range(40), shots=False))
    even = 0
    for shown in toy._drawn(batch, Rng(0)):
        pictures = shown.t.shape[1] - 3
        for t, counts, prompt in zip(shown.t, shown.counts, shown.prompts, strict=True):
            hidden = bool((t == t[0]).all())
            even += hidden
            assert counts.tolist() == [hidden or bool(level > 0) for level in t[:3]] + [False] * pictures
            assert not hidden or (t[0] > 0 and prompt in ("it moves", ""))
    assert even == sum(one.hidden for one in toy.draw.given(Rng(0), batch, 3)) > 0


@pytest.mark.parametrize("pattern", [Causal(), Tiled((1, 2, 2))], ids=lambda one: type(one).__name__)
def test_late_pictures_are_refused_where_attention_does_not_look(pattern):
    with pytest.raises(ValueError, match="objective/dit/pattern=full"):
        objective(pattern=pattern)
    objective(KnownFrames({"first_n": 1.0}), pattern=pattern)


def test_autoguidance_has_no_weaker_network_in_training():
    with pytest.raises(ValueError, match="classifier_free"):
        objective(guidance=Autoguidance(2.0, "runs/x"))
