"""What the tokenizers of both generations share: texts to rows of ids that a text tower takes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import CheckpointError

# The largest published one, of 256,000 tokens, has 34 MB.
_MAX_FILE_BYTES = 128 * 2**20


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """One text as its tower takes it, and how long it was.

    `input_ids` is int64 (max_length,): ids and the end token, padded. `tokens` counts the whole
    text with its end token, also what was cut off.
    """

    input_ids: NDArray[np.int64]
    tokens: int

    @property
    def truncated(self) -> bool:
        """Whether the text was cut."""
        return self.tokens > len(self.input_ids)


class BaseTokenizer(ABC):
    """A tokenizer of one generation, told by `_tokenize`; may be used by many threads at once.

    Every row has the full length: the towers were trained on padded texts without a mask, so less
    padding means other vectors. `sha256` is that of the file the tokenizer was read from.
    """

    tokenizer_class: ClassVar[str]
    """The reference class of the same ids; stored ids of text spaces depend on it."""

    max_length: int
    vocab_size: int | None  # of the token table; None where it is not known
    pad_token_id: int
    eos_token_id: int
    unk_token_id: int
    sha256: str
    options: dict[str, Any]  # what decides the ids beside that file; plain values

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Tokenise texts: n of them -> int64 (n, max_length); a single text is a batch of one.

        Raises `ValueError` for a lone surrogate.
        """
        rows = np.empty((1 if isinstance(texts, str) else len(texts), self.max_length), np.int64)
        for row, text in zip(rows, [texts] if isinstance(texts, str) else texts, strict=True):
            row[:] = self.encode(text).input_ids
        return torch.from_numpy(rows)

    def encode(self, text: str) -> TokenizedText:
        """Tokenise one text; raises `ValueError` for a lone surrogate, which is no character."""
        try:
            text.encode()
        except UnicodeEncodeError:
            # Without its cause, which holds the text.
            raise ValueError("the text holds a lone surrogate, which is no character") from None
        ids = self._tokenize(text)
        row = np.full(self.max_length, self.pad_token_id, np.int64)
        kept = ids[: self.max_length - 1]
        row[: len(kept)] = kept
        row[len(kept)] = self.eos_token_id
        if self.vocab_size is not None:  # an id without a row of the table would stop the tower
            row[row >= self.vocab_size] = self.unk_token_id
        return TokenizedText(row, len(ids) + 1)

    @abstractmethod
    def _tokenize(self, text: str) -> list[int]:
        """Return the ids of a text that can be encoded: all of them, without the end token."""

    def _check_special_tokens(self, path: Path) -> None:
        """Raise `CheckpointError` for a special token that the token table has no row for."""
        highest = max(self.pad_token_id, self.eos_token_id, self.unk_token_id)
        if self.vocab_size is not None and highest >= self.vocab_size:
            raise CheckpointError(
                f"{path} has special tokens up to {highest}, "
                f"the token table only {self.vocab_size} rows"
            )


def read_tokenizer_file(path: Path) -> bytes:
    """Read a tokenizer's file; raises `CheckpointError` when it cannot be, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise CheckpointError(f"{path} is no tokenizer: it has more than {_MAX_FILE_BYTES} bytes")
    return content
