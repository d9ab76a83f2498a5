"""The tokenizer of SigLIP 2: Gemma's byte-fallback BPE on lower-cased texts."""

import hashlib
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase, Replace, Sequence
from tokenizers.pre_tokenizers import Split

from model.checkpoint import CheckpointError
from model.tokenization_base import BaseTokenizer, read_tokenizer_file

_PAD = "<pad>"
_EOS = "<eos>"
_UNK = "<unk>"
_SPECIAL_TOKENS = (_PAD, _EOS, "<bos>", _UNK, "<mask>")


class Siglip2Tokenizer(BaseTokenizer):
    """Tokenise as transformers' `Siglip2Tokenizer` does with `split_special_tokens=True`.

    Texts are lower-cased. What spells a special token is text like any other; added tokens that
    are not special, such as those of several line ends, are found as the reference finds them.
    """

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
        content = read_tokenizer_file(tokenizer_file)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.max_length = max_length
        self.vocab_size = vocab_size
        self._tokenizer = _read_tokenizer(content, tokenizer_file)
        self.pad_token_id, self.eos_token_id, self.unk_token_id = (
            self._find_token(token, tokenizer_file) for token in (_PAD, _EOS, _UNK)
        )
        self._check_special_tokens(tokenizer_file)
        if vocab_size is not None and self._tokenizer.get_vocab_size() > vocab_size:
            raise CheckpointError(
                f"{tokenizer_file} has {self._tokenizer.get_vocab_size()} tokens, "
                f"the token table only {vocab_size} rows"
            )
        self._take_as_text({*_SPECIAL_TOKENS, *special_tokens})

    def _tokenize(self, text: str) -> list[int]:
        ids = self._merge(text)
        if self._special_ids.isdisjoint(ids):
            return ids
        # Merges spelled a special token: none can where each is cut behind its first character.
        cuts = [0, *(match.start() + 1 for match in self._special.finditer(text)), len(text)]
        return [token for start, end in pairwise(cuts) for token in self._merge(text[start:end])]

    def _merge(self, text: str) -> list[int]:
        # `encode` would hold the interpreter's lock, and look for offsets that nobody needs.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids

    def _take_as_text(self, special_tokens: set[str]) -> None:
        """Have no text make a special token, whether by its spelling or by merges."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        special = special_tokens.union(token.content for token in added if token.special)
        known = sorted(token for token in special if self._tokenizer.token_to_id(token) is not None)
        self._tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in known])
        self._tokenizer.encode_special_tokens = True
        ids = {self._tokenizer.token_to_id(token) for token in known}
        self._special_ids = ids - {self.unk_token_id}
        # In a look-ahead, so that one which begins inside another is found too.
        self._special = re.compile(f"(?={'|'.join(map(re.escape, known))})", re.IGNORECASE)

    def _find_token(self, token: str, path: Path) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{path} has no {token}")
        return found


def _read_tokenizer(content: bytes, path: Path) -> Tokenizer:
    """Read vocabulary, merges and added tokens; all else is set as the reference sets it."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except ValueError as error:
        raise CheckpointError(f"{path} is no readable tokenizer: {error}") from error
    model = tokenizer.model
    if not isinstance(model, BPE) or model.continuing_subword_prefix or model.end_of_word_suffix:
        raise CheckpointError(f"{path} is no byte-fallback BPE, as SigLIP 2's tokenizer is")
    model.unk_token = _UNK
    model.byte_fallback = model.fuse_unk = True
    model.ignore_merges = False
    model.dropout = None  # which would give the same text other ids each time
    tokenizer.normalizer = Sequence([Lowercase(), Replace(" ", "▁")])
    tokenizer.pre_tokenizer = Split(" ", "merged_with_previous")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
