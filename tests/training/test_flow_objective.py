from dataclasses import replace

import pytest
import torch

from data.batch import Batch, Packed
from data.buckets import Bucket
from data.dataset import Fetched, Group
from data.files.media import Media
from data.index import Index, Row
from data.loader import Loader
from data.plan import EpochPlan, MicroBatches, Sequences
from flow.conditioning import KnownFrames
from flow.guidance import ClassifierFree
from flow.path import per_frame
from flow.prediction import Clean, Velocity
from flow.solvers import Euler
from flow.timesteps import LogitNormal, Uniform
from models.dit import DiT
from models.text import TextTransformer, WordTokenizer
from models.vae import VideoVAE
from runtime.seeding import Rng
from training.captions import CaptionPolicy
from training.flow_objective import FlowObjective
from training.inference import Networks, Shape, make_generator

torch.set_num_threads(1)
PROMPTS = ("a red circle moves up", "a blue square grows", "a green star turns", "a red square moves down")


def objective(known=None, timesteps=None, shift=1.0, latent_channels=4, prediction=None) -> FlowObjective:
    torch.manual_seed(0)
    vae = VideoVAE(latent_channels=4, widths=(8, 16), encoder_depths=(1, 1), decoder_depths=(1, 1), look_back=1, decoder_look_back=1)
    text = TextTransformer(WordTokenizer(64), width=16, depth=1, heads=2, max_tokens=8)
    dit = DiT(latent_channels=latent_channels, width=32, depth=2, heads=2, text_width=16)
    for network in (dit, text.blocks):  # layers that end a branch start at 0: nothing would depend on anything
        for parameter in network.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.1)
    captions = CaptionPolicy(free={"short": 0.8, "none": 0.2}, known={"motion": 1.0})
    known, law, says = KnownFrames(known or {"none": 0.5, "first": 0.5}), timesteps or LogitNormal(0.0, 1.0), prediction or Velocity()
    return FlowObjective(dit, text, vae, law, shift, says, known, captions, 4, Euler(), ClassifierFree(2.0), 2, 2)


def latents(samples=range(8), frames=3, size=(4, 4)) -> Batch:
    values = torch.from_numpy(Rng(5).normal(1, list(samples), frames, (4, *size))).transpose(1, 2).contiguous()  # b c f h w
    captions = tuple({"short": (PROMPTS[s % 4],), "motion": ("it moves",)} for s in samples)
    return Batch(tuple(samples), tuple(samples), captions, torch.full((len(values),), 8.0), latents=values)


def split(batch: Batch, rows: slice) -> Batch:
    parts = {"samples": batch.samples[rows], "rows": batch.rows[rows], "captions": batch.captions[rows], "fps": batch.fps[rows]}
    return replace(batch, latents=batch.latents[rows], **parts)


def test_parts_of_a_batch_add_up_to_its_loss_and_gradient():
    whole, batch = objective(), latents()
    loss = whole.loss(batch, Rng(1))
    loss.total.backward()
    parts = objective()
    losses = [parts.loss(split(batch, rows), Rng(1)) for rows in (slice(0, 3), slice(3, 8))]
    for part in losses:
        part.total.backward()
    assert float(sum(part.total for part in losses).detach()) == pytest.approx(float(loss.total.detach()), rel=1e-6)
    assert sum(int(part.count) for part in losses) == int(loss.count)
    for (name, a), b in zip(whole.dit.named_parameters(), parts.dit.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-5 * float(a.grad.abs().max())), name


def pack() -> Packed:
    return Packed((latents(range(3, 6)), latents(range(1, 3), 1, (4, 6)), latents((9, 0, 7), 2, (8, 4))))


def test_a_pack_has_the_loss_and_the_gradient_of_its_clips_one_by_one():
    together, alone = objective(shift=2.0), objective(shift=2.0)
    loss = together.loss(pack(), Rng(1))
    loss.total.backward()
    clips = [split(part, slice(number, number + 1)) for part in pack().parts for number in range(len(part))]
    losses = [alone.loss(clip, Rng(1)) for clip in clips]
    for one in losses:
        one.total.backward()
    assert len(losses) == len(pack()) == 8
    assert float(loss.total.detach()) == pytest.approx(sum(float(one.total.detach()) for one in losses), rel=1e-5)
    assert int(loss.count) == sum(int(one.count) for one in losses)
    for name, (total, count) in loss.logs.items():
        assert float(total) == pytest.approx(sum(float(one.logs[name][0]) for one in losses), rel=1e-5)
        assert int(count) == sum(int(one.logs[name][1]) for one in losses)
    for network, other in zip(together.networks.values(), alone.networks.values(), strict=True):
        for (name, a), b in zip(network.named_parameters(), other.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            assert a.grad is None or float((a.grad - b.grad).norm()) <= 1e-5 * float(b.grad.norm()), name
    assert together.flops(pack()) == sum(alone.flops(part) for part in pack().parts)


class Shelf:
    """16 clips of latents in 8 shapes."""

    bad_limit, known_faults = 0.0, ()
    index = Index("made", "/", tuple(Row(Media(f"/{number}")) for number in range(16)))
    buckets = tuple(Bucket(1 + 4 * (number % 2), 16 + 16 * (number // 2 % 2), 16 + 16 * (number // 4 % 2)) for number in range(16))

    def run(self, item, watch=None):
        return Fetched((Group(tuple(draw.sample for draw in item), tuple(draw.row for draw in item), None),))

    def give_up(self, token, kind, detail):
        raise AssertionError("nothing hangs here")

    def batch(self, group):
        bucket = self.buckets[group.rows[0]]
        return replace(latents(group.rows, 1 + bucket.frames // 4, (bucket.height // 8, bucket.width // 8)), samples=group.samples)


class Stopped(Exception):
    pass


class Cut:
    """A loader that ends after so many steps, as a kill would."""

    def __init__(self, loader, after):
        self.loader, self.after, self.wait_s = loader, after, 0.0

    def steps(self, start, stop):
        for step, passes in enumerate(self.loader.steps(start, stop), start):
            if step == self.after:
                raise Stopped
            yield passes


def shelf(micro):
    plan = EpochPlan([1.0] * 16, [bucket.tokens((4, 16, 16)) for bucket in Shelf.buckets], 12, None, 0)
    return Loader(Shelf(), plan, micro(None, 12, (4, 16, 16)))


def test_a_run_in_packs_has_the_losses_of_a_run_by_shape_and_its_resume_is_bitwise(tmp_path, toys):
    settings = {"recipe": toys.adamw(lr=1e-3), "max_steps": 3, "log_every": 1, "validate_every": 0, "checkpoint_every": 1}
    assert [len(passes) for passes in shelf(MicroBatches).steps(0, 3)] > [len(passes) for passes in shelf(Sequences).steps(0, 3)]
    toys.fit(tmp_path / "bucket", objective(), shelf(MicroBatches), **settings)
    toys.fit(tmp_path / "sequence", objective(), shelf(Sequences), **settings)
    one, other = ([row for row in toys.rows(tmp_path / name) if row["kind"] == "train"] for name in ("bucket", "sequence"))
    assert len(one) == 3
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    assert [row["samples"] for row in other] == [row["samples"] for row in one]
    with pytest.raises(Stopped):
        toys.fit(tmp_path / "cut", objective(), Cut(shelf(Sequences), 2), **settings)
    toys.fit(tmp_path / "cut", objective(), shelf(Sequences), **settings)
    assert toys.rows(tmp_path / "cut") == toys.rows(tmp_path / "sequence")
    assert toys.digests(tmp_path / "cut", 3) == toys.digests(tmp_path / "sequence", 3)


class Saying(torch.nn.Module):
    """A DiT that says clean latents where the one inside says the velocity."""

    def __init__(self, dit, least):
        super().__init__()
        self.dit, self.least = dit, least

    def forward(self, noisy, t, text, moments):
        return noisy - per_frame(t.clamp(min=self.least)) * self.dit(noisy, t, text, moments)

    def forward_packed(self, noisy, t, text, moments):
        times = t.clamp(min=self.least).split([video.shape[1] for video in noisy])
        answers = zip(noisy, times, self.dit.forward_packed(noisy, t, text, moments), strict=True)
        return [video - own[:, None, None] * answer for video, own, answer in answers]


LEAST = 0.5  # in the middle of the flow times drawn


def twins() -> tuple[FlowObjective, FlowObjective]:
    one, other = objective(shift=2.0), objective(shift=2.0, prediction=Clean(LEAST))
    other.dit = Saying(other.dit, LEAST)
    return one, other


@pytest.mark.parametrize("batch", [latents, pack], ids=["batch", "pack"])
def test_networks_that_say_the_same_in_velocity_and_in_clean_latents_are_trained_alike(batch):
    one, other = twins()
    losses = [toy.loss(batch(), Rng(1)) for toy in (one, other)]
    for loss in losses:
        loss.total.backward()
    assert float(losses[1].total.detach()) == pytest.approx(float(losses[0].total.detach()), rel=1e-5)
    assert int(losses[1].count) == int(losses[0].count)
    for name, (total, _) in losses[0].logs.items():
        assert float(losses[1].logs[name][0]) == pytest.approx(float(total), rel=1e-4), name
    for (name, a), b in zip(one.dit.named_parameters(), other.dit.dit.parameters(), strict=True):
        assert a.grad is not None, name
        assert float((a.grad - b.grad).norm()) <= 1e-4 * float(a.grad.norm()), name


def test_networks_that_say_the_same_are_validated_and_shown_alike():
    one, other = twins()
    with torch.no_grad():
        figures, those = (toy.validate(latents(), Rng(9)) for toy in (one, other))
        previews = [toy.preview(latents(range(3)), Rng(0)) for toy in (one, other)]
    for name, (total, count) in figures.items():
        assert float(those[name][0] / those[name][1]) == pytest.approx(float(total / count), rel=1e-4), name
    for a, b in zip(*(preview.videos for preview in previews), strict=True):
        assert abs(a.astype(int) - b).max() <= 1  # the last bits may tip a rounding to 8 bits


def test_a_run_is_sampled_by_its_saved_prediction_and_by_the_velocity_if_it_has_none():
    one, other = twins()
    clean = {"prediction": {"_target_": "flow.prediction.Clean", "t_least": LEAST}}
    velocity = {"prediction": {"_target_": "flow.prediction.Velocity"}}
    sampling = {"solver": {"_target_": "flow.solvers.Heun"}, "guidance": {"_target_": "flow.guidance.ClassifierFree", "scale": 2.0}}
    ends = []
    for toy, says in ((one, velocity), (one, {}), (other, clean), (other, {})):
        networks = Networks(toy.dit, toy.text, toy.vae, {"objective": {"shift": 2.0, **says}}, 1, Shape(9, 32, 32, 8.0), "", "")
        generator = make_generator(networks, {**sampling, "steps": 3, "batch_size": 2})
        ends.append(generator.latents(PROMPTS[:2], (3, 4, 4), 8.0, 0, [0, 1]))
    assert torch.equal(ends[1], ends[0])
    assert torch.allclose(ends[2], ends[0], rtol=0, atol=1e-4)
    assert not torch.allclose(ends[3], ends[0], rtol=0, atol=0.1)


def test_an_untrained_network_costs_what_it_says():
    """Outputs of 0: the velocity is off by noise - latents, clean latents by latents / t, and a known frame by nothing."""
    seen = {}
    for prediction in (Velocity(), Clean(0.05)):
        toy = objective(prediction=prediction)
        toy.text = lambda prompts: prompts

        def silent(noisy, t, text, moments):
            seen.update(noisy=noisy, t=t)
            return torch.zeros_like(noisy)

        toy.dit = silent
        loss, clean = toy.loss(latents(), Rng(1)), latents().latents
        t = per_frame(seen["t"])
        assert (t[t > 0] > 0.05).all()
        off = clean / t if isinstance(prediction, Clean) else (seen["noisy"] - clean) / t
        assert float(loss.total) == pytest.approx(float(off[(t > 0).expand_as(off)].square().sum()), rel=1e-5)


def test_a_draw_depends_on_the_sample_number_alone():
    one, two = (objective().loss(latents(), Rng(1)).total for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, objective().loss(latents(), Rng(2)).total)
    assert not torch.equal(one, objective().loss(replace(latents(), samples=tuple(range(8, 16))), Rng(1)).total)


def test_known_frames_are_at_time_zero_clean_and_not_counted():
    toy, batch = objective({"first": 1.0}), latents()
    seen = {}

    def spy(noisy, t, text, moments):
        seen.update(noisy=noisy, t=t, prompts=text)
        return torch.zeros_like(noisy)

    toy.dit, toy.text = spy, lambda prompts: prompts
    loss = toy.loss(batch, Rng(1))
    assert (seen["t"][:, 0] == 0).all()
    assert (seen["t"][:, 1:] > 0).all()
    assert torch.equal(seen["noisy"][:, :, 0], batch.latents[:, :, 0])
    assert not torch.equal(seen["noisy"][:, :, 1], batch.latents[:, :, 1])
    assert int(loss.count) == 8 * 2 * 4 * 4 * 4  # two of three frames
    assert seen["prompts"] == ["it moves"] * 8  # the table for samples with known frames


def test_shift_of_training_is_the_shift_of_sampling():
    from flow.timesteps import shift

    times = {}
    for a in (1.0, 3.0):
        toy = objective({"none": 1.0}, Uniform(), a)
        toy.text = lambda prompts: prompts

        def spy(noisy, t, text, moments, a=a):
            times[a] = t
            return torch.zeros_like(noisy)

        toy.dit = spy
        toy.loss(latents(), Rng(1))
    assert torch.allclose(times[3.0], shift(times[1.0], 3.0))


def test_every_trained_weight_gets_a_gradient_and_the_vae_none():
    toy = objective()
    video = torch.rand(4, 3, 5, 16, 16) * 2 - 1
    batch = replace(split(latents(range(4)), slice(0, 4)), latents=None, video=video)
    loss = toy.loss(batch, Rng(1))
    loss.total.backward()
    unused = [name for network in toy.networks.values() for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in unused if name != "empty"] == []  # the text's "empty" vector is for empty prompts only
    assert all(p.grad is None and not p.requires_grad for p in toy.vae.parameters())


def test_latents_of_the_loader_and_of_the_vae_give_the_same_loss():
    toy = objective()
    video = torch.rand(2, 3, 5, 16, 16) * 2 - 1
    batch = replace(split(latents(range(2)), slice(0, 2)), latents=None, video=video)
    cached = replace(batch, video=None, latents=toy.vae.encode(video))
    assert torch.equal(toy.loss(batch, Rng(1)).total, toy.loss(cached, Rng(1)).total)


def test_validation_repeats_itself_fills_every_bin_and_sees_whether_captions_are_used():
    toy = objective()
    with torch.no_grad():
        one, two = ({name: float(s) / float(c) for name, (s, c) in toy.validate(latents(), Rng(9)).items()} for _ in range(2))
    assert one == two
    bins = [one[f"loss_t{number}of4"] for number in range(4)]
    assert sum(bins) / 4 == pytest.approx(one["loss"], rel=1e-5)
    assert one["loss_shuffled"] != one["loss"]


def test_bins_of_the_training_loss_add_up_to_it():
    loss = objective().loss(latents(), Rng(1))
    assert float(sum(s for s, _ in loss.logs.values())) == pytest.approx(float(loss.total.detach()), rel=1e-5)
    assert int(sum(c for _, c in loss.logs.values())) == int(loss.count)


def test_a_preview_shows_clips_with_their_prompts():
    with torch.no_grad():
        preview = objective().preview(latents(range(3)), Rng(0))
    assert list(preview.captions) == list(PROMPTS[:2])
    assert [video.shape for video in preview.videos] == [(9, 32, 32, 3)] * 2
    assert all(video.dtype == "uint8" for video in preview.videos)


def test_flops_are_three_times_what_a_counter_sees_in_the_forward():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    toy, batch = objective({"none": 1.0}), latents()
    # The counter does not know the fused CPU attention; as plain matrix products it counts it.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        toy.loss(batch, Rng(1))
    assert toy.flops(batch) == pytest.approx(3 * counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("prediction", [Velocity(), Clean(0.05)], ids=["velocity", "clean"])
def test_training_learns_one_batch(prediction):
    toy = objective({"none": 1.0}, prediction=prediction)
    parameters = [p for network in toy.networks.values() for p in network.parameters()]
    optimizer, batch, losses = torch.optim.AdamW(parameters, lr=3e-3), latents(range(4)), []
    for _ in range(60):
        loss = toy.loss(batch, Rng(1))
        losses.append(float(loss.total.detach()) / float(loss.count))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_channels_that_do_not_fit_are_refused_with_the_key():
    with pytest.raises(ValueError, match=r"Set objective\.dit\.latent_channels=4"):
        objective(latent_channels=8)
