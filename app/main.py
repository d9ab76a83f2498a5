"""The composition root: settings to a running application, and the one error handler."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api import embed, health, metrics, models
from app.api.answers import answer_error, error_of_status
from app.api.context import ApiContext, set_context
from app.api.docs import ASKS_FOR_KEY, make_app
from app.api.guard import Guard
from app.api.inflight import InflightBytes
from app.api.inputs import InputLimits
from app.api.one_shape import OneShape
from app.engine.embedder import StartError, load_embedder
from app.engine.lifecycle import Engine
from app.engine.protocol import Embedder, TextEmbedder
from app.engine.service import EmbeddingService
from app.errors import ServiceError
from app.intake.decode import DecodeLimits
from app.intake.fetch import Fetcher
from app.observe.metrics import requests_cancelled
from app.settings import Settings

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    embedder: Embedder | None = None,
    on_start_failure: Callable[[], None] | None = None,
    on_engine_lost: Callable[[], None] | None = None,
) -> FastAPI:
    """Wire up the service. Without an `embedder`, the model of the settings is loaded at startup.

    The application answers health routes while it loads. When loading fails it logs one line,
    stays unready, and calls `on_start_failure`. `on_engine_lost` is called when only a new process
    will compute again.
    """
    engine = Engine(lambda loaded: build_service(loaded, settings))
    load = partial(load_model, settings) if embedder is None else (lambda: embedder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_start(engine, load, on_start_failure))
        watching = asyncio.create_task(_watch(engine, on_engine_lost))
        if embedder is not None:
            await loading
        yield
        for task in (loading, watching):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await engine.close()

    api_keys = settings.api_keys | settings.api_keys_file
    app = make_app(
        has_docs=settings.docs != "off",
        title="SigLIP embeddings",
        summary="Images in, SigLIP vectors out.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    set_context(
        app,
        ApiContext(
            engine=engine,
            input_limits=InputLimits(
                max_images=settings.max_images,
                max_image_bytes=settings.max_image_bytes,
                max_body_bytes=settings.max_body_bytes,
            ),
            request_timeout_s=settings.request_timeout_s,
            max_response_bytes=settings.max_response_bytes,
            answers=InflightBytes(settings.inflight_bytes),
            fetcher=_build_fetcher(settings) if settings.url_input else None,
        ),
    )
    app.add_middleware(OneShape)
    app.add_middleware(
        Guard,
        max_body_bytes=settings.max_body_bytes,
        inflight=InflightBytes(settings.inflight_bytes),
        api_keys=api_keys,
        docs_are_open=settings.docs == "on",
        cors_origins=settings.cors_origins,
    )
    for kind in (ServiceError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(kind, _handle)
    for router in (embed.router, models.router, metrics.router):
        app.include_router(router, dependencies=[ASKS_FOR_KEY] if api_keys else None)
    app.include_router(health.router)
    return app


async def _start(
    engine: Engine, load: Callable[[], Embedder], on_failure: Callable[[], None] | None
) -> None:
    try:
        await engine.start(load)
    except StartError as error:
        _log.critical("cannot start", reason=str(error))
    except Exception:  # noqa: BLE001 # whatever it is, the start has failed
        _log.exception("cannot start")
    else:
        return
    if on_failure is not None:
        on_failure()


async def _watch(engine: Engine, on_lost: Callable[[], None] | None) -> None:
    await engine.watch()
    _log.critical("the engine is lost, only a new process will do")
    if on_lost is not None:
        on_lost()


def load_model(settings: Settings) -> Embedder:
    """Load the model of the settings; raises `StartError`."""
    return load_embedder(
        settings.model,
        settings.device,
        settings.dtype,
        None if settings.max_batch_size == "auto" else settings.max_batch_size,
        compiled=settings.compile == "on",
        decode=settings.decode,
        revision=settings.revision,
        sha256=settings.sha256,
        random_fallback=settings.model_fallback == "random",
    )


def load_text_model(_settings: Settings) -> TextEmbedder | None:
    """Load the text side of the model of the settings, None where there is none to load."""
    return None


def _build_fetcher(settings: Settings) -> Fetcher:
    return Fetcher(settings.max_image_bytes, settings.url_allowed_hosts)


def build_service(
    embedder: Embedder,
    settings: Settings,
    queue_images: int | None = None,
    text_embedder: TextEmbedder | None = None,
) -> EmbeddingService:
    """Put the engine around a model; `queue_images` are for a caller who makes its own queue."""
    _log.info("ready", **vars(embedder.info))
    return EmbeddingService(
        embedder,
        decode_limits=DecodeLimits(
            max_image_bytes=settings.max_image_bytes,
            max_pixels=settings.max_pixels,
            max_side=settings.max_side,
            formats=frozenset(settings.formats),
        ),
        decode_fast=settings.decode == "fast",
        max_wait_s=settings.max_wait_ms / 1000,
        queue_images=queue_images or _queue_images(settings),
        decode_memory=settings.decode_memory,
        text_embedder=text_embedder,
    )


def _queue_images(settings: Settings) -> int | None:
    return None if settings.queue_images == "auto" else settings.queue_images


async def _handle(request: Request, error: Exception) -> Response:
    """Turn any error into its answer; faults that are no `ServiceError` end in the guard."""
    request_id = getattr(request.state, "request_id", None)
    if isinstance(error, ServiceError):
        return answer_error(error, request_id)
    if isinstance(error, HTTPException):
        return answer_error(error_of_status(error.status_code), request_id, error.headers)
    if isinstance(error, ClientDisconnect):
        requests_cancelled.inc()
        return Response(status_code=499)  # nobody is there to read it; it is for the log
    return answer_error(error_of_status(400), request_id)
