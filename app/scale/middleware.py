"""What Ray puts around the application, brought to the contract: its refusals, its request ids."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answers import answer_error
from app.api.guard import find_request_id
from app.api.record import RequestRecord
from app.errors import QueueFullError

_OWN = "X-Content-Type-Options"
"""All answers of the application have it, and none of Ray's."""


def list_middlewares() -> list[Middleware]:
    """Return what a replica's server wraps Ray in; called by Ray, by name."""
    return [Middleware(OwnWords)]


class OwnWords:
    """ASGI middleware: a refusal for want of room in the one shape, and one id for each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is not HTTP."""
        refused = False

        async def send_own(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                refused = _is_refusal_of_ray(message["status"], headers)
                if refused:
                    await _refuse(headers)(scope, receive, send)
                elif "X-Request-ID" in headers:
                    # Ray has added its own id to the application's: this drops the second.
                    headers["X-Request-ID"] = headers["X-Request-ID"]
            if not refused:
                await send(message)

        await self._app(scope, receive, send_own)


def _is_refusal_of_ray(status: int, headers: Headers) -> bool:
    """Tell it from those of the application, and of others on the same cluster."""
    has_seconds = headers.get("Retry-After", "").isdigit()
    return status == QueueFullError.status and _OWN not in headers and has_seconds


def _refuse(headers: Headers) -> ASGIApp:
    record = RequestRecord()
    record.request_id = find_request_id(headers) or record.request_id
    own = {"X-Request-ID": record.request_id, _OWN: "nosniff"}
    error = QueueFullError(
        "too many requests are waiting: try again after Retry-After",
        retry_after_s=int(headers["retry-after"]),
    )
    return answer_error(error, record, own)
