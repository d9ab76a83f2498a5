"""The text side of the one fake: vectors tell what their text is, and some texts make it fail."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from app.engine.protocol import Float32Array, TextInfo, TokenizedText, Vectors

MAX_TOKENS = 8
TEXT_SPACE = "fake:text:0123456789ab"
RAISES, GIVES_NAN = "!", "?"
"""Texts that begin so make the fake fail."""
_WAIT_S = 30


@dataclass
class FakeTextEmbedder:
    """A character is a token, and a text's vector is (its first character, its tokens, 0, 1).

    `gate`, `entered` and `batches` are as of the fake for images; the latter hold texts, cut short.
    """

    batches_in_flight: int = 1
    max_batch_size: int = 4
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[list[str]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    """Names of the threads that have tokenised."""
    entered_in: list[str] = field(default_factory=list)
    """Names of the threads that were to be made ready."""

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def info(self) -> TextInfo:
        return TextInfo(
            text_space=TEXT_SPACE,
            dim=4,
            max_tokens=MAX_TOKENS,
            dtype="float32",
            logit_scale=1.0,
            logit_bias=-1.0,
            max_batch_size=self.max_batch_size,
            selftest_cosine=0.99987,
        )

    def enter_thread(self) -> None:
        self.entered_in.append(threading.current_thread().name)

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        self.threads.add(threading.current_thread().name)
        return [_tokenize(text) for text in texts]

    def begin(self, inputs: Any, /, patches_of: int = 0) -> Callable[[], Vectors]:
        assert not patches_of
        self.entered.release()
        return partial(self._wait, [_read(ids) for ids in inputs])

    def _wait(self, texts: list[str]) -> Vectors:
        assert self.gate.wait(_WAIT_S), "the gate stayed closed"
        self.batches.append(texts)
        if any(text.startswith(RAISES) for text in texts):
            raise RuntimeError("embed failed")
        return _vectors_of(texts)

    def embed_in_float32(self, inputs: Any, /, patches_of: int = 0) -> Vectors:
        assert not patches_of
        return _vectors_of([_read(ids) for ids in inputs])

    def wait_until_entered(self) -> None:
        """Wait until one more batch has begun."""
        assert self.entered.acquire(timeout=_WAIT_S), "no batch has begun"


class SoundTexts(FakeTextEmbedder):
    """The fake, which no text makes fail."""

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        return super().tokenize([text.lstrip(RAISES + GIVES_NAN) for text in texts])


@dataclass
class WithoutScale(FakeTextEmbedder):
    """A text side whose checkpoint lacks one of the two numbers that make scores."""

    missing: str = field(default="logit_bias", kw_only=True)

    @property
    def info(self) -> TextInfo:
        changes: dict[str, Any] = {self.missing: None}
        return replace(super().info, **changes)


def expected_text_vector(text: str) -> list[float]:
    """Return the raw vector of a text."""
    return [float(ord(text[0])) if text else 0.0, float(min(len(text), MAX_TOKENS)), 0.0, 1.0]


def _tokenize(text: str) -> TokenizedText:
    ids = np.zeros(MAX_TOKENS, np.int64)
    codes = [ord(character) for character in text[:MAX_TOKENS]]
    ids[: len(codes)] = codes
    return TokenizedText(ids, len(text), len(text) > MAX_TOKENS)


def _read(ids: np.ndarray) -> str:
    return "".join(map(chr, ids[ids != 0]))


def _vectors_of(texts: list[str]) -> Vectors:
    rows: Float32Array = np.array([expected_text_vector(text) for text in texts], np.float32)
    rows[[text.startswith(GIVES_NAN) for text in texts], 0] = np.nan
    return Vectors(rows)
