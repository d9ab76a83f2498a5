"""The tokenizer of SigLIP 2: Gemma's byte-fallback BPE on lower-cased texts."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase, Replace, Sequence

from model.errors import CheckpointError
from model.tokenization_base import BaseTokenizer, read_tokenizer_file

_PAD = "<pad>"
_EOS = "<eos>"
_UNK = "<unk>"
_SPECIAL_TOKENS = (_PAD, _EOS, "<bos>", _UNK, "<mask>")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Siglip2Tokenizer(BaseTokenizer):
    """Tokenise as transformers' `Siglip2Tokenizer` does with `split_special_tokens=True`.

    Texts are lower-cased. What spells a special token is text like any other; added tokens that
    are not special, such as those of several line ends, are found as the reference finds them.
    """

    tokenizer_class = "Siglip2Tokenizer"

    def __init__(
        self,
        tokenizer_file: Path,
        *,
        max_length: int = 64,
        vocab_size: int | None = None,
        special_tokens: Iterable[str] = (),
    ) -> None:
        """Read a tokenizer.json; raises `CheckpointError` when it is broken or does not fit.

        `special_tokens` are special beside those that the file calls so.
        """
        content, special = read_tokenizer_file(tokenizer_file), {*special_tokens}
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.max_length = max_length
        self.vocab_size = vocab_size
        self.options = {"special_tokens": sorted(special)}
        try:
            self._tokenizer = _build_tokenizer(json.loads(content), special)
        except Exception as error:  # of any kind: JSON of another shape, or what the library says
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise CheckpointError(
                f"{tokenizer_file} is no readable BPE tokenizer: {reason}"
            ) from error
        self.pad_token_id, self.eos_token_id, self.unk_token_id = (
            self._find_token(token, tokenizer_file) for token in (_PAD, _EOS, _UNK)
        )
        self._check_special_tokens(tokenizer_file)
        if vocab_size is not None and self._tokenizer.get_vocab_size() > vocab_size:
            raise CheckpointError(
                f"{tokenizer_file} has {self._tokenizer.get_vocab_size()} tokens, "
                f"the token table only {vocab_size} rows"
            )

    def _tokenize(self, text: str) -> list[int]:
        # `encode` would hold the interpreter's lock, and look for offsets that nobody needs.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids

    def _find_token(self, token: str, path: Path) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{path} has no {token}")
        return found


def _build_tokenizer(given: dict[str, Any], special_tokens: set[str]) -> Tokenizer:
    """Take vocabulary, merges and added tokens; the reference sets all else as it is here.

    It also splits at spaces, of which its normaliser leaves none. Parts are handed over, since the
    library takes thrice the memory to read a whole file.
    """
    added = sorted(given.get("added_tokens", []), key=lambda token: int(token["id"]))
    special = special_tokens.union(_SPECIAL_TOKENS)
    special.update(token["content"] for token in added if token.get("special"))
    tokenizer = Tokenizer(_build_model(given["model"], special))
    tokenizer.normalizer = Sequence([Lowercase(), Replace(" ", "▁")])
    tokenizer.add_tokens([_read_added_token(token) for token in added])
    for token in added:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            raise ValueError(f"{token['content']!r} is added with another id than the vocabulary's")
    known = [token for token in sorted(special) if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in known])
    tokenizer.encode_special_tokens = True  # as text
    return tokenizer


def _read_added_token(given: dict[str, Any]) -> AddedToken:
    flags = {name: given[name] for name in _FLAGS if name in given}
    return AddedToken(given["content"], **flags)


def _build_model(given: dict[str, Any], special_tokens: set[str]) -> BPE:
    """Build the BPE without the merges that spell a special token: a text could make it by them."""
    if given["type"] != "BPE":
        raise ValueError(f"its model is {given['type']}")
    if not isinstance(given["vocab"], dict):  # of a string the library reads a file
        raise TypeError("its vocabulary is no JSON object")
    spelling = {(token[:cut], token[cut:]) for token in special_tokens for cut in range(len(token))}
    pairs: Iterator[tuple[str, str]] = (
        tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in given["merges"]
    )
    return BPE(
        vocab=given["vocab"],
        merges=[pair for pair in pairs if pair not in spelling],
        unk_token=_UNK,
        fuse_unk=True,
        byte_fallback=True,
        cache_capacity=0,  # of whole texts, since there are no words here
    )
