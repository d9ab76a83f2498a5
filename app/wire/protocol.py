"""uvicorn's HTTP/1.1 protocol, which parses in turns and ends in the service's own words.

Nothing is parsed beyond what `ParseBudget` grants: the rest waits, unread, for its turn.
"""

import asyncio
import logging
import sys
from http import HTTPStatus
from typing import Any, cast

import h11
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.answers import answer_error
from app.api.record import find_record, keep_record
from app.errors import DrainingError, HeadTooLargeError, MalformedRequestError, ServiceError
from app.wire.line import Line
from app.wire.parse_budget import ParseBudget
from app.wire.parser import Parser

_log = structlog.get_logger(__name__)
# uvicorn warns of every request that is none, which we log ourselves, and of every Upgrade.
_uvicorn_log = logging.getLogger("uvicorn.error.connection")
_uvicorn_log.setLevel(logging.ERROR)

# How long a peer that sends no more is taken to be listening, before it is put to the test.
_LISTENING_S = 0.25
_ECHO_S = 0.05
# How long a kept connection may still send a request after the listener has closed.
_LAST_CALL_S = 1.0


class HttpProtocol(H11Protocol):
    """One client's connection, with errors in the contract's shape."""

    def __init__(
        self,
        budget: ParseBudget,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: Parser = Parser()
        self.logger = _uvicorn_log
        self._budget = budget
        self._transport: asyncio.Transport
        self._line: Line
        self._leaving = False
        self._is_queued = False  # for its turn to parse on
        self._is_half_closed = False

    # What uvicorn and the event loop call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        self._transport = transport
        self._line = Line(transport, self.hang_up)
        super().connection_made(cast("asyncio.Transport", self._line))

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, as far as it is granted, unless all has been said."""
        if not self._leaving:
            self.conn.grant(self._budget.grant())
            super().data_received(data)

    def handle_events(self) -> None:
        """Act on what is granted to be parsed; of the rest, nothing more is read until its turn."""
        super().handle_events()
        if not self.conn.is_cut_off or self._leaving:
            self._line.resume_reading("turn")
        elif not self._is_queued:
            self._is_queued = True
            self._line.pause_reading("turn")
            self._budget.queue(self._take_turn)
        if self._is_half_closed and not self._owes_an_answer:
            self._transport.close()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's closes whatever is asked
        """Keep the connection of a peer that sends no more while it has answers to come."""
        self._is_half_closed = True
        self._line.end_reading()
        if self._leaving or not self._owes_an_answer:
            return False
        self.loop.call_later(_LISTENING_S, self._test_whether_peer_listens)
        return True

    def on_response_complete(self) -> None:
        """Go on with the next request, which when it is here already has to wait for its turn."""
        self.conn.grant(0)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 # uvicorn's words
        """Refuse what the parser has just raised on."""
        fault = sys.exception()
        if getattr(fault, "error_status_hint", 0) == HeadTooLargeError.status:
            self._refuse(HeadTooLargeError("the request's head is too large"))
        else:
            self._refuse(MalformedRequestError("this is not a request in HTTP/1.1"))

    def shutdown(self) -> None:
        """Close once nothing comes any more; what comes until then is served, and is the last."""
        if self._serving:
            super().shutdown()
        elif self.conn.their_state is not h11.IDLE:
            self.hang_up()
        elif not self.conn.trailing_data[0]:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                _LAST_CALL_S, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless a request has just arrived on it."""
        self.timeout_keep_alive_task = None
        if not self._line.has_unread():
            super().timeout_keep_alive_handler()

    # What the server calls

    def ask_to_close(self) -> None:
        """Let the answer in progress say what all say from now on."""
        if serving := self._serving:
            serving.default_headers = self.server_state.default_headers

    def cut_short(self) -> None:
        """Answer 503 to whoever is not served yet: the server's own time is up."""
        if not self._leaving:
            self._refuse(DrainingError("the service is shutting down", retry_after_s=1))

    def hang_up(self) -> None:
        """Close; but while the peer is sending, only after it has had time to read our answer.

        To close on unread bytes is to send a reset, which takes the answer with it.
        """
        if self._transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY or self._is_queued:
            self._leave()
        else:
            self._transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Answer in the application's place, if it has not begun to, and end the connection."""
        # Of h11's states these two have no byte of an answer sent.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(error)
        if serving := self._serving:
            serving.disconnected = True  # so the application hears of it, and is not heard
            serving.message_event.set()
            self.flow.resume_writing()  # nor waits until the peer reads what it said before
        self._leave()

    def _answer(self, error: ServiceError) -> None:
        """Write an error in the contract's shape, with the headers that all answers have."""
        serving = self._serving
        scope = cast("dict[str, Any]", self.scope) if serving else {}
        record = find_record(scope)
        keep_record(scope, record)  # where the application has not begun to
        record.status = error.status
        answer = answer_error(error, record)
        headers = {
            **dict(self.server_state.default_headers),
            **dict(answer.raw_headers),
            b"connection": b"close",
            b"x-content-type-options": b"nosniff",
            b"x-request-id": record.request_id.encode(),
        }
        status_line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
        lines = b"".join(b"%s: %s\r\n" % header for header in headers.items())
        self._line.write(status_line + lines + b"\r\n" + bytes(answer.body))
        if not serving:  # else it has its line when the application has heard of its end
            refused = {"status": error.status, "code": error.code, "request_id": record.request_id}
            _log.info("request refused", **refused)

    @property
    def _serving(self) -> RequestResponseCycle | None:
        """The request that the application has and has not answered."""
        latest = cast("RequestResponseCycle | None", self.cycle)
        return None if latest is None or latest.response_complete else latest

    def _leave(self) -> None:
        """Say no more, and ignore what still comes until the peer closes or its time is up."""
        self._leaving = True
        self._unset_keepalive_if_required()
        self.conn.forget_unparsed()
        self.flow.resume_reading()
        self._line.resume_reading("turn")
        if self._is_half_closed:
            self._transport.close()
        else:
            self._transport.write_eof()

    def _take_turn(self) -> None:
        self._is_queued = False
        if not self._leaving and not self._transport.is_closing():
            self.conn.grant(self._budget.grant())
            self.handle_events()

    @property
    def _owes_an_answer(self) -> bool:
        """Whether a request has come as a whole, or may have, and is not answered."""
        is_whole = self._serving is not None and self.conn.their_state is not h11.SEND_BODY
        return self._is_queued or is_whole

    def _test_whether_peer_listens(self) -> None:
        """Send an interim answer, which a peer that is gone, not just silent, answers by a reset.

        Who has closed and who has only finished sending look the same. To HTTP/1.0 there is nothing
        that can be sent: it gets its answer, wanted or not.
        """
        is_understood = self.conn.their_http_version == b"1.1"
        if is_understood and self.conn.our_state is h11.SEND_RESPONSE and not self._leaving:
            interim = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._line.write(self.conn.send(interim))
            self.loop.call_later(_ECHO_S, self._abort_if_reset)

    def _abort_if_reset(self) -> None:
        if self._line.is_reset():
            self._transport.abort()
