"""What Ray puts around the application, brought to the contract: its refusals, its request ids."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import Message, Scope

from app.api.answers import ReplaceAnswers, answer_error
from app.api.guard import find_request_id
from app.api.record import RequestRecord
from app.errors import QueueFullError

_OWN = "X-Content-Type-Options"
"""All answers of the application have it, and none of Ray's."""


def list_middlewares() -> list[Middleware]:
    """Return what a replica's server wraps Ray in; called by Ray, by name."""
    return [Middleware(ReplaceAnswers, pick=in_own_words)]


def in_own_words(_: Scope, start: Message) -> Response | None:
    """Replace a refusal for want of room by one in the one shape; leave one id to other answers."""
    headers = MutableHeaders(scope=start)
    if _is_refusal_of_ray(start["status"], headers):
        return _refuse(headers)
    if "X-Request-ID" in headers:
        # Ray has added its own id to the application's: this drops the second.
        headers["X-Request-ID"] = headers["X-Request-ID"]
    return None


def _is_refusal_of_ray(status: int, headers: Headers) -> bool:
    """Tell it from those of the application.

    It is not told from a 429 with seconds to wait of another application on the same cluster, which
    says the same and gets the one shape as well.
    """
    has_seconds = headers.get("Retry-After", "").isdigit()
    return status == QueueFullError.status and _OWN not in headers and has_seconds


def _refuse(headers: Headers) -> Response:
    record = RequestRecord()
    record.request_id = find_request_id(headers) or record.request_id
    own = {"X-Request-ID": record.request_id, _OWN: "nosniff"}
    error = QueueFullError(
        "too many requests are waiting: try again after Retry-After",
        retry_after_s=int(headers["retry-after"]),
    )
    return answer_error(error, record, own)
