"""Frozen text encoders in Hugging Face's format: tiny, with random weights."""

from pathlib import Path

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
