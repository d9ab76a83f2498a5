"""An answer in the application's place, as bytes: an error, and the end of the connection."""

from collections.abc import Iterable
from http import HTTPStatus

from app.api.answers import answer_error
from app.errors import ServiceError


def write_refusal(
    error: ServiceError, request_id: str, default_headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Write an error in the contract's shape, with the headers that all answers have."""
    answer = answer_error(error, request_id)
    headers = {
        **dict(default_headers),
        **dict(answer.raw_headers),
        b"connection": b"close",
        b"x-content-type-options": b"nosniff",
        b"x-request-id": request_id.encode(),
    }
    lines = b"".join(b"%s: %s\r\n" % header for header in headers.items())
    reason = HTTPStatus(error.status).phrase.encode()
    status_line = b"HTTP/1.1 %d %s\r\n" % (error.status, reason)
    return status_line + lines + b"\r\n" + bytes(answer.body)
