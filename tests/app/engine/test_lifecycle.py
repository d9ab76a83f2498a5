"""The engine's states from loading to draining."""

import asyncio
import threading

import pytest

from app.engine import in_flight
from app.engine.embedder import StartError
from app.engine.lifecycle import Engine, Status
from app.engine.protocol import Embedder, SelfTestError
from app.engine.service import EmbeddingService
from app.errors import ItemsFailedError, NotReadyError, WorkerDeadError
from app.intake import decode_child
from app.intake.decode import DecodeLimits
from tests.app.fake_embedder import ENDS_THREAD, FakeEmbedder
from tests.app.images import plain_png

WAIT_S = 30


def build(embedder: Embedder) -> EmbeddingService:
    """Build a small service."""
    return EmbeddingService(
        embedder,
        decode_limits=DecodeLimits(10_000, 10_000, 1_000, frozenset({"png"})),
        max_wait_s=0,
        queue_images=4,
    )


def status_of(engine: Engine) -> Status:
    """Return the status of this moment."""
    return engine.status


def test_an_engine_is_loading_until_its_model_is_there() -> None:
    engine, loaded = Engine(build), threading.Event()

    def load() -> Embedder:
        assert loaded.wait(WAIT_S)
        return FakeEmbedder()

    async def scenario() -> None:
        starting = asyncio.create_task(engine.start(load))
        await asyncio.sleep(0.01)
        assert status_of(engine) == "loading"
        assert engine.service is None
        with pytest.raises(NotReadyError):
            engine.require_service()
        loaded.set()
        await starting
        assert status_of(engine) == "ok"
        assert engine.require_service() is engine.service
        await engine.close(WAIT_S)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (StartError("no such model"), "failed"),
        (RuntimeError(), "failed"),
        (MemoryError(), "failed"),
        (SelfTestError("other vectors"), "selftest_failed"),
    ],
)
def test_an_engine_whose_model_cannot_be_loaded_has_failed(fault: Exception, status: str) -> None:
    engine = Engine(build)

    def load() -> Embedder:
        raise fault

    with pytest.raises(type(fault)):
        asyncio.run(engine.start(load))

    assert status_of(engine) == status
    with pytest.raises(NotReadyError):
        engine.require_service()


def test_an_engine_whose_service_cannot_be_built_has_failed() -> None:
    def cannot_build(_: Embedder) -> EmbeddingService:
        raise RuntimeError

    engine = Engine(cannot_build)

    with pytest.raises(RuntimeError):
        asyncio.run(engine.start(FakeEmbedder))

    assert status_of(engine) == "failed"


def test_an_engine_without_its_thread_is_dead() -> None:
    engine = Engine(build)

    async def scenario() -> None:
        await engine.start(FakeEmbedder)
        service = engine.require_service()
        await service.embed(
            [lambda: plain_png((ENDS_THREAD, 0, 0))], patches=False, partial=False, timeout_s=WAIT_S
        )

    with pytest.raises(Exception, match="the inference thread is gone"):
        asyncio.run(scenario())

    assert status_of(engine) == "dead"
    with pytest.raises(WorkerDeadError):
        engine.require_service()
    asyncio.run(engine.close(WAIT_S))


def test_a_stalled_device_is_told_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, fake = Engine(build), FakeEmbedder()
    fake.gate.clear()

    async def scenario() -> None:
        await engine.start(lambda: fake)
        request = asyncio.create_task(
            engine.require_service().embed(
                [lambda: plain_png((10, 0, 0))], patches=False, partial=False, timeout_s=WAIT_S
            )
        )
        await asyncio.to_thread(fake.wait_until_entered)
        watching = asyncio.create_task(engine.watch())
        assert status_of(engine) == "ok"
        monkeypatch.setattr(in_flight, "_STALL_S", 0.0)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(WorkerDeadError):
                await request
            assert status_of(engine) == "stalled"
            with pytest.raises(WorkerDeadError):
                engine.require_service()
            await watching
        fake.gate.set()
        await engine.close(WAIT_S)

    asyncio.run(scenario())


def test_decoders_that_do_not_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.preparing.count_cores", lambda: 1)
    monkeypatch.setattr(decode_child, "_START", "raise SystemExit(3)")
    engine = Engine(build)

    async def scenario() -> None:
        await engine.start(FakeEmbedder)
        assert status_of(engine) == "ok", "nobody knows yet"
        with pytest.raises(ItemsFailedError, match="images cannot be decoded"):
            await engine.require_service().embed(
                [lambda: plain_png((10, 0, 0))], patches=False, partial=False, timeout_s=WAIT_S
            )
        assert status_of(engine) == "stalled"
        with pytest.raises(WorkerDeadError):
            engine.require_service()
        async with asyncio.timeout(WAIT_S):
            await engine.watch()  # ends: the process is to end, too
        await engine.close(WAIT_S)

    asyncio.run(scenario())


def test_a_draining_engine_still_serves_until_it_is_closed() -> None:
    engine = Engine(build)

    async def scenario() -> None:
        await engine.start(FakeEmbedder)
        engine.drain()
        assert status_of(engine) == "draining"
        served = await engine.require_service().embed(
            [lambda: plain_png((10, 0, 0))], patches=False, partial=False, timeout_s=WAIT_S
        )
        assert len(served) == 1
        await engine.close(WAIT_S)

    asyncio.run(scenario())
    assert status_of(engine) == "draining"


def test_an_engine_that_never_loaded_can_be_closed() -> None:
    engine = Engine(build)

    asyncio.run(engine.close(WAIT_S))

    assert status_of(engine) == "draining"
    with pytest.raises(NotReadyError):
        engine.require_service()


def test_the_uptime_is_counted_from_when_the_engine_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("app.engine.lifecycle.time.monotonic", lambda: now)
    engine = Engine(build)
    assert engine.uptime_s == 0

    now = 1003.5
    assert engine.uptime_s == 3.5
