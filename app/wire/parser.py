"""h11's HTTP/1.1 parser, which parses no more than it was granted, of requests within limits."""

import re
from collections.abc import Callable
from typing import Any

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer

from app.wire.chunks import ChunkedBody

MAX_HEAD_BYTES = 16 * 2**10
MAX_HEADERS = 100

_HEAD_TOO_LARGE = 431
_CLOSE = (b"connection", b"close")
_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"\n[ \t]")
# The absolute form of a target: RFC 9112, section 3.2.2.
_ABSOLUTE = re.compile(rb"https?://[^/?#@]+([/?][^#]*)?", re.IGNORECASE)


class Parser(h11.Connection):
    """h11's connection, for a server; `is_cut_off` when it could go on but for its grant."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.is_cut_off = False
        self._granted_events = 0
        self._is_chunked = False

    def grant(self, events: int) -> None:
        """Let so many events be parsed from now on; what was left of an earlier grant is void."""
        self._granted_events = events

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what comes next; raise `h11.RemoteProtocolError` for what may not come.

        Without a grant it is NEED_DATA, whatever has arrived.
        """
        self.is_cut_off = self._granted_events <= 0 and bool(self._receive_buffer)
        if self.is_cut_off:
            return h11.NEED_DATA
        self._granted_events -= 1
        if self.their_state is h11.IDLE:
            _check_raw_head(self._receive_buffer._data)  # h11 would copy the body
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._is_chunked = _check_request(event)
            return _in_origin_form(event)
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Write an event; an answer before the end of some bodies is the last.

        A chunked one would have to be parsed to find its end, though nobody will use it. And one
        that its sender has offered but not begun may never come: RFC 9110, section 10.1.1.
        """
        is_offered = self.they_are_waiting_for_100_continue
        is_uncertain = self.their_state is h11.SEND_BODY and (self._is_chunked or is_offered)
        if is_uncertain and isinstance(event, h11.Response) and _CLOSE not in list(event.headers):
            headers = [*event.headers, _CLOSE]
            event = h11.Response(
                status_code=event.status_code, headers=headers, reason=event.reason
            )
        return super().send_with_data_passthrough(event)

    def forget_unparsed(self) -> None:
        """Let go of what has arrived and will not be parsed."""
        self._receive_buffer = ReceiveBuffer()
        self.is_cut_off = False

    def _get_io_object(self, *arguments: Any) -> Callable[..., Any] | None:
        """Choose h11's reader or writer for a state, but for chunked bodies."""
        chosen = super()._get_io_object(*arguments)
        return ChunkedBody() if isinstance(chosen, ChunkedReader) else chosen


def _check_raw_head(arrived: bytearray) -> None:
    """Refuse a head for its size before it is parsed: h11 measures only those that come in pieces.

    And one with a folded line, of which two readers may see different headers.
    """
    end = _HEAD_END.search(arrived, 0, MAX_HEAD_BYTES)
    head_bytes = end.end() if end else len(arrived)
    lines = arrived.count(b"\n", 0, head_bytes) - 2  # the first, and the empty one
    if head_bytes > MAX_HEAD_BYTES or lines > MAX_HEADERS:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=_HEAD_TOO_LARGE)
    if _FOLD.search(arrived, 0, head_bytes):
        raise h11.RemoteProtocolError("a folded header line")


def _check_request(request: h11.Request) -> bool:
    """Refuse what this service does not speak: -> whether the body is chunked."""
    if request.http_version not in (b"1.0", b"1.1"):
        raise h11.RemoteProtocolError("another version of HTTP")
    names = {name.lower() for name, _ in request.headers.raw_items()}
    is_chunked = b"transfer-encoding" in names
    if is_chunked and b"content-length" in names:
        # Where this server and a proxy before it disagree on which counts, requests are smuggled.
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
    return is_chunked


def _in_origin_form(request: h11.Request) -> h11.Request:
    """Leave of an absolute target what a client without a proxy would have sent."""
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        return request
    path = absolute[1] or b"/"
    return h11.Request(
        method=request.method,
        target=path if path.startswith(b"/") else b"/" + path,
        headers=request.headers,
        http_version=request.http_version,
    )
