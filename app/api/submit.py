"""The one flow of a request for vectors, whatever the route.

A route is entered by its door, reads its body, and submits: what computes, and what renders the
result.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api.context import get_context
from app.api.inflight import HeldAnswer
from app.api.record import find_record
from app.api.render import Answer
from app.errors import ResponseTooLargeError
from app.observe.metrics import count_stages
from app.observe.work import Work

# Answers that may be larger are written in a thread: the event loop is everybody's. And they are
# counted until they are read: there is no end to the clients that do not.
_MAX_INLINE_ANSWER_BYTES = 2**20


Result = TypeVar("Result")


async def submit(  # noqa: PLR0913 # what routes differ in
    request: Request,
    compute: Callable[[Work], Coroutine[Any, Any, Result]],
    render: Callable[[Result], Answer],
    *,
    space: str,
    max_answer_bytes: int,
    takes_long: bool = False,
    kind: Literal["image", "text"] = "image",
) -> Response:
    """Compute, for as long as the client is there, and answer with what `render` makes of it.

    `compute` notes what it does, in the record of the request. `render` is called in a thread where
    the answer may be large, or making it `takes_long`.

    Raises `ResponseTooLargeError` or `MemoryFullError` before any work, `ClientDisconnect` when the
    client leaves, and what the two raise.
    """
    context = get_context(request)
    record = find_record(request.scope)
    record.read_at = time.monotonic()
    work = record.work
    if max_answer_bytes > context.max_response_bytes:
        raise ResponseTooLargeError(
            f"too many vectors for one answer (SIGLIP_MAX_RESPONSE_BYTES); send fewer {kind}s"
        )
    is_large = max_answer_bytes > _MAX_INLINE_ANSWER_BYTES
    with ExitStack() as held:
        held.enter_context(context.answers.hold(max_answer_bytes if is_large else 0))
        result = await _unless_client_leaves(request, compute(work))
        start = time.monotonic()
        answer = (
            await asyncio.to_thread(render, result) if is_large or takes_long else render(result)
        )
        work.note("serialize", start)
        stage_s = work.stage_s
        count_stages(stage_s, kind)
        headers = {
            **answer.headers,
            "X-Embedding-Space": space,
            "Server-Timing": ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in stage_s.items()),
        }
        return HeldAnswer(answer.body, headers, answer.media_type, held.pop_all())


async def _unless_client_leaves(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`, whose request body has been read; cancel it when the client goes away.

    Then what is still queued of it is never computed.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_departure(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _wait_for_departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
