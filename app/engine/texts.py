"""Texts of one request to vectors: a permit, token ids, the batcher, the result."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from app.engine.admission import Admission, Permits
from app.engine.batcher import Batcher
from app.engine.failures import raise_if_failed
from app.engine.forward import OwnVectors
from app.engine.job import Job
from app.engine.protocol import Float32Array, TextEmbedder, TextInfo, TokenizedText
from app.errors import DeadlineExceededError, ItemsFailedError, ServiceError
from app.observe.metrics import count_items
from app.observe.work import Work

# So few characters are tokenised on the event loop, in less time than a thread takes to hear of it.
_INLINE_CHARACTERS = 1_000
# Of their own: the event loop's default threads write large answers, too.
_TOKENIZER_THREADS = 2
# Some 3 KiB each: what people search for again, and the labels of a classifier.
_REMEMBERED_VECTORS = 4_096


class EmbeddedText(NamedTuple):
    """One text's vector, (dim,), not normalised; how many tokens it has, and if it had more."""

    vector: Float32Array
    tokens: int
    truncated: bool


class TextService:
    """Turns texts into vectors of the images' space; lives on one event loop."""

    def __init__(
        self, embedder: TextEmbedder, batcher: Batcher, queue_texts: int | None = None
    ) -> None:
        self.info: TextInfo = embedder.info
        self._embedder = embedder
        self._batcher = batcher
        self._vectors = _RecentVectors()
        self._tokenizers = ThreadPoolExecutor(_TOKENIZER_THREADS, "tokenize")
        self.admission = Admission(
            lambda: batcher.per_second("text"),
            least=2 * embedder.info.max_batch_size,
            fixed=queue_texts,
            modality="text",
        )

    async def embed(
        self, texts: Sequence[str], *, timeout_s: float, work: Work | None = None
    ) -> list[EmbeddedText]:
        """Tokenise and embed the texts of one request, at least one: vectors in its order.

        Raises `QueueFullError` before any work, `DeadlineExceededError` after `timeout_s`,
        `ItemsFailedError`, `WorkerDeadError` or `DrainingError` when nobody will compute. `work`
        has what was done of it.
        """
        work = work or Work()
        work.texts += len(texts)
        permits = self.admission.admit(len(texts), timeout_s)
        embedded, failed = 0, []
        tokenizing = Future[list[TokenizedText]]()
        try:
            start = time.monotonic()
            tokenizing = self._begin_to_tokenize(texts)
            async with asyncio.timeout(timeout_s):
                tokenized = await _tokenized(tokenizing, work, start)
                vectors = await self._compute(tokenized, permits, work)
            embedded = len(texts)
        except ItemsFailedError as error:
            failed = [item.code for _, item in error.details]
            raise
        except TimeoutError:
            raise DeadlineExceededError("the time for this request ran out") from None
        finally:
            tokenizing.cancel()  # if it has not begun, it need not
            # What has begun cannot be interrupted, and keeps the machine busy.
            tokenizing.add_done_callback(lambda _: _release_all(permits, len(texts)))
            count_items("text", embedded, failed, len(texts) - embedded - len(failed))
        return [
            EmbeddedText(vectors[_key(text)], text.tokens, text.truncated) for text in tokenized
        ]

    def close(self) -> None:
        """End the threads, once no request is left."""
        self._tokenizers.shutdown(wait=False)

    def _begin_to_tokenize(self, texts: Sequence[str]) -> Future[list[TokenizedText]]:
        if sum(map(len, texts)) > _INLINE_CHARACTERS:
            return self._tokenizers.submit(self._embedder.tokenize, texts)
        done = Future[list[TokenizedText]]()
        done.set_result(self._embedder.tokenize(texts))
        return done

    async def _compute(
        self, texts: Sequence[TokenizedText], permits: Permits, work: Work
    ) -> dict[bytes, Float32Array]:
        """Return the vector of each text by its key; equal ones are computed once."""
        known: dict[bytes, Float32Array] = {}
        places: dict[bytes, int] = {}
        for index, text in enumerate(texts):
            key = _key(text)
            if (vector := self._vectors.find(key)) is not None:
                known[key] = vector
            elif places.setdefault(key, index) == index:
                continue
            permits.release(index)
        if not places:
            return known
        indices = [*places.values()]
        job = Job(
            [texts[index].input_ids for index in indices],
            modality="text",
            on_settled=lambda place: permits.release(indices[place]),
            work=work,
        )
        outcomes = dict(zip(indices, await self._batcher.compute(job), strict=True))
        raise_if_failed("text", outcomes)
        for key, index in places.items():
            known[key] = self._vectors.keep(key, outcomes[index])
        return known


class _RecentVectors:
    """The vectors of the texts asked for last, by token ids."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[bytes, Float32Array] = OrderedDict()

    def find(self, key: bytes) -> Float32Array | None:
        """Return a vector that is known, and know it for longer."""
        vector = self._by_key.get(key)
        if vector is not None:
            self._by_key.move_to_end(key)
        return vector

    def keep(self, key: bytes, outcome: OwnVectors | ServiceError) -> Float32Array:
        """Remember the vector of an outcome that has one, and return it."""
        assert isinstance(outcome, OwnVectors)  # noqa: S101 # errors have been raised
        # A copy of its own: a row would keep its whole batch in memory.
        vector = self._by_key[key] = outcome.pooled.copy()
        if len(self._by_key) > _REMEMBERED_VECTORS:
            self._by_key.popitem(last=False)
        return vector


async def _tokenized(
    tokenizing: Future[list[TokenizedText]], work: Work, start: float
) -> list[TokenizedText]:
    try:
        return tokenizing.result() if tokenizing.done() else await asyncio.wrap_future(tokenizing)
    finally:
        work.note("tokenize", start)


def _release_all(permits: Permits, count: int) -> None:
    for index in range(count):
        permits.release(index)


def _key(text: TokenizedText) -> bytes:
    return text.input_ids.tobytes()
