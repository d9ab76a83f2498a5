"""Errors to HTTP answers: the one error shape."""

from collections.abc import Mapping
from types import MappingProxyType

import orjson
from starlette.responses import Response

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
from app.observe.metrics import count_rejection

_BY_STATUS: Mapping[int, ServiceError] = MappingProxyType(
    {
        404: NotFoundError("no such route; images go to POST /embed, and /docs has the rest"),
        405: MethodNotAllowedError("this route does not take this method"),
    }
)


def answer_error(
    error: ServiceError, request_id: str | None, headers: Mapping[str, str] | None = None
) -> Response:
    """Count an error and write it in the contract's shape, with its status and Retry-After."""
    count_rejection(error.code)
    content = {
        "error": {
            "message": error.message,
            "type": error.kind,
            "code": error.code,
            "param": error.param,
            "request_id": request_id,
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
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status < 500:
        return InvalidParameterError("the request cannot be understood")
    return InternalError("an internal error")
