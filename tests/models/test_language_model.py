"""A local language model answers as transformers would, the same for the same seed, and a folder that it cannot be read from safely is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import language_model
from models.language_model import LanguageModel

SPECIAL = ("</s>", "<turn>", "<user>", "<model>")
ENGLISH = ("write", "a", "long", "caption", ".", '"', "red", "blue", "square", "moves", "over", "grey", "it", "is")
WORDS = ("<unk>", *SPECIAL, *ENGLISH)
TEMPLATE = "{% for one in messages %}<{{ one.role }}> {{ one.content }} <turn> {% endfor %}{% if add_generation_prompt %}<model> {% endif %}"
ASK = "write a long caption"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama (weights of its own behind it), gpt2 (tied) and chat (a llama with a template and an end of its own), each 16 wide, random."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": list(SPECIAL[1:])}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    size = {"vocab_size": len(WORDS), "eos_token_id": 1, "bos_token_id": 1, "pad_token_id": 1}
    own = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    root = tmp_path_factory.mktemp("language_models")
    with torch.random.fork_rng():
        torch.manual_seed(6)
        made = {
            "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, **own, num_key_value_heads=1)),
            "gpt2": transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, n_embd=16, n_layer=2, n_head=2, n_positions=64)),
        }
        for name, model in made.items():
            for weights in model.parameters():
                if weights.ndim == 2:
                    torch.nn.init.normal_(weights, std=0.4)
            model.save_pretrained(root / name)
            tokenizer.save_pretrained(root / name)
    tokenizer.chat_template = TEMPLATE
    made["llama"].generation_config.eos_token_id = [1, 2]
    made["llama"].save_pretrained(root / "chat")
    tokenizer.save_pretrained(root / "chat")
    return root


@pytest.fixture
def copied(folders, tmp_path):
    """A llama's folder of the test's own."""
    return shutil.copytree(folders / "llama", tmp_path / "llama")


@pytest.fixture
def of(folders):
    return lambda name="llama", max_tokens=12, **options: LanguageModel(str(folders / name), ASK, max_tokens, **options)


def twin(folder, text, max_tokens):
    """What transformers' own loop answers, up to the last whole sentence if it comes to no end; and whether it does."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    answer = model.generate(**given, do_sample=False, max_new_tokens=max_tokens)[0, given.input_ids.shape[1] :]
    ended = int(answer[-1]) in np.atleast_1d(model.generation_config.eos_token_id)
    said = " ".join(tokenizer.decode(answer, skip_special_tokens=True).split())
    return (said if ended or ". " not in said else said[: said.rindex(". ") + 1]), ended


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_likeliest_answer_is_that_of_transformers(of, folders, name):
    for prompt in ("a red square", "a blue square moves", "it"):
        wanted, _ = twin(folders / name, f"{ASK}\n\nPrompt: {prompt}\nCaption:", 12)
        assert of(name).expand(prompt, 0) == wanted
        assert of(name).expand(prompt, 5) == wanted, "no seed changes it"


def test_a_chat_template_is_used_and_an_answer_ends_with_its_turn(of, folders):
    ends = set()
    for prompt in ("a red square", "a blue square moves", "it is grey", "over grey", "red", "is it"):
        wanted, ended = twin(folders / "chat", f"<user> {ASK}\n\n{prompt} <turn> <model>", 30)
        if wanted:
            assert of("chat", 30).expand(prompt, 0) == wanted
            ends.add(ended)
    assert ends == {True, False}, "one that comes to its end and one that does not"


def test_a_drawn_answer_is_a_function_of_prompt_and_seed(of):
    model = of(temperature=1.0)
    answers = [model.expand("a red square", seed) for seed in range(12)]
    torch.manual_seed(1)
    np.random.seed(1)
    assert answers == [of(temperature=1.0).expand("a red square", seed) for seed in range(12)]
    assert len(set(answers)) > 8
    likeliest = of().expand("a red square", 0)
    assert of(temperature=1e-4).expand("a red square", 0) == likeliest
    assert of(temperature=1.0, top_p=1e-6).expand("a red square", 0) == likeliest


def test_tokens_are_drawn_as_likely_as_they_are(of):
    logits, rng = torch.tensor([0.0, 2.0, -1.0, 1.0, -40.0]), np.random.default_rng(0)
    drawn = lambda model: np.bincount([model._next(logits, rng) for _ in range(4000)], minlength=5) / 4000  # noqa: E731
    likely = (logits / 0.7).softmax(0).numpy()
    assert np.abs(drawn(of(temperature=0.7)) - likely).max() < 0.035, "four standard errors"
    kept = np.where(likely >= likely[3], likely, 0)  # the two likeliest: together above 0.9, the first alone below
    assert np.abs(drawn(of(temperature=0.7, top_p=0.9)) - kept / kept.sum()).max() < 0.035


def test_an_answer_is_one_line_without_quotes_and_without_a_broken_sentence(of, monkeypatch):
    model = of()
    said = lambda text, whole: monkeypatch.setattr(model, "_answer", lambda *_: (model._tokenizer(text).input_ids, whole))  # noqa: E731
    for text, ended, answer in (
        ("a red square . it moves", True, "a red square . it moves"),
        ("a red square . it moves", False, "a red square ."),
        ("a red square moves", False, "a red square moves"),
        ("a\n\n red  <turn> square", True, "a red square"),
        ('" a red square "', True, "a red square"),
        ('it is " red "', True, 'it is " red "'),
    ):
        said(text, ended)
        assert model.expand("red", 0) == answer
    for text in ("", "<turn> \n"):
        said(text, True)
        with pytest.raises(ValueError, match=r"answered prompt 'red' with nothing\. Set expander\.instruction"):
            model.expand("red", 0)


def test_the_weights_are_read_when_a_prompt_first_needs_them_and_once(of, monkeypatch):
    reads, read = [], language_model.read_frozen
    monkeypatch.setattr(language_model, "read_frozen", lambda *arguments: reads.append(arguments) or read(*arguments))
    model = of()
    assert [model.expand(blank, 0) for blank in ("", " \n")] == ["", " \n"]
    assert model.key
    assert reads == []
    answers = {model.expand("red", 0), model.expand("red", 1)}
    assert len(reads) == len(answers) == 1
    model.unload()
    model.expand("red", 0)
    assert len(reads) == 2


@pytest.mark.parametrize("prompt", ["\0", "\ud800", "e\u0301te\u0301 שלום 圆", "🙂👍", "${a},{b}: 'c'\r\n\ufeff", "{{ 7 * 7 }} {% raw %}"])
def test_an_odd_prompt_is_asked_as_it_stands(of, prompt):
    for name, around in (("llama", 4 + 2), ("chat", 4 + 3)):  # words of the instruction, and "Prompt:", "Caption:" or marks of turns
        assert len(of(name)._tokens(prompt)) == around + len(prompt.split()), "each word is a token"


def test_the_key_is_the_content_of_the_files(of, copied):
    key = of().key
    assert LanguageModel(str(copied), ASK).key == key
    weights = load_file(copied / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, copied / "model.safetensors", {"format": "pt"})
    assert LanguageModel(str(copied), ASK).key != key
    assert of("chat").key != key


def test_a_folder_without_a_causal_model_is_refused_by_name(copied, text_models):
    def use(folder, read):
        model = LanguageModel(str(folder), ASK, 4)
        return model.expand("red", 0) if read else None

    def refused(says, folder=copied, read=False):
        with pytest.raises(ValueError, match=rf"{says}.* Set expander\.path"):
            use(folder, read)

    refused("path='/no/such/folder' is not a folder", "/no/such/folder")
    refused("cannot be read as a AutoModelForCausalLM", text_models / "t5", read=True)
    config = (copied / "config.json").read_text()
    weights = (copied / "model.safetensors").read_bytes()
    tensors = load_file(copied / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}, copied / "model.safetensors", {"format": "pt"})
    refused(r"lack 1 of a AutoModelForCausalLM's tensors .lm_head\.weight", read=True)
    (copied / "model.safetensors").unlink()
    refused("no weights for its llama")
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(r"only pytorch_model\.bin, which may run any code when opened")
    (copied / "model.safetensors").write_bytes(weights)
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "pytorch_model.bin")}))
    refused("names 'pytorch_model.bin'")
    (copied / "model.safetensors.index.json").unlink()
    for text in ("[]", "{", "{}", "[" * 100_000):
        (copied / "config.json").write_text(text)
        refused("describes no model")
    (copied / "config.json").unlink()
    refused(r"has no config\.json")
    (copied / "config.json").write_text(config)
    (copied / "tokenizer.json").write_text("{")
    refused(r"tokenizer\.json cannot be read", read=True)
    (copied / "tokenizer.json").unlink()
    refused(r"has no tokenizer\.json")


def test_no_code_of_the_folder_is_run(copied, tmp_path):
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    evil = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Slow", "evil.Fast"]}
    for name in ("config.json", "tokenizer_config.json"):
        told = json.loads((copied / name).read_text())
        (copied / name).write_text(json.dumps(told | {"auto_map": evil, "tokenizer_class": "Fast"}))
    assert LanguageModel(str(copied), ASK, 4).expand("red", 0)
    told = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(told | {"model_type": "evil"}))
    with pytest.raises(ValueError, match="cannot be read as a AutoModelForCausalLM"):
        LanguageModel(str(copied), ASK, 4).expand("red", 0)
    assert not (tmp_path / "ran").exists()


def test_a_chat_template_that_refuses_is_named(folders, tmp_path):
    folder = shutil.copytree(folders / "chat", tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    with pytest.raises(ValueError, match=r"chat template in .* cannot be used \(no such role\)\. Set expander\.path"):
        LanguageModel(str(folder), ASK, 4).expand("red", 0)


def test_numbers_that_give_no_answer_are_refused(of):
    for says, options in (
        (r"max_tokens=0 .*expander\.max_tokens", {"max_tokens": 0}),
        (r"temperature=-1.0 .*expander\.temperature", {"temperature": -1.0}),
        (r"temperature=nan", {"temperature": float("nan")}),
        (r"top_p=0.0 .*expander\.top_p", {"top_p": 0.0}),
        (r"top_p=1.5", {"top_p": 1.5}),
    ):
        with pytest.raises(ValueError, match=says):
            of(**options)
    with pytest.raises(ValueError, match=r"are 66 tokens; with expander\.max_tokens=12 that is more than the 64 .*Shorten the prompt"):
        of().expand(" ".join(["red"] * 60), 0)


def test_a_missing_transformers_package_names_its_extra(of, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match=r"\[hf\]"):
        of()
