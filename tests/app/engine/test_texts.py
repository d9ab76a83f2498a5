"""Texts of many requests beside images: order, what is remembered, refusals, the two lines."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest

from app.engine.batch_queue import BatchQueue
from app.engine.batcher import Batcher
from app.engine.job import Job
from app.engine.protocol import Modality, TokenizedText
from app.engine.texts import EmbeddedText, TextService
from app.errors import (
    DeadlineExceededError,
    DrainingError,
    ItemsFailedError,
    QueueFullError,
    WorkerDeadError,
)
from app.observe.work import Work
from tests.app.fake_embedder import SIDE, FakeEmbedder
from tests.app.fake_text_embedder import (
    GIVES_NAN,
    RAISES,
    FakeTextEmbedder,
    expected_text_vector,
)

WAIT_S = 30
Result = TypeVar("Result")


@pytest.fixture
def images() -> FakeEmbedder:
    return FakeEmbedder(max_batch_size=2)


@pytest.fixture
def texts() -> FakeTextEmbedder:
    return FakeTextEmbedder()


@pytest.fixture
def batcher(images: FakeEmbedder, texts: FakeTextEmbedder) -> Iterator[Batcher]:
    batcher = Batcher(images, max_batch_size=2, texts=texts)
    yield batcher
    images.gate.set()
    texts.gate.set()
    batcher.stop(WAIT_S)


@pytest.fixture
def service(batcher: Batcher, texts: FakeTextEmbedder) -> TextService:
    return TextService(texts, batcher)


def run(scenario: Callable[[], Awaitable[Result]]) -> Result:
    """Run one coroutine on a loop of its own."""

    async def main() -> Result:
        return await scenario()

    return asyncio.run(main())


def embed(
    service: TextService, *texts: str, timeout_s: float = WAIT_S, work: Work | None = None
) -> list[EmbeddedText]:
    return run(lambda: service.embed(texts, timeout_s=timeout_s, work=work))


def image_job(*reds: int) -> Job:
    return Job([np.full((SIDE, SIDE, 3), (red, 0, 0), np.uint8) for red in reds])


def test_vectors_keep_the_order_of_the_request(service: TextService) -> None:
    words = ["zebra", "ant", "", "bee", "a much longer text", "cat"]

    work = Work()
    embedded = embed(service, *words, work=work)

    for text, own in zip(words, embedded, strict=True):
        assert own.vector.tolist() == expected_text_vector(text)
        assert own.tokens == len(text)
        assert own.truncated == (len(text) > 8)
    assert [stage.name for stage in work.stages] == ["tokenize", "queue", "forward"]
    assert work.texts == len(words)
    assert service.admission.admitted == 0


def test_equal_texts_are_computed_once_and_remembered(
    service: TextService, texts: FakeTextEmbedder
) -> None:
    first = embed(service, "ant", "bee", "ant")
    again = embed(service, "bee", "ant", "cat")

    assert [own.vector[0] for own in first] == [97, 98, 97]
    assert [own.vector[0] for own in again] == [98, 97, 99]
    assert texts.batches == [["ant", "bee"], ["cat"]]
    assert service.admission.admitted == 0


def test_what_is_remembered_is_what_was_asked_for_last(
    service: TextService, texts: FakeTextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.texts._REMEMBERED_VECTORS", 2)
    for text in ("ant", "bee", "ant", "cat", "ant", "bee"):
        embed(service, text)

    assert texts.batches == [["ant"], ["bee"], ["cat"], ["bee"]]


def test_all_that_is_remembered_needs_no_device(
    service: TextService, texts: FakeTextEmbedder
) -> None:
    embed(service, "ant")
    texts.gate.clear()

    work = Work()
    embed(service, "ant", work=work)

    assert [stage.name for stage in work.stages] == ["tokenize"]
    assert work.batches == []


def test_one_bad_text_fails_the_request_and_no_neighbour(
    service: TextService, texts: FakeTextEmbedder
) -> None:
    async def scenario() -> None:
        texts.gate.clear()
        busy = asyncio.create_task(service.embed(["first"], timeout_s=WAIT_S))
        await asyncio.to_thread(texts.wait_until_entered)
        neighbour = asyncio.create_task(service.embed(["ant"], timeout_s=WAIT_S))
        bad = asyncio.create_task(service.embed(["bee", f"{RAISES}cat"], timeout_s=WAIT_S))
        await asyncio.sleep(0)
        texts.gate.set()
        with pytest.raises(ItemsFailedError) as failed:
            await bad
        assert failed.value.message == "text 1: the model failed on this text"
        assert failed.value.param == "texts[1]"
        assert [own.vector[0] for own in (await neighbour)] == [97]
        await busy

    run(scenario)
    assert service.admission.admitted == 0


def test_what_is_not_finite_is_an_error_and_not_remembered(service: TextService) -> None:
    for _ in range(2):
        with pytest.raises(ItemsFailedError) as failed:
            embed(service, f"{GIVES_NAN}bee")
        assert failed.value.code == "non_finite"


def test_long_texts_are_tokenised_off_the_event_loop(
    service: TextService, texts: FakeTextEmbedder
) -> None:
    embed(service, "ant")
    assert texts.threads == {threading.current_thread().name}
    embed(service, "x" * 2000)
    assert len(texts.threads) == 2


def test_a_request_out_of_time_leaves_the_line(
    service: TextService, texts: FakeTextEmbedder
) -> None:
    async def scenario() -> None:
        texts.gate.clear()
        busy = asyncio.create_task(service.embed(["first"], timeout_s=WAIT_S))
        await asyncio.to_thread(texts.wait_until_entered)
        with pytest.raises(DeadlineExceededError):
            await service.embed(["late"], timeout_s=0.01)
        texts.gate.set()
        await busy
        await service.embed(["last"], timeout_s=WAIT_S)

    run(scenario)
    assert texts.batches == [["first"], ["last"]]
    assert service.admission.admitted == 0


def test_a_line_full_of_texts_refuses_texts(service: TextService, texts: FakeTextEmbedder) -> None:
    async def scenario() -> None:
        texts.gate.clear()
        waiting = [
            asyncio.create_task(service.embed([f"{place} text"], timeout_s=WAIT_S))
            for place in range(service.admission.limit)
        ]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="too many texts are waiting"):
            await service.embed(["one more"], timeout_s=WAIT_S)
        texts.gate.set()
        await asyncio.gather(*waiting)

    run(scenario)
    assert service.admission.admitted == 0


def test_a_text_waits_for_one_batch_of_images_only(
    batcher: Batcher, images: FakeEmbedder, texts: FakeTextEmbedder
) -> None:
    images.gate.clear()
    crowd = image_job(*range(10, 20))
    batcher.submit(crowd)
    images.wait_until_entered()
    query = Job([texts.tokenize(["ant"])[0].input_ids], modality="text")
    batcher.submit(query)
    assert batcher.oldest_age_s("text") > 0
    texts.gate.clear()
    images.gate.set()
    texts.wait_until_entered()

    assert images.computed == [(10, 0, 0), (11, 0, 0)]
    texts.gate.set()
    assert query.future.result(WAIT_S)
    assert len(crowd.future.result(WAIT_S)) == 10


def test_images_wait_for_one_batch_of_texts_only(
    batcher: Batcher, images: FakeEmbedder, texts: FakeTextEmbedder
) -> None:
    texts.gate.clear()
    rows = [text.input_ids for text in texts.tokenize([f"{n}" for n in range(12)])]
    crowd = Job(rows, modality="text")
    batcher.submit(crowd)
    texts.wait_until_entered()
    batcher.submit(job := image_job(10, 11, 12))
    images.gate.clear()
    texts.gate.set()
    images.wait_until_entered()

    assert [len(batch) for batch in texts.batches] == [4]
    images.gate.set()
    assert len(job.future.result(WAIT_S)) == 3
    assert len(crowd.future.result(WAIT_S)) == 12


def test_each_line_knows_its_own_rate(batcher: Batcher, texts: FakeTextEmbedder) -> None:
    assert batcher.per_second("text") == 0
    job = Job([texts.tokenize(["ant"])[0].input_ids], modality="text")
    batcher.submit(job)
    job.future.result(WAIT_S)

    assert batcher.per_second("image") == 0
    assert batcher.per_second("text") > 0


def test_texts_in_line_hear_of_the_end(
    service: TextService, texts: FakeTextEmbedder, batcher: Batcher
) -> None:
    async def scenario() -> None:
        texts.gate.clear()
        busy = asyncio.create_task(service.embed(["first"], timeout_s=WAIT_S))
        await asyncio.to_thread(texts.wait_until_entered)
        waiting = asyncio.create_task(service.embed(["second"], timeout_s=WAIT_S))
        await asyncio.sleep(0)
        batcher.fail_all()
        for task in (busy, waiting):
            with pytest.raises(WorkerDeadError):
                await task
        texts.gate.set()
        batcher.stop(WAIT_S)
        with pytest.raises(DrainingError):
            await service.embed(["third"], timeout_s=WAIT_S)

    run(scenario)


def test_a_full_batch_of_images_waits_for_no_text_that_may_grow(texts: FakeTextEmbedder) -> None:
    images = FakeEmbedder(max_batch_size=2)
    batcher = Batcher(images, max_batch_size=2, max_wait_s=WAIT_S + 1, texts=texts)
    query = Job([texts.tokenize(["ant"])[0].input_ids], modality="text")
    batcher.submit(query)
    batcher.submit(full := image_job(10, 11))

    assert len(full.future.result(WAIT_S)) == 2
    assert not query.future.done()
    batcher.stop(WAIT_S)
    assert query.future.done()


def test_beside_a_batch_in_flight_a_full_line_lets_the_one_go_first_whose_turn_it_is() -> None:
    queue = BatchQueue(max_in_flight=3, max_wait_s=0)
    most: dict[Modality, int] = {"image": 2, "text": 4}
    taken = []
    queue.submit(image_job(10, 11))
    taken.append(queue.take_batch(most))
    queue.submit(Job([np.zeros(8, np.int64)], modality="text"))
    assert queue.take_batch(most) is None  # it may grow: nobody waits for it
    queue.submit(image_job(12, 13))
    taken += [queue.take_batch(most), queue.take_batch(most)]

    assert [batch.modality for batch in taken if batch] == ["image", "text", "image"]


def test_texts_whose_caller_has_left_count_while_they_are_tokenised(
    service: TextService, texts: FakeTextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    tokenize = texts.tokenize

    def tokenize_slowly(given: Sequence[str]) -> list[TokenizedText]:
        begun.set()
        assert gate.wait(WAIT_S)
        return tokenize(given)

    monkeypatch.setattr(texts, "tokenize", tokenize_slowly)

    async def scenario() -> None:
        leaving = asyncio.create_task(service.embed(["x" * 2000, "y"], timeout_s=WAIT_S))
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert service.admission.admitted == 2

    run(scenario)
    gate.set()
    service._tokenizers.shutdown(wait=True)
    assert service.admission.admitted == 0
