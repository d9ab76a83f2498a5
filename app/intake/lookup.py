"""Host names to addresses, as the system sees them."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name; raises `OSError` when there are none."""


class SystemLookup:
    """The system's resolver, on threads of its own: a lookup can hang and cannot be cancelled."""

    def __init__(self, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lookup")

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of `host`, best first."""
        # As bytes: a name as text would be taken through an IDNA codec that raises what it likes.
        work = self._pool.submit(
            socket.getaddrinfo, host.encode("ascii"), None, type=socket.SOCK_STREAM
        )
        return [str(answer[4][0]) for answer in await asyncio.wrap_future(work)]
