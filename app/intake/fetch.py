"""Images from URLs: the only code that opens outbound connections at a stranger's wish.

Where it may connect to, `network` decides; every answer is checked here. httpcore speaks HTTP and
TLS: it follows no redirect, keeps no cookie, knows no proxy and decompresses nothing.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpcore

from app.errors import ImageTooLargeError, UrlFetchFailedError
from app.intake.network import HeadBoundedStream, Lookup, SystemLookup, VettedNetwork
from app.intake.url import Url, follow, forbidden, is_host_allowed, parse_url

_MAX_FETCHES = 32
_MAX_REDIRECTS = 3
_MAX_CHUNKS = 65_536  # each costs work, however few bytes it holds
_CHUNKS_AT_A_TIME = 256  # one read may hold thousands of them, and the loop is everybody's
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
    async def fetch(self, text: str) -> AsyncIterator[bytes]:
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
                for _ in range(_MAX_REDIRECTS + 1):
                    found = await self._get(url)
                    if isinstance(found, bytes):
                        return found
                    url = self._allowed(found)
        except _UPSTREAM_ERRORS:
            raise UrlFetchFailedError("the URL's host did not answer in full and in time") from None
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
            if response.status == 200:
                cast("HeadBoundedStream", response.extensions["network_stream"]).end_head()
                return await self._read(response)
            if response.status in _REDIRECTS:
                for name, value in response.headers:
                    if name.lower() == b"location":  # what is not ASCII is refused with the rest
                        return follow(url, value.decode("latin-1"))
            raise UrlFetchFailedError("the URL's host answered with an error")

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
