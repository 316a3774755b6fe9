"""Networks that several tests share, tiny and with random weights: frozen text encoders in Hugging Face's format, and run folders that sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORDS = ("<pad>", "</s>", "<unk>", "a", "square", "of", "colour", "red", "blue", "moves", *map(str, range(20)))


@pytest.fixture(scope="session")
def text_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with t5 (the whole model, decoder too), umt5, clip_text, clip (vision too) and three Gemmas (with heads), each 16 wide."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    size = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1}
    t5 = {**size, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    own = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**size, **own, "bos_token_id": 0, "max_position_embeddings": 12}
    gemma = {**text, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 2}
    vision = {**own, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    with torch.random.fork_rng():
        made = {
            "t5": transformers.T5ForConditionalGeneration(transformers.T5Config(**t5)),
            "umt5": transformers.UMT5EncoderModel(transformers.UMT5Config(**t5)),
            "clip_text": transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)),
            "clip": transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)),
            "gemma": transformers.GemmaForCausalLM(transformers.GemmaConfig(**text, num_key_value_heads=2, head_dim=8)),
            "gemma2": transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**gemma, attn_logit_softcapping=0.5)),
            "gemma3": transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**gemma, layer_types=["sliding_attention", "full_attention"])),
        }
    root = tmp_path_factory.mktemp("text_models")
    for name, model in made.items():
        for weights in model.parameters():  # CLIP starts near 0: rounding would hide what matters
            if weights.ndim == 2:
                torch.nn.init.normal_(weights, std=0.3)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


VAE = {"_target_": "models.vae.VideoVAE", "stride_t": 4, "stride_s": 8, "latent_channels": 4, "widths": [8], "encoder_depths": [1]}
VAE |= {"decoder_depths": [1], "look_back": 1, "decoder_look_back": 1}
DIT = {"_target_": "models.dit.DiT", "latent_channels": 4, "width": 16, "depth": 1, "heads": 1, "text_width": 16, "patch": [1, 1, 1]}
TEXT = {"_target_": "models.text.TextTransformer", "width": 16, "depth": 1, "heads": 1, "max_tokens": 6}
TEXT |= {"tokenizer": {"_target_": "models.text.WordTokenizer", "buckets": 64}}
DATA = {"shape": {"_target_": "data.shapes.Fixed", "frames": 9, "height": 16, "width": 24, "grid": [4, 16, 16]}, "fps": 8}
EVERY = ("none", "first", "first_n", "last_n", "ends", "span", "keyframes", "picture")


@dataclass(frozen=True)
class FlowRuns:
    """Run folders `vae`, `dit` (trained without and with a first frame) and `every` (the same weights, said to be trained for every task)."""

    root: Path

    def save(
        self, folder: Path, weights: Mapping[str, float], windows: float = 0.0, dit: Mapping[str, Any] = DIT, step: int = 7, networks: Any = None
    ) -> Path:
        """A flow run said to be trained on such patterns of given frames; its weights are those of `networks`, or random."""
        from training.vae_bundle import bundle_vae

        known = {"_target_": "flow.conditioning.KnownFrames", "weights": dict(weights), "windows": windows}
        objective = {"_target_": "training.flow_objective.FlowObjective", "dit": dict(dit), "text": TEXT, "vae": VAE, "shift": 2.0}
        networks = networks or {"dit": loud(dit, 2), "text": loud(TEXT, 3)}
        save_run(folder, {"objective": {**objective, "conditioning": known}, "data": DATA}, networks, step)
        bundle_vae(str(self.root / "vae"), VAE, folder)
        return folder


def loud(config: Mapping[str, Any], seed: int) -> Any:
    """A network with weights that make every input matter, as a new one's zeroed gates do not."""
    import torch

    from runtime.build import build

    module, random = build(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.3)
    return module


def save_run(folder: Path, config: Mapping[str, Any], networks: Mapping[str, Any], step: int) -> None:
    import torch

    from runtime.checkpoint import Checkpoints
    from runtime.config import dump
    from training.ema import network_state

    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(dump(config))
    state = network_state(networks)
    Checkpoints(folder / "checkpoints").save(step, {"weights": {k: torch.zeros_like(v) for k, v in state.items()}, "ema": state}, {})


@pytest.fixture(scope="session")
def flow_runs(tmp_path_factory: pytest.TempPathFactory) -> FlowRuns:
    import torch

    runs = FlowRuns(tmp_path_factory.mktemp("runs"))
    vae = loud(VAE, 1)
    vae.set_statistics(torch.full((4,), 0.1), torch.full((4,), 0.7))
    save_run(runs.root / "vae", {"objective": {"_target_": "training.vae_objective.VAEObjective", "vae": VAE}, "data": DATA}, {"vae": vae}, 7)
    runs.save(runs.root / "dit", {"none": 0.7, "first": 0.3})
    runs.save(runs.root / "every", dict.fromkeys(EVERY, 1.0), windows=0.5)
    return runs
