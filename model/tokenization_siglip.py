"""The tokenizer of SigLIP's first generation: a sentencepiece model on cleaned texts."""

import hashlib
import re
import string
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from model.errors import CheckpointError
from model.tokenization_base import BaseTokenizer, read_tokenizer_file

_WORD_START = "▁"
_EOS = "</s>"
_UNK = "<unk>"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipTokenizer(BaseTokenizer):
    """Tokenise as transformers' `SiglipTokenizer` does with `split_special_tokens=True`.

    Texts are lower-cased, lose their ASCII punctuation, and have runs of white space made one
    space. What spells a special token is text like any other.
    """

    tokenizer_class = "SiglipTokenizer"

    def __init__(
        self,
        vocab_file: Path,
        *,
        max_length: int = 64,
        vocab_size: int | None = None,
        do_lower_case: bool = True,
    ) -> None:
        """Read a spiece.model; raises `CheckpointError` when it is broken or does not fit."""
        content = read_tokenizer_file(vocab_file)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.max_length = max_length
        self.vocab_size = vocab_size
        self.do_lower_case = do_lower_case
        self.options = {"do_lower_case": do_lower_case}
        try:
            self._model = SentencePieceProcessor(model_proto=content)
            self._unk_tokens = len(self._model.encode(_UNK))
        except RuntimeError as error:
            raise CheckpointError(f"{vocab_file} is no readable sentencepiece model") from error
        self.unk_token_id = self._model.unk_id()
        self.eos_token_id = self.pad_token_id = self._model.piece_to_id(_EOS)
        if self.eos_token_id == self.unk_token_id:
            raise CheckpointError(f"{vocab_file} has no {_EOS}")
        self._check_special_tokens(vocab_file)
        self._check_pieces(vocab_file)

    def canonicalize_text(self, text: str) -> str:
        """Clean a text as all texts were in training."""
        text = text.lower() if self.do_lower_case else text
        return re.sub(r"\s+", " ", text.translate(_NO_PUNCTUATION)).strip()

    def _tokenize(self, text: str) -> list[int]:
        # The reference's two prefixes, to the letter. The first makes the text begin with a word
        # and stays. The second keeps sentencepiece from stripping the first, and is dropped.
        text = self.canonicalize_text(_WORD_START + text.replace(_WORD_START, " "))
        ids: list[int] = self._model.encode(_UNK + text)
        return ids[self._unk_tokens :] if len(ids) >= self._unk_tokens else ids

    def _check_pieces(self, path: Path) -> None:
        """Raise `CheckpointError` when the token table lacks a row for a piece of cleaned texts.

        The multilingual checkpoints' models have a hundred `▁<extra_id_0>` behind their table.
        """
        pieces = self._model.get_piece_size()
        for piece in range(pieces if self.vocab_size is None else self.vocab_size, pieces):
            if not set(string.punctuation).intersection(self._model.id_to_piece(piece)):
                raise CheckpointError(
                    f"{path} has {pieces} tokens, the token table only {self.vocab_size} rows"
                )
