"""Images from URLs: the only code that opens outbound connections at a stranger's wish.

Every host name is looked up here, every answer is checked, and what is dialled is an address that
was checked and not the name, which may mean something else a moment later. httpcore speaks HTTP and
TLS: it follows no redirect, keeps no cookie, knows no proxy and decompresses nothing.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import httpcore

from app.errors import ImageTooLargeError, UrlFetchFailedError
from app.intake.addresses import is_public
from app.intake.lookup import Lookup, SystemLookup
from app.intake.url import Url, follow, forbidden, is_host_allowed, parse_url

_MAX_FETCHES = 32
_MAX_REDIRECTS = 3
_MAX_ADDRESSES = 8
_MAX_CHUNKS = 65_536  # each costs work, however few bytes it holds
_CHUNKS_AT_A_TIME = 256  # one read may hold thousands of them, and the loop is everybody's
# All heads of an answer together: any number of interim ones may come before the last.
_MAX_HEAD_BYTES = 64 * 2**10
_HEAD_BYTES_AT_A_TIME = 2**10  # httpcore works off what it has read in one go
_LOOKUP_S = 2.0
_CONNECT_S = 2.0
_TOTAL_S = 5.0

_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = (
    (b"User-Agent", b"siglip-embed"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),  # what is compressed may unpack to anything
    (b"Connection", b"close"),
)
_UPSTREAM_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    OSError,  # a timeout is one, too
)


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
                await _check_peer(stream)
                return _HeadBoundedStream(stream)
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


async def _check_peer(stream: httpcore.AsyncNetworkStream) -> None:
    """Make sure that the connection leads where it was meant to, whatever is in between."""
    peer = stream.get_extra_info("server_addr")
    if peer is None or not is_public(str(peer[0])):
        await stream.aclose()
        raise forbidden()


class _HeadBoundedStream(httpcore.AsyncNetworkStream):
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

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Write as it is."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 # httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Encrypt; it is what was encrypted that is bounded then."""
        return _HeadBoundedStream(
            await self._stream.start_tls(ssl_context, server_hostname, timeout)
        )

    def get_extra_info(self, info: str) -> Any:
        """Tell what the connection knows of itself."""
        return self._stream.get_extra_info(info)


class Fetcher:
    """Fetches images over http and https, a bounded number at a time; for one event loop.

    `max_bytes` bounds one image. `allowed_hosts` are exact names or `*.name`; empty allows every
    public host. `lookup`, `network` and `tls` are there to be replaced in tests.
    """

    def __init__(
        self,
        max_bytes: int,
        allowed_hosts: frozenset[str] = frozenset(),
        *,
        lookup: Lookup | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._allowed_hosts = allowed_hosts
        self._network = VettedNetwork(
            lookup or SystemLookup(_MAX_FETCHES), network or httpcore.AnyIOBackend()
        )
        self._tls = tls or httpcore.default_ssl_context()
        self._slots = asyncio.Semaphore(_MAX_FETCHES)

    @asynccontextmanager
    async def fetched(self, text: str) -> AsyncIterator[bytes]:
        """Fetch the image at a URL; its slot, one of a few, is taken until the block ends.

        So the images that are fetched and not yet decoded are few as well. Raises
        `UrlForbiddenError`, `UrlFetchFailedError` or `ImageTooLargeError`.
        """
        url = self._allowed(parse_url(text))
        async with self._slots:
            yield await self._fetch(url)

    def _allowed(self, url: Url) -> Url:
        if not is_host_allowed(url.host, self._allowed_hosts):
            raise forbidden()
        return url

    async def _fetch(self, url: Url) -> bytes:
        try:
            async with asyncio.timeout(_TOTAL_S):
                return await self._follow(url)
        except _UPSTREAM_ERRORS:
            raise UrlFetchFailedError("the URL's host did not answer in full and in time") from None

    async def _follow(self, url: Url) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            found = await self._get(url)
            if isinstance(found, bytes):
                return found
            url = self._allowed(found)
        raise UrlFetchFailedError(f"more than {_MAX_REDIRECTS} redirects")

    async def _get(self, url: Url) -> bytes | Url:
        """Ask once, on a connection of its own; return the body, or where else to ask."""
        request = httpcore.Request(
            "GET",
            httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers=[(b"Host", url.authority.encode()), *_HEADERS],
            extensions={"timeout": {"connect": _CONNECT_S}},
        )
        async with httpcore.AsyncHTTPConnection(
            request.url.origin, ssl_context=self._tls, network_backend=self._network
        ) as connection:
            response = await connection.handle_async_request(request)
            if response.status in _REDIRECTS:
                return follow(url, _location(response))
            if response.status != 200:
                raise UrlFetchFailedError("the URL's host answered with an error")
            cast("_HeadBoundedStream", response.extensions["network_stream"]).end_head()
            return await self._read(response)

    async def _read(self, response: httpcore.Response) -> bytes:
        """Read a body, counting; what the headers say of its size and kind does not matter."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_bytes:
                raise ImageTooLargeError(f"more than {self._max_bytes} bytes")
            if len(chunks) > _MAX_CHUNKS:
                raise UrlFetchFailedError("the URL's host answered in too many pieces")
            if len(chunks) % _CHUNKS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return b"".join(chunks)


def _location(response: httpcore.Response) -> str:
    for name, value in response.headers:
        if name.lower() == b"location":
            return value.decode("latin-1")  # what is not ASCII is refused with the rest
    raise UrlFetchFailedError("the URL's host answered with an error")
