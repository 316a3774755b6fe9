"""A clip too large for memory is encoded as a stream of tiles, to the latents that encoding it whole would give."""

import pytest
import torch

from models.vae import VideoVAE
from runtime.checkpoint import Checkpoints
from runtime.config import dump
from training import frozen

NODE = {"_target_": "models.vae.VideoVAE", "latent_channels": 4, "widths": [8, 16], "encoder_depths": [1, 1], "decoder_depths": [1, 1]}
NODE |= {"look_back": 1, "decoder_look_back": 1}


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    vae = VideoVAE(latent_channels=4, widths=(8, 16), encoder_depths=(1, 1), decoder_depths=(1, 1), look_back=1, decoder_look_back=1)
    source, run = tmp_path / "vae", tmp_path / "run"
    for folder in (source, run):
        folder.mkdir()
    (source / "config.yaml").write_text(dump({"objective": {"vae": NODE}}))
    Checkpoints(source / "checkpoints").save(1, {"weights": {}, "ema": {f"vae.{name}": value for name, value in vae.state_dict().items()}}, {})
    return frozen.frozen_vae(str(source), NODE, run, "cpu", "float32")


def test_a_large_clip_is_encoded_in_pieces_to_the_same_latents(encoder, monkeypatch):
    vae, door = encoder
    clip = torch.randn(2, 3, 9, 24, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    seen = []
    vae.stem.register_forward_hook(lambda layer, given, made: seen.append(given[0].shape[1]))
    whole = door.encode(clip)
    assert seen == [3]  # latent frames at once
    assert torch.equal(whole, vae.encode(clip))  # what a cache held before it must still hold
    monkeypatch.setattr(frozen, "WHOLE_PX", clip[0, 0].numel() - 1)
    seen.clear()
    streamed = door.encode(clip)
    assert seen == [1, 1, 1]
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() <= 1e-5 * whole.std()  # kernels differ by shape
