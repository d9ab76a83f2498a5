"""Errors that a library writes in words of its own, as Starlette does for a Range, in our shape."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answers import answer_error, error_of_status


class OneShape:
    """ASGI middleware inside the guard; what has no content type has no words, and passes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_replaced = False

        async def send_in_shape(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and _is_foreign_error(message):
                is_replaced = True
                error = error_of_status(message["status"])
                await answer_error(error, scope["state"]["request_id"])(scope, receive, send)
            elif not is_replaced:
                await send(message)

        await self._app(scope, receive, send_in_shape)


def _is_foreign_error(start: Message) -> bool:
    if start["status"] < 400:
        return False
    content_type = Headers(raw=start["headers"]).get("content-type", "application/json")
    return content_type != "application/json"
