"""What an adapter is: routes that are open to all, and its program's own words for errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.door import Door


@dataclass(frozen=True)
class Adapter:
    """Another program's contract. Its routes need no key: such programs send none."""

    router: APIRouter
    word_error: Callable[[Mapping[str, Any]], object]
    """Makes the body of an answer of the `error` that the one error shape has."""
    doors: Mapping[str, Door] = field(default_factory=dict)
    """By the path of its routes that have one."""

    @property
    def paths(self) -> frozenset[str]:
        """The paths of its routes, which have no parameters."""
        return frozenset(route.path for route in self.router.routes if isinstance(route, APIRoute))


class OwnErrors:
    """ASGI middleware around the guard: errors on the adapters' paths, in their programs' words.

    All else of an error stays as it is: status, headers, log and metrics.
    """

    def __init__(self, app: ASGIApp, adapters: Sequence[Adapter]) -> None:
        self._app = app
        self._words = {path: adapter.word_error for adapter in adapters for path in adapter.paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        words = self._words.get(scope.get("path", ""))
        if words is None:
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def send_in_own_words(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            content = _reword(body, words)
            MutableHeaders(scope=start)["Content-Length"] = str(len(content))
            await send(start)
            await send({"type": "http.response.body", "body": content})

        await self._app(scope, receive, send_in_own_words)


def _reword(body: bytes, words: Callable[[Mapping[str, Any]], object]) -> bytes:
    """Return an error's body in other words; a probe's, a refused preflight's, none: as it is."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    return orjson.dumps(words(content["error"])) if "error" in content else body
