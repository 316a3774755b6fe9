"""A frozen encoder is read late, saved nowhere, and its vectors depend on nothing but the prompt."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models import text_frozen
from models.text import Text
from models.text_frozen import HuggingFaceText

CAUSAL = ["clip_text", "clip", "gemma", "gemma2", "gemma3"]
NAMES = ["t5", "umt5", *CAUSAL]
KINDS = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel", "gemma": "GemmaModel", "gemma2": "Gemma2Model", "gemma3": "Gemma3TextModel"}
PROMPTS = ["a red square", "a", "a blue square moves of colour 7", "no such words here"]


@pytest.fixture
def of(text_models):
    def make(name="t5", max_tokens=8, **options) -> HuggingFaceText:
        text = HuggingFaceText(str(text_models / name), 16, max_tokens, **options)
        torch.nn.init.normal_(text.null, generator=torch.Generator().manual_seed(0))
        return text

    return make


@pytest.fixture
def copied(text_models, tmp_path):
    """A T5 folder of the test's own."""
    shutil.copytree(text_models / "t5", tmp_path / "t5")
    return tmp_path / "t5"


@pytest.fixture
def never_read(monkeypatch):
    monkeypatch.setattr(text_frozen, "read_frozen", lambda *_: pytest.fail("the encoder's weights were read"))


def same(a: Text, b: Text) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.pooled, b.pooled)


@pytest.mark.parametrize("name", NAMES)
def test_every_supported_encoder_gives_what_transformers_gives(of, text_models, name):
    import transformers

    eager = {"attn_implementation": "eager"}  # the definition: fused kernels leave out Gemma 2's cap
    model = getattr(transformers, KINDS.get(name, "CLIPTextModel")).from_pretrained(text_models / name, **eager).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_models / name)
    text = of(name)
    for prompt, vectors in zip(PROMPTS, text.encode(PROMPTS), strict=True):
        ids = tokenizer(prompt, truncation=True, max_length=8, return_tensors="pt").input_ids
        with torch.no_grad():
            wanted = model(input_ids=ids).last_hidden_state[0]  # l d
        assert vectors.shape == wanted.shape == (ids.shape[1], 16)
        assert torch.allclose(vectors, wanted, atol=1e-5)  # alone and without a mask there, beside others here
        assert not vectors.requires_grad


@pytest.mark.parametrize("name", ["t5", "clip", "gemma2"])
def test_another_layer_is_that_hidden_state_and_another_key(of, text_models, name):
    import transformers

    model = getattr(transformers, KINDS.get(name, "CLIPTextModel")).from_pretrained(text_models / name, attn_implementation="eager").eval()
    ids = transformers.AutoTokenizer.from_pretrained(text_models / name)("a red square", return_tensors="pt").input_ids
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
    text = of(name, layer=-2)
    assert torch.allclose(text.encode(["a red square"])[0], states[1][0], atol=1e-5)
    assert text.key == of(name, layer=1).key != of(name).key == of(name, layer=2).key
    with pytest.raises(ValueError, match=r"layer=3 is not there: .* has hidden states -3 to 2. Set objective.text.layer"):
        of(name, layer=3)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_token_of_a_causal_encoder_knows_what_stands_before_it_alone(of, name):
    text = of(name)
    (red,), (blue,) = text.encode(["a square of colour red"]), text.encode(["a square of colour blue"])
    assert torch.allclose(red[:4], blue[:4], atol=1e-5)
    assert (red[4] - blue[4]).abs().max() > 1e-2
    assert torch.allclose(text(["a square of colour red"]).pooled[0], red.mean(dim=0), atol=1e-6), "of all tokens, not the last alone"


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_beside_a_prompt_does_not_change_it(of, name):
    text = of(name)
    together = text.encode(PROMPTS)
    for prompt, vectors in zip(PROMPTS, together, strict=True):
        (alone,) = text.encode([prompt])
        assert torch.allclose(vectors, alone, atol=1e-5)
        assert vectors.abs().max() > 0.1
    assert (text.encode(["a red square"])[0] - text.encode(["a blue square"])[0]).abs().max() > 1e-2


def test_a_prompt_is_its_vectors_then_null_and_pooled_is_their_mean(of):
    text = of()
    out = text(["a red square", "", " \n", "a red square"])
    (vectors,) = text.encode(["a red square"])
    assert len(vectors) == 4
    assert torch.allclose(out.tokens[0, :4], vectors, atol=1e-6)
    assert torch.allclose(out.pooled[0], vectors.mean(dim=0), atol=1e-6)
    assert torch.equal(out.tokens[0, 4:], text.null.expand(4, -1))
    for blank in (1, 2):
        assert torch.equal(out.tokens[blank], text.null.expand(8, -1))
        assert torch.equal(out.pooled[blank], text.null)
    assert torch.equal(out.tokens[0], out.tokens[3])
    out.pooled.sum().backward()
    assert text.null.grad.tolist() == [2.0] * 16, "of the two blank prompts alone"


def test_the_frozen_weights_are_in_no_state_and_are_not_trained(of):
    text = of()
    text(["a red square"])
    (encoder,) = text._held
    assert {name: tuple(tensor.shape) for name, tensor in text.state_dict().items()} == {"null": (16,), "trained_with": (32,)}
    assert [name for name, _ in text.named_parameters()] == ["null"]
    assert len(list(text.modules())) == 1
    text.train()
    assert not encoder.training
    assert not any(weights.requires_grad for weights in encoder.parameters())


def test_the_weights_are_read_when_a_prompt_first_needs_them_and_once(of, monkeypatch):
    reads, read = [], text_frozen.read_frozen
    monkeypatch.setattr(text_frozen, "read_frozen", lambda *arguments: reads.append(arguments) or read(*arguments))
    text = of()
    text.to("cpu")
    assert text.cut(PROMPTS) == []
    text(["", "  "])
    assert text.flops(1) > 0
    assert text.key
    assert reads == []
    text(PROMPTS)
    text(PROMPTS)
    assert len(reads) == 1
    text.unload()
    text(PROMPTS)
    assert len(reads) == 2


def test_known_prompts_are_not_encoded_and_others_are(of, never_read, monkeypatch):
    plain, text = of(), of()
    text.known = {"a red square": torch.ones(2, 16, dtype=torch.bfloat16)}
    out = text(["a red square", ""])
    assert torch.equal(out.tokens[0, :2], torch.ones(2, 16))
    assert torch.equal(out.pooled[0], torch.ones(16))
    assert text.flops(2) == 0
    monkeypatch.undo()
    mixed, other = text(["a red square", "a blue square"]), plain(["a blue square"])
    assert torch.equal(mixed.tokens[0], out.tokens[0])
    assert torch.equal(mixed.tokens[1], other.tokens[0])


def test_known_vectors_give_what_encoding_gives(of):
    text, cached = of(), of()
    cached.known = dict(zip(PROMPTS, text.encode(PROMPTS), strict=True))
    assert same(cached([*PROMPTS, ""]), text([*PROMPTS, ""]))


def test_autocast_does_not_change_a_prompt(of):
    text = of()
    plain = text.encode(PROMPTS)
    with torch.autocast("cpu", torch.bfloat16):
        under = text.encode(PROMPTS)
    assert all(torch.equal(a, b) for a, b in zip(plain, under, strict=True))


def test_weights_keep_the_dtype_that_they_are_stored_in(copied):
    weights = load_file(copied / "model.safetensors")
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, copied / "model.safetensors", {"format": "pt"})
    (copied / "config.json").write_text(json.dumps({**json.loads((copied / "config.json").read_text()), "dtype": "bfloat16"}))
    text = HuggingFaceText(str(copied), 16, 8)
    (vectors,) = text.encode(["a red square"])
    assert vectors.dtype == torch.float32
    assert {weights.dtype for weights in text._held[0].parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("prompt", ["\0", "\ud800", "e\u0301te\u0301 שלום 圆", "x" * 100_000, "🙂👍", "${a},{b}: 'c'\r\n\ufeff"])
def test_odd_prompts_are_encoded(of, prompt):
    out = of()([prompt])
    assert bool(out.tokens.isfinite().all() and out.pooled.isfinite().all())


def test_too_long_prompts_are_cut_with_a_note_and_keep_their_end_token(of):
    text = of(max_tokens=4)
    fits, long = "a red square", "a red square moves"
    assert same(text([fits]), text([long]))
    (note,) = text.cut(["", fits, long])
    assert note.startswith("prompt 2 ('a red square moves'...)")
    assert "4 tokens" in note


@pytest.mark.parametrize("name", NAMES)
def test_flops_agree_with_the_counter(of, name):
    text, counter = of(name, max_tokens=4), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        text(["a red square moves", "a blue square moves"])
    assert text.flops(2) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_key_is_the_content_of_the_files(of, copied, text_models):
    key = of().key
    assert HuggingFaceText(str(copied), 16, 4).key == key, "wherever they lie"
    (copied / "README.md").write_text("of no account")
    assert HuggingFaceText(str(copied), 16, 4).key == key
    for name, other in (("model.safetensors", "umt5"), ("tokenizer.json", None), ("config.json", None)):
        before = (copied / name).read_bytes()
        (copied / name).write_bytes((text_models / other / name).read_bytes() if other else before + b" ")
        assert HuggingFaceText(str(copied), 16, 4).key != key, name
        (copied / name).write_bytes(before)
    assert HuggingFaceText(str(copied), 16, 4).key == key


def test_a_network_knows_the_encoder_it_was_trained_with(of, copied):
    trained = of()
    trained([""])
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    again = HuggingFaceText(str(copied), 16, 8)
    again.load_state_dict(state)
    assert same(again(["a"]), trained(["a"]))
    weights = load_file(copied / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, copied / "model.safetensors", {"format": "pt"})
    other = HuggingFaceText(str(copied), 16, 8)
    other.load_state_dict(state)
    with pytest.raises(ValueError, match=rf"another text encoder .files {trained.key[:12]}.*files {other.key[:12]}"):
        other(["a"])


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model-1.safetensors", ""),
        ("pytorch_model.bin", r"weight_map in .*index\.json names 'pytorch_model\.bin': wanted plain names of .* Set objective\.text\.path"),
        ("in/model.safetensors", r"names 'in/model\.safetensors'"),
        ("../model.safetensors", r"names '\.\./model\.safetensors'"),
    ],
)
def test_an_index_leads_to_no_weights_but_those_of_the_key(of, copied, file, said):
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    (copied / "in").mkdir()
    torch.save(weights, copied / "pytorch_model.bin")
    for there in (copied / "model-1.safetensors", copied / "in/model.safetensors", copied.parent / "model.safetensors"):
        save_file(weights, there, {"format": "pt"})
    (copied / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, file)}))
    if not said:
        assert torch.equal(HuggingFaceText(str(copied), 16, 8).encode(["a"])[0], of().encode(["a"])[0])
        return
    with pytest.raises(ValueError, match=said):
        HuggingFaceText(str(copied), 16, 8).encode(["a"])


def test_no_adapter_and_no_name_in_the_config_leads_to_other_weights(copied):
    (copied / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds adapter_config\.json, which leads to other weights"):
        HuggingFaceText(str(copied), 16, 8)
    (copied / "adapter_config.json").unlink()
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    with pytest.raises(ValueError, match=r"holds transformers_weights in config\.json"):
        HuggingFaceText(str(copied), 16, 8)


def test_an_encoder_that_cannot_be_used_is_refused_by_name(copied, text_models):
    def refused(says, width=16, max_tokens=8, read=False):
        with pytest.raises(ValueError, match=says):
            HuggingFaceText(str(copied), width, max_tokens).encode(["a"] if read else [])

    refused(r"16 wide, the config says width=32.*objective\.text\.width", width=32)
    refused("max_tokens=0", max_tokens=0)
    with pytest.raises(ValueError, match=r"max_tokens=13 cannot be read: 1 to 12 .*objective\.text\.max_tokens"):
        HuggingFaceText(str(text_models / "clip"), 16, 13)
    refused("max_tokens=1 leaves no room", max_tokens=1, read=True)
    with pytest.raises(ValueError, match="list of at least one string"):
        HuggingFaceText(str(copied), 16, 8)("a red square")
    config, weights = (copied / "config.json").read_text(), (copied / "model.safetensors").read_bytes()

    tensors = load_file(copied / "model.safetensors")
    gone = "encoder.block.1.layer.0.SelfAttention.k.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, copied / "model.safetensors", {"format": "pt"})
    refused(f"lack 1 of a T5EncoderModel's tensors .{gone}", read=True)
    save_file({**tensors, gone: torch.zeros(3, 3)}, copied / "model.safetensors", {"format": "pt"})
    refused("cannot be read as a T5EncoderModel", read=True)
    (copied / "model.safetensors").write_bytes(weights[:100])
    refused("cannot be read as a T5EncoderModel", read=True)
    (copied / "model.safetensors").unlink()
    refused("no weights")
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(r"only pytorch_model.bin, which may run any code.*save_pretrained")
    (copied / "model.safetensors").write_bytes(weights)
    for text, says in (
        (config.replace('"t5"', '"llama"'), r"model_type='llama' is not supported, only t5, umt5, clip_text_model, clip, gemma, gemma2, gemma3_text"),
        (config.replace('"d_ff"', '"no"'), "no 'd_ff'"),
        ("[]", "config.json describes no text encoder"),
        ("[" * 100_000, "config.json describes no text encoder"),
        ("{", "config.json describes no text encoder"),
    ):
        (copied / "config.json").write_text(text)
        refused(says)
    (copied / "config.json").write_text(config)
    (copied / "tokenizer.json").write_text("{")
    refused("tokenizer.json cannot be read", read=True)
    (copied / "tokenizer.json").unlink()
    refused("no tokenizer.json")
    with pytest.raises(ValueError, match="path='/no/such/folder' is not a folder"):
        HuggingFaceText("/no/such/folder", 32, 8)


def test_a_missing_transformers_package_names_its_extra(text_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match=r"\[hf\]"):
        HuggingFaceText(str(text_models / "t5"), 16, 8)
