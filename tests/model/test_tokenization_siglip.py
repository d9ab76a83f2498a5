# ruff: noqa: RUF001 # texts of many scripts look alike
"""First-generation texts: ids equal the reference's, and files that are refused."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from sentencepiece import sentencepiece_model_pb2
from transformers import SiglipTokenizer as ReferenceTokenizer

from model import CheckpointError
from model.tokenization_siglip import SiglipTokenizer
from tests.model.hostile_texts import CHOSEN_TEXTS, TEXTS
from tests.tokenizer_files import train_sentencepiece, write_siglip_tokenizer

MODELS: dict[str, dict[str, Any]] = {
    "unigram": {},
    "byte fallback": {"byte_fallback": True, "vocab_size": 600},
    "merges": {"model_type": "bpe", "vocab_size": 600},
    "other ids": {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2},
    "stripping nothing": {"remove_extra_whitespaces": False, "add_dummy_prefix": False},
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer's files."""
    folder = tmp_path_factory.mktemp("siglip-tokenizer")
    write_siglip_tokenizer(folder, train_sentencepiece(**MODELS[request.param]))
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> ReferenceTokenizer:
    return ReferenceTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> SiglipTokenizer:
    return SiglipTokenizer(folder / "spiece.model")


def assert_equal_ids(
    tokenizer: SiglipTokenizer, reference: ReferenceTokenizer, text: str, split: bool = True
) -> None:
    """Ids of the full length, and the count of all tokens, are the reference's."""
    expected = reference(
        text,
        padding="max_length",
        max_length=tokenizer.max_length,
        truncation=True,
        split_special_tokens=split,
    ).input_ids
    whole = reference(text, split_special_tokens=split).input_ids
    ours = tokenizer.encode(text)
    assert ours.input_ids.tolist() == expected
    assert ours.tokens == len(whole)
    assert ours.truncated == (len(whole) > tokenizer.max_length)


def test_drawn_texts_have_the_ids_of_the_reference(
    tokenizer: SiglipTokenizer, reference: ReferenceTokenizer
) -> None:
    @settings(max_examples=500, derandomize=True, deadline=None, database=None)
    @given(text=TEXTS)
    @example(text="＜／ｓ＞")
    def check(text: str) -> None:
        assert_equal_ids(tokenizer, reference, text)
        if "</s>" not in text and "<unk>" not in text:  # or the reference makes the token of it
            assert_equal_ids(tokenizer, reference, text, split=False)

    check()


@pytest.mark.parametrize("text", CHOSEN_TEXTS, ids=range(len(CHOSEN_TEXTS)))
def test_chosen_texts_have_the_ids_of_the_reference(
    tokenizer: SiglipTokenizer, reference: ReferenceTokenizer, text: str
) -> None:
    assert_equal_ids(tokenizer, reference, text)


@pytest.mark.parametrize("max_length", [1, 2, 16])
def test_other_lengths_have_the_ids_of_the_reference(
    folder: Path, reference: ReferenceTokenizer, max_length: int
) -> None:
    tokenizer = SiglipTokenizer(folder / "spiece.model", max_length=max_length)
    for text in ("", "a red bicycle", "a red bicycle " * 20):
        assert_equal_ids(tokenizer, reference, text)


def test_a_batch_is_a_tensor_of_full_length(tokenizer: SiglipTokenizer) -> None:
    input_ids = tokenizer(["a red bicycle", "a dog"])
    assert (input_ids.dtype, input_ids.shape) == (torch.int64, (2, 64))
    assert torch.equal(input_ids[:1], tokenizer("a red bicycle"))
    assert input_ids[1].tolist() == tokenizer.encode("a dog").input_ids.tolist()
    assert tokenizer([]).shape == (0, 64)


def test_cleaning_can_leave_the_case(folder: Path) -> None:
    lower = SiglipTokenizer(folder / "spiece.model")
    cased = SiglipTokenizer(folder / "spiece.model", do_lower_case=False)
    assert lower("A Red Bicycle").tolist() == lower("a red bicycle").tolist()
    assert cased("A Red Bicycle").tolist() != lower("A Red Bicycle").tolist()
    assert cased.canonicalize_text(" A  Red\tBicycle! ") == "A Red Bicycle"


def test_a_special_tokens_spelling_is_text(tokenizer: SiglipTokenizer) -> None:
    spelled = tokenizer("a </s> dog <unk>")
    assert spelled.tolist() == tokenizer("a s dog unk").tolist()


def test_a_lone_surrogate_is_refused_without_the_text(tokenizer: SiglipTokenizer) -> None:
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        tokenizer.encode("secret \ud800")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def add_piece(model: bytes, piece: str) -> bytes:
    """Add a piece that is found wherever a text spells it, behind all others."""
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined] # made at import
    parsed.pieces.add(piece=piece, type=parsed.SentencePiece.USER_DEFINED)
    return bytes(parsed.SerializeToString())


def test_pieces_behind_the_token_table_are_unknown(tmp_path: Path) -> None:
    """Published multilingual models have such pieces; a tower would stop at their ids."""
    write_siglip_tokenizer(tmp_path, add_piece(train_sentencepiece(), "▁<extra_id_0>"))
    path = tmp_path / "spiece.model"
    text = "＜extra＿id＿0＞ a dog"  # which sentencepiece makes ASCII, behind the cleaning
    whole = SiglipTokenizer(path).encode(text)
    rows = int(whole.input_ids.max())
    fitting = SiglipTokenizer(path, vocab_size=rows).encode(text)
    unknown = np.where(whole.input_ids == rows, 2, whole.input_ids)
    assert fitting.input_ids.tolist() == unknown.tolist()
    assert fitting.tokens == whole.tokens


def test_a_token_table_too_small_for_the_pieces_is_refused(tmp_path: Path) -> None:
    write_siglip_tokenizer(tmp_path, add_piece(train_sentencepiece(), "▁word"))
    path = tmp_path / "spiece.model"
    pieces = int(SiglipTokenizer(path)("word").max()) + 1
    SiglipTokenizer(path, vocab_size=pieces)
    with pytest.raises(CheckpointError, match=f"{pieces} tokens, the token table only"):
        SiglipTokenizer(path, vocab_size=pieces - 1)
    with pytest.raises(CheckpointError, match="special tokens up to 2, the token table only 2"):
        SiglipTokenizer(path, vocab_size=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no readable sentencepiece model"),
        (b"{}", "no readable sentencepiece model"),
        (b"\x00" * 1000, "no readable sentencepiece model"),
        (train_sentencepiece()[:-1000], "no readable sentencepiece model"),
        (train_sentencepiece(eos_id=-1, pad_id=1), "has no </s>"),
    ],
    ids=["empty", "JSON", "zeros", "cut", "no end token"],
)
def test_broken_files_are_refused_in_words(tmp_path: Path, content: bytes, message: str) -> None:
    write_siglip_tokenizer(tmp_path, content)
    with pytest.raises(CheckpointError, match=message):
        SiglipTokenizer(tmp_path / "spiece.model")


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "spiece.model").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(CheckpointError, match="more than 134217728 bytes"):
        SiglipTokenizer(tmp_path / "spiece.model")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        SiglipTokenizer(tmp_path / "spiece.model")


def test_the_digest_is_the_files(tokenizer: SiglipTokenizer, folder: Path) -> None:
    content = (folder / "spiece.model").read_bytes()
    assert tokenizer.sha256 == hashlib.sha256(content).hexdigest()
