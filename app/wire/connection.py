"""One client's connection: uvicorn's protocol class, which waits for no peer for ever.

A peer is given a time for a request's head, for its body, for reading the answer, and for hanging
up. Nothing is timed per request or per chunk: the server calls `check_deadline` of every connection
a few times a second, which derives from the parser's state whom the connection waits for. Time in
which the server itself keeps the peer waiting does not count.

Nor is anything parsed beyond what `ParseBudget` grants: the rest waits, unread, for its turn.
"""

import asyncio
import logging
import math
import socket
import sys
import uuid
from dataclasses import dataclass
from typing import Any, cast

import h11
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.errors import (
    DrainingError,
    HeadTooLargeError,
    MalformedRequestError,
    RequestTimeoutError,
    ServiceError,
    TooManyConnectionsError,
)
from app.wire.line import Line
from app.wire.parse_budget import ParseBudget
from app.wire.parser import Parser
from app.wire.patience import Patience, Wait
from app.wire.refusal import write_refusal
from app.wire.sockets import has_unread, is_reset

_log = structlog.get_logger(__name__)
# uvicorn warns of every request that is none, which we log ourselves, and of every Upgrade.
_uvicorn_log = logging.getLogger("uvicorn.error.connection")
_uvicorn_log.setLevel(logging.ERROR)

# The least pace of a body, on average over the latest seconds and after a grace for slow starters.
_LEAST_BYTES_PER_S = 16 * 2**10
_BODY_GRACE_S = 3.0
# The least pace at which an answer must be read, on average and after the time for a body.
_LEAST_READ_BYTES_PER_S = 2**17
# How long a peer that we have answered may take to notice, beyond what it goes on sending.
_GOODBYE_S = 0.5
# How long a peer that sends no more is taken to be listening, before it is put to the test.
_LISTENING_S = 0.25
_ECHO_S = 0.05
# What a kept connection may still say after the listener has closed.
_LAST_CALL_S = 1.0


@dataclass(frozen=True)
class ConnectionLimits:
    """Seconds for a head and for a body; open connections in total."""

    head_timeout_s: float
    body_timeout_s: float
    max_connections: int


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with deadlines, limits, and errors in the contract's shape."""

    def __init__(
        self,
        limits: ConnectionLimits,
        budget: ParseBudget,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: Parser = Parser()
        self.logger = _uvicorn_log
        self._limits = limits
        self._budget = budget
        self._transport: asyncio.Transport
        self._line: Line
        self._leaving = False
        self._is_queued = False  # for its turn to parse on
        self._is_half_closed = False
        self._patience = Patience()
        self._goodbye_limit_s = limits.body_timeout_s
        self._received_bytes = 0  # since the deadline was last checked
        self._read_bytes = 0  # by the peer, when it was last checked

    # What uvicorn and the event loop call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or turn it away when there are too many."""
        self._transport = transport
        self._line = Line(transport, self.hang_up)
        super().connection_made(cast("asyncio.Transport", self._line))
        if len(self.connections) > self._limits.max_connections:
            self._answer(TooManyConnectionsError("too many connections", retry_after_s=1))
            self._leaving = True
            transport.close()  # no time is left for anybody here to be polite

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, as far as it is granted, unless all has been said."""
        self._received_bytes += len(data)
        if not self._leaving:
            self.conn.grant(self._budget.grant())
            super().data_received(data)

    def handle_events(self) -> None:
        """Act on what is granted to be parsed; of the rest, nothing more is read until its turn."""
        super().handle_events()
        if not self.conn.is_cut_off or self._leaving:
            self._line.release()
        elif not self._is_queued:
            self._is_queued = True
            self._line.hold()
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
        if not self._has_unread():
            super().timeout_keep_alive_handler()

    # What the server calls

    def check_deadline(self, elapsed_s: float) -> None:
        """Note that `elapsed_s` have passed; end the connection if its peer takes too long."""
        wait = self._awaited()
        earned_s = self._earned_s(wait)
        if self._keeps_waiting(wait):
            elapsed_s = 0.0
        if self._is_half_closed:
            self._abort_if_reset()
        if self._patience.spend(wait, elapsed_s, earned_s) and wait is not None:
            self._give_up(wait)

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

    def _awaited(self) -> Wait | None:
        """Say what the peer is waited for now, None when it is the peer who waits."""
        head_s, body_s = self._limits.head_timeout_s, self._limits.body_timeout_s
        if self._transport.get_write_buffer_size():
            return Wait("reading", None, math.inf, body_s)
        if self._leaving:
            return Wait("goodbye", None, self._goodbye_limit_s, _GOODBYE_S)
        if self.conn.their_state is h11.SEND_BODY:
            return Wait("body", self.cycle, body_s, _BODY_GRACE_S)
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            return Wait("head", self.cycle, head_s, head_s)
        return None

    def _earned_s(self, wait: Wait | None) -> float:
        """Return what has moved since the last time, as seconds at the least pace."""
        received, self._received_bytes = self._received_bytes, 0
        before = self._read_bytes
        self._read_bytes = self._line.read_bytes
        if wait is not None and wait.thing == "reading":
            return (self._read_bytes - before) / _LEAST_READ_BYTES_PER_S
        return received / _LEAST_BYTES_PER_S

    def _keeps_waiting(self, wait: Wait | None) -> bool:
        """Whether what a peer is waited for does not come because we do not take it yet."""
        if wait is None or wait.thing not in ("head", "body"):
            return False
        serving = self._serving
        asked_for = serving is None or not serving.waiting_for_100_continue
        return self._is_queued or self.flow.read_paused or not asked_for

    def _give_up(self, wait: Wait) -> None:
        if wait.thing in ("head", "body"):
            self._goodbye_limit_s = _GOODBYE_S  # it has had its time, whatever it goes on sending
            self._refuse(RequestTimeoutError(f"the request's {wait.thing} came too slowly"))
        else:
            self._transport.abort()

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
        request_id = self._request_id()
        self._line.write(write_refusal(error, request_id, self.server_state.default_headers))
        _log.info("request refused", status=error.status, code=error.code, request_id=request_id)

    def _request_id(self) -> str:
        """Return the id of the request in progress, if it has one yet, else a new one."""
        known = self._serving and self.scope["state"].get("request_id")
        return known or uuid.uuid4().hex

    @property
    def _serving(self) -> RequestResponseCycle | None:
        """The request that the application has and has not answered."""
        latest = cast("RequestResponseCycle | None", self.cycle)
        return None if latest is None or latest.response_complete else latest

    def _leave(self) -> None:
        """Say no more, and ignore what still comes until the peer closes or its time is up."""
        rest_s = self._goodbye_limit_s - self._patience.waited_s("body")  # one time for all of it
        self._goodbye_limit_s = max(rest_s, _GOODBYE_S)
        self._leaving = True
        self._unset_keepalive_if_required()
        self.conn.forget_unparsed()
        self.flow.resume_reading()
        self._line.release()
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
        if not self._transport.is_closing() and is_reset(self._socket):
            self._transport.abort()

    def _has_unread(self) -> bool:
        """Whether the peer has sent something that the event loop has not seen yet."""
        return not self._transport.is_closing() and has_unread(self._socket)

    @property
    def _socket(self) -> socket.socket:
        return cast("socket.socket", self._transport.get_extra_info("socket"))
