"""Images that are fetched first: on whose thread, and what becomes of the bytes."""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.engine.remote import RemoteImage, prepare_remote
from app.errors import ServiceError, UrlFetchFailedError, UrlForbiddenError

_WAIT_S = 10


class Encoded(bytearray):
    """Encoded bytes that a test can see go."""


@dataclass
class Source:
    """An image elsewhere; what `fail_with` says goes wrong, and it waits for `arrive`."""

    fail_with: Exception | None = None
    arrive: asyncio.Event = field(default_factory=asyncio.Event)
    opened: int = 0
    closed: int = 0
    seen: "weakref.ref[Encoded] | None" = None

    @asynccontextmanager
    async def fetched(self) -> AsyncIterator[bytes]:
        self.opened += 1
        try:
            await self.arrive.wait()
            if self.fail_with is not None:
                raise self.fail_with
            data = Encoded(b"image")
            self.seen = weakref.ref(data)
            held = [data]
            del data
            yield held.pop()  # type: ignore[misc] # as good as bytes here
        finally:
            self.closed += 1


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as running:
        yield running


def describe(source: Callable[[], bytes]) -> tuple[bytes, str]:
    """Stand in for a decode: the bytes, and the name of the thread."""
    return source(), threading.current_thread().name


def test_bytes_are_prepared_on_the_pool_and_then_let_go(pool: ThreadPoolExecutor) -> None:
    async def run() -> None:
        source = Source()
        prepared = prepare_remote(RemoteImage(source.fetched), describe, pool.submit)
        source.arrive.set()
        assert await asyncio.wrap_future(prepared) == (b"image", "decode_0")
        await asyncio.sleep(0.05)
        assert (source.opened, source.closed) == (1, 1)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(UrlForbiddenError("no"), UrlForbiddenError), (RuntimeError("bug"), UrlFetchFailedError)],
)
def test_what_goes_wrong_is_a_value_without_its_frames(
    pool: ThreadPoolExecutor, raised: Exception, outcome: type[ServiceError]
) -> None:
    async def run() -> None:
        source = Source(fail_with=raised)
        prepared = prepare_remote(RemoteImage(source.fetched), describe, pool.submit)
        source.arrive.set()
        error = await asyncio.wrap_future(prepared)
        assert isinstance(error, outcome)
        assert error.__traceback__ is None
        assert error.__context__ is None

    asyncio.run(run())


def test_cancelled_while_it_is_fetched_it_ends_at_once(pool: ThreadPoolExecutor) -> None:
    async def run() -> None:
        source = Source()
        prepared = prepare_remote(RemoteImage(source.fetched), describe, pool.submit)
        await asyncio.sleep(0)
        assert source.opened == 1
        assert prepared.cancel()
        await asyncio.sleep(0.05)
        assert source.closed == 1

    asyncio.run(run())


def test_cancelled_while_it_waits_for_a_thread_it_gives_up_its_bytes(
    pool: ThreadPoolExecutor,
) -> None:
    async def run() -> None:
        busy = threading.Event()
        blocker = pool.submit(busy.wait, _WAIT_S)
        source = Source()
        source.arrive.set()
        prepared = prepare_remote(RemoteImage(source.fetched), describe, pool.submit)
        await asyncio.sleep(0.05)
        assert prepared.cancel()
        await asyncio.sleep(0.05)
        assert source.closed == 1, "the slot is held while nobody wants the image"
        assert source.seen is not None
        assert source.seen() is None, "the bytes wait with the job"
        busy.set()
        assert blocker.result(_WAIT_S)

    asyncio.run(run())


def test_a_preparation_that_runs_is_not_cancelled_and_keeps_its_slot(
    pool: ThreadPoolExecutor,
) -> None:
    async def run() -> None:
        begun, go_on = threading.Event(), threading.Event()

        def prepare(source: Callable[[], bytes]) -> bytes:
            begun.set()
            assert go_on.wait(_WAIT_S)
            return source()

        source = Source()
        source.arrive.set()
        prepared = prepare_remote(RemoteImage(source.fetched), prepare, pool.submit)
        assert await asyncio.to_thread(begun.wait, _WAIT_S)
        assert not prepared.cancel()
        assert source.closed == 0
        go_on.set()
        assert await asyncio.wrap_future(prepared) == b"image"
        await asyncio.sleep(0.05)
        assert source.closed == 1

    asyncio.run(run())


def test_a_pool_that_ends_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    async def run() -> None:
        busy = threading.Event()
        pool.submit(busy.wait, _WAIT_S)
        source = Source()
        source.arrive.set()
        prepared = prepare_remote(RemoteImage(source.fetched), describe, pool.submit)
        await asyncio.sleep(0.05)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises((CancelledError, asyncio.CancelledError)):
            await asyncio.wait_for(asyncio.wrap_future(prepared), _WAIT_S)
        busy.set()

    asyncio.run(run())
