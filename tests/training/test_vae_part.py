"""Fine-tuning the decoder alone: the encoder, the whitening and every latent stay bit for bit, whatever the optimiser does."""

import copy

import pytest
import torch

from data.batch import Batch
from models.vae import VideoVAE
from models.vae_stems import Haar
from runtime.checkpoint import Checkpoints
from runtime.config import ConfigError
from runtime.run_folder import RunFolder
from runtime.seeding import Rng
from training.ema import EMA, network_state
from training.vae_objective import VAEObjective
from training.vae_part import DecoderOnly, Part, Whole
from training.warm_start import Source, load

RNG = Rng(3)


def objective(part: Part, whitened: bool = True) -> VAEObjective:
    torch.manual_seed(0)
    vae = VideoVAE(widths=(16, 24), latent_channels=8)
    if whitened:
        vae.set_statistics(torch.full((8,), 0.1), torch.full((8,), 2.0))
    return VAEObjective(vae, 0.2, 0.0, 1e-2, 2, part=part)


def batch(count: int = 2, frames: int = 5) -> Batch:
    video = torch.randn(count, 3, frames, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return Batch(tuple(range(count)), tuple(range(count)), ({},) * count, torch.full((count,), 8.0), video=video)


def test_the_encoder_and_its_latents_stay_bit_for_bit(toys):
    task = objective(DecoderOnly(1.0))
    recipe = toys.muon()
    recipe.rest.weight_decay = recipe.weight_decay = 0.5  # what is not trained must not even decay
    optimizers, averages = recipe.optimizers(task.networks), EMA(task.networks, 0.5)
    before, latents = copy.deepcopy(task.vae.state_dict()), task.vae.encode(batch().content)
    for step in range(3):
        optimizers.zero_grad()
        loss = task.loss(batch(), RNG)
        (loss.total / loss.count).backward()
        optimizers.step(1.0)
        averages.update(step)
    task.refresh([batch()])
    decoding = {f"vae.{name}" for name, p in task.vae.named_parameters() if any(p is own for m in task.vae.decoding() for own in m.parameters())}
    assert decoding == {f"vae.{name}" for name, p in task.vae.named_parameters() if p.requires_grad}
    for name, tensor in task.vae.state_dict().items():
        moves = f"vae.{name}" in decoding
        assert torch.equal(tensor, before[name]) != moves, name
        assert torch.equal(averages.state()[f"vae.{name}"], before[name]) != moves, name
    assert torch.equal(task.vae.encode(batch().content), latents)
    assert {name.split("/")[-1] for name in optimizers.tensors()} <= decoding


def test_there_is_no_divergence_in_its_loss():
    loss = objective(DecoderOnly(1.0)).loss(batch(), RNG)
    assert "kl" not in loss.logs
    mean = {name: float(total) / count for name, (total, count) in loss.logs.items()}
    assert float(loss.total.detach()) / loss.count == pytest.approx(mean["mse"] + 0.2 * mean["l1"], rel=1e-5)


def test_the_decoder_is_shown_the_mean_and_as_much_noise_as_asked_for():
    video = batch().content
    seen = {}
    for part in (DecoderOnly(0.0), DecoderOnly(0.5), DecoderOnly(1.0), Whole()):
        vae = objective(part).vae
        raw, _ = part.latents(vae, video, lambda posterior: torch.ones_like(posterior.mean))
        seen[getattr(part, "noise", None)] = (raw - vae.posterior(video).mean).detach() / vae.posterior(video).logvar.mul(0.5).exp().detach()
    assert float(seen[0.0].abs().max()) == 0
    for noise, want in ((0.5, 0.5), (1.0, 1.0), (None, 1.0)):
        assert torch.allclose(seen[noise], torch.full_like(seen[noise], want), atol=1e-4)


def test_an_encoder_that_was_never_trained_is_refused_before_the_first_step_and_a_resume_is_not(tmp_path):
    with RunFolder(tmp_path, {"run": "x"}) as folder:
        with pytest.raises(ConfigError, match="Set init_from=<a VAE run>"):
            objective(DecoderOnly(1.0), whitened=False).begin(folder)
        objective(DecoderOnly(1.0)).begin(folder)
        objective(Whole(), whitened=False).begin(folder)
        Checkpoints(folder.checkpoints).save(1, {"weights": {}, "ema": {}, "optimizer": {}}, {})
        objective(DecoderOnly(1.0), whitened=False).begin(folder)  # its weights are yet to be read from the checkpoint


CONFIG = {"_target_": "models.vae.VideoVAE", "widths": [16, 24], "latent_channels": 8}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("widths", (16, 32), r"widths=\[16, 32\], now \[16, 24\]; vae\.encoder\..*: mismatch, .* there, .* here, and \d+ more"),
        ("encoder_depths", (1, 1), r"encoder_depths=\[1, 1\], now \[1, 2\]; vae\.encoder\..*"),
        ("stem", Haar(), r'stem=\{"_target_": "models\.vae_stems\.Haar"\}, now \{.*\}'),  # all shapes fit
        ("decoder_depths", (1, 2), ""),
    ],
)
@pytest.mark.parametrize("part", [DecoderOnly(1.0), Whole()])
def test_a_decoder_learns_on_its_sources_encoder_or_not_at_all(key, value, says, part):
    torch.manual_seed(1)
    vae = VideoVAE(**({"widths": (16, 24), "latent_channels": 8} | {key: value}))
    node = {"_target_": "models.vae_stems.Haar"} if key == "stem" else list(value)
    source = Source("runs/a", 7, "", network_state({"vae": vae}), {"vae": CONFIG | {key: node}})
    task = objective(part)
    before = copy.deepcopy(task.vae.state_dict())
    if not says or part.whitens:
        assert load(source, task.networks, {"vae": CONFIG}).loaded
        assert torch.equal(task.vae.stem.weight, vae.stem.weight)
    else:
        with pytest.raises(ConfigError, match=rf"^init_from=runs/a has another encoder: objective\.vae\.{says}\. The decoder .* Set objective\.vae"):
            load(source, task.networks, {"vae": CONFIG})
        assert all(torch.equal(tensor, before[name]) for name, tensor in task.vae.state_dict().items())


def test_a_checkpoint_without_a_config_gives_a_decoder_its_encoder_if_all_of_it_fits():
    for widths, fits in (((16, 24), True), ((16, 32), False)):
        source = Source("step", 7, "", network_state({"vae": VideoVAE(widths=widths, latent_channels=8)}), {})
        if fits:
            assert load(source, objective(DecoderOnly(1.0)).networks, {"vae": CONFIG}).fresh == {}
        else:
            with pytest.raises(ConfigError, match=r"has another encoder: vae\.encoder\..*mismatch"):
                load(source, objective(DecoderOnly(1.0)).networks, {"vae": CONFIG})


def test_flops_leave_the_encoders_backward_out():
    forward = objective(Whole()).vae.flops(5, 16, 16)
    assert objective(DecoderOnly(0.0)).flops(batch()) == 2 * (forward["encode"] + 3 * forward["decode"])


def test_everything_learns_in_the_whole_again():
    task = objective(DecoderOnly(0.0))
    Whole().prepare(task.vae)
    assert all(p.requires_grad for p in task.vae.parameters())


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match=r"Set objective\.part\.noise"):
        DecoderOnly(-0.1)
