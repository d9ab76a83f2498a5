"""h11's HTTP/1.1 parser, with limits on what one request may be made of."""

import h11

MAX_HEAD_BYTES = 16 * 2**10
MAX_HEADERS = 100
# Each chunk costs microseconds of the event loop, however few bytes it carries.
MAX_CHUNKS = 65_536

_HEAD_TOO_LARGE = 431


class Parser(h11.Connection):
    """h11's connection, for a server."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._chunks = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what comes next; raise `h11.RemoteProtocolError` for what may not come."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = 0
            _check_head(event)
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_end
            if self._chunks > MAX_CHUNKS:
                raise h11.RemoteProtocolError("too many chunks")
        return event


def _check_head(request: h11.Request) -> None:
    # h11 measures only heads that arrive in pieces.
    size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
    if size > MAX_HEAD_BYTES or len(request.headers) > MAX_HEADERS:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=_HEAD_TOO_LARGE)
    if request.http_version not in (b"1.0", b"1.1"):
        raise h11.RemoteProtocolError("another version of HTTP")
    names = {name for name, _ in request.headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        # Where this server and a proxy before it disagree on which counts, requests are smuggled.
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
