"""The composition root: settings to a running application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api import classify, embed, embed_text, embeddings, health, metrics, models
from app.api.adapters import ADAPTERS
from app.api.adapters.adapter import Adapter, OwnErrors
from app.api.answers import ReplaceAnswers, handle_error, in_one_shape
from app.api.context import ApiContext, set_context
from app.api.docs import ASKS_FOR_KEY, make_app
from app.api.door import Door
from app.api.guard import Guard
from app.api.inflight import InflightBytes
from app.api.inputs import InputLimits
from app.api.playground import make_playground
from app.api.text_inputs import TextLimits
from app.api.traced import add_traces
from app.engine.lifecycle import Engine
from app.engine.protocol import (
    NO_TEXTS,
    Embedder,
    ModelInfo,
    NoTexts,
    StartError,
    TextEmbedder,
    Towers,
)
from app.engine.service import EmbeddingService
from app.errors import ServiceError
from app.intake.decode import DecodeLimits
from app.intake.fetch import Fetcher
from app.settings import Settings

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    embedder: Embedder | None = None,
    texts: TextEmbedder | NoTexts = NO_TEXTS,
    on_start_failure: Callable[[], None] = lambda: None,
    on_engine_lost: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Wire up the service. Without an `embedder`, the model of the settings is loaded at startup.

    `texts` is the text side of a given `embedder`.

    The application answers health routes while it loads. When loading fails it logs one line,
    stays unready, and calls `on_start_failure`. `on_engine_lost` is called when only a new process
    will compute again. Raises `StartError` when traces are wanted and cannot be made.
    """
    engine = Engine(lambda towers: build_service(towers.images, settings, texts=towers.texts))
    given = None if embedder is None else Towers(embedder, texts)
    load = partial(load_towers, settings) if given is None else (lambda: given)

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
        await asyncio.to_thread(close_traces)

    api_keys = settings.api_keys | settings.api_keys_file
    adapters = [ADAPTERS[name] for name in sorted(settings.adapters)]
    playground = make_playground(is_on=settings.playground == "on")
    app = make_app(
        has_docs=settings.docs != "off",
        title="SigLIP embeddings",
        summary="Images and texts in, SigLIP vectors out.",
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
            text_limits=TextLimits(settings.max_texts, settings.max_text_bytes),
            request_timeout_s=settings.request_timeout_s,
            max_response_bytes=settings.max_response_bytes,
            answers=InflightBytes(settings.inflight_bytes),
            fetcher=Fetcher(settings.max_image_bytes, settings.url_allowed_hosts)
            if settings.url_input
            else None,
        ),
    )
    app.add_middleware(ReplaceAnswers, pick=in_one_shape)
    app.add_middleware(
        Guard,
        max_body_bytes=settings.max_body_bytes,
        inflight=InflightBytes(settings.inflight_bytes),
        api_keys=api_keys,
        docs_are_open=settings.docs == "on",
        open_paths=playground.paths.union(*(adapter.paths for adapter in adapters)),
        cors_origins=settings.cors_origins,
        doors=_doors_of(adapters),
    )
    if adapters:
        app.add_middleware(OwnErrors, adapters=adapters)
    close_traces = add_traces(app, wanted=settings.traces == "on")
    for kind in (ServiceError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(kind, handle_error)
    for route in (embed, embed_text, classify, embeddings, models, metrics):
        app.include_router(route.router, dependencies=[ASKS_FOR_KEY] if api_keys else None)
    for router in (health.router, playground.router, *(adapter.router for adapter in adapters)):
        app.include_router(router)
    return app


def _doors_of(adapters: Iterable[Adapter]) -> dict[str, Door]:
    """Return the doors of all routes, by path."""
    own = (module.DOORS for module in (embed, embed_text, classify, embeddings))
    return {
        path: door
        for doors in (*own, *(one.doors for one in adapters))
        for path, door in doors.items()
    }


async def _start(
    engine: Engine, load: Callable[[], Towers], on_failure: Callable[[], None]
) -> None:
    try:
        await engine.start(load)
    except StartError as error:
        _log.critical("cannot start", reason=str(error))
    except Exception:  # noqa: BLE001 # whatever it is, the start has failed
        _log.exception("cannot start")
    else:
        return
    on_failure()


async def _watch(engine: Engine, on_lost: Callable[[], None]) -> None:
    await engine.watch()
    _log.critical("the engine is lost, only a new process will do")
    on_lost()


def load_model(settings: Settings) -> Embedder:
    """Load the model of the settings; raises `StartError`."""
    from app.engine.embedder import load_embedder  # torch takes a second: only where it is needed

    return load_embedder(
        settings.model,
        settings.device,
        settings.dtype,
        _number(settings.max_batch_size),
        compiled=settings.compile == "on",
        graphs=settings.compile != "off",
        decode=settings.decode,
        revision=settings.revision,
        sha256=settings.sha256,
        fallback=settings.model_fallback,
    )


def load_texts(settings: Settings, images: ModelInfo) -> TextEmbedder | NoTexts:
    """Load the text side of the model whose images are told, as far as it has one.

    Raises `StartError`, also where there is none and the settings ask for one.
    """
    if settings.text == "off":
        return NoTexts("SIGLIP_TEXT is off")
    if not images.pretrained:
        texts: TextEmbedder | NoTexts = NoTexts("random weights are of an image tower only")
    else:
        from app.engine.embedder import load_text_embedder  # see `load_model`

        texts = load_text_embedder(
            images, settings.device, settings.dtype, graphs=settings.compile != "off"
        )
    if not isinstance(texts, NoTexts):
        _log.info("texts are taken", **vars(texts.info))
    elif settings.text == "on":
        raise StartError(f"SIGLIP_TEXT=on, but {texts.reason}")
    else:
        _log.info("no texts are taken", reason=texts.reason)
    return texts


def load_towers(settings: Settings) -> Towers:
    """Load the model of the settings, with its text side; raises `StartError`."""
    images = load_model(settings)
    return Towers(images, load_texts(settings, images.info))


def build_service(
    embedder: Embedder,
    settings: Settings,
    queue_images: int | None = None,
    texts: TextEmbedder | NoTexts = NO_TEXTS,
    queue_texts: int | None = None,
) -> EmbeddingService:
    """Put the engine around a model.

    `queue_images` and `queue_texts` are for a caller who makes its own queue.
    """
    _log.info("ready", **vars(embedder.info))
    return EmbeddingService(
        embedder,
        decode_limits=decode_limits(settings),
        decode_fast=settings.decode == "fast",
        max_wait_s=settings.max_wait_ms / 1000,
        queue_images=queue_images or _number(settings.queue_images),
        queue_texts=queue_texts,
        decode_memory=settings.decode_memory,
        texts=texts,
    )


def decode_limits(settings: Settings) -> DecodeLimits:
    """Say what of an image is taken."""
    return DecodeLimits(
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_pixels,
        max_side=settings.max_side,
        formats=frozenset(settings.formats),
    )


def _number(setting: int | Literal["auto"]) -> int | None:
    return None if setting == "auto" else setting
