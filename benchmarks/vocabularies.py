"""Vocabularies of published size, made up: 32,000 pieces, and 256,000 tokens with their merges."""

import itertools
import string
from collections.abc import Iterator
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as spiece

from tests.tokenizer_files import SPECIAL_TOKENS, train_sentencepiece

TOKENS = 256_000
_PIECES = 32_000


def _words() -> Iterator[str]:
    """Yield words of one letter, of two, and so on, each also as the beginning of a word."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)
            yield "▁" + "".join(letters)


def make_spiece_model() -> bytes:
    """Add words to a trained model, the rarer the longer, until it has the published size."""
    model = spiece.ModelProto.FromString(train_sentencepiece())  # type: ignore[attr-defined] # made at import
    known = {piece.piece for piece in model.pieces}
    for rank, word in enumerate(_words()):
        if len(model.pieces) == _PIECES:
            break
        if word not in known:
            model.pieces.add(piece=word, score=-5.0 - rank / 3000)
    return bytes(model.SerializeToString())


def make_tokenizer_json() -> dict[str, Any]:
    """Merge every word of letters from its first part and its last letter, and the other way."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = itertools.islice(_words(), TOKENS)
    names = [*SPECIAL_TOKENS, *bytes_, "▁", *words][:TOKENS]
    vocab = {token: index for index, token in enumerate(names)}
    merges = [
        [token[:cut], token[cut:]]
        for token in names[len(SPECIAL_TOKENS) + len(bytes_) :]
        for cut in sorted({1, len(token) - 1})
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    added = [
        {"id": vocab[token], "content": token, "special": True, **flags} for token in SPECIAL_TOKENS
    ]
    return {
        "version": "1.0",
        "added_tokens": added,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": merges,
        },
    }
