"""Probes: /healthz for people, /readyz for balancers, /livez for supervisors."""

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.answer_schemas import error_responses
from app.api.context import get_context
from app.engine.lifecycle import Engine

router = APIRouter()

_RESPONSES = error_responses() | {503: {"description": "Not so; the body says why."}}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Ready and sound?", responses=_RESPONSES)
async def healthz(request: Request) -> Response:
    """Answer 200 when vectors can be had, else 503; the body says what is the matter."""
    engine = get_context(request).engine
    return _answer(_health(engine), healthy=engine.status == "ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Send me traffic?", responses=_RESPONSES)
async def readyz(request: Request) -> Response:
    """Answer 200 when a balancer may send requests here; a full queue does not change that."""
    status = get_context(request).engine.status
    return _answer({"status": status}, healthy=status == "ok")


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Process sound?", responses=_RESPONSES)
async def livez(request: Request) -> Response:
    """Answer 503 only when a restart is the cure."""
    engine = get_context(request).engine
    return _answer({"status": engine.status}, healthy=not engine.needs_restart)


def _answer(content: dict[str, Any], *, healthy: bool) -> Response:
    return Response(orjson.dumps(content), 200 if healthy else 503, media_type="application/json")


def _health(engine: Engine) -> dict[str, Any]:
    content: dict[str, Any] = {"status": engine.status, "uptime_s": round(engine.uptime_s)}
    service = engine.service
    if service is None:
        return content
    batcher, info = service.batcher, service.info
    return content | {
        "model": info.model,
        "space": info.space,
        "device": info.device,
        "dtype": info.dtype,
        "selftest_cosine": info.selftest_cosine,
        "text_space": service.texts.info.text_space if service.texts else None,
        "queue": {
            "images": service.admission.admitted,
            "limit": service.admission.limit,
            "oldest_ms": round(batcher.oldest_age_s("image") * 1000),
            "texts": service.texts.admission.admitted if service.texts else 0,
        },
        "worker": {
            "alive": batcher.alive,
            "last_batch_age_s": round(batcher.last_batch_age_s, 1),
        },
    }
