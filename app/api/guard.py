"""The outermost layer around every route: id, CORS, key, body cap, door, last resort, log."""

import logging
import re
import time
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answers import answer_error
from app.api.context import context_of
from app.api.docs import is_docs
from app.api.door import Door, keep_admitted
from app.api.inflight import InflightBytes
from app.api.record import RequestRecord, find_record, in_ms, keep_record
from app.errors import (
    BodyTooLargeError,
    InternalError,
    InvalidApiKeyError,
    ServiceError,
    UnsupportedMediaTypeError,
)
from app.keys import ApiKeys
from app.observe.metrics import count_request, known_method

_log = structlog.get_logger(__name__)

# Open to all: who asks has no key to give. So are the docs, unless they are closed.
_PROBES = frozenset({"/healthz", "/readyz", "/livez"})
ROUTINE = _PROBES | {"/metrics"}
"""Asked every few seconds by machines: worth a line only when the answer is bad."""
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Of our answers, what a page of an allowed origin may read beside what every page may.
_CORS_HEADERS = (
    "Retry-After",
    "Server-Timing",
    "X-Embedding-Dtype",
    "X-Embedding-Shape",
    "X-Embedding-Space",
    "X-Request-ID",
)


class Guard:
    """ASGI middleware; nothing below it can leave a request without an answer or a log line."""

    def __init__(  # noqa: PLR0913 # what is refused by its head alone
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        inflight: InflightBytes,
        api_keys: ApiKeys,
        docs_are_open: bool,
        open_paths: frozenset[str] = frozenset(),
        cors_origins: frozenset[str],
        doors: Mapping[str, Door],
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._inflight = inflight
        self._api_keys = api_keys
        self._docs_are_open = docs_are_open
        self._open_paths = _PROBES | open_paths
        self._doors = doors
        self._serve: ASGIApp = self._answer
        if cors_origins:
            # Around the check of keys: a preflight has none, and pages must be able to read a 401.
            # Any header may be sent: a key travels in one, and there are no cookies to protect.
            self._serve = CORSMiddleware(
                self._answer,
                allow_origins=tuple(cors_origins),
                allow_methods=("GET", "POST"),
                allow_headers=("*",),
                expose_headers=_CORS_HEADERS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = find_record(scope)
        record.request_id = find_request_id(Headers(scope=scope)) or record.request_id
        keep_record(scope, record)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = record.status or message["status"]
                own = ((b"x-request-id", record.request_id.encode()), _NO_SNIFFING)
                message["headers"] = [*message.get("headers", ()), *own]
            else:
                record.bytes_out += len(message.get("body", b""))
            await send(message)

        bound = structlog.contextvars.bind_contextvars(request_id=record.request_id)
        try:
            await self._serve(scope, receive, send_with_headers)
        finally:
            record.route = record.route or getattr(scope.get("route"), "path", None)
            _tell(record, known_method(scope["method"]))
            structlog.contextvars.reset_contextvars(**bound)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is let in, and answer what is not, or what fails."""
        record = find_record(scope)
        headers = Headers(scope=scope)
        try:
            refusal = self._refuse(scope["path"], headers) or self._ask_at_door(scope, headers)
            if refusal is None:
                await self._let_in(scope, receive, send, record)
                return
            if scope["path"] in self._doors:
                record.route = scope["path"]  # as the framework, which is not asked, would have
        except Exception:  # noqa: BLE001 # nothing may leave a caller without an answer
            _log.exception("request failed unexpectedly")
            refusal = InternalError("an internal error")
        if not record.status:
            await answer_error(refusal, record)(scope, receive, send)

    async def _let_in(
        self, scope: Scope, receive: Receive, send: Send, record: RequestRecord
    ) -> None:
        """Pass a request on, its body counted and bounded."""

        async def receive_counted() -> Message:
            message = await receive()
            arrived = len(message.get("body", b""))
            self._inflight.take(arrived)
            record.bytes_in += arrived
            if record.bytes_in > self._max_body_bytes:
                raise self._body_too_large()
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._inflight.give_back(record.bytes_in)

    def _refuse(self, path: str, headers: Headers) -> ServiceError | None:
        """Say what is wrong with a request that its head already gives away."""
        if not self._is_open(path) and not self._api_keys.admit(_key(headers)):
            return InvalidApiKeyError("give a valid key as Authorization: Bearer")
        announced = int(headers.get("content-length", "0"))
        if announced > self._max_body_bytes:
            return self._body_too_large()
        if not self._inflight.has_room(announced):
            return self._inflight.full()
        codings = ",".join(headers.getlist("content-encoding")).lower().split(",")
        if any(coding.strip() not in ("", "identity") for coding in codings):
            return UnsupportedMediaTypeError("compressed bodies are not read: images are already")
        return None

    def _ask_at_door(self, scope: Scope, headers: Headers) -> ServiceError | None:
        """Say why the route that this request is for would refuse it by its head."""
        door = self._doors.get(scope["path"]) if scope["method"] == "POST" else None
        if door is not None:
            try:
                keep_admitted(scope, door(headers, context_of(scope["app"])))
            except ServiceError as refusal:
                return refusal
        return None

    def _is_open(self, path: str) -> bool:
        if not self._api_keys or path in self._open_paths:
            return True
        return self._docs_are_open and is_docs(path)

    def _body_too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"the body is over {self._max_body_bytes} bytes (SIGLIP_MAX_BODY_BYTES)"
        )


def _tell(record: RequestRecord, method: str) -> None:
    """Count and log a request that is over."""
    record.ended_at = time.monotonic()
    seconds = record.ended_at - record.started_at
    count_request(method, record.route, record.status, seconds)
    _log.log(
        logging.DEBUG if record.route in ROUTINE and record.status == 200 else logging.INFO,
        "request",
        method=method,
        route=record.route,
        **record.describe(),
        ms=in_ms(seconds),
    )


def _key(headers: Headers) -> bytes:
    given = headers.getlist("authorization")
    if len(given) != 1:  # a proxy before this service may go by the other one
        return b""
    scheme, _, key = given[0].partition(" ")
    return key.strip(" \t").encode("latin-1") if scheme.lower() == "bearer" else b""


def find_request_id(headers: Headers) -> str | None:
    """Return the caller's id when it is harmless to echo and log."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else None
