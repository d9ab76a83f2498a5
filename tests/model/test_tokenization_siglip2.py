"""SigLIP 2's texts: ids equal the reference's, special tokens are text, and files are refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from transformers import GemmaTokenizer as ReferenceGemmaTokenizer
from transformers import Siglip2Tokenizer as ReferenceTokenizer

from model import CheckpointError
from model.tokenization_siglip2 import Siglip2Tokenizer
from tests.model.hostile_texts import CHOSEN_TEXTS, TEXTS
from tests.tokenizer_files import SPECIAL_TOKENS, train_bpe, write_siglip2_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer's files."""
    folder = tmp_path_factory.mktemp("siglip2-tokenizer")
    write_siglip2_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> ReferenceTokenizer:
    return ReferenceTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def gemma(folder: Path) -> ReferenceGemmaTokenizer:
    """What the reference takes for checkpoints of fixed size: it does not lower-case."""
    return ReferenceGemmaTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Siglip2Tokenizer:
    return Siglip2Tokenizer(folder / "tokenizer.json")


def reference_ids(reference: Any, text: str, max_length: int, split: bool) -> list[int]:
    ids: list[int] = reference(
        text,
        padding="max_length",
        max_length=max_length,
        truncation=True,
        split_special_tokens=split,
    ).input_ids
    return ids


def count_tokens(reference: Any, text: str, split: bool) -> int:
    return len(
        reference(text, padding=False, truncation=False, split_special_tokens=split).input_ids
    )


def assert_equal_ids(
    tokenizer: Siglip2Tokenizer, reference: Any, text: str, split: bool = True
) -> None:
    """Ids of the full length, and the count of all tokens, are the reference's."""
    ours = tokenizer.encode(text)
    length = tokenizer.max_length
    assert ours.input_ids.tolist() == reference_ids(reference, text, length, split)
    assert ours.tokens == count_tokens(reference, text, split)
    assert ours.truncated == (ours.tokens > length)


def test_drawn_texts_have_the_ids_of_the_reference(
    tokenizer: Siglip2Tokenizer, reference: ReferenceTokenizer
) -> None:
    @settings(max_examples=2000, derandomize=True, deadline=None, database=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        assert_equal_ids(tokenizer, reference, text)
        if not any(token in text for token in (*SPECIAL_TOKENS, "<start_of_turn>")):
            assert_equal_ids(tokenizer, reference, text, split=False)

    check()


def test_drawn_lower_case_texts_have_the_ids_of_gemmas(
    tokenizer: Siglip2Tokenizer, gemma: ReferenceGemmaTokenizer
) -> None:
    """Only the case differs from what the reference takes for checkpoints of fixed size."""

    @settings(max_examples=1000, derandomize=True, deadline=None, database=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        # Character by character, as the tokenizer does it, so without Python's final sigma.
        assert_equal_ids(tokenizer, gemma, "".join(character.lower() for character in text))

    check()


@pytest.mark.parametrize("text", CHOSEN_TEXTS, ids=range(len(CHOSEN_TEXTS)))
def test_chosen_texts_have_the_ids_of_the_reference(
    tokenizer: Siglip2Tokenizer, reference: ReferenceTokenizer, text: str
) -> None:
    assert_equal_ids(tokenizer, reference, text)


@pytest.mark.parametrize("max_length", [1, 2, 16])
def test_other_lengths_have_the_ids_of_the_reference(
    folder: Path, reference: ReferenceTokenizer, max_length: int
) -> None:
    tokenizer = Siglip2Tokenizer(folder / "tokenizer.json", max_length=max_length)
    for text in ("", "a red bicycle", "a red bicycle " * 20):
        assert_equal_ids(tokenizer, reference, text)


def test_upper_case_texts_have_the_ids_of_lower_case(
    tokenizer: Siglip2Tokenizer, gemma: ReferenceGemmaTokenizer
) -> None:
    upper, lower = "A RED BICYCLE", "a red bicycle"
    assert torch.equal(tokenizer(upper), tokenizer(lower))
    assert gemma(upper).input_ids != gemma(lower).input_ids


def test_a_batch_is_a_tensor_of_full_length(tokenizer: Siglip2Tokenizer) -> None:
    input_ids = tokenizer(["a red bicycle", "a dog"])
    assert (input_ids.dtype, input_ids.shape) == (torch.int64, (2, 64))
    assert torch.equal(input_ids[:1], tokenizer("a red bicycle"))
    assert input_ids[1].tolist() == tokenizer.encode("a dog").input_ids.tolist()
    assert tokenizer([]).shape == (0, 64)


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS, "<start_of_turn>"])
def test_a_special_tokens_spelling_is_text(
    tokenizer: Siglip2Tokenizer, reference: ReferenceTokenizer, token: str
) -> None:
    text = f"a {token} dog"
    special = reference.convert_tokens_to_ids(token)
    assert special in reference(text).input_ids
    assert special not in tokenizer.encode(text).input_ids[: tokenizer.encode(text).tokens - 1]


def test_tokens_that_another_file_calls_special_are_text(folder: Path) -> None:
    plain = Siglip2Tokenizer(folder / "tokenizer.json")
    special = Siglip2Tokenizer(folder / "tokenizer.json", special_tokens=["<table>"])
    token = plain("<table>")[0, 0]
    assert plain.encode("<table>").tokens == 2
    assert token not in special("<table>")


@pytest.mark.parametrize("special", ["<mask>", "<start_of_turn>"])
def test_merges_that_spell_a_special_token_do_not_make_it(tmp_path: Path, special: str) -> None:
    content = train_bpe()
    vocab, merges = content["model"]["vocab"], content["model"]["merges"]
    for end in range(1, len(special) + 1):
        vocab.setdefault(special[end - 1], len(vocab))
        vocab.setdefault(special[:end], len(vocab))
    merges[:0] = [[special[:end], special[end]] for end in range(1, len(special))]
    write_siglip2_tokenizer(tmp_path, content)
    reference = ReferenceTokenizer.from_pretrained(tmp_path)
    assert reference(special, split_special_tokens=True).input_ids == [vocab[special], 1]
    tokenizer = Siglip2Tokenizer(tmp_path / "tokenizer.json")
    expected = [vocab[special[:-1]], vocab[">"]]
    text = special.upper() + special
    assert tokenizer(text)[0, :5].tolist() == [*expected, *expected, 1]


def test_settings_of_the_file_are_the_references(
    tmp_path: Path, reference: ReferenceTokenizer
) -> None:
    """Whatever it says of dropout, bytes, unknown tokens, affixes and normalising."""
    content = train_bpe(changes={"normalizer": {"type": "NFKC"}, "pre_tokenizer": None})
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    content["model"] |= {"dropout": 0.9, "byte_fallback": False, "fuse_unk": False}
    content["model"] |= {"ignore_merges": True, "unk_token": None, "end_of_word_suffix": "</w>"}
    write_siglip2_tokenizer(tmp_path, content)
    tokenizer = Siglip2Tokenizer(tmp_path / "tokenizer.json")
    for text in CHOSEN_TEXTS:
        assert_equal_ids(tokenizer, reference, text)


def test_a_lone_surrogate_is_refused_without_the_text(tokenizer: Siglip2Tokenizer) -> None:
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        tokenizer.encode("secret \ud800")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_id_behind_the_token_table_is_unknown(tmp_path: Path) -> None:
    """Ids with a gap can pass for fewer than they reach to; a tower would stop at them."""
    content = train_bpe()
    rows = len(content["model"]["vocab"])
    last = next(token for token, id_ in content["model"]["vocab"].items() if id_ == rows - 1)
    content["model"]["vocab"][last] = 10**6
    write_siglip2_tokenizer(tmp_path, content)
    path = tmp_path / "tokenizer.json"
    text = last.replace("▁", " ")
    assert 10**6 in Siglip2Tokenizer(path)(text)
    assert Siglip2Tokenizer(path, vocab_size=rows).encode(text).input_ids[0] == 3


def test_a_token_table_too_small_is_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    size = len(json.loads(path.read_text())["model"]["vocab"])
    Siglip2Tokenizer(path, vocab_size=size)
    with pytest.raises(CheckpointError, match=f"{size} tokens, the token table only {size - 1}"):
        Siglip2Tokenizer(path, vocab_size=size - 1)
    with pytest.raises(CheckpointError, match="special tokens up to 3, the token table only 2"):
        Siglip2Tokenizer(path, vocab_size=2)


def changed(**changes: Any) -> bytes:
    return json.dumps(train_bpe(changes=changes)).encode()


def changed_model(**changes: Any) -> bytes:
    return changed(model=train_bpe()["model"] | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no readable BPE tokenizer: JSONDecodeError"),
        (b"[]", "no readable BPE tokenizer"),
        (b"{}", "no readable BPE tokenizer: KeyError: 'model'"),
        (b"\xff" * 100, "no readable BPE tokenizer: UnicodeDecodeError"),
        (b"[" * 100_000, "no readable BPE tokenizer: RecursionError"),
        (json.dumps(train_bpe()).encode()[:-100], "no readable BPE tokenizer: JSONDecodeError"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "has no <pad>"),
        (changed_model(type="Unigram"), "its model is Unigram"),
        (changed_model(merges=[["a", "none such"]]), "no readable BPE tokenizer"),
        (changed_model(merges=["a"]), "no readable BPE tokenizer"),
        (changed_model(vocab={"a": -1}), "no readable BPE tokenizer: TypeError"),
        (changed_model(vocab="vocab.json", merges="m"), "TypeError: its vocabulary is no JSON"),
        (changed(added_tokens=[{"id": 7, "content": "<pad>"}]), "'<pad>' is added with another id"),
        (changed(added_tokens=[{"id": 900, "content": "\ud800"}]), "no readable BPE tokenizer"),
        (changed(added_tokens=7), "no readable BPE tokenizer: TypeError"),
    ],
)
def test_broken_files_are_refused_in_words(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Siglip2Tokenizer(tmp_path / "tokenizer.json")
    assert "\n" not in str(caught.value)


def test_the_digest_is_the_files(tokenizer: Siglip2Tokenizer, folder: Path) -> None:
    content = (folder / "tokenizer.json").read_bytes()
    assert tokenizer.sha256 == hashlib.sha256(content).hexdigest()


def test_rows_are_of_integers(tokenizer: Siglip2Tokenizer) -> None:
    assert tokenizer.encode("a dog").input_ids.dtype == np.int64
