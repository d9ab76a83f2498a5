"""Images that are elsewhere: fetched on the event loop, then prepared on the decode pool.

No decode thread ever waits for the network.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from app.errors import ServiceError, UrlFetchFailedError

_log = structlog.get_logger(__name__)

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class RemoteImage:
    """An image to be fetched.

    `fetched` gives its encoded bytes or raises a `ServiceError`. Its block is left when the bytes
    are no longer needed.
    """

    fetched: Callable[[], AbstractAsyncContextManager[bytes]]


def prepare_remote(
    image: RemoteImage,
    prepare: Callable[[Callable[[], bytes]], Prepared],
    submit: Callable[[Callable[[], None]], Future[None]],
) -> Future[Prepared | ServiceError]:
    """Fetch an image, then `submit` a call of `prepare`; return a future like that of a pool.

    Cancelling it ends a fetch, but not a `prepare` that has begun. Errors are its values.
    """
    prepared: Future[Prepared | ServiceError] = Future()

    def run(held: list[bytes]) -> None:
        if prepared.set_running_or_notify_cancel():
            prepared.set_result(prepare(held.pop))

    async def fetch() -> None:
        try:
            async with image.fetched() as data:
                held = [data]
                del data
                try:
                    await asyncio.wrap_future(submit(partial(run, held)))
                finally:
                    held.clear()  # a cancelled job may wait for its thread for long
        except ServiceError as error:
            # As a value it outlives the call, and its frames would keep what was fetched alive.
            error.__cause__ = error.__context__ = None
            prepared.set_result(error.with_traceback(None))
        except Exception:  # noqa: BLE001 # a fault of ours must stay with its image
            _log.exception("fetching failed unexpectedly")
            prepared.set_result(UrlFetchFailedError("the URL cannot be fetched"))
        finally:
            prepared.cancel()  # does nothing unless the fetch was cancelled

    fetching = asyncio.create_task(fetch())
    prepared.add_done_callback(lambda _: prepared.cancelled() and fetching.cancel())
    return prepared
