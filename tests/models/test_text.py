"""Any string is a prompt, and a prompt's vectors depend on nothing but the prompt."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.attention import Fused
from models.text import ByteTokenizer, Text, TextTransformer, WordTokenizer

ANY = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF), max_size=40)  # lone surrogates included

GOLDEN = [(64, 3675), (269, 2607), (957, 2331), (1030, 3666), (2010, 3163), (1520, 2998)]


def encoder(max_tokens: int = 8, tokenizer=None) -> TextTransformer:
    """With random numbers where training starts from zeros, so that attention matters."""
    torch.manual_seed(0)
    text = TextTransformer(tokenizer or WordTokenizer(64), 32, 2, 2, max_tokens, kernel=Fused())
    for part in text.parameters():
        if part.abs().max() == 0:
            torch.nn.init.normal_(part, std=0.1)
    return text


def same(a: Text, b: Text) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.pooled, b.pooled)


def test_word_ids_are_the_same_everywhere_for_ever():
    assert WordTokenizer(2048).tokens("a red Circle, moving.", 8) == GOLDEN


@settings(deadline=None, max_examples=200)
@given(ANY, st.sampled_from([WordTokenizer(16), ByteTokenizer()]), st.integers(1, 9))
def test_any_string_has_ids_in_range(prompt, tokenizer, limit):
    tokens = tokenizer.tokens(prompt, limit)
    assert len(tokens) <= limit
    for token in tokens:
        assert len(token) == tokenizer.ids_per_token
        assert all(0 <= index < tokenizer.vocabulary for index in token)
    assert tokenizer.tokens(prompt, limit + 1)[:limit] == tokens, "a cut prompt begins like the whole one"


@pytest.mark.parametrize("prompt", ["", " \t\n", "\0", "\ud800", "e\u0301te\u0301 שלום 圆", "x" * 100_000, "🙂👍", "${a},{b}: 'c'\r\n\ufeff"])
@pytest.mark.parametrize("tokenizer", [WordTokenizer(16), ByteTokenizer()])
def test_odd_prompts_are_encoded(prompt, tokenizer):
    text = encoder(tokenizer=tokenizer)([prompt])
    assert text.tokens.shape == (1, 8, 32)
    assert text.pooled.shape == (1, 32)
    assert bool(text.tokens.isfinite().all() and text.pooled.isfinite().all())


def test_case_and_compatibility_forms_do_not_count_but_words_and_order_do():
    text = encoder()
    plain = text(["a red circle"])
    assert same(plain, text(["A  RED\tCirCle"]))
    assert same(plain, text(["a ｒｅｄ circle"]))
    for other in ("a circle red", "a red square", "a red circle.", "a red"):
        assert not same(plain, text([other]))
        assert (plain.pooled - text([other]).pooled).abs().max() > 1e-3


def test_accents_stay_inside_their_word():
    assert len(WordTokenizer().tokens("e\u0301te\u0301 x\u0323y\u0323", 9)) == 2
    assert WordTokenizer().tokens("e\u0301t\u00e9", 9) == WordTokenizer().tokens("\u00c9T\u00c9", 9)


def test_words_are_rarely_confused():
    tokenizer = WordTokenizer(512)
    ids = {tokenizer.tokens(f"word{i}", 1)[0] for i in range(20_000)}
    # 20,000 words over 512 x 512 pairs: 744 fewer distinct ones expected of two independent hashes
    assert 20_000 - 1.1 * 744 <= len(ids) <= 20_000 - 0.9 * 744


def test_a_prompt_does_not_depend_on_its_neighbours():
    text = encoder()
    prompts = ["a red circle", "", "a blue square moves up and to the right and on and on"]
    together = text(prompts)
    for i, prompt in enumerate(prompts):
        alone = text([prompt])
        assert torch.allclose(together.tokens[i], alone.tokens[0], atol=1e-6)
        assert torch.allclose(together.pooled[i], alone.pooled[0], atol=1e-6)


def test_the_empty_prompt_is_all_null_and_learns():
    text = encoder()
    assert (text.ids(["", "a"])[0] == text.null).all()
    text([""]).pooled.sum().backward()
    assert text.empty.grad is not None
    assert text.empty.grad.abs().max() > 0
    text.zero_grad()
    text(["", "a"]).tokens.square().sum().backward()
    assert text.embedding.weight.grad is not None
    assert text.embedding.weight.grad[text.null].abs().max() > 0


def test_pooled_is_the_mean_over_the_words_alone():
    text = encoder()
    out = text(["a red circle"])
    assert torch.allclose(out.pooled, text.pool(out.tokens[:, :3].mean(dim=1)), atol=1e-6)


def test_too_long_prompts_are_cut_with_a_note():
    text = encoder()
    fits, long = "one two three four five six seven eight", "one two three four five six seven eight nine \ud800"
    assert same(text([fits]), text([long]))
    (note,) = text.cut(["", fits, long])
    assert note.startswith("prompt 2 ('one two")
    assert "8 tokens" in note
    assert "max_tokens" in note
    note.encode()


def test_flops_agree_with_the_counter():
    text, counter = encoder(), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        text(["a", "b c", ""])
    assert text.flops(3) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_bad_input_names_the_number_and_the_key():
    for match, call in (
        (r"width=32 .*heads=5", lambda: TextTransformer(WordTokenizer(), 32, 1, 5, 8)),
        (r"max_tokens=0", lambda: TextTransformer(WordTokenizer(), 32, 1, 2, 0)),
        (r"buckets=1", lambda: WordTokenizer(1)),
        (r"list of at least one string", lambda: encoder()("a red circle")),
        (r"list of at least one string", lambda: encoder()([])),
    ):
        with pytest.raises(ValueError, match=match):
            call()
