"""The key of latents: deaf to the decoder, hears every bit that encoding reads."""

import torch

from models.vae import VideoVAE
from models.vae_blocks import Convolution
from training.vae_encoding import encoding_facts, encoding_key

SIZES = {"latent_channels": 4, "widths": (8, 16), "encoder_depths": (1, 1), "decoder_depths": (1, 1), "look_back": 1, "decoder_look_back": 1}
NODE = {"_target_": "models.vae.VideoVAE", **{key: list(size) if isinstance(size, tuple) else size for key, size in SIZES.items()}}


def made(**sizes) -> VideoVAE:
    torch.manual_seed(0)
    return VideoVAE(**{**SIZES, **sizes})


def key(vae: VideoVAE, config: dict | None = None) -> str:
    return encoding_key(encoding_facts(vae, config or NODE))


def test_the_key_hears_each_tensor_that_encoding_reads_and_no_other():
    before = key(made())
    for name in made().state_dict():
        vae = made()
        vae.state_dict()[name].reshape(-1)[-1:].view(torch.int32).bitwise_xor_(1)  # the last bit of the last value
        decodes = name.startswith(("from_latents.", "decoder.", "head."))
        assert (key(vae) == before) == decodes, name


def test_the_key_is_of_values_not_of_how_they_are_written_down():
    vae = made()
    spelt = {"mixing": {"_target_": "models.vae_blocks.Shift"}, "stem": {"_target_": "models.vae_stems.Patches"}, "stride_t": 4}
    assert key(vae, {**spelt, **NODE}) == key(vae) == key(vae.requires_grad_(False).eval())
    for other in ({"stem": {"_target_": "models.vae_stems.Haar"}}, {"stride_t": 2}, {"a_key_to_come": 1}):
        assert key(vae, NODE | other) != key(vae), other


def test_a_decoder_of_another_size_leaves_the_key():
    vae, larger = made(), made(decoder_depths=(1, 2), decoder_look_back=2)
    larger.load_state_dict({name: tensor for name, tensor in vae.state_dict().items() if not name.startswith("decoder.")}, strict=False)
    assert key(larger, NODE | {"decoder_depths": [1, 2], "decoder_look_back": 2}) == key(vae)
    assert key(made(mixing=Convolution()), NODE) != key(vae)
