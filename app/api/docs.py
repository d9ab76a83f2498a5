"""The pages that tell people and machines how to use the service."""

from typing import Any

from fastapi import FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline

_STATIC = "/static-offline-docs"
# The framework's own exports paths, query strings and hosts; app/api/traced.py none of them.
_NO_TELEMETRY = TelemetryConfig(
    tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False
)
_PATHS = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})

ASKS_FOR_KEY = Security(
    HTTPBearer(
        scheme_name="api_key", description="One of the service's API keys.", auto_error=False
    )
)
"""Dependency of routes that need a key: it only tells /openapi.json so, the guard has asked."""


def is_docs(path: str) -> bool:
    """Tell whether a path is of the pages here, or of a file that they use."""
    return path in _PATHS or path.startswith(f"{_STATIC}/")


def make_app(*, has_docs: bool, **about: Any) -> FastAPI:
    """Make an application of FastAPI's arguments, with pages that need no other host if any."""
    about["telemetry"] = _NO_TELEMETRY
    if not has_docs:
        return FastAPI(openapi_url=None, **about)
    app = FastAPIOffline(static_url=_STATIC, **about)
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.methods = {"GET", "HEAD"}  # as Starlette's own routes have it
    return app
