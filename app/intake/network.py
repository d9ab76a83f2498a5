"""The network as the fetcher may use it: public addresses only, and answers with small heads.

Every host name is looked up here, and what is dialled is an address that was checked and not the
name, which may mean something else a moment later.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpcore

from app.intake.addresses import is_public
from app.intake.url import forbidden

_MAX_ADDRESSES = 8
# All heads of an answer together: any number of interim ones may come before the last.
_MAX_HEAD_BYTES = 64 * 2**10
_HEAD_BYTES_AT_A_TIME = 2**10  # httpcore works off what it has read in one go
_LOOKUP_S = 2.0

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


class VettedNetwork(httpcore.AsyncNetworkBackend):
    """Dials host names, but only at addresses that are public, all of them."""

    def __init__(self, lookup: Lookup, network: httpcore.AsyncNetworkBackend) -> None:
        self._lookup = lookup
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of `host` that answers within `timeout` seconds.

        Raises `UrlForbiddenError` when one of them is not public, `httpcore.ConnectError` or
        `TimeoutError` when none answers.
        """
        addresses = await self._vetted_addresses(host)
        async with asyncio.timeout(timeout):
            for address in addresses:
                try:
                    stream = await self._network.connect_tcp(
                        address, port, timeout, local_address, socket_options
                    )
                except httpcore.ConnectError:
                    continue
                peer = stream.get_extra_info("server_addr")
                if peer is None or not is_public(
                    str(peer[0])
                ):  # a proxy in between leads elsewhere
                    await stream.aclose()
                    raise forbidden()
                return cast("httpcore.AsyncNetworkStream", HeadBoundedStream(stream))
        raise httpcore.ConnectError

    async def _vetted_addresses(self, host: str) -> Sequence[str]:
        """Look a host up; one that cannot be found is answered like one that must not be."""
        try:
            async with asyncio.timeout(_LOOKUP_S):
                addresses = await self._lookup(host)
        except OSError:
            raise forbidden() from None
        if not addresses or not all(map(is_public, addresses)):
            raise forbidden()
        return addresses[:_MAX_ADDRESSES]


class HeadBoundedStream:
    """A connection that yields little, and slowly, until its reader says that the head is over."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head_bytes_left = _MAX_HEAD_BYTES
        self._in_head = True

    def end_head(self) -> None:
        """Bound nothing from now on: the body has limits of its own."""
        self._in_head = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Read; raise `httpcore.RemoteProtocolError` when the head is too large."""
        if not self._in_head:
            return await self._stream.read(max_bytes, timeout)
        if not self._head_bytes_left:
            raise httpcore.RemoteProtocolError
        at_most = min(max_bytes, _HEAD_BYTES_AT_A_TIME, self._head_bytes_left)
        data = await self._stream.read(at_most, timeout)
        self._head_bytes_left -= len(data)
        return data

    async def start_tls(self, *arguments: Any, **named_arguments: Any) -> "HeadBoundedStream":
        """Encrypt; it is what was encrypted that is bounded then."""
        return HeadBoundedStream(await self._stream.start_tls(*arguments, **named_arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
