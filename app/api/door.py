"""What a request for vectors is asked at its route's door: all that its head alone can decide.

The guard asks, before the framework looks for the route: under overload nearly every request is
refused here, and what that costs is taken from those that are served.
"""

from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from app.api.accept import AnswerForm, pick_form
from app.api.context import ApiContext, get_context
from app.engine.service import EmbeddingService
from app.errors import InvalidParameterError, NotAcceptableError

_KEY = "admitted"


class Admitted(NamedTuple):
    """Who serves a request, the form of its answer, and for how many seconds its caller waits."""

    service: EmbeddingService
    form: AnswerForm
    timeout_s: float


Door = Callable[[Headers, ApiContext], Admitted]
"""Admits a request by its head, or raises the `ServiceError` that it is refused with."""


def admit_images(headers: Headers, context: ApiContext) -> Admitted:
    """Admit a request for images, where there is room for one: its body is not read yet.

    Raises as `read_head`, and `QueueFullError`.
    """
    admitted = read_head(headers, context)
    admitted.service.admission.require_room(admitted.timeout_s)
    return admitted


def read_head(headers: Headers, context: ApiContext) -> Admitted:
    """Read what a head says of any request; what there must be room for is the door's to ask.

    Raises `NotReadyError`, `WorkerDeadError`, `NotAcceptableError` or `InvalidParameterError`.
    """
    service = context.engine.require_service()
    form = pick_form(headers.getlist("accept"))
    return Admitted(service, form, _timeout_s(headers, context.request_timeout_s))


def read_json_head(headers: Headers, context: ApiContext) -> Admitted:
    """Read a head as `read_head` does, of a route whose answers are JSON only."""
    admitted = read_head(headers, context)
    if admitted.form != "json":
        raise NotAcceptableError("answers are JSON here; accept application/json")
    return admitted


def keep_admitted(scope: Scope, admitted: Admitted) -> None:
    """Put it where the route finds it."""
    scope.setdefault("state", {})[_KEY] = admitted


def enter(request: Request, door: Door) -> Admitted:
    """Return what the guard was told at the door, or ask there where it was not."""
    admitted = request.scope.get("state", {}).get(_KEY)
    if isinstance(admitted, Admitted):
        return admitted
    return door(request.headers, get_context(request))


def _timeout_s(headers: Headers, longest_s: float) -> float:
    """Return the caller's patience, never more than the service's own."""
    given = headers.get("x-request-timeout-ms")
    if given is None:
        return longest_s
    if not (given.isascii() and given.isdigit() and len(given) <= 9 and int(given) > 0):
        raise InvalidParameterError("not a number of milliseconds", param="X-Request-Timeout-Ms")
    return min(int(given) / 1000, longest_s)
