"""Every caption is encoded once, and the cache of another set or encoder is never taken for this one's."""

import pytest
import torch

from data.cache import texts as module
from data.cache.store import Store
from data.cache.texts import Texts, cache_texts, unique

CAPTIONS = ["a red circle", "", "a blue square moves up", "a red circle", " \n", "\ud800 \0", "圆", "a", "aa"]
ENCODED = ["a", "圆", "aa", "\ud800 \0", "a red circle", "a blue square moves up"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of two texts, shards of three."""
    monkeypatch.setattr(module, "PART_TEXTS", 2)
    monkeypatch.setattr(module, "SHARD_TEXTS", 3)


def vectors(text, limit=4):
    return torch.tensor([[ord(letter) / 3.0, len(text)] for letter in text[:limit]])


def encode(texts):
    return [vectors(text) for text in texts]


def cache(folder, captions=CAPTIONS, encode=encode, encoder="encoder-a", max_tokens=4, **options) -> Store:
    return cache_texts(captions, encode, folder, encoder, max_tokens, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("memory_bytes", [0, 2**20])
def test_every_caption_has_its_vectors_and_no_other_text_has_any(tmp_path, memory_bytes):
    known = Texts(cache(tmp_path), memory_bytes)
    assert known.in_memory == bool(memory_bytes)
    assert len(known) == len(ENCODED)
    for caption in ENCODED:
        assert torch.equal(known.get(caption), vectors(caption))
    for other in ("", " \n", "A red circle", "a red circle ", "\ufffd \0"):
        assert known.get(other) is None


def test_each_text_is_encoded_once_blank_ones_never_and_like_lengths_together(tmp_path, capsys):
    seen = []
    store = cache(tmp_path, encode=lambda texts: seen.append(list(texts)) or encode(texts))
    assert unique(CAPTIONS) == [text for part in seen for text in part] == ENCODED
    assert [len(part) for part in seen] == [2, 1, 2, 1]
    assert len(store) == 6
    assert "6 of 6 captions encoded in" in capsys.readouterr().err


def test_a_cache_is_a_function_of_the_set_of_texts(tmp_path):
    cache(tmp_path / "a")
    cache(tmp_path / "b", captions=[*reversed(CAPTIONS), "a", "aa"])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    cache(tmp_path / "a", captions=set(CAPTIONS), encode=lambda _: pytest.fail("encoded again"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder": "encoder-b"}, "another text encoder .files encoder-a, now encoder-b"),
        ({"max_tokens": 5}, "another length .max_tokens=4, now 5"),
        ({"dtype": "bfloat16"}, "another dtype .float32, now bfloat16"),
        ({"captions": [*CAPTIONS, "one more"]}, "other captions .6 texts, .*; now 7 texts"),
        ({"captions": [text.replace("red", "rad") for text in CAPTIONS]}, "other captions .6 texts, .*; now 6 texts"),
    ],
)
def test_a_stale_cache_is_refused_by_name(tmp_path, change, says):
    cache(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"text embeddings in .* were made from .*{says}.*objective\.text\.cache"):
        cache(tmp_path, **{"encode": lambda _: pytest.fail("encoded"), **change})
    assert contents(tmp_path) == before


def test_a_build_that_dies_goes_on_and_ends_with_the_same_files(tmp_path):
    cache(tmp_path / "undisturbed")
    for stop in range(4):
        seen = []

        def dying(texts, seen=seen, stop=stop):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(texts)
            return encode(texts)

        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            cache(folder, encode=dying)
        cache(folder, encode=lambda texts, seen=seen: seen.append(texts) or encode(texts))
        assert len(seen) == 4  # nothing is encoded twice
        assert contents(folder) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 4e-3)])
def test_smaller_numbers_on_disk_are_rounded_and_no_more(tmp_path, dtype, tolerance):
    found = Texts(cache(tmp_path, dtype=dtype)).get("aa")
    assert found.dtype == getattr(torch, dtype)
    assert torch.allclose(found.float(), vectors("aa"), rtol=tolerance)
    with pytest.raises(ValueError, match=r"objective\.text\.cache_dtype"):
        cache(tmp_path / "other", dtype="int8")


def test_a_text_of_no_tokens_and_a_set_of_no_texts_are_kept(tmp_path):
    assert Texts(cache(tmp_path / "a", ["a"], lambda texts: [torch.zeros(0, 2) for _ in texts]), 2**20).get("a").shape == (0, 2)
    assert len(cache(tmp_path / "b", ["", " "], lambda _: pytest.fail("encoded"))) == 0


def test_vectors_that_are_not_finite_are_not_cached(tmp_path):
    with pytest.raises(RuntimeError, match=r"vectors of 'a'\.\.\. are not finite in torch.float16.*cache_dtype"):
        cache(tmp_path, encode=lambda texts: [vectors(text) * 1e6 for text in texts], dtype="float16")
