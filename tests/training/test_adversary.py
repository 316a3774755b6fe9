"""The discriminator's phase: it begins at its sample, moves each player by its own term alone, keeps its balance, and a resume is bitwise."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from data.batch import Batch
from models.discriminator import PatchDiscriminator
from models.vae import VideoVAE
from runtime.checkpoint import read
from runtime.run_folder import RunFolder
from runtime.seeding import Rng
from runtime.tracking import NoTracker
from training.adversary import Adversary, Game, Hinge, NonSaturating
from training.optim import Optimizers
from training.vae_objective import VAEObjective

RNG = Rng(3)
L1, KL = 0.2, 1e-4


def adversary(game: Game | None = None, **changes) -> Adversary:
    torch.manual_seed(1)
    discriminator = PatchDiscriminator((8, 12), ((1, 2, 2), (2, 2, 2)))
    settings = {"weight": 0.5, "most": 1e4, "r1": 0.1, "from_sample": 0, "ramp_samples": 0}
    return Adversary(discriminator, game or Hinge(), **(settings | changes))


def objective(contest: Adversary | None) -> VAEObjective:
    torch.manual_seed(0)
    return VAEObjective(VideoVAE(widths=(16, 24), latent_channels=8), L1, 0.0, KL, 2, adversary=contest)


def clips(count: int, frames: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, frames, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def batch(video: torch.Tensor, first: int = 0) -> Batch:
    b = len(video)
    return Batch(tuple(range(first, first + b)), tuple(range(b)), ({},) * b, torch.full((b,), 8.0), video=video)


def gradients(task: VAEObjective, *batches: Batch) -> dict[str, torch.Tensor | None]:
    for network in task.networks.values():
        network.zero_grad(set_to_none=True)
    for part in batches:
        task.loss(part, RNG).total.backward()
    return {f"{name}.{key}": p.grad for name, network in task.networks.items() for key, p in network.named_parameters()}


def test_before_its_time_a_discriminator_costs_nothing_and_moves_nothing():
    contest, sample = adversary(from_sample=3), batch(clips(3))
    task, plain, calls = objective(contest), objective(None), []
    contest.discriminator.register_forward_pre_hook(lambda *_: calls.append(1))
    assert torch.equal(task.loss(sample, RNG).total, plain.loss(sample, RNG).total)
    assert task.flops(sample) == plain.flops(sample)
    moved = gradients(task, sample)
    assert not calls
    assert all((gradient is None) == name.startswith("discriminator.") for name, gradient in moved.items())
    task.loss(batch(clips(1), first=3), RNG)
    assert calls


@pytest.mark.parametrize("game", [Hinge(), NonSaturating()])
@pytest.mark.parametrize(("frames", "ramp"), [(1, 0), (5, 0), (5, 5)])
def test_each_player_is_moved_by_its_own_term_alone(game: Game, frames: int, ramp: int):
    """Against the definition: two losses, two networks, the other one's weights or pictures detached each time; value and gradients of one thing."""
    contest, video = adversary(game, ramp_samples=ramp), clips(3, frames)
    task = objective(contest)
    sample, discriminator = batch(video), contest.discriminator
    moved, logs = gradients(task, sample), task.loss(sample, RNG).logs

    plain = objective(None)
    posterior = plain.vae.posterior(video)
    noise = torch.from_numpy(RNG.normal(7, sample.samples, posterior.mean.shape[2], (8, 2, 2))).transpose(1, 2)
    result = plain.vae.decode_posterior(posterior.sample(noise))
    real, fake = video.clone().requires_grad_(), result.detach()
    on_real, on_fake = discriminator(real), discriminator(fake)
    scale = video.numel() / on_real.numel()
    (steep,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
    judged = sum(term.sum() for term in game.judge(on_real, on_fake)) + 0.05 * steep.square().sum()
    for (name, p), want in zip(discriminator.named_parameters(), torch.autograd.grad(judged * scale, list(discriminator.parameters())), strict=True):
        assert torch.allclose(moved[f"discriminator.{name}"], want, rtol=1e-4, atol=1e-4 * float(want.abs().max())), name
        assert p.grad is not None

    detached = {name: p.detach() for name, p in discriminator.named_parameters()}
    error = result - video
    pixels = error.square().sum() + L1 * error.abs().sum()
    by_clip = game.fool(functional_call(discriminator, detached, (result,))).flatten(1).sum(dim=1) * scale
    fooled = by_clip.sum()
    last = plain.vae.last_layer
    sizes = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (pixels, fooled)]
    adaptive = float(sizes[0] / sizes[1])
    assert float(logs["adversary_scale"][0]) / logs["adversary_scale"][1] == pytest.approx(adaptive, rel=1e-4)
    divergence = posterior.kl()
    shares = torch.tensor([1.0, 2.0, 3.0]) / ramp if ramp else torch.ones(3)
    total = pixels + KL * divergence.sum() * video.numel() / divergence.numel() + 0.5 * adaptive * (shares * by_clip).sum()
    named = dict(plain.vae.named_parameters())
    for name, want in zip(named, torch.autograd.grad(total, list(named.values())), strict=True):
        assert torch.allclose(moved[f"vae.{name}"], want, rtol=1e-4, atol=1e-4 * float(want.abs().max())), name
    whole = total + (judged * scale)
    assert float(task.loss(sample, RNG).total.detach()) == pytest.approx(float(whole.detach()), rel=1e-4)


def pulled(contest: Adversary | None, louder: float = 1.0) -> torch.Tensor:
    if contest is not None:
        with torch.no_grad():
            contest.discriminator.head.weight.mul_(louder)
    task = objective(contest)
    return gradients(task, batch(clips(2)))["vae.head.weight"]


@pytest.mark.parametrize("louder", [1.0, 100.0])
def test_the_discriminator_pulls_at_the_last_layer_as_hard_as_the_pixels_however_loud_it_is(louder: float):
    alone, both = pulled(None), pulled(adversary(weight=0.7), louder)
    assert float((both - alone).norm()) == pytest.approx(0.7 * float(alone.norm()), rel=1e-3)


def test_a_discriminator_that_says_nothing_is_not_made_loud_without_limit():
    alone, both = pulled(None), pulled(adversary(most=10.0), 1e-6)
    assert 0 < float((both - alone).norm()) < 1e-3 * float(alone.norm())


def test_the_balance_is_struck_over_the_samples_that_it_sees_and_no_others():
    """One of eight clips is late; the others' pull is no measure of its push."""
    task, video = objective(adversary(from_sample=7)), clips(8)
    scales = [task.loss(sample, RNG).logs["adversary_scale"] for sample in (batch(video), batch(video[7:], first=7))]
    (mixed, count), (alone, _) = scales
    assert count == 1
    assert float(mixed) == pytest.approx(float(alone), rel=1e-3)


def test_parts_of_a_batch_add_up_across_the_beginning():
    """With the scale held at its limit: the balance itself is struck over a micro-batch."""
    task = objective(adversary(most=1e-3, from_sample=2, ramp_samples=3))
    video, still = clips(5), clips(2, frames=1)
    whole, stills = batch(video), batch(still, first=5)
    parts = [batch(video[:1]), batch(video[1:3], first=1), batch(video[3:], first=3)]
    total, split = gradients(task, whole, stills), gradients(task, *parts, stills)
    for name, gradient in total.items():
        assert torch.allclose(gradient, split[name], rtol=1e-3, atol=1e-5 * float(gradient.abs().max())), name
    for name, (figure, count) in task.loss(whole, RNG).logs.items():
        said = [task.loss(part, RNG).logs.get(name, (0.0, 0)) for part in parts]
        assert float(figure) == pytest.approx(sum(float(pair[0]) for pair in said), rel=1e-3, abs=1e-4), name
        assert count == sum(pair[1] for pair in said), name


def test_its_weight_rises_sample_by_sample():
    contest = adversary(from_sample=4, ramp_samples=4)
    assert contest.shares(range(3, 10)).tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert contest.late([3, 9, 4]) == [1, 2]
    assert adversary().shares([0]).tolist() == [1]


@torch.no_grad()
def test_validation_does_not_hear_of_it():
    sample = batch(clips(2))
    with_one, without = (objective(contest).validate(sample, RNG) for contest in (adversary(), None))
    assert {name: float(pair[0]) for name, pair in with_one.items()} == {name: float(pair[0]) for name, pair in without.items()}


@pytest.mark.parametrize("r1", [0.0, 0.1])
def test_flops_count_it_while_it_is_there(r1: float, monkeypatch: pytest.MonkeyPatch):
    contest, video = adversary(r1=r1), clips(2, 9)
    contest.discriminator = PatchDiscriminator((16, 32, 64), ((1, 2, 2), (2, 2, 2), (2, 2, 2)))
    # The counter's hooks on modules cannot take a leaf that requires a gradient.
    monkeypatch.setattr(PatchDiscriminator, "__call__", lambda self, given: self.forward(given.view_as(given)), raising=False)
    with FlopCounterMode(display=False) as counter:
        contest.play(video, video + 0.1).loss.backward()
    counted = contest.flops([0, 1], 9, 16, 16)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.05)
    contest.from_sample = 1
    assert contest.flops([0, 1], 9, 16, 16) == counted / 2


def test_it_learns_to_tell_blur_and_then_the_decoder_is_pulled_to_texture():
    contest = adversary(game=NonSaturating())
    optimizer = torch.optim.AdamW(contest.discriminator.parameters(), lr=1e-2)
    sharp = torch.randn(8, 3, 5, 16, 16, generator=torch.Generator().manual_seed(5)) * 0.3
    flat = torch.zeros_like(sharp)
    for _ in range(40):
        told = contest.play(sharp, flat)
        optimizer.zero_grad()
        (told.loss / sharp.numel()).backward()
        optimizer.step()
    told = contest.play(sharp, flat)
    assert float(told.logs["logit_real"][0]) > 0 > float(told.logs["logit_fake"][0])
    faint = 0.1 * sharp
    push = contest.play(sharp, faint).push
    assert float((push * faint).sum()) < 0  # going down: more of that texture


class Loader:
    wait_s = 0.0

    def __init__(self, dies_after: int | None = None) -> None:
        self.dies_after = dies_after

    def steps(self, start_step: int, stop_step: int) -> Iterator[list[Batch]]:
        for step in range(start_step, stop_step):
            video = torch.from_numpy(Rng(5).normal(2, range(4 * step, 4 * step + 4), 3, (5, 8, 8))).clamp(-1, 1)
            yield [batch(video[:3], first=4 * step), batch(video[3:, :, :1], first=4 * step + 3)]
            if step + 1 == self.dies_after:
                raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resume_across_the_beginning_is_bitwise(tmp_path, toys, precision):
    """6 steps against 3 and 3; the discriminator begins in the middle of step 4 (samples 12 to 15)."""

    def fit(name: str, loader: Loader) -> None:
        task = objective(adversary(from_sample=13, ramp_samples=4))
        trainer = toys.trainer(max_steps=6, checkpoint_every=3, validate_every=0, log_every=1, precision=precision)
        with RunFolder(tmp_path / name, {"run": name}) as folder:
            trainer.fit(task, loader, [batch(clips(2))], toys.muon(), folder, NoTracker(), seed=3)

    fit("whole", Loader())
    with pytest.raises(KeyboardInterrupt):
        fit("cut", Loader(dies_after=5))
    fit("cut", Loader())
    assert toys.rows(tmp_path / "cut") == toys.rows(tmp_path / "whole")
    assert toys.digests(tmp_path / "cut", 6) == toys.digests(tmp_path / "whole", 6)
    train = [row for row in toys.rows(tmp_path / "whole") if row["kind"] == "train"]
    assert ["discriminator" in row for row in train] == [False, False, False, True, True, True]


@dataclass(frozen=True, slots=True)
class Loud:
    """A hinge whose discriminator loses so many times as much; the decoder hears nothing of it."""

    times: float

    def judge(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        on_real, on_fake = Hinge().judge(real, fake)
        return self.times * on_real, self.times * on_fake

    def fool(self, fake: torch.Tensor) -> torch.Tensor:
        return Hinge().fool(fake)


def test_a_loud_discriminator_does_not_make_the_vaes_clipped_step_smaller(tmp_path: Path, toys):
    """One step of plain descent: what the weights have moved by is the clipped gradient."""

    class Descent:
        width_scaling = toys.adamw().width_scaling

        def optimizers(self, networks) -> Optimizers:
            return Optimizers({"sgd": torch.optim.SGD([p for network in networks.values() for p in network.parameters()], lr=1.0)}, networks)

    moved, norms = {}, {}
    for times in (1.0, 100.0):
        task = objective(adversary(Loud(times), r1=0.0))
        before = {f"{name}.{key}": p.detach().clone() for name, network in task.networks.items() for key, p in network.named_parameters()}
        with RunFolder(tmp_path / str(times), {"run": str(times)}) as folder:
            trainer = toys.trainer(max_steps=1, clip_norm=1e-2, log_every=1)
            trainer.fit(task, Loader(), [batch(clips(2))], Descent(), folder, NoTracker(), seed=3)
        after = read(tmp_path / str(times) / "checkpoints/step-00000001").parts["weights"]
        moved[times] = {name: after[name] - weight for name, weight in before.items()}
        norms[times] = [row["grad_norm"] for row in toys.rows(tmp_path / str(times)) if row["kind"] == "train"]
    rate = torch.cat([step.flatten() for name, step in moved[1.0].items() if name.startswith("vae.")]).norm()
    assert rate > 0
    for name, step in moved[1.0].items():
        assert torch.equal(step, moved[100.0][name]) or name.startswith("discriminator."), name
    for steps in moved.values():
        other = torch.cat([step.flatten() for name, step in steps.items() if name.startswith("discriminator.")]).norm()
        assert float(other) == pytest.approx(float(rate), rel=1e-2)  # both are clipped to the same norm, rounded to the weights' digits
    assert norms[1.0] == norms[100.0]  # the VAE's


class Spoilt(Loader):
    def steps(self, start_step: int, stop_step: int) -> Iterator[list[Batch]]:
        for step, micros in enumerate(super().steps(start_step, stop_step), start_step):
            if step == 1:
                micros[0].content.fill_(float("nan"))
            yield micros


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_that_is_not_finite_is_skipped_before_the_discriminator_joins(tmp_path, toys, monkeypatch, device):
    """The norm of no gradients lies on the default device: on a GPU that is another one than the networks'. Meta stands for it on a CPU."""
    norm, other = torch.nn.utils.get_total_norm, "meta" if device == "cpu" else "cpu"

    def by_default_elsewhere(gradients):
        with torch.device(other):
            return norm(gradients)

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", by_default_elsewhere)
    with RunFolder(tmp_path, {"run": "x"}) as folder:
        trainer = toys.trainer(max_steps=3, log_every=1, device=device)
        trainer.fit(objective(adversary(from_sample=100)), Spoilt(), [batch(clips(2))], toys.adamw(), folder, NoTracker(), seed=3)
    rows = toys.rows(tmp_path)
    assert [(row["step"], row["loss"], row["grad_norm"]) for row in rows if row["kind"] == "skip"] == [(2, "nan", "nan")]
    assert all(0 < row["grad_norm"] < float("inf") for row in rows if row["kind"] == "train" and "grad_norm" in row)
    assert all(torch.isfinite(tensor).all() for tensor in read(tmp_path / "checkpoints/step-00000003").parts["weights"].values())


def test_a_player_that_has_run_away_is_left_to_the_trainers_guard():
    contest = adversary()
    with torch.no_grad():
        contest.discriminator.head.weight.fill_(float("nan"))
    task = objective(contest)
    assert not torch.isfinite(task.loss(batch(clips(1)), RNG).total)


@pytest.mark.parametrize("key", ["weight", "most", "r1", "from_sample", "ramp_samples"])
def test_negative_settings_are_refused(key: str):
    with pytest.raises(ValueError, match=rf"Set objective\.adversary\.{key}"):
        adversary(**{key: -1})
