"""Errors to HTTP answers, by one handler: the one shape, also of what a library answers."""

from collections.abc import Callable, Mapping

import orjson
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.record import RequestRecord, find_record
from app.errors import (
    BodyTooLargeError,
    InternalError,
    InvalidApiKeyError,
    InvalidParameterError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
    item_message,
)
from app.observe.metrics import count_rejection, requests_cancelled


def answer_error(
    error: ServiceError, record: RequestRecord, headers: Mapping[str, str] | None = None
) -> Response:
    """Count and record an error, and write it in the contract's shape, with its status."""
    count_rejection(error.code)
    record.code = error.code
    content = {
        "error": {
            "message": error.message,
            "type": error.kind,
            "code": error.code,
            "param": error.param,
            "request_id": record.request_id,
            "details": [
                {"index": index, "code": own.code, "message": item_message(index, own, error.item)}
                for index, own in error.details
            ],
        }
    }
    own = dict(headers or {})
    if isinstance(error, BodyTooLargeError | InvalidApiKeyError):
        own["Connection"] = "close"  # the rest of the body will not be read
    if isinstance(error, InvalidApiKeyError):
        own["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        own["Retry-After"] = str(error.retry_after_s)
    return Response(orjson.dumps(content), error.status, own, "application/json")


def error_of_status(status: int) -> ServiceError:
    """Return the error for a status that the framework decided on."""
    if status == 404:
        return NotFoundError(
            "no such route; images go to POST /embed, texts to POST /embed/text; /docs has the rest"
        )
    if status == 405:
        return MethodNotAllowedError("this route does not take this method")
    if status < 500:
        return InvalidParameterError("the request cannot be understood")
    return InternalError("an internal error")


async def handle_error(request: Request, error: Exception) -> Response:
    """Turn any error into its answer; faults that are no `ServiceError` end in the guard."""
    record = find_record(request.scope)
    if isinstance(error, ServiceError):
        return answer_error(error, record)
    if isinstance(error, HTTPException):
        return answer_error(error_of_status(error.status_code), record, error.headers)
    if isinstance(error, ClientDisconnect):
        if record.status == 0:  # the server has not answered in our place, and cut it off
            requests_cancelled.inc()
        return Response(status_code=499)  # nobody is there to read it; it is for the log
    return answer_error(error_of_status(400), record)


class ReplaceAnswers:
    """ASGI middleware: `pick` looks at the start of each answer, and may give another to send."""

    def __init__(self, app: ASGIApp, pick: Callable[[Scope, Message], ASGIApp | None]) -> None:
        self._app, self._pick = app, pick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is not HTTP."""
        is_replaced = False

        async def send_or_replace(message: Message) -> None:
            nonlocal is_replaced
            starts = message["type"] == "http.response.start"
            if starts and (answer := self._pick(scope, message)) is not None:
                is_replaced = True
                await answer(scope, receive, send)
            elif not is_replaced:
                await send(message)

        await self._app(scope, receive, send_or_replace)


def in_one_shape(scope: Scope, start: Message) -> Response | None:
    """Replace errors in words of a library, as Starlette's for a Range; inside the guard.

    What has no content type has no words, and passes.
    """
    if start["status"] < 400:
        return None
    content_type = Headers(raw=start["headers"]).get("content-type", "application/json")
    if content_type == "application/json":
        return None
    return answer_error(error_of_status(start["status"]), find_record(scope))
