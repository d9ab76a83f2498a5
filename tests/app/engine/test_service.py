"""Encoded images to vectors: permits, deadlines, order, partial failure."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import pytest

from app.cores import count_cores
from app.engine.preparing import ImageSource
from app.engine.protocol import Pixels, Vectors
from app.engine.service import EmbeddedImage, EmbeddingService
from app.errors import (
    DeadlineExceededError,
    DrainingError,
    InvalidBase64Error,
    ItemsFailedError,
    QueueFullError,
    ServiceError,
    WorkerDeadError,
)
from app.intake.decode import DecodeLimits
from app.observe.work import Work
from tests.app.fake_embedder import (
    ENDS_THREAD,
    GIVES_NAN,
    RAISES,
    RESIZE_RAISES,
    FakeEmbedder,
    expected_pooled,
)
from tests.app.images import NO_IMAGE, plain_png, truncated_jpeg

WAIT_S = 30
LIMITS = DecodeLimits(1_000_000, 1_000_000, 5_000, frozenset({"jpeg", "png"}))
Result = TypeVar("Result")
Outcomes = list[EmbeddedImage | ServiceError]


@pytest.fixture
def fake() -> FakeEmbedder:
    """The embedder of `service`."""
    return FakeEmbedder(max_batch_size=4)


@pytest.fixture
def service(fake: FakeEmbedder) -> Iterator[EmbeddingService]:
    """A service with room for eight images, in batches of four."""
    service = EmbeddingService(fake, decode_limits=LIMITS, max_wait_s=0, queue_images=8)
    yield service
    fake.gate.set()
    service.close(WAIT_S)


def red(*shades: int) -> list[ImageSource]:
    """Return sources of images of one shade of red each."""
    return [partial(plain_png, (shade, 0, 0)) for shade in shades]


def run(awaitable: Callable[[], Awaitable[Result]]) -> Result:
    """Run one coroutine on a loop of its own."""

    async def main() -> Result:
        return await awaitable()

    return asyncio.run(main())


async def embed(
    service: EmbeddingService,
    sources: Sequence[ImageSource],
    *,
    on_error: str = "fail",
    patches: bool = False,
    timeout_s: float = WAIT_S,
    work: Work | None = None,
) -> Outcomes:
    """Call the service."""
    return await service.embed(
        sources, patches=patches, partial=on_error == "partial", timeout_s=timeout_s, work=work
    )


async def until_one_is_queued(service: EmbeddingService) -> None:
    """Wait until an image is in the batcher's queue."""
    async with asyncio.timeout(WAIT_S):
        while service.batcher.oldest_age_s("image") == 0:  # noqa: ASYNC110 # another thread's state
            await asyncio.sleep(0.001)


def codes_of(outcomes: Outcomes) -> list[str | None]:
    """Return the error code of each outcome, None for vectors."""
    return [outcome.code if isinstance(outcome, ServiceError) else None for outcome in outcomes]


def test_vectors_keep_the_order_of_the_request(service: EmbeddingService) -> None:
    embedded = run(lambda: embed(service, red(50, 10, 40, 20, 30, 60)))

    for outcome, shade in zip(embedded, (50, 10, 40, 20, 30, 60), strict=True):
        assert isinstance(outcome, EmbeddedImage)
        assert outcome.vectors.pooled.tolist() == expected_pooled((shade, 0, 0))


def test_where_the_time_went_is_told(service: EmbeddingService) -> None:
    work = Work()
    run(lambda: embed(service, red(10), work=work))

    assert work.images == 1
    assert [stage.name for stage in work.stages] == ["decode", "queue", "forward"]
    times = [moment for _, start, end in work.stages for moment in (start, end)]
    assert times == sorted(times)
    (batch,) = work.batches
    assert (batch.kind, batch.size, batch.begun_at) == ("image", 1, work.stages[-1].start)
    assert batch.ended_at is not None
    assert batch.begun_at <= batch.ended_at <= times[-1]


def test_patches_come_only_when_asked_for(service: EmbeddingService) -> None:
    for patches in (False, True):
        (outcome,) = run(partial(embed, service, red(10), patches=patches))
        assert isinstance(outcome, EmbeddedImage)
        assert (outcome.vectors.patches is not None) == patches


def test_a_bad_image_fails_the_request_before_anything_is_computed(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    sources = [*red(10), lambda: NO_IMAGE, *red(20), truncated_jpeg]

    with pytest.raises(ItemsFailedError) as failed:
        run(lambda: embed(service, sources))

    assert [(index, error.code) for index, error in failed.value.details] == [
        (1, "unsupported_image_format"),
        (3, "image_truncated"),
    ]
    assert fake.batches == []


def test_partial_gives_the_good_images_their_vectors(service: EmbeddingService) -> None:
    sources = [*red(10), lambda: NO_IMAGE, *red(GIVES_NAN, RAISES, RESIZE_RAISES, 20)]

    embedded = run(lambda: embed(service, sources, on_error="partial"))

    assert codes_of(embedded) == [
        None,
        "unsupported_image_format",
        "non_finite",
        "internal",
        "image_undecodable",
        None,
    ]


@pytest.mark.parametrize("sources", [[lambda: NO_IMAGE], [truncated_jpeg, lambda: NO_IMAGE]])
def test_partial_with_bad_images_only_is_answered_and_computes_nothing(
    service: EmbeddingService, fake: FakeEmbedder, sources: list[ImageSource]
) -> None:
    work = Work()
    outcomes = run(lambda: embed(service, sources, on_error="partial", work=work))

    assert codes_of(outcomes) == ["image_truncated", "unsupported_image_format"][-len(sources) :]
    assert fake.batches == []
    assert work.stage_s.keys() == {"decode"}


def test_partial_with_images_that_the_model_fails_on_only_is_answered(
    service: EmbeddingService,
) -> None:
    embedded = run(lambda: embed(service, red(GIVES_NAN, RAISES), on_error="partial"))

    assert codes_of(embedded) == ["non_finite", "internal"]


def test_a_dead_worker_is_no_matter_of_one_image_also_when_partial(
    service: EmbeddingService,
) -> None:
    with pytest.raises(WorkerDeadError):
        run(lambda: embed(service, red(ENDS_THREAD), on_error="partial"))


def test_a_source_may_refuse_for_itself(service: EmbeddingService) -> None:
    def refuse() -> bytes:
        raise InvalidBase64Error("the data is not valid base64")

    embedded = run(lambda: embed(service, [*red(10), refuse], on_error="partial"))

    assert codes_of(embedded) == [None, "invalid_base64"]


async def fill(service: EmbeddingService, fake: FakeEmbedder) -> list[asyncio.Task[Outcomes]]:
    """Fill the queue with eight requests of one image, of which the first is being computed."""
    fake.gate.clear()
    waiting = [asyncio.create_task(embed(service, red(1)))]
    await asyncio.to_thread(fake.wait_until_entered)
    waiting += [asyncio.create_task(embed(service, red(shade))) for shade in range(2, 9)]
    await asyncio.sleep(0)
    return waiting


async def finish(fake: FakeEmbedder, waiting: Sequence[asyncio.Task[Outcomes]]) -> None:
    """Let everything be computed."""
    fake.gate.set()
    await asyncio.gather(*waiting)


def test_a_full_queue_refuses_before_decoding(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    def refuse_to_be_read() -> bytes:
        raise AssertionError("was decoded")

    async def scenario() -> None:
        waiting = await fill(service, fake)
        with pytest.raises(QueueFullError) as refused:
            await embed(service, [refuse_to_be_read])
        assert refused.value.retry_after_s is not None
        assert 1 <= refused.value.retry_after_s <= 30
        assert service.admission.admitted == 8
        await finish(fake, waiting)

    run(scenario)
    assert service.admission.admitted == 0


def test_the_last_request_with_room_may_go_over_the_limit(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    async def scenario() -> None:
        waiting = await fill(service, fake)
        waiting.pop().cancel()
        await asyncio.sleep(0)
        large = asyncio.create_task(embed(service, red(10, 11, 12)))
        await asyncio.sleep(0)
        assert service.admission.admitted == 10
        with pytest.raises(QueueFullError):
            await embed(service, red(20))
        await finish(fake, [*waiting, large])

    run(scenario)
    assert service.admission.admitted == 0


def test_a_single_image_rides_in_the_next_batch_beside_a_request_that_fills_the_queue(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    async def scenario() -> None:
        fake.gate.clear()
        large = asyncio.create_task(embed(service, red(*range(10, 22))))
        await asyncio.to_thread(fake.wait_until_entered)
        single = asyncio.create_task(embed(service, red(1)))
        async with asyncio.timeout(WAIT_S):
            while fake.resized < 13:  # noqa: ASYNC110 # another thread's state
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)  # from its decoding to the queue is one turn of the loop
        await finish(fake, [large, single])

    run(scenario)
    assert (1, 0, 0) in fake.batches[1].colours
    assert [len(batch.colours) for batch in fake.batches] == [4, 4, 4, 1], "batches stay full"


def test_a_single_image_is_decoded_before_the_rest_of_a_large_request(
    fake: FakeEmbedder,
) -> None:
    service = EmbeddingService(fake, decode_limits=LIMITS, max_wait_s=0, queue_images=100)
    threads, go_on, decoded = count_cores(), threading.Event(), list[str]()

    def source(name: str) -> bytes:
        go_on.wait(WAIT_S)
        decoded.append(name)
        return plain_png((1, 0, 0))

    async def scenario() -> None:
        requests = [["large"] * (threads + 20), ["single"]]
        work = [
            asyncio.create_task(embed(service, [partial(source, name) for name in names]))
            for names in requests
        ]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*work)

    run(scenario)
    service.close(WAIT_S)
    # All threads are at the large one; then come at most three more, as many as there are threads.
    assert decoded.index("single") < 2 * threads + 3


def test_a_permit_comes_back_with_each_image() -> None:
    """Not with the answer: others may come in before a large request is through."""
    admitted: list[int] = []

    class Watching(FakeEmbedder):
        def begin(self, pixels: Pixels, patches_of: int = 0) -> Callable[[], Vectors]:
            admitted.append(watched.admission.admitted)
            return super().begin(pixels, patches_of)

    watched = EmbeddingService(Watching(max_batch_size=4), decode_limits=LIMITS, max_wait_s=0)
    sources = [lambda: NO_IMAGE, *red(10, RAISES, 12, 13, 14, 15, 16, 17, 18)]
    run(lambda: embed(watched, sources, on_error="partial"))
    watched.close(WAIT_S)

    whole, *halves_around_the_culprit, second, last = admitted
    assert (whole, second, last) == (9, 5, 1)
    assert set(halves_around_the_culprit) == {9}
    assert watched.admission.admitted == 0


@pytest.mark.parametrize("on_error", ["fail", "partial"])
@pytest.mark.parametrize(
    "sources",
    [
        red(10, 20),
        [*red(10), lambda: NO_IMAGE],
        [lambda: NO_IMAGE],
        red(10, RAISES),
        red(GIVES_NAN),
        red(RESIZE_RAISES),
        red(ENDS_THREAD),
    ],
    ids=["good", "mixed", "bad", "model_fault", "nan", "resize_fault", "dying"],
)
def test_permits_come_back_after_every_outcome(
    service: EmbeddingService, sources: list[ImageSource], on_error: str
) -> None:
    async def scenario() -> None:
        try:
            await embed(service, sources, on_error=on_error)
        except ServiceError:
            return

    run(scenario)

    assert service.admission.admitted == 0


def test_a_request_out_of_time_is_dropped_and_never_computed(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    async def scenario() -> None:
        fake.gate.clear()
        busy = asyncio.create_task(embed(service, red(1)))
        await asyncio.to_thread(fake.wait_until_entered)
        with pytest.raises(DeadlineExceededError):
            await embed(service, red(10, 11), timeout_s=0.05)
        # A decode that has begun keeps its permit until it ends.
        while service.admission.admitted > 1:  # noqa: ASYNC110 # it is set by another thread
            await asyncio.sleep(0.001)
        fake.gate.set()
        await busy
        await embed(service, red(20))

    run(scenario)
    assert [shade for shade, _, _ in fake.computed] == [1, 20]
    assert service.admission.admitted == 0


def test_a_request_that_is_given_up_is_never_computed(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    async def scenario() -> None:
        fake.gate.clear()
        busy = asyncio.create_task(embed(service, red(1)))
        await asyncio.to_thread(fake.wait_until_entered)
        given_up = asyncio.create_task(embed(service, red(10)))
        await until_one_is_queued(service)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        fake.gate.set()
        await busy

    run(scenario)
    assert [shade for shade, _, _ in fake.computed] == [1]
    assert service.admission.admitted == 0


def test_a_dead_worker_is_told_to_all_who_wait_and_who_come(
    service: EmbeddingService, fake: FakeEmbedder
) -> None:
    async def scenario() -> list[BaseException | Outcomes]:
        fake.gate.clear()
        waiting = [asyncio.create_task(embed(service, red(1)))]
        await asyncio.to_thread(fake.wait_until_entered)
        waiting.append(asyncio.create_task(embed(service, red(ENDS_THREAD))))
        await until_one_is_queued(service)
        waiting += [asyncio.create_task(embed(service, red(shade))) for shade in (10, 20)]
        fake.gate.set()
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), WAIT_S)

    outcomes = run(scenario)

    assert isinstance(outcomes[0], list)
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, ServiceError)]
    assert codes == ["worker_dead"] * 3
    assert not service.batcher.alive
    with pytest.raises(WorkerDeadError):
        run(lambda: embed(service, red(10)))


def test_a_closed_service_says_that_it_is_draining(service: EmbeddingService) -> None:
    service.batcher.stop(WAIT_S)

    with pytest.raises(DrainingError):
        run(lambda: embed(service, red(10)))


@pytest.mark.parametrize(
    ("size", "pretrained", "warnings"),
    [
        ((4, 4), True, ()),
        ((3, 9), True, ("upscaled",)),
        ((9, 3), False, ("upscaled", "random_weights")),
        ((9, 9), False, ("random_weights",)),
    ],
)
def test_what_was_seen_of_an_image_is_told(
    size: tuple[int, int], pretrained: bool, warnings: tuple[str, ...]
) -> None:
    service = EmbeddingService(
        FakeEmbedder(pretrained=pretrained),
        decode_limits=LIMITS,
        max_wait_s=0,
        queue_images=1,
    )
    (outcome,) = run(lambda: embed(service, [partial(plain_png, (10, 0, 0), size)]))
    service.close(WAIT_S)

    assert isinstance(outcome, EmbeddedImage)
    assert (outcome.seen.width, outcome.seen.height) == size
    assert outcome.seen.format == "PNG"
    assert outcome.seen.warnings == warnings


def test_many_requests_at_once_get_each_their_own(service: EmbeddingService) -> None:
    async def one(shade: int) -> float:
        while True:
            try:
                (outcome,) = await embed(service, red(shade))
            except QueueFullError:
                await asyncio.sleep(0.001)
            else:
                assert isinstance(outcome, EmbeddedImage)
                return float(outcome.vectors.pooled[0])

    async def scenario() -> list[float]:
        return await asyncio.gather(*(one(shade) for shade in range(100)))

    assert run(scenario) == list(map(float, range(100)))


def test_a_broken_image_leaves_no_pixels_behind(service: EmbeddingService) -> None:
    """Errors are kept as values, and must not keep alive the frames that they came through."""
    result = run(lambda: embed(service, [truncated_jpeg, *red(1)], on_error="partial"))

    error = result[0]
    assert isinstance(error, ServiceError)
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_a_permit_is_held_until_a_decode_that_outlives_its_caller_has_ended(
    service: EmbeddingService,
) -> None:
    go_on = threading.Event()

    def slow_source() -> bytes:
        go_on.wait(WAIT_S)
        return plain_png((1, 0, 0))

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await embed(service, [slow_source], timeout_s=0.05)
        assert service.admission.admitted == 1
        go_on.set()
        while service.admission.admitted:  # noqa: ASYNC110 # it is set by another thread
            await asyncio.sleep(0.01)

    run(main)
