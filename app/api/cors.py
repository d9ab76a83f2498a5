"""Leave for pages of other origins to call the service from a browser."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_READABLE = (
    "Retry-After",
    "Server-Timing",
    "X-Embedding-Dtype",
    "X-Embedding-Shape",
    "X-Embedding-Space",
    "X-Request-ID",
)


def share_with_origins(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Wrap `app` so that browsers let pages of these origins, if any, read its answers.

    Any header may be sent: a key travels in one, and there are no cookies to protect.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=_READABLE,
    )
